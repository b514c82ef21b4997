//! Codes become tokens: for whom, how often, and what a refusal leaves as it was (RFC 6749 §4.1.3).

#![expect(clippy::unwrap_used, reason = "what fails in a helper fails its test")]

mod support;

use std::{collections::BTreeSet, time::Duration};

use axum::body::Body;
use base64::{
    Engine,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
};
use http::{Method, header};
use protocol::{
    oauth::identifiers::Issuer,
    records::Records,
    token::{Keys, Maker, PresentedRefreshToken},
};
use serde_json::json;
use sha2::{Digest, Sha256};
use support::{
    Answer, ISSUER, PASSPHRASE, TestServer, UPSTREAM_KEY,
    client::{McpClient, REDIRECT_URI, Tokens, VERIFIER},
    encoded, form, policy, request,
};
use tokio::task::JoinSet;

const FORM: &str = "application/x-www-form-urlencoded";

/// Insists on what every answer of the token endpoint has, good or bad.
#[track_caller]
fn is_for_programs(answer: &Answer) {
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(answer.header("cache-control"), "no-store");
    assert!(answer.json().is_object());
}

async fn confidential(server: &TestServer) -> McpClient {
    McpClient::register(
        server,
        &json!({ "token_endpoint_auth_method": "client_secret_basic" }),
    )
    .await
}

/// Redeems `code` with these credentials in the `Authorization` header and `extra` in the body.
async fn redeem_by_header(
    server: &TestServer,
    code: &str,
    value: &str,
    extra: &[(&str, &str)],
) -> Answer {
    let mut fields = vec![
        ("grant_type", "authorization_code"),
        ("code", code),
        ("code_verifier", VERIFIER),
    ];
    fields.extend(extra);
    let mut request = form("/token", &fields);
    request
        .headers_mut()
        .insert(header::AUTHORIZATION, value.parse().unwrap());
    server.send(request).await
}

fn basic(user: &str, password: &str) -> String {
    format!(
        "Basic {}",
        BASE64_STANDARD.encode(format!("{user}:{password}"))
    )
}

async fn post_raw(server: &TestServer, content_types: &[&str], body: impl Into<Body>) -> Answer {
    let mut request = request(Method::POST, "/token");
    for content_type in content_types {
        request = request.header(header::CONTENT_TYPE, *content_type);
    }
    server.send(request.body(body.into()).unwrap()).await
}

/// TK-02, TK-16, TK-21, TK-25
#[tokio::test]
async fn a_code_gives_an_access_token_for_an_hour_and_a_refresh_token() {
    let server = TestServer::new();
    let client = server.mcp_client().await;
    let answer = client.redeem(&client.code().await).await.expect(200);
    is_for_programs(&answer);
    let issued = answer.json();
    assert_eq!(issued["token_type"], "Bearer");
    assert_eq!(issued["expires_in"], 3600);
    assert_eq!(issued["scope"], "mcp");
    assert_eq!(issued.as_object().unwrap().len(), 5);
    let tokens = Tokens::of(&answer);
    let _ = client.call(&tokens).await.expect(200);

    server.clock.advance(Duration::from_secs(3599));
    let _ = client.call(&tokens).await.expect(200);
    server.clock.advance(Duration::from_secs(1));
    let _ = client.call(&tokens).await.refused(401, "invalid_token");
}

/// S2-11
#[tokio::test]
async fn an_access_token_lives_as_long_as_the_operator_says() {
    let month = Duration::from_hours(30 * 24);
    let mut policy = policy(&[("one", "/mcp")]);
    policy.tokens.access_lifetime = month;
    let server = TestServer::with(policy);
    let client = server.mcp_client().await;
    let answer = client.redeem(&client.code().await).await.expect(200);
    assert_eq!(answer.json()["expires_in"], 2_592_000);
    let tokens = Tokens::of(&answer);
    server
        .clock
        .advance(month.saturating_sub(Duration::from_secs(1)));
    let _ = client.call(&tokens).await.expect(200);
    server.clock.advance(Duration::from_secs(1));
    let _ = client.call(&tokens).await.refused(401, "invalid_token");
}

/// TK-01
#[tokio::test]
async fn only_a_form_post_is_read() {
    let server = TestServer::new();
    let client = server.mcp_client().await;
    let code = client.code().await;
    let before = server.state();
    let fields = [
        ("grant_type", "authorization_code"),
        ("code", code.as_str()),
        ("code_verifier", VERIFIER),
        ("client_id", client.client_id.as_str()),
    ];
    let body = encoded(&fields);

    for method in [Method::GET, Method::PUT, Method::DELETE, Method::PATCH] {
        let request = request(method, &format!("/token?{body}"))
            .body(Body::empty())
            .unwrap();
        let answer = server.send(request).await.expect(405);
        assert_eq!(answer.header("allow"), "POST");
    }
    let in_json = json!({ "grant_type": "authorization_code", "code": code, "code_verifier": VERIFIER, "client_id": client.client_id });
    let _ = post_raw(&server, &["application/json"], in_json.to_string())
        .await
        .refused(400, "invalid_request");
    for content_types in [
        &[][..],
        &["text/plain"],
        &["multipart/form-data; boundary=x"],
        &["application/x-www-form-urlencoded; charset=utf-16"],
        &["application/json, text/plain"],
        &["application/x-www-form-urlencoded-x"],
        &["application/x-www-form-urlencoded; charset=utf-16, application/x-www-form-urlencoded"],
    ] {
        let answer = post_raw(&server, content_types, body.clone())
            .await
            .refused(400, "invalid_request");
        is_for_programs(&answer);
    }
    // What is in the address is not read, so it is missing.
    let request = form(&format!("/token?{body}"), &[]);
    let _ = server.send(request).await.refused(400, "invalid_request");
    assert_eq!(server.state(), before);

    let _ = post_raw(
        &server,
        &["application/x-www-form-urlencoded; charset=UTF-8"],
        body,
    )
    .await
    .expect(200);
}

/// Case 02: a header that was joined or repeated counts by its members, at each endpoint that takes
/// a form. What is none of them is refused by its name.
#[tokio::test]
async fn a_list_of_content_types_counts_by_its_members() {
    let server = TestServer::new();
    let client = server.mcp_client().await;
    let mut tokens = client.sign_in().await;
    let joined = format!("application/json, {FORM}");
    for content_types in [
        &[joined.as_str()][..],
        &["application/x-www-form-urlencoded, application/x-www-form-urlencoded"],
        &["text/plain,APPLICATION/X-WWW-FORM-URLENCODED ; Charset=UTF-8"],
        &[FORM, FORM],
        &["application/json", FORM],
        &[FORM, "application/json"],
    ] {
        let refresh = encoded(&[
            ("grant_type", "refresh_token"),
            ("refresh_token", &tokens.refresh_token),
            ("client_id", &client.client_id),
        ]);
        tokens = Tokens::of(&post_raw(&server, content_types, refresh).await.expect(200));
    }
    // The body has to be what one of them says.
    let in_json = json!({ "grant_type": "refresh_token", "refresh_token": tokens.refresh_token, "client_id": client.client_id });
    let before = server.state();
    let answer = post_raw(&server, &[&joined], in_json.to_string()).await;
    let _ = answer.refused(400, "invalid_request");
    for (came, told) in [
        (&["text/plain"][..], "text/plain"),
        (
            &["application/json, text/html"],
            "application/json,%20text/html",
        ),
        (&[][..], "missing"),
    ] {
        let refused = post_raw(&server, came, "x=1")
            .await
            .refused(400, "invalid_request");
        assert_eq!(
            refused.json()["error_description"],
            format!("the Content-Type must be {FORM}, but it is {told}")
        );
    }
    assert_eq!(server.state(), before);

    let revocation = [
        ("token", &*tokens.refresh_token),
        ("client_id", &client.client_id),
    ];
    let mut revocation = form("/revoke", &revocation);
    revocation
        .headers_mut()
        .insert(header::CONTENT_TYPE, joined.parse().unwrap());
    let _ = server.send(revocation).await.expect(200);
    let _ = client.refresh(&tokens).await.refused(400, "invalid_grant");
}

/// S1-22
#[tokio::test]
async fn a_body_that_is_too_large_is_refused_and_spends_nothing() {
    let server = TestServer::new();
    let client = server.mcp_client().await;
    let code = client.code().await;
    let large = "x".repeat(70 * 1024);
    for path in ["/token", "/revoke"] {
        let fields = [
            ("client_id", client.client_id.as_str()),
            ("token", large.as_str()),
        ];
        let answer = server
            .post_form(path, &fields)
            .await
            .refused(413, "invalid_request");
        is_for_programs(&answer);
    }
    let tokens = Tokens::of(&client.redeem(&code).await.expect(200));

    // A call may be larger than that.
    let mut call = client.call_request(&tokens);
    *call.body_mut() = Body::from("x".repeat(1024 * 1024));
    let _ = server.send(call).await.expect(200);
    assert_eq!(server.upstream.last().body().len(), 1024 * 1024);
}

/// AZ-08, TK-03, TK-04, S1-12, S2-09, S3-13
#[tokio::test]
async fn a_wrong_verifier_is_refused_and_the_right_one_still_works() {
    let server = TestServer::new();
    let client = server.mcp_client().await;
    let code = client.code().await;
    let before = server.state();
    let other = VERIFIER.replace('d', "e");
    let long = "a".repeat(129);
    for wrong in [
        other.as_str(),
        support::client::CHALLENGE,
        &VERIFIER[1..],
        &long,
        "dBjftJeZ4CVP+mB92K27uhbUJU1p1r/wW1gFWFOEjXk",
        "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk ",
        "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjX\u{e9}",
        "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjX\0",
    ] {
        let answer = client
            .redeem_with(&code, &[("code_verifier", Some(wrong))])
            .await;
        is_for_programs(&answer.refused(400, "invalid_grant"));
    }
    for missing in [None, Some("")] {
        let answer = client
            .redeem_with(&code, &[("code_verifier", missing)])
            .await;
        let _ = answer.refused(400, "invalid_request");
    }
    assert_eq!(server.state(), before);
    let tokens = Tokens::of(&client.redeem(&code).await.expect(200));
    let _ = client.call(&tokens).await.expect(200);
}

/// TK-05, S1-13
#[tokio::test]
async fn a_code_works_once_and_a_late_second_use_ends_what_the_first_gave() {
    let server = TestServer::new();
    let client = server.mcp_client().await;
    let code = client.code().await;
    let tokens = Tokens::of(&client.redeem(&code).await.expect(200));
    let _ = client.call(&tokens).await.expect(200);

    // So soon after the first it is the network that sent one request twice.
    server.clock.advance(Duration::from_secs(2));
    let _ = client.redeem(&code).await.refused(400, "invalid_grant");
    let _ = client.call(&tokens).await.expect(200);
    let tokens = Tokens::of(&client.refresh(&tokens).await.expect(200));

    server.clock.advance(Duration::from_secs(1));
    let _ = client.redeem(&code).await.refused(400, "invalid_grant");
    let _ = client.call(&tokens).await.refused(401, "invalid_token");
    let _ = client.refresh(&tokens).await.refused(400, "invalid_grant");
    assert_eq!(server.journal.count("GrantRevoked"), 1);
}

/// TK-05, TK-07
#[tokio::test]
async fn a_replay_that_could_not_have_worked_ends_nothing() {
    let server = TestServer::new();
    let client = server.mcp_client().await;
    let other = server.mcp_client().await;
    let code = client.code().await;
    let tokens = Tokens::of(&client.redeem(&code).await.expect(200));
    server.clock.advance(Duration::from_secs(10));

    let _ = other.redeem(&code).await.refused(400, "invalid_grant");
    let wrong = VERIFIER.replace('d', "e");
    let _ = client
        .redeem_with(&code, &[("code_verifier", Some(&wrong))])
        .await
        .refused(400, "invalid_grant");
    let _ = client
        .redeem(&code[..code.len() - 1])
        .await
        .refused(400, "invalid_grant");
    let _ = client
        .redeem(&format!("{code}A"))
        .await
        .refused(400, "invalid_grant");
    let _ = client.call(&tokens).await.expect(200);
    let _ = client.refresh(&tokens).await.expect(200);
}

/// TK-06, S1-13, S2-09
#[tokio::test]
async fn a_code_expires_after_five_minutes() {
    let server = TestServer::new();
    let client = server.mcp_client().await;
    let (in_time, late) = (client.code().await, client.code().await);
    server.clock.advance(Duration::from_secs(299));
    let _ = client.redeem(&in_time).await.expect(200);
    server.clock.advance(Duration::from_secs(1));
    let before = server.state();
    let _ = client.redeem(&late).await.refused(400, "invalid_grant");
    assert_eq!(server.state(), before);
}

/// AZ-08, TK-07, S1-11, S2-10
#[tokio::test]
async fn the_code_of_one_client_is_useless_to_another() {
    let server = TestServer::new();
    let client = server.mcp_client().await;
    let code = client.code().await;
    let others = [server.mcp_client().await, confidential(&server).await];
    let before = server.state();
    for other in others {
        let _ = other.redeem(&code).await.refused(400, "invalid_grant");
    }
    assert_eq!(server.state(), before);
    let _ = client.redeem(&code).await.expect(200);
}

/// AZ-08, TK-08, S1-11, S2-10, C-05
#[tokio::test]
async fn a_redirect_uri_may_be_left_out_but_not_be_another() {
    let server = TestServer::new();
    let client = server.mcp_client().await;
    let code = client.code().await;
    let before = server.state();
    for other in [
        "https://evil.example/cb",
        "https://claude.ai/api/mcp/auth_callback/",
        "x",
    ] {
        let answer = client
            .redeem_with(&code, &[("redirect_uri", Some(other))])
            .await;
        let _ = answer.refused(400, "invalid_grant");
    }
    assert_eq!(server.state(), before);
    let _ = client
        .redeem_with(&code, &[("redirect_uri", None)])
        .await
        .expect(200);
    let code = client.code().await;
    let _ = client
        .redeem_with(&code, &[("redirect_uri", Some(REDIRECT_URI))])
        .await
        .expect(200);
}

/// AZ-08, TK-09
#[tokio::test]
async fn a_resource_may_be_left_out_but_not_be_another() {
    let server = TestServer::with_two_upstreams();
    let client = server.mcp_client().await;
    let code = client.code().await;
    let before = server.state();
    for other in [
        "https://gw.example/mcp/b",
        "https://gw.example/mcp/c",
        "https://evil.example/mcp/a",
        "a",
    ] {
        let answer = client
            .redeem_with(&code, &[("resource", Some(other))])
            .await;
        let _ = answer.refused(400, "invalid_target");
    }
    let both = [
        ("resource", "https://gw.example/mcp/b"),
        ("resource", "https://gw.example/mcp/a"),
    ];
    let mut fields = vec![
        ("grant_type", "authorization_code"),
        ("code", &code),
        ("code_verifier", VERIFIER),
    ];
    fields.extend(both);
    let _ = client.token(&fields).await.refused(400, "invalid_target");
    assert_eq!(server.state(), before);

    let tokens = Tokens::of(
        &client
            .redeem_with(&code, &[("resource", None)])
            .await
            .expect(200),
    );
    let _ = client
        .at("/mcp/b")
        .call(&tokens)
        .await
        .refused(401, "invalid_token");
    let _ = client.call(&tokens).await.expect(200);
    let code = client.code().await;
    let _ = client
        .redeem_with(&code, &[("resource", Some("https://gw.example/mcp/a/"))])
        .await
        .expect(200);
}

/// TK-10, TK-11
#[tokio::test]
async fn who_does_not_prove_which_client_it_is_gets_401_and_spends_nothing() {
    let server = TestServer::new();
    let client = confidential(&server).await;
    let code = client.code().await;
    let secret = client.client_secret.clone().unwrap();
    let before = server.state();
    for (id, secret) in [
        (None, Some(secret.as_str())),
        (Some("unknown"), None),
        (Some("unknown"), Some(secret.as_str())),
        (Some(client.client_id.as_str()), None),
        (Some(client.client_id.as_str()), Some("")),
        (Some(client.client_id.as_str()), Some("wrong")),
        (
            Some(client.client_id.as_str()),
            Some(&secret[..secret.len() - 1]),
        ),
    ] {
        let mut fields = vec![
            ("grant_type", "authorization_code"),
            ("code", &code),
            ("code_verifier", VERIFIER),
        ];
        fields.extend(id.map(|id| ("client_id", id)));
        fields.extend(secret.map(|secret| ("client_secret", secret)));
        let answer = server
            .post_form("/token", &fields)
            .await
            .refused(401, "invalid_client");
        is_for_programs(&answer);
        assert!(!answer.headers.contains_key(header::WWW_AUTHENTICATE));
    }
    for value in [
        basic("unknown", &secret),
        basic(&client.client_id, "wrong"),
        basic(&client.client_id, ""),
        "Basic".to_owned(),
        "Basic !!!".to_owned(),
        format!("Basic {}", BASE64_STANDARD.encode("no colon")),
        format!("Bearer {secret}"),
        basic(&client.client_id, &"x".repeat(20_000)),
    ] {
        let answer = redeem_by_header(&server, &code, &value, &[])
            .await
            .refused(401, "invalid_client");
        assert!(answer.header("www-authenticate").starts_with("Basic "));
    }
    assert_eq!(server.state(), before);
    let _ = client.redeem(&code).await.expect(200);
}

/// TK-11
#[tokio::test]
async fn a_public_client_has_no_secret_to_send() {
    let server = TestServer::new();
    let client = server.mcp_client().await;
    let code = client.code().await;
    let with_secret = McpClient {
        client_secret: Some("made-up".to_owned()),
        ..client.clone()
    };
    let _ = with_secret
        .redeem(&code)
        .await
        .refused(401, "invalid_client");
    // An empty one is none.
    let empty = McpClient {
        client_secret: Some(String::new()),
        ..client.clone()
    };
    let _ = empty.redeem(&code).await.expect(200);
}

/// TK-12
#[tokio::test]
async fn a_secret_may_come_either_way_whichever_was_registered() {
    let server = TestServer::new();
    for method in ["client_secret_basic", "client_secret_post"] {
        let client =
            McpClient::register(&server, &json!({ "token_endpoint_auth_method": method })).await;
        let (id, secret) = (
            client.client_id.clone(),
            client.client_secret.clone().unwrap(),
        );
        let percent = |text: &str| {
            text.bytes()
                .fold(String::new(), |all, byte| format!("{all}%{byte:02X}"))
        };
        let _ = client.redeem(&client.code().await).await.expect(200);
        for (value, extra) in [
            (basic(&id, &secret), &[][..]),
            (basic(&percent(&id), &percent(&secret)), &[]),
            (basic(&id, &secret).replace("Basic", "basic"), &[]),
            (basic(&id, &secret), &[("client_id", id.as_str())]),
        ] {
            let code = client.code().await;
            let _ = redeem_by_header(&server, &code, &value, extra)
                .await
                .expect(200);
        }
    }
    // A public client that sends its id with an empty password, as some libraries do.
    let public = server.mcp_client().await;
    let code = public.code().await;
    let _ = redeem_by_header(&server, &code, &basic(&public.client_id, ""), &[])
        .await
        .expect(200);
}

/// TK-13
#[tokio::test]
async fn two_ways_to_prove_a_client_at_once_are_one_too_many() {
    let server = TestServer::new();
    let client = confidential(&server).await;
    let secret = client.client_secret.clone().unwrap();
    let other = server.mcp_client().await;
    let code = client.code().await;
    let before = server.state();
    let good = basic(&client.client_id, &secret);
    for extra in [
        ("client_secret", secret.as_str()),
        ("client_secret", "x"),
        ("client_id", &other.client_id),
    ] {
        let _ = redeem_by_header(&server, &code, &good, &[extra])
            .await
            .refused(400, "invalid_request");
    }
    assert_eq!(server.state(), before);
    let _ = redeem_by_header(&server, &code, &good, &[])
        .await
        .expect(200);
}

/// TK-13: not even the same credentials twice.
#[tokio::test]
async fn two_authorization_headers_prove_nothing() {
    let server = TestServer::new();
    let client = confidential(&server).await;
    let good = basic(&client.client_id, client.client_secret.as_deref().unwrap());
    let code = client.code().await;
    let before = server.state();
    for pair in [[&good, &good], [&good, &basic("other", "x")]] {
        let fields = [
            ("grant_type", "authorization_code"),
            ("code", code.as_str()),
            ("code_verifier", VERIFIER),
        ];
        let mut request = form("/token", &fields);
        for value in pair {
            let value = value.parse().unwrap();
            request.headers_mut().append(header::AUTHORIZATION, value);
        }
        let _ = server.send(request).await.refused(400, "invalid_request");
    }
    assert_eq!(server.state(), before);
    let _ = redeem_by_header(&server, &code, &good, &[])
        .await
        .expect(200);
}

/// TK-14, RG-12
#[tokio::test]
async fn other_grants_are_unsupported() {
    let server = TestServer::new();
    let client = server.mcp_client().await;
    let code = client.code().await;
    for other in [
        "password",
        "implicit",
        "client_credentials",
        "Authorization_Code",
        "urn:ietf:params:oauth:grant-type:device_code",
        "urn:ietf:params:oauth:grant-type:token-exchange",
        "\"\r\n\u{1b}\u{e9}",
    ] {
        let answer = client
            .redeem_with(&code, &[("grant_type", Some(other))])
            .await;
        let answer = answer.refused(400, "unsupported_grant_type");
        is_for_programs(&answer);
        // Nothing of the request is copied into the answer (RFC 6749 §5.2).
        let description = answer.json()["error_description"]
            .as_str()
            .unwrap()
            .to_owned();
        assert!(
            description
                .bytes()
                .all(|byte| matches!(byte, 0x20..=0x7e) && byte != b'"' && byte != b'\\')
        );
        assert!(!description.contains("device_code"));
    }
    let _ = client
        .redeem_with(&code, &[("grant_type", None)])
        .await
        .refused(400, "invalid_request");
    let _ = client.redeem(&code).await.expect(200);
}

/// TK-15, AZ-13
#[tokio::test]
async fn a_parameter_given_twice_is_refused_and_spends_nothing() {
    let server = TestServer::new();
    let client = server.mcp_client().await;
    let code = client.code().await;
    let before = server.state();
    let fields = [
        ("grant_type", "authorization_code"),
        ("client_id", client.client_id.as_str()),
        ("code", code.as_str()),
        ("code_verifier", VERIFIER),
        ("redirect_uri", REDIRECT_URI),
        ("scope", "mcp"),
        ("utm", "1"),
    ];
    for field in fields {
        let mut twice = fields.to_vec();
        twice.push(field);
        let _ = server
            .post_form("/token", &twice)
            .await
            .refused(400, "invalid_request");
    }
    assert_eq!(server.state(), before);
    let _ = server.post_form("/token", &fields).await.expect(200);
}

/// TK-15, N-TK-19, N-TK-26
#[tokio::test]
async fn whatever_is_sent_is_refused_in_json_and_spends_nothing() {
    let mut policy = policy(&[("one", "/mcp")]);
    policy.limits.wrong_tokens_per_address = None;
    let server = TestServer::with(policy);
    let client = server.mcp_client().await;
    let code = client.code().await;
    let tokens = client.sign_in().await;
    let before = server.state();
    let page = client.opens(&client.authorization_with(&[])).await.1;
    let sealed = support::client::transaction(&page);

    let mut codes: Vec<String> = [
        "",
        "x",
        "mopc_",
        "' OR 1=1 --",
        "../grant/x",
        "\0",
        &"x".repeat(10_000),
        &sealed,
        &tokens.refresh_token,
        &tokens.access_token,
    ]
    .map(str::to_owned)
    .to_vec();
    codes.extend((0..code.len()).map(|index| {
        let mut changed = code.clone().into_bytes();
        changed[index] ^= 1;
        String::from_utf8(changed).unwrap()
    }));
    for wrong in codes {
        let answer = client.redeem_with(&wrong, &[]).await.expect(400);
        is_for_programs(&answer);
        let error = answer.json()["error"].clone();
        assert!(
            error == "invalid_grant" || (wrong.is_empty() && error == "invalid_request"),
            "{wrong}"
        );
    }
    for body in [
        "",
        "&&&",
        "=",
        "%",
        "grant_type",
        "grant_type=%ff",
        "a=b=c",
        "{}",
        "<x/>",
    ] {
        is_for_programs(
            &post_raw(&server, &[FORM], body)
                .await
                .refused(400, "invalid_request"),
        );
    }
    is_for_programs(
        &post_raw(&server, &[FORM], vec![0xff; 1000])
            .await
            .refused(400, "invalid_request"),
    );
    assert_eq!(server.state(), before);

    let _ = client.redeem(&code).await.expect(200);
}

/// TK-22, N-TK-28
#[tokio::test]
async fn a_store_that_is_down_is_told_as_such_and_the_same_code_works_afterwards() {
    let server = TestServer::new();
    let client = confidential(&server).await;
    let code = client.code().await;
    server.store.set_down(true);
    for _ in 0..3 {
        let answer = client
            .redeem(&code)
            .await
            .refused(503, "temporarily_unavailable");
        is_for_programs(&answer);
        assert!(answer.header("retry-after").parse::<u64>().unwrap() > 0);
    }
    assert_eq!(server.journal.count("Failed"), 3);
    server.store.set_down(false);
    let tokens = Tokens::of(&client.redeem(&code).await.expect(200));
    let _ = client.call(&tokens).await.expect(200);
}

/// TK-22, N-TK-28
#[tokio::test]
async fn whichever_store_access_fails_the_same_code_works_afterwards() {
    let mut n = 1;
    loop {
        let server = TestServer::new();
        let client = server.mcp_client().await;
        let code = client.code().await;
        server.store.fail_nth(n);
        let answer = client.redeem(&code).await;
        if answer.status == 200 {
            break;
        }
        let answer = answer.refused(503, "temporarily_unavailable");
        assert!(answer.headers.contains_key(header::RETRY_AFTER));
        assert!(
            !server.stored().contains("grant/"),
            "the code was spent at access {n}"
        );
        // Long after, too, as long as the code lives.
        server.clock.advance(Duration::from_mins(4));
        let tokens = Tokens::of(&client.redeem(&code).await.expect(200));
        let _ = client.call(&tokens).await.expect(200);
        assert_eq!(server.journal.count("CodeRedeemed"), 1);
        n += 1;
    }
    // Client, code, the client's longer life, the grant.
    assert_eq!(n, 5);
}

/// N-TK-28, RC-01
#[tokio::test]
async fn when_the_last_answer_of_the_store_is_lost_no_second_pair_of_tokens_is_issued() {
    let server = TestServer::new();
    let client = server.mcp_client().await;
    let code = client.code().await;
    server.store.lose_nth(4);
    let _ = client
        .redeem(&code)
        .await
        .refused(503, "temporarily_unavailable");
    // The store did spend it: a code never succeeds twice, whoever got to know of the first time.
    let _ = client.redeem(&code).await.refused(400, "invalid_grant");
    let _ = client.sign_in().await;
}

/// RC-01, TK-05
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_hundred_redemptions_at_once_give_one_pair_of_tokens() {
    for _ in 0..5 {
        let server = TestServer::new();
        let client = server.mcp_client().await;
        let code = client.code().await;
        let mut racing = JoinSet::new();
        for _ in 0..100 {
            let (client, code) = (client.clone(), code.clone());
            racing.spawn(async move { client.redeem(&code).await });
        }
        let answers = racing.join_all().await;
        let (good, bad): (Vec<_>, Vec<_>) =
            answers.into_iter().partition(|answer| answer.status == 200);
        assert_eq!(good.len(), 1);
        for answer in bad {
            let _ = answer.refused(400, "invalid_grant");
        }
        let tokens = Tokens::of(&good[0]);
        let _ = client.call(&tokens).await.expect(200);
        let _ = client.refresh(&tokens).await.expect(200);
        assert_eq!(server.journal.count("CodeRedeemed"), 1);
    }
}

/// RC-02
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn among_wrong_verifiers_the_right_one_wins_whenever_it_comes() {
    for position in [0, 50, 99] {
        let server = TestServer::new();
        let client = server.mcp_client().await;
        let code = client.code().await;
        let mut racing = JoinSet::new();
        for n in 0..100 {
            let verifier = if n == position {
                VERIFIER.to_owned()
            } else {
                format!("{VERIFIER}{n}")
            };
            let (client, code) = (client.clone(), code.clone());
            racing.spawn(async move {
                let answer = client
                    .redeem_with(&code, &[("code_verifier", Some(&verifier))])
                    .await;
                (n, answer)
            });
        }
        for (n, answer) in racing.join_all().await {
            if n == position {
                let _ = client
                    .call(&Tokens::of(&answer.expect(200)))
                    .await
                    .expect(200);
            } else {
                let _ = answer.refused(400, "invalid_grant");
            }
        }
    }
}

/// RC-01, S5-15
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_code_at_three_processes_gives_one_pair_of_tokens() {
    let first = TestServer::new();
    let client = first.mcp_client().await;
    let code = client.code().await;
    let processes = [
        first.clone(),
        first.another(policy(&[("one", "/mcp")])),
        first.another(policy(&[("one", "/mcp")])),
    ];
    let mut racing = JoinSet::new();
    for n in 0..99 {
        let (client, code) = (client.on(&processes[n % 3]), code.clone());
        racing.spawn(async move { client.redeem(&code).await });
    }
    let answers = racing.join_all().await;
    let good: Vec<_> = answers
        .iter()
        .filter(|answer| answer.status == 200)
        .collect();
    assert_eq!(good.len(), 1);
    for process in &processes {
        let _ = client
            .on(process)
            .call(&Tokens::of(good[0]))
            .await
            .expect(200);
    }
}

/// RC-07
#[tokio::test]
async fn a_client_that_is_deleted_meanwhile_gets_no_token() {
    let server = TestServer::new();
    let client = server.mcp_client().await;
    let code = client.code().await;
    let tokens = client.sign_in().await;
    let key = format!("client/{}", client.client_id);
    assert!(
        protocol::ports::Store::remove(&server.store.memory, &key)
            .await
            .unwrap()
    );
    let _ = client.redeem(&code).await.refused(401, "invalid_client");
    let _ = client.refresh(&tokens).await.refused(401, "invalid_client");
}

/// TK-23
#[tokio::test]
async fn no_upstream_is_asked_before_the_first_call() {
    let server = TestServer::new();
    let client = server.mcp_client().await;
    let tokens = client.sign_in().await;
    let tokens = Tokens::of(&client.refresh(&tokens).await.expect(200));
    let _ = client.revoke(&tokens.refresh_token).await.expect(200);
    assert!(server.upstream.received().is_empty());
}

/// S2-12
#[tokio::test]
async fn each_client_has_tokens_of_its_own() {
    let server = TestServer::new();
    let (first, second) = (server.mcp_client().await, server.mcp_client().await);
    let (at_first, at_second) = (first.sign_in().await, second.sign_in().await);
    let _ = first.revoke(&at_first.access_token).await.expect(200);
    let _ = first.call(&at_first).await.refused(401, "invalid_token");
    let _ = second.call(&at_second).await.expect(200);
    let _ = second.refresh(&at_second).await.expect(200);
}

/// Nobody can guess what stands for an approval, a grant or a browser: each byte is drawn anew each
/// time. The salt is what the key alone does not give.
#[tokio::test]
async fn what_must_not_be_guessed_is_random_in_every_byte() {
    let server = TestServer::new();
    let client = server.mcp_client().await;
    let mut seen = vec![BTreeSet::new(); 5 * 16];
    for _ in 0..64 {
        let (mut browser, page) = client.opens(&client.authorization_with(&[])).await;
        let page_cookie = decoded(browser.cookies.values().next().unwrap());
        let approved = browser.approve(&server, &page, PASSPHRASE).await;
        let approved = approved.expect(303);
        let known_browser = decoded(&browser.cookies["__Host-mcp-known-browser"]);
        let code = approved.redirect().parameter("code").to_owned();
        let transaction = decoded(code.strip_prefix("mopc_").unwrap());
        let tokens = Tokens::of(&client.redeem(&code).await.expect(200));
        let family = PresentedRefreshToken::parse(&tokens.refresh_token)
            .unwrap()
            .family;
        let grant = Records(&*server.store).grant(family).await.unwrap();
        let parts = [
            &page_cookie[..],
            // Behind the name of the key.
            &known_browser[4..20],
            &transaction[4..20],
            &family.0,
            &grant.unwrap().record.salt,
        ];
        for (values, byte) in seen.iter_mut().zip(parts.concat()) {
            values.insert(byte);
        }
    }
    // Of 256 values, 64 draws find some 57.
    for (index, values) in seen.iter().enumerate() {
        assert!(values.len() > 40, "byte {index} has {}", values.len());
    }
}

fn decoded(text: &str) -> Vec<u8> {
    BASE64_URL_SAFE_NO_PAD.decode(text).unwrap()
}

/// Neither the key file nor the store alone is enough to make a refresh token.
#[tokio::test]
async fn who_has_the_key_but_not_the_salt_makes_no_refresh_token() {
    let server = TestServer::new();
    let client = server.mcp_client().await;
    let tokens = client.sign_in().await;
    let family = PresentedRefreshToken::parse(&tokens.refresh_token)
        .unwrap()
        .family;
    let read = Records(&*server.store).grant(family).await.unwrap();
    let salt = read.unwrap().record.salt;
    let keys = Keys::derive(&[7; 32], [], &Issuer::parse(ISSUER).unwrap());
    let made_with = |salt: [u8; 16]| Tokens {
        refresh_token: keys
            .refresh_token(Maker::named(keys.first()), family, 1, &salt)
            .unwrap(),
        ..tokens.clone()
    };
    assert_eq!(made_with(salt), tokens);
    let before = server.state();
    for guess in [[0; 16], [0xff; 16], [7; 16], family.0] {
        let forged = made_with(guess);
        let _ = client.refresh(&forged).await.refused(400, "invalid_grant");
        let _ = client.revoke(&forged.refresh_token).await.expect(200);
    }
    assert_eq!(server.state(), before);
    let _ = client.refresh(&made_with(salt)).await.expect(200);
}

/// The ways in which a secret may show in a text.
fn forms_of(secret: &str) -> Vec<String> {
    let bytes = secret.as_bytes();
    let hex = hex(bytes);
    vec![
        secret.to_owned(),
        encoded(&[("", secret)])[1..].to_owned(),
        BASE64_STANDARD
            .encode(bytes)
            .trim_end_matches('=')
            .to_owned(),
        BASE64_URL_SAFE_NO_PAD.encode(bytes),
        serde_json::to_string(secret).unwrap(),
        serde_json::to_string(bytes).unwrap(),
        hex.to_uppercase(),
        hex,
    ]
}

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

fn fingerprint(secret: &[u8]) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(&Sha256::digest(secret)[..16])
}

/// S1-02, S1-16, TK-24, DCR-11
#[tokio::test]
async fn no_secret_is_stored_logged_or_told_to_anybody_but_its_owner() {
    let server = TestServer::new();
    let client = confidential(&server).await;
    let query = client.authorization_with(&[]);
    let (mut browser, page) = client.opens(&query).await;
    let _ = browser
        .approve(&server, &page, "wrong horse battery")
        .await
        .expect(401);
    let approved = browser
        .approve(&server, &page, PASSPHRASE)
        .await
        .expect(303);
    let code = approved.redirect().parameter("code").to_owned();
    let wrong = VERIFIER.replace('d', "e");
    let _ = client
        .redeem_with(&code, &[("code_verifier", Some(&wrong))])
        .await
        .expect(400);
    let first = Tokens::of(&client.redeem(&code).await.expect(200));
    let _ = client.redeem(&code).await.expect(400);
    let second = Tokens::of(&client.refresh(&first).await.expect(200));
    let _ = client.refresh(&first).await.expect(200);
    let _ = client.call(&second).await.expect(200);
    let _ = client.at("/mcp/other").call(&second).await;
    server.store.set_down(true);
    let _ = client.refresh(&second).await.expect(503);
    let _ = browser
        .approve(&server, &page, PASSPHRASE)
        .await
        .expect(503);
    server.store.set_down(false);
    let third = Tokens::of(&client.refresh(&second).await.expect(200));
    let _ = client.refresh(&first).await.expect(400);
    let _ = client.call(&third).await.expect(401);
    let _ = client.revoke(&third.refresh_token).await.expect(200);

    let secret = client.client_secret.clone().unwrap();
    let cookie = browser.cookies.values().next().unwrap().clone();
    // What it is, and in how many answers it belongs.
    let secrets = [
        ("code", &code, 1),
        ("first access token", &first.access_token, 1),
        ("first refresh token", &first.refresh_token, 1),
        // A repetition gives the same again.
        ("second refresh token", &second.refresh_token, 2),
        ("third access token", &third.access_token, 1),
        ("third refresh token", &third.refresh_token, 1),
        ("verifier", &VERIFIER.to_owned(), 0),
        ("passphrase", &PASSPHRASE.to_owned(), 0),
        ("wrong passphrase", &"wrong horse battery".to_owned(), 0),
        ("client secret", &secret, 1),
        ("credentials", &format!("{}:{secret}", client.client_id), 0),
        ("cookie", &cookie, 1),
        ("upstream key", &UPSTREAM_KEY.to_owned(), 0),
    ];
    let stored = server.stored();
    let events = server.journal.all().join("\n");
    let answers: Vec<_> = server.answers().iter().map(Answer::everything).collect();
    for (what, secret, times) in secrets {
        let forms = forms_of(secret);
        let shows_in = |text: &str| forms.iter().any(|form| text.contains(form.as_str()));
        assert!(!shows_in(&stored), "the store has the {what}: {stored}");
        assert!(!shows_in(&events), "an event has the {what}: {events}");
        let found = answers.iter().filter(|answer| shows_in(answer)).count();
        assert_eq!(found, times, "the {what} is in {found} answers");
    }

    // The part of a token that names its grant is stored as a fingerprint, like the code. This
    // also shows that the search above would find something.
    let family = BASE64_URL_SAFE_NO_PAD
        .decode(first.refresh_token.strip_prefix("mopr_").unwrap())
        .unwrap()[4..20]
        .to_vec();
    let name = BASE64_URL_SAFE_NO_PAD.encode(&family);
    let hex = hex(&family);
    for form in [
        &name[..name.len() - 1],
        &hex,
        &serde_json::to_string(&family).unwrap(),
    ] {
        assert!(!stored.contains(form), "the store has the family: {stored}");
        assert!(!events.contains(form), "an event has the family: {events}");
    }
    assert!(stored.contains(&format!("code/{}", fingerprint(code.as_bytes()))));
    assert!(stored.contains(&format!("grant/{}", fingerprint(&family))));
    assert!(events.contains(&fingerprint(&family)));
}
