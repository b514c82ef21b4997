//! Clients that register themselves, and how long they stay known (RFC 7591).

#![expect(clippy::unwrap_used, reason = "what fails in a helper fails its test")]

mod support;

use std::{collections::BTreeSet, time::Duration};

use axum::body::Body;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use http::{Method, header};
use protocol::oauth::app_scheme::AppScheme;
use serde_json::{Value, json};
use support::{
    Answer, TestServer,
    client::{McpClient, REDIRECT_URI, Tokens},
    policy, request,
};

const DAY: Duration = Duration::from_hours(24);

/// What Claude sends.
fn claude() -> Value {
    json!({
        "redirect_uris": [REDIRECT_URI],
        "client_name": "Claude",
        "token_endpoint_auth_method": "none",
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
    })
}

/// The same with one member changed.
fn claude_with(member: &str, value: Value) -> Value {
    let mut metadata = claude();
    metadata[member] = value;
    metadata
}

async fn register(server: &TestServer, metadata: &Value) -> Answer {
    server.post_json("/register", metadata).await
}

async fn register_raw(server: &TestServer, content_type: &str, body: impl Into<Body>) -> Answer {
    let request = request(Method::POST, "/register")
        .header(header::CONTENT_TYPE, content_type)
        .body(body.into())
        .unwrap();
    server.send(request).await
}

/// RG-01, RG-02, RG-03, DCR-01, S1-05
#[tokio::test]
async fn a_public_client_registers_without_credentials_and_gets_no_secret() {
    let server = TestServer::new();
    let answer = register(&server, &claude()).await.expect(201);
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(answer.header("cache-control"), "no-store");
    let registered = answer.json();
    for (member, value) in claude().as_object().unwrap() {
        assert_eq!(registered[member], *value, "{member}");
    }
    assert!(registered["client_id"].is_string());
    assert!(registered["client_id_issued_at"].is_i64());
    for secret in ["client_secret", "client_secret_expires_at"] {
        assert!(registered.get(secret).is_none(), "{secret}");
    }
    assert_eq!(server.journal.count("ClientRegistered"), 1);
}

/// RG-03, RG-04, DCR-01, DCR-04
#[tokio::test]
async fn a_confidential_client_gets_a_secret_that_works_and_is_then_needed() {
    for (asked, answered) in [
        (json!("client_secret_post"), "client_secret_post"),
        (json!("client_secret_basic"), "client_secret_basic"),
        // Left out, the standard means Basic.
        (Value::Null, "client_secret_basic"),
    ] {
        let server = TestServer::new();
        let registered = register(&server, &claude_with("token_endpoint_auth_method", asked))
            .await
            .expect(201)
            .json();
        assert_eq!(registered["token_endpoint_auth_method"], answered);
        assert_eq!(registered["client_secret_expires_at"], 0);
        let client = McpClient {
            server: server.clone(),
            client_id: registered["client_id"].as_str().unwrap().to_owned(),
            client_secret: Some(registered["client_secret"].as_str().unwrap().to_owned()),
            signer: None,
            path: "/mcp".to_owned(),
            redirect_uri: REDIRECT_URI.to_owned(),
        };

        let code = client.code().await;
        let without = McpClient {
            client_secret: None,
            ..client.clone()
        };
        let before = server.state();
        let _ = without.redeem(&code).await.refused(401, "invalid_client");
        assert_eq!(server.state(), before);
        let tokens = Tokens::of(&client.redeem(&code).await.expect(200));
        let _ = client.call(&tokens).await.expect(200);
    }
}

/// RG-05, DCR-06, DCR-07, BCP-14
// N-RG-09, N-RG-32, N-RG-35 to N-RG-37
#[tokio::test]
async fn what_is_not_known_is_left_out_and_never_trusted() {
    let server = TestServer::new();
    let mut metadata = claude();
    let unsigned = "eyJhbGciOiJub25lIn0.eyJjbGllbnRfbmFtZSI6Ik93bmVyIn0.";
    metadata.as_object_mut().unwrap().extend(
        json!({
            "application_type": "native",
            "software_id": "4NRB1-0XZABZI9E6-5SM3R",
            "software_statement": unsigned,
            "jwks": { "keys": [] },
            "client_uri": "https://tracker.example/about",
            "logo_uri": "https://tracker.example/logo.png",
            "policy_uri": "javascript:alert(1)",
            "client_id": "admin",
            "client_secret": "chosen-by-the-client",
            "client_id_issued_at": 1,
            "client_secret_expires_at": 4_000_000_000_u32,
            "scope": "mcp admin",
            "grant_types": ["authorization_code", "refresh_token", "urn:ietf:params:oauth:grant-type:device_code", "urn:ietf:params:oauth:grant-type:jwt-bearer"],
            "__proto__": { "client_id": "admin" },
        })
        .as_object()
        .unwrap()
        .clone(),
    );
    let registered = register(&server, &metadata).await.expect(201).json();
    assert_ne!(registered["client_id"], "admin");
    assert_eq!(registered["client_name"], "Claude");
    assert_eq!(
        registered["grant_types"],
        json!(["authorization_code", "refresh_token"])
    );
    for left_out in [
        "software_statement",
        "logo_uri",
        "client_uri",
        "jwks",
        "client_secret",
    ] {
        assert!(registered.get(left_out).is_none(), "{left_out}");
    }

    let client = McpClient::register(&server, &metadata).await;
    let (_, page) = client.opens(&client.authorization_with(&[])).await;
    for stranger in ["tracker.example", unsigned, "chosen-by-the-client", "<img"] {
        assert!(!page.text().contains(stranger), "{stranger}");
        assert!(!server.stored().contains(stranger), "{stranger}");
    }
    let _ = page.expect(200);
    assert!(server.upstream.received().is_empty());
}

/// RG-06, DCR-03
#[tokio::test]
async fn a_mixed_list_of_redirect_uris_is_taken_and_each_works() {
    let server = TestServer::new();
    let uris = [
        REDIRECT_URI,
        "https://claude.com/api/mcp/auth_callback",
        "http://127.0.0.1/cb",
        "http://localhost:8787/callback",
        "cursor://anysphere.cursor-mcp/oauth/callback",
    ];
    for application_type in ["native", "web"] {
        let client = McpClient::register(
            &server,
            &json!({
                "redirect_uris": uris,
                "application_type": application_type,
                "token_endpoint_auth_method": "none",
            }),
        )
        .await;
        for uri in uris {
            let (mut browser, page) = client
                .opens(&client.authorization_with(&[("redirect_uri", Some(uri))]))
                .await;
            let answer = browser.deny(&server, &page).await;
            assert_eq!(answer.leads_back().to, uri);
        }
    }
}

/// RG-07, DCR-03
// N-RG-13 to N-RG-29
#[tokio::test]
async fn a_redirect_uri_that_leads_anywhere_else_is_refused_even_among_good_ones() {
    let server = TestServer::new();
    let long = format!("https://x.example/{}", "a".repeat(2048));
    for bad in [
        "javascript:alert(1)",
        "JaVaScRiPt:alert(1)",
        "java\tscript:alert(1)",
        " https://x.example/cb",
        "data:text/html,x",
        "file:///etc/passwd",
        "vbscript:x",
        "about:blank",
        "blob:https://x.example/1",
        "view-source:https://x.example",
        "https:evil",
        "https:/evil",
        "https:///evil",
        "http://x.example/cb",
        "http://127.0.0.1.x.example/cb",
        "https://x.example/cb#fragment",
        "https://*.x.example/cb",
        "https://user@x.example/cb",
        "https://x.example\\@evil.example/cb",
        "https://x.example/a/../cb",
        "https://x.example:99999/cb",
        "https://x.example:0/cb",
        "https://x.example:/cb",
        "https://:443/cb",
        "https://",
        "https://[fe80::1%25eth0]/cb",
        "https://[fe80::1%eth0]/cb",
        "http://[::1%25lo]/cb",
        "http://[::ffff:127.0.0.1]/cb",
        "https://b\u{fc}cher.example/cb",
        "https://x.example/\u{e9}",
        "https://x\u{3002}example/cb",
        "https://x.example\t/cb",
        "https://x.example/\ncb",
        "https://x.example/cb\0",
        "\u{feff}https://x.example/cb",
        "/cb",
        "",
        "urn:ietf:wg:oauth:2.0:oob",
        &long,
    ] {
        let before = server.state();
        let answer = register(
            &server,
            &claude_with("redirect_uris", json!([REDIRECT_URI, bad])),
        )
        .await;
        let _ = answer.refused(400, "invalid_redirect_uri");
        assert_eq!(server.state(), before, "{bad}");
    }
    let _ = register(
        &server,
        &claude_with("redirect_uris", json!([REDIRECT_URI])),
    )
    .await
    .expect(201);
}

/// RG-08, DCR-03, S1-05
// N-RG-10 to N-RG-12
#[tokio::test]
async fn one_to_ten_redirect_uris_are_needed() {
    let server = TestServer::new();
    let many: Vec<_> = (0..11).map(|n| format!("https://x.example/{n}")).collect();
    for bad in [
        Value::Null,
        json!([]),
        json!(REDIRECT_URI),
        json!([4]),
        json!({}),
        json!(many),
    ] {
        let before = server.state();
        let answer = register(&server, &claude_with("redirect_uris", bad)).await;
        let _ = answer.refused(400, "invalid_redirect_uri");
        assert_eq!(server.state(), before);
    }
    let _ = register(&server, &json!({}))
        .await
        .refused(400, "invalid_redirect_uri");
    let _ = register(&server, &claude_with("redirect_uris", json!(many[1..])))
        .await
        .expect(201);
}

/// What Claude sends, and a key with these members.
fn with_key(members: &Value) -> Value {
    let mut key = json!({
        "kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
    });
    let members = members.as_object().unwrap().clone();
    key.as_object_mut().unwrap().extend(members);
    claude_with("jwks", json!({ "keys": [key] }))
}

/// RG-09, DCR-02
// N-RG-01 to N-RG-08, N-RG-30, N-RG-31, N-RG-33, N-RG-34
#[tokio::test]
async fn a_registration_that_cannot_be_read_is_refused_in_json() {
    let server = TestServer::new();
    let deep = format!(
        "{{\"redirect_uris\":[\"{REDIRECT_URI}\"],\"x\":{}1{}}}",
        "[".repeat(5000),
        "]".repeat(5000)
    );
    let invalid_utf8 =
        b"{\"client_name\":\"\xff\",\"redirect_uris\":[\"https://x.example/cb\"]}".to_vec();
    let good = claude().to_string();
    for body in [
        b"".to_vec(),
        b"not json".to_vec(),
        b"[]".to_vec(),
        b"null".to_vec(),
        b"\"x\"".to_vec(),
        format!("{good}{good}").into_bytes(),
        format!("\u{feff}{good}").into_bytes(),
        good.as_bytes()[..good.len() - 1].to_vec(),
        deep.into_bytes(),
        good.replacen('{', "{\"client_name\":\"Other\",", 1)
            .into_bytes(),
        claude_with("x", json!([[[[[[[[1]]]]]]]]))
            .to_string()
            .into_bytes(),
        with_key(&json!({ "d": "AAAA" })).to_string().into_bytes(),
        with_key(&json!({ "kty": "oct", "k": "AAAA" }))
            .to_string()
            .into_bytes(),
        {
            let mut both = with_key(&json!({}));
            both["jwks_uri"] = json!("https://x.example/jwks.json");
            both.to_string().into_bytes()
        },
        claude_with("token_endpoint_auth_method", json!(["none"]))
            .to_string()
            .into_bytes(),
        invalid_utf8,
        claude_with("client_name", json!(4))
            .to_string()
            .into_bytes(),
        claude_with("grant_types", json!("password"))
            .to_string()
            .into_bytes(),
        claude_with("response_types", json!([["code"]]))
            .to_string()
            .into_bytes(),
    ] {
        let before = server.state();
        let answer = register_raw(&server, "application/json", body).await;
        let answer = answer.refused(400, "invalid_client_metadata");
        assert!(answer.json()["error_description"].is_string());
        assert_eq!(answer.header("cache-control"), "no-store");
        assert_eq!(server.state(), before);
    }
    for content_type in [
        "application/x-www-form-urlencoded",
        "text/plain",
        "application/json; charset=utf-16",
        "",
    ] {
        let answer = register_raw(&server, content_type, good.clone()).await;
        let _ = answer.refused(400, "invalid_client_metadata");
    }
    let _ = register_raw(&server, "application/json; charset=utf-8", good)
        .await
        .expect(201);
    // A public key is of no use, and does no harm.
    let _ = register(&server, &with_key(&json!({}))).await.expect(201);
    let _ = register(&server, &claude_with("x", json!([[[[[[[1]]]]]]])))
        .await
        .expect(201);
}

/// Case 02: at registration too a list of types counts by its members, and a refusal names what came.
#[tokio::test]
async fn a_registration_whose_content_type_is_a_list_is_read_as_what_it_is() {
    let server = TestServer::new();
    for content_type in [
        "application/x-www-form-urlencoded, application/json",
        "application/json, application/json",
        "application/json;charset=utf-8, text/plain",
    ] {
        let answer = register_raw(&server, content_type, claude().to_string()).await;
        let _ = answer.expect(201);
    }
    let refused = register_raw(&server, "text/html, text/plain", claude().to_string()).await;
    let refused = refused.refused(400, "invalid_client_metadata").json();
    assert_eq!(
        refused["error_description"],
        "the Content-Type must be application/json, but it is text/html,%20text/plain"
    );
    let form = "redirect_uris=https%3A%2F%2Fx.example%2Fcb";
    let listed = register_raw(&server, "application/json, text/plain", form).await;
    let _ = listed.refused(400, "invalid_client_metadata");
}

/// Case 10: a client that asks for what there is not gets what there is, is told so, and gets in
/// with that.
#[tokio::test]
async fn what_cannot_be_had_is_replaced_and_the_answer_says_so() {
    for (members, method) in [
        (
            json!({ "token_endpoint_auth_method": "private_key_jwt", "jwks": { "keys": [] } }),
            "client_secret_basic",
        ),
        (
            json!({ "token_endpoint_auth_method": "private_key_jwt", "jwks_uri": "https://a.example/jwks.json" }),
            "client_secret_basic",
        ),
        (
            json!({ "token_endpoint_auth_method": "client_secret_jwt" }),
            "client_secret_basic",
        ),
        (
            json!({ "token_endpoint_auth_method": "tls_client_auth" }),
            "client_secret_basic",
        ),
        (
            json!({ "token_endpoint_auth_method": "" }),
            "client_secret_basic",
        ),
        (json!({ "token_endpoint_auth_method": "NONE" }), "none"),
        (json!({ "response_types": [] }), "none"),
        (
            json!({ "response_types": ["token", "code id_token"] }),
            "none",
        ),
        (json!({ "grant_types": [] }), "none"),
        (
            json!({ "grant_types": ["client_credentials", "password"] }),
            "none",
        ),
    ] {
        let server = TestServer::new();
        let mut metadata = claude();
        let added = members.as_object().unwrap().clone();
        metadata.as_object_mut().unwrap().extend(added);
        let answer = register(&server, &metadata).await.expect(201).json();
        assert_eq!(answer["token_endpoint_auth_method"], method, "{members}");
        assert_eq!(
            answer["grant_types"],
            json!(["authorization_code", "refresh_token"])
        );
        assert_eq!(answer["response_types"], json!(["code"]));
        assert_eq!(answer.get("client_secret").is_some(), method != "none");
        assert!(answer.get("jwks").is_none() && answer.get("jwks_uri").is_none());

        let client = McpClient::register(&server, &metadata).await;
        let _ = client.call(&client.sign_in().await).await.expect(200);
        // And no more than that: what was replaced is still not to be had.
        let other = client.token(&[("grant_type", "client_credentials")]).await;
        let _ = other.refused(400, "unsupported_grant_type");
        let implicit = client.authorization_with(&[("response_type", Some("token"))]);
        let (_, answer) = client.opens(&implicit).await;
        let error = answer.expect(303).redirect();
        assert_eq!(error.parameter("error"), "unsupported_response_type");
    }
}

/// Case 03: the link of an app that nobody let in is left out beside others, and the answer lists
/// what was registered; alone it is refused by its name. What the operator let in is registered.
#[tokio::test]
async fn links_of_unknown_apps_are_let_in_by_the_operator_only() {
    let closed = TestServer::new();
    let mut policy = policy(&[("one", "/mcp")]);
    policy.clients.app_schemes = vec![AppScheme::parse("myapp").unwrap()];
    let open = TestServer::with(policy);
    let link = "myapp://oauth/callback";
    let loopback = "http://127.0.0.1:9/cb";

    let both = claude_with("redirect_uris", json!([loopback, link]));
    let registered = register(&closed, &both).await.expect(201).json();
    assert_eq!(registered["redirect_uris"], json!([loopback]));
    assert!(closed.journal.all().last().unwrap().contains(link));
    let registered = register(&open, &both).await.expect(201).json();
    assert_eq!(registered["redirect_uris"], json!([loopback, link]));

    let alone = claude_with("redirect_uris", json!([link]));
    let refused = register(&closed, &alone)
        .await
        .refused(400, "invalid_redirect_uri");
    let description = refused.json()["error_description"]
        .as_str()
        .unwrap()
        .to_owned();
    for words in [link, "app_schemes = ['myapp']"] {
        assert!(description.contains(words), "{description}");
    }
    assert!(closed.journal.all().last().unwrap().contains(link));
    let registered = register(&open, &alone).await.expect(201).json();
    let client = McpClient::by_document(&open, registered["client_id"].as_str().unwrap(), link);
    let (_, page) = client.opens(&client.authorization_with(&[])).await;
    assert!(
        page.expect(200)
            .text()
            .contains("Any app can claim such a link")
    );
    let _ = client.call(&client.sign_in().await).await.expect(200);

    // Neither beside good ones nor where others were let in.
    for never in [
        "javascript:alert(1)",
        "ms-msdt:/id",
        "search-ms://x",
        "MYAPP://cb",
        "http://x.example/cb",
    ] {
        for server in [&open, &closed] {
            let metadata = claude_with("redirect_uris", json!([loopback, link, never]));
            let before = server.state();
            let refused = register(server, &metadata)
                .await
                .refused(400, "invalid_redirect_uri");
            let description = refused.json()["error_description"]
                .as_str()
                .unwrap()
                .to_owned();
            assert!(description.contains(never), "{description}");
            assert_eq!(server.state(), before);
        }
    }
}

/// S1-22, DCR-02
#[tokio::test]
async fn a_registration_may_be_sixteen_kibibytes_and_not_one_byte_more() {
    let server = TestServer::new();
    let sized = |length: usize| {
        let room = length - claude_with("x", json!("")).to_string().len();
        claude_with("x", json!("a".repeat(room))).to_string()
    };
    for length in [16 * 1024 + 1, 70 * 1024] {
        let before = server.state();
        let answer = register_raw(&server, "application/json", sized(length)).await;
        let _ = answer.refused(413, "invalid_client_metadata");
        assert_eq!(server.state(), before);
    }
    let _ = register_raw(&server, "application/json", sized(16 * 1024))
        .await
        .expect(201);
}

/// RG-11, C-03
#[tokio::test]
async fn two_registrations_a_second_apart_both_work() {
    let server = TestServer::new();
    let first = server.mcp_client().await;
    server.clock.advance(Duration::from_secs(1));
    let second = server.mcp_client().await;
    assert_ne!(first.client_id, second.client_id);
    for client in [&second, &first] {
        let _ = client.call(&client.sign_in().await).await.expect(200);
    }
}

/// RG-13
#[tokio::test]
async fn a_registration_needs_no_browser() {
    let server = TestServer::new();
    let request = request(Method::POST, "/register")
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::USER_AGENT, "python-httpx/0.28.1")
        .header(header::ACCEPT, "*/*")
        .body(Body::from(claude().to_string()))
        .unwrap();
    let answer = server.send(request).await.expect(201);
    assert!(!answer.headers.contains_key(header::SET_COOKIE));
}

/// RG-14, S1-17
#[tokio::test]
async fn clients_and_tokens_survive_a_restart() {
    let server = TestServer::new();
    let client = server.mcp_client().await;
    let tokens = client.sign_in().await;

    let client = client.on(&server.another(policy(&[("one", "/mcp")])));
    let _ = client.call(&tokens).await.expect(200);
    let tokens = Tokens::of(&client.refresh(&tokens).await.expect(200));
    let _ = client.call(&tokens).await.expect(200);
    let _ = client.sign_in().await;
}

/// RG-12
#[tokio::test]
async fn a_registration_alone_opens_nothing() {
    let server = TestServer::new();
    let client = server.mcp_client().await;
    let tokens = Tokens {
        access_token: client.client_id.clone(),
        refresh_token: client.client_id.clone(),
    };
    let _ = client.call(&tokens).await.refused(401, "invalid_token");
    let _ = client.refresh(&tokens).await.refused(400, "invalid_grant");
    let _ = client
        .redeem(&client.client_id)
        .await
        .refused(400, "invalid_grant");
    let answer = client.token(&[("grant_type", "client_credentials")]).await;
    let _ = answer.refused(400, "unsupported_grant_type");
    assert!(server.upstream.received().is_empty());
}

/// DCR-10
#[tokio::test]
async fn the_ids_that_we_give_are_short_plain_and_each_another() {
    let mut policy = policy(&[("one", "/mcp")]);
    policy.limits.registrations_per_address = None;
    policy.limits.registrations = None;
    let server = TestServer::with(policy);
    let mut ids = BTreeSet::new();
    for _ in 0..1000 {
        let registered = register(&server, &claude()).await.expect(201).json();
        let id = registered["client_id"].as_str().unwrap().to_owned();
        assert!(
            id.len() <= 64 && id.starts_with(|first: char| first.is_ascii_alphabetic()),
            "{id}"
        );
        assert!(
            id.bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)),
            "{id}"
        );
        ids.insert(id);
    }
    assert_eq!(ids.len(), 1000);
}

/// A secret proves nothing if another client can work it out from its own.
#[tokio::test]
async fn the_secrets_that_we_give_are_random_in_every_byte_and_each_another() {
    let mut policy = policy(&[("one", "/mcp")]);
    policy.limits.registrations_per_address = None;
    policy.limits.registrations = None;
    let server = TestServer::with(policy);
    let confidential = claude_with("token_endpoint_auth_method", json!("client_secret_post"));
    let mut seen = vec![BTreeSet::new(); 32];
    let mut secrets = BTreeSet::new();
    for _ in 0..1000 {
        let registered = register(&server, &confidential).await.expect(201).json();
        let secret = registered["client_secret"].as_str().unwrap().to_owned();
        let random = secret.strip_prefix("mops_").unwrap();
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(random).unwrap();
        assert_eq!((random.len(), bytes.len()), (43, 32), "{secret}");
        for (values, byte) in seen.iter_mut().zip(bytes) {
            values.insert(byte);
        }
        secrets.insert(secret);
    }
    assert_eq!(secrets.len(), 1000);
    // Of 256 values, a thousand draws leave five out.
    for (index, values) in seen.iter().enumerate() {
        assert!(values.len() > 200, "byte {index} has {}", values.len());
    }
}

#[tokio::test]
async fn the_secret_of_one_client_does_not_prove_another() {
    let server = TestServer::new();
    let confidential = json!({ "token_endpoint_auth_method": "client_secret_post" });
    let client = McpClient::register(&server, &confidential).await;
    let other = McpClient::register(&server, &confidential).await;
    assert_ne!(client.client_secret, other.client_secret);
    let code = client.code().await;
    let impostor = McpClient {
        client_secret: other.client_secret,
        ..client.clone()
    };
    let _ = impostor.redeem(&code).await.refused(401, "invalid_client");
    let tokens = Tokens::of(&client.redeem(&code).await.expect(200));
    let _ = impostor
        .refresh(&tokens)
        .await
        .refused(401, "invalid_client");
    let _ = impostor
        .revoke(&tokens.access_token)
        .await
        .refused(401, "invalid_client");
    let _ = client.call(&tokens).await.expect(200);
}

/// N-RG-40
#[tokio::test]
async fn a_registration_that_nobody_used_ends_after_a_day() {
    let server = TestServer::new();
    let used = server.mcp_client().await;
    let unused = server.mcp_client().await;
    let tokens = used.sign_in().await;
    let code = unused.code().await;

    server.clock.advance(DAY);
    let (_, page) = unused.opens(&unused.authorization_with(&[])).await;
    assert!(!page.expect(400).headers.contains_key(header::LOCATION));
    let _ = unused.redeem(&code).await.refused(401, "invalid_client");

    let (_, page) = used.opens(&used.authorization_with(&[])).await;
    let _ = page.expect(200);
    let _ = used.refresh(&tokens).await.expect(200);

    let later = server.mcp_client().await;
    server
        .clock
        .advance(DAY.saturating_sub(Duration::from_secs(1)));
    let (_, page) = later.opens(&later.authorization_with(&[])).await;
    let _ = page.expect(200);
}

/// N-RG-40
#[tokio::test]
async fn a_registration_stays_as_long_as_its_grant_however_often_that_is_refreshed() {
    let server = TestServer::new();
    let client = server.mcp_client().await;
    let mut tokens = client.sign_in().await;
    for _ in 0..12 {
        server.clock.advance(29 * DAY);
        server.store.memory.sweep(server.now());
        tokens = Tokens::of(&client.refresh(&tokens).await.expect(200));
        let _ = client.call(&tokens).await.expect(200);
    }
    // The grant has run its year; what is told then is that, not that the client is unknown.
    server.clock.advance(29 * DAY);
    server.store.memory.sweep(server.now());
    let _ = client.refresh(&tokens).await.refused(400, "invalid_grant");
}

/// DCR-07
// N-RG-27
#[tokio::test]
async fn a_redirect_uri_on_a_private_network_may_be_registered_and_is_never_asked() {
    let server = TestServer::new();
    let uris = ["https://192.168.1.2/cb", "https://169.254.169.254/cb"];
    let _ = register(&server, &claude_with("redirect_uris", json!(uris)))
        .await
        .expect(201);
    assert_eq!(server.fetch.asked(), [] as [&str; 0]);
    assert!(server.upstream.received().is_empty());
}

/// ASM-04, ASM-07
// N-RG-41
#[tokio::test]
async fn where_registration_is_off_nobody_registers_and_it_is_not_offered() {
    let mut policy = policy(&[("one", "/mcp")]);
    policy.clients.registration = false;
    let server = TestServer::with(policy);
    let metadata = server.get("/.well-known/oauth-authorization-server").await;
    let metadata = metadata.expect(200).json();
    assert!(
        metadata.get("registration_endpoint").is_none(),
        "{metadata}"
    );
    let methods = &metadata["token_endpoint_auth_methods_supported"];
    assert_eq!(*methods, json!(["none", "private_key_jwt"]));
    for body in [claude(), json!({})] {
        let before = server.state();
        let answer = register(&server, &body).await;
        let answer = answer.refused(403, "access_denied");
        assert_eq!(answer.header("cache-control"), "no-store");
        assert_eq!(server.state(), before);
    }
    assert_eq!(server.journal.count("ClientRegistered"), 0);
}

/// TK-22
#[tokio::test]
async fn a_store_in_trouble_is_said_to_be_so_and_registering_again_works() {
    let server = TestServer::new();
    server.store.fail_nth(1);
    let answer = register(&server, &claude())
        .await
        .refused(503, "temporarily_unavailable");
    assert!(answer.headers.contains_key(header::RETRY_AFTER));
    assert_eq!(server.stored(), "");
    let _ = register(&server, &claude()).await.expect(201);
}
