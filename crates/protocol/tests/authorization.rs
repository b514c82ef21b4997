//! The authorization request: what gets a consent page, what gets an error page, and what the
//! client is told (RFC 6749 §4.1).

mod support;

use std::time::Duration;

use axum::body::Body;
use http::{Method, header};
use serde_json::json;
use support::{
    Answer, ISSUER, PASSPHRASE, TestServer,
    client::{Browser, CHALLENGE, McpClient, REDIRECT_URI, STATE, Tokens, VERIFIER, query},
    form, policy, request,
};

/// What is left out of or put into a good request.
type Change<'a> = (&'static str, Option<&'a str>);

async fn authorize(client: &McpClient, changes: &[Change<'_>]) -> Answer {
    client.opens(&client.authorization_with(changes)).await.1
}

/// Insists on an error page: no redirect, nothing to send, nothing left behind.
#[track_caller]
fn stays_here(answer: &Answer) {
    assert_eq!(answer.status, 400, "{answer:#?}");
    assert_eq!(answer.header("content-type"), "text/html; charset=utf-8");
    for name in ["location", "set-cookie", "refresh"] {
        assert!(!answer.headers.contains_key(name), "{answer:#?}");
    }
    assert!(!answer.text().contains("<form"), "{answer:#?}");
}

/// Insists on a redirect to the client with `error`, and nothing else in it.
#[track_caller]
fn tells_the_client(answer: &Answer, error: &str) {
    assert_eq!(answer.status, 303, "{answer:#?}");
    let redirect = answer.redirect();
    assert_eq!(redirect.to, REDIRECT_URI);
    assert_eq!(redirect.parameter("error"), error, "{answer:#?}");
    assert_eq!(redirect.parameter("state"), STATE);
    assert_eq!(redirect.parameter("iss"), ISSUER);
    assert!(!redirect.parameter("error_description").is_empty());
    assert_eq!(redirect.parameters.len(), 4, "{redirect:?}");
    assert!(!answer.headers.contains_key("set-cookie"));
}

/// Insists that each change of a good request is told to the client and leaves no trace, and that
/// the good request is shown.
async fn each_is_told(changes: &[&[Change<'_>]], error: &str) {
    let server = TestServer::new();
    let client = server.mcp_client().await;
    let before = server.state();
    for change in changes {
        tells_the_client(&authorize(&client, change).await, error);
    }
    assert_eq!(server.state(), before);
    let _ = authorize(&client, &[]).await.expect(200);
}

async fn client_at(server: &TestServer, redirect_uris: &[&str]) -> McpClient {
    let metadata = json!({ "token_endpoint_auth_method": "none", "redirect_uris": redirect_uris });
    McpClient::register(server, &metadata).await
}

/// AZ-01, S1-11
#[tokio::test]
async fn an_unknown_client_or_address_gets_a_page_and_never_a_redirect() {
    let server = TestServer::new();
    let client = server.mcp_client().await;
    let other = client_at(&server, &["https://other.example/cb"]).await;
    let long = "c".repeat(10 * 1024);
    let before = server.state();
    for change in [
        ("client_id", None),
        ("client_id", Some("unknown")),
        ("client_id", Some("' OR 1=1 --")),
        ("client_id", Some("../grant/x")),
        ("client_id", Some("c\0d")),
        ("client_id", Some("c\r\nSET x 1")),
        ("client_id", Some("https://evil.example/client.json")),
        ("client_id", Some(long.as_str())),
        ("client_id", Some(other.client_id.as_str())),
        ("redirect_uri", Some("https://evil.example/cb")),
        ("redirect_uri", Some("https://other.example/cb")),
    ] {
        stays_here(&authorize(&client, &[change]).await);
    }
    assert_eq!(server.state(), before);
    let _ = authorize(&client, &[]).await.expect(200);
}

/// AZ-02, S1-11
#[tokio::test]
async fn a_redirect_uri_must_match_to_the_letter() {
    let server = TestServer::new();
    let client = server.mcp_client().await;
    for uri in [
        "https://claude.ai/api/mcp/auth_callback/",
        "https://claude.ai/api/mcp/auth_callback/x",
        "https://claude.ai/api/mcp/auth_callback?x",
        "https://claude.ai/api/mcp/auth_callback?code=evil",
        "https://claude.ai/api/mcp/auth_callback&state=evil",
        "https://claude.ai/api/mcp/auth_callback#x",
        "https://claude.ai/api/mcp/AUTH_callback",
        "https://claude.ai/api/mcp/%61uth_callback",
        "https://claude.ai/api/mcp/../mcp/auth_callback",
        "https://claude.ai/api/mcp%2f..%2fevil",
        "https://CLAUDE.ai/api/mcp/auth_callback",
        "HTTPS://claude.ai/api/mcp/auth_callback",
        "http://claude.ai/api/mcp/auth_callback",
        "https://claude.ai:443/api/mcp/auth_callback",
        "https://claude.ai:8443/api/mcp/auth_callback",
        "https://claude.ai./api/mcp/auth_callback",
        "https://x.claude.ai/api/mcp/auth_callback",
        "https://claude.ai.evil.example/api/mcp/auth_callback",
        "https://evilclaude.ai/api/mcp/auth_callback",
        "https://claude.ai@evil.example/api/mcp/auth_callback",
        "https://claude.ai\\@evil.example/api/mcp/auth_callback",
        "https://claude.ai/api/mcp/auth_callback\n",
        "https://cl\u{430}ude.ai/api/mcp/auth_callback",
        "javascript:alert(1)",
    ] {
        stays_here(&authorize(&client, &[("redirect_uri", Some(uri))]).await);
    }
    let _ = authorize(&client, &[("redirect_uri", Some(REDIRECT_URI))])
        .await
        .expect(200);
}

/// AZ-03, C-02
#[tokio::test]
async fn only_the_port_of_an_address_on_this_computer_is_free() {
    let server = TestServer::new();
    for (registered, good, bad) in [
        (
            "http://localhost/callback",
            &[
                "http://localhost/callback",
                "http://localhost:51234/callback",
            ][..],
            &[
                "http://127.0.0.1:51234/callback",
                "http://localhost:51234/other",
                "http://localhost:51234/callback?x=1",
                "https://localhost:51234/callback",
                "http://localhost:0/callback",
                "http://localhost:65536/callback",
                "http://localhost:/callback",
                "http://localhost:080/callback",
                "http://u@localhost:51234/callback",
                "http://localhost.evil.example:51234/callback",
            ][..],
        ),
        (
            "http://127.0.0.1:8787/cb?a=1",
            &[
                "http://127.0.0.1:8787/cb?a=1",
                "http://127.0.0.1/cb?a=1",
                "http://127.0.0.1:9/cb?a=1",
            ],
            &[
                "http://localhost:8787/cb?a=1",
                "http://127.0.0.1:9/cb",
                "http://127.0.0.1:9/cb?A=1",
                "http://127.0.0.2:9/cb?a=1",
                "http://127.1:9/cb?a=1",
                "http://2130706433:9/cb?a=1",
                "http://0.0.0.0:9/cb?a=1",
                "http://[::ffff:127.0.0.1]:9/cb?a=1",
            ],
        ),
        (
            "http://[::1]/cb",
            &["http://[::1]:9/cb"],
            &["http://[::]:9/cb", "http://localhost:9/cb"],
        ),
        // Who registered a web site only has no free port anywhere.
        (
            "https://x.example/cb",
            &["https://x.example/cb"],
            &["https://x.example:9/cb", "http://localhost:9/cb"],
        ),
    ] {
        let client = client_at(&server, &[registered]).await;
        for uri in good {
            let _ = authorize(&client, &[("redirect_uri", Some(uri))])
                .await
                .expect(200);
        }
        for uri in bad {
            stays_here(&authorize(&client, &[("redirect_uri", Some(uri))]).await);
        }
    }
}

/// C-02
#[tokio::test]
async fn a_client_on_this_computer_signs_in_at_whatever_port_it_has() {
    let server = TestServer::new();
    let client = client_at(&server, &["http://localhost/callback"]).await;
    let uri = "http://localhost:51234/callback";
    let code = client
        .code_for(&client.authorization_with(&[("redirect_uri", Some(uri))]))
        .await;
    let other_port = client
        .redeem_with(
            &code,
            &[("redirect_uri", Some("http://localhost:51235/callback"))],
        )
        .await;
    let _ = other_port.refused(400, "invalid_grant");
    let _ = client
        .redeem_with(&code, &[("redirect_uri", Some(uri))])
        .await
        .expect(200);
}

/// N-AZ-06
#[tokio::test]
async fn the_redirect_uri_may_be_left_out_when_only_one_is_registered() {
    let server = TestServer::new();
    let one = server.mcp_client().await;
    let (mut browser, page) = one
        .opens(&one.authorization_with(&[("redirect_uri", None)]))
        .await;
    let answer = browser.deny(&server, &page).await.expect(303);
    assert_eq!(answer.redirect().to, REDIRECT_URI);

    let two = client_at(
        &server,
        &[REDIRECT_URI, "https://claude.com/api/mcp/auth_callback"],
    )
    .await;
    stays_here(&authorize(&two, &[("redirect_uri", None)]).await);
    let _ = authorize(&two, &[]).await.expect(200);
}

/// AZ-04, N-AZ-40
#[tokio::test]
async fn another_response_type_is_refused_by_name() {
    each_is_told(
        &[
            &[("response_type", Some("token"))],
            &[("response_type", Some("id_token"))],
            &[("response_type", Some("code id_token"))],
            &[("response_type", Some("CODE"))],
            &[("response_type", Some("none"))],
        ],
        "unsupported_response_type",
    )
    .await;
    each_is_told(
        &[&[("response_type", None)], &[("response_type", Some(""))]],
        "invalid_request",
    )
    .await;
}

/// AZ-05, S1-12, N-AZ-41, N-AZ-42, N-AZ-43, N-AZ-44, N-AZ-45
#[tokio::test]
async fn nothing_but_a_good_s256_challenge_is_taken() {
    let padded = format!("{CHALLENGE}=");
    let longer = format!("{CHALLENGE}A");
    let other_alphabet = CHALLENGE.replace('-', "+");
    each_is_told(
        &[
            &[("code_challenge", None)],
            &[("code_challenge", Some(""))],
            &[("code_challenge", None), ("code_challenge_method", None)],
            &[("code_challenge_method", None)],
            &[("code_challenge_method", Some(""))],
            &[("code_challenge_method", Some("plain"))],
            &[
                ("code_challenge_method", Some("plain")),
                ("code_challenge", Some(VERIFIER)),
            ],
            &[("code_challenge_method", Some("s256"))],
            &[("code_challenge_method", Some("S512"))],
            &[("code_challenge_method", Some("S256 "))],
            &[("code_challenge", Some(&CHALLENGE[1..]))],
            &[("code_challenge", Some(&longer))],
            &[("code_challenge", Some(&padded))],
            &[("code_challenge", Some(&other_alphabet))],
        ],
        "invalid_request",
    )
    .await;
}

/// AZ-09, N-AZ-46
#[tokio::test]
async fn a_resource_that_we_do_not_protect_is_an_invalid_target() {
    let long = format!("{ISSUER}/mcp?{}", "x".repeat(3 * 1024));
    each_is_told(
        &[
            &[("resource", Some("https://evil.example/mcp"))],
            &[("resource", Some("https://gw.example.evil.example/mcp"))],
            &[("resource", Some("http://gw.example/mcp"))],
            &[("resource", Some("https://gw.example:8443/mcp"))],
            &[("resource", Some("https://gw.example/mcp/other"))],
            &[("resource", Some("https://gw.example/MCP"))],
            &[("resource", Some("https://gw.example//"))],
            &[("resource", Some("https://gw.example/mcp#x"))],
            &[("resource", Some("https://u@gw.example/mcp"))],
            &[("resource", Some("/mcp"))],
            &[("resource", Some("mcp"))],
            &[("resource", Some(&long))],
        ],
        "invalid_target",
    )
    .await;
}

/// AZ-09
#[tokio::test]
async fn other_spellings_of_a_resource_give_a_token_for_the_same_one() {
    let server = TestServer::with_two_upstreams();
    let client = server.mcp_client().await;
    for spelling in [
        "https://gw.example/mcp/a",
        "https://gw.example/mcp/a/",
        "https://gw.example:443/mcp/a",
        "https://GW.example/mcp/a",
        "https://gw.example/mcp/a?utm=1",
    ] {
        let code = client
            .code_for(&client.authorization_with(&[("resource", Some(spelling))]))
            .await;
        let tokens = Tokens::of(
            &client
                .redeem_with(&code, &[("resource", Some(spelling))])
                .await
                .expect(200),
        );
        let _ = client.call(&tokens).await.expect(200);
        let _ = client
            .at("/mcp/b")
            .call(&tokens)
            .await
            .refused(401, "invalid_token");
    }
}

/// AZ-10, C-01
#[tokio::test]
async fn without_resource_and_scope_the_only_upstream_is_meant() {
    let server = TestServer::new();
    let client = server.mcp_client().await;
    let code = client
        .code_for(&client.authorization_with(&[("resource", None), ("scope", None)]))
        .await;
    let answer = client
        .redeem_with(&code, &[("resource", None)])
        .await
        .expect(200);
    assert_eq!(answer.json()["scope"], "mcp");
    let _ = client.call(&Tokens::of(&answer)).await.expect(200);
}

/// AZ-11, AZ-13, N-AZ-04, N-AZ-05
#[tokio::test]
async fn a_parameter_given_twice_is_refused() {
    let server = TestServer::new();
    let client = server.mcp_client().await;
    let before = server.state();
    let good = client.authorization_with(&[]);
    let open = async |query: String| client.opens(&query).await.1;
    for again in [
        format!("client_id={}", client.client_id),
        "client_id=other".to_owned(),
        "redirect_uri=https%3A%2F%2Fevil.example".to_owned(),
        support::encoded(&[("redirect_uri", REDIRECT_URI)]),
        "state=other".to_owned(),
    ] {
        stays_here(&open(format!("{good}&{again}")).await);
        stays_here(&open(format!("{again}&{good}")).await);
    }
    for again in [
        "response_type=code",
        "response_type=token",
        "code_challenge_method=S256",
        "code_challenge=x",
        "scope=mcp",
        "prompt=a&prompt=b",
    ] {
        tells_the_client(&open(format!("{good}&{again}")).await, "invalid_request");
    }
    let other = format!("{good}&resource=https%3A%2F%2Fgw.example%2Fmcp%2Fb");
    tells_the_client(&open(other).await, "invalid_target");
    assert_eq!(server.state(), before);
    let _ = open(good).await.expect(200);
}

/// AZ-06, AZ-07, S5-25, N-AZ-48
#[tokio::test]
async fn state_comes_back_unchanged_beside_the_code_and_the_issuer() {
    let server = TestServer::new();
    let client = server.mcp_client().await;
    let long = "0123456789abcdef".repeat(128);
    for state in [
        "s",
        "a%2Bb c&d=e#f+g",
        "%",
        "\r\nSet-Cookie: x=1",
        "línea ✓ \u{1f600}",
        "\"><script>",
        long.as_str(),
    ] {
        let (mut browser, page) = client
            .opens(&client.authorization_with(&[("state", Some(state))]))
            .await;
        let answer = browser
            .approve(&server, &page, PASSPHRASE)
            .await
            .expect(303);
        let redirect = answer.redirect();
        assert_eq!(redirect.to, REDIRECT_URI);
        assert_eq!(redirect.parameter("state"), state);
        assert_eq!(redirect.parameter("iss"), ISSUER);
        assert_eq!(redirect.parameters.len(), 3, "{redirect:?}");
        assert_eq!(answer.headers.get_all("set-cookie").iter().count(), 1);
        let _ = client.redeem(redirect.parameter("code")).await.expect(200);
    }
    stays_here(&authorize(&client, &[("state", Some(&"x".repeat(20 * 1024)))]).await);
}

/// AZ-07
#[tokio::test]
async fn an_absent_state_stays_absent() {
    let server = TestServer::new();
    let client = server.mcp_client().await;
    let query = client.authorization_with(&[("state", None)]);
    let (mut browser, page) = client.opens(&query).await;
    let approved = browser
        .approve(&server, &page, PASSPHRASE)
        .await
        .expect(303)
        .redirect();
    assert!(!approved.has("state") && approved.has("code"));
    let (mut browser, page) = client.opens(&query).await;
    let denied = browser.deny(&server, &page).await.expect(303).redirect();
    assert!(!denied.has("state") && denied.has("error"));
    let refused = authorize(&client, &[("state", None), ("scope", Some("\""))])
        .await
        .redirect();
    assert!(!refused.has("state") && refused.has("error"));
}

/// S5-25, N-AZ-39
#[tokio::test]
async fn a_query_that_the_redirect_uri_has_is_kept() {
    let server = TestServer::new();
    let client = client_at(&server, &["https://x.example/cb?a=1&my-code=2"]).await;
    let uri = "https://x.example/cb?a=1&my-code=2";
    let (mut browser, page) = client
        .opens(&client.authorization_with(&[("redirect_uri", Some(uri))]))
        .await;
    let answer = browser
        .approve(&server, &page, PASSPHRASE)
        .await
        .expect(303);
    assert!(
        answer
            .header("location")
            .starts_with(&format!("{uri}&code="))
    );
    let redirect = answer.redirect();
    for name in ["a", "my-code", "code", "state", "iss"] {
        let _ = redirect.parameter(name);
    }
    assert_eq!(redirect.parameters.len(), 5);
}

/// N-AZ-49, N-AZ-50
#[tokio::test]
async fn other_ways_to_ask_and_to_answer_are_refused() {
    each_is_told(
        &[
            &[("response_mode", Some("fragment"))],
            &[("response_mode", Some("form_post"))],
            &[("response_mode", Some("web_message"))],
        ],
        "invalid_request",
    )
    .await;
    each_is_told(
        &[&[("request", Some("eyJhbGciOiJub25lIn0.e30."))]],
        "request_not_supported",
    )
    .await;
    each_is_told(
        &[
            &[("request_uri", Some("https://canary.example/request"))],
            &[("request_uri", Some("urn:ietf:params:oauth:request_uri:1"))],
        ],
        "request_uri_not_supported",
    )
    .await;
    let server = TestServer::new();
    let client = server.mcp_client().await;
    let _ = authorize(&client, &[("response_mode", Some("query"))])
        .await
        .expect(200);
}

/// AZ-12, AZ-14, N-AZ-54
#[tokio::test]
async fn hints_and_unknown_parameters_are_ignored_and_nothing_is_issued_silently() {
    let server = TestServer::new();
    let client = server.mcp_client().await;
    let mut browser = Browser::default();
    // A browser that has just approved this very client is asked again.
    let page = browser
        .get(
            &server,
            &format!("/authorize?{}", client.authorization_with(&[])),
        )
        .await;
    let _ = browser
        .approve(&server, &page, PASSPHRASE)
        .await
        .expect(303);
    for hint in [
        ("prompt", "none"),
        ("prompt", "consent"),
        ("access_type", "offline"),
        ("login_hint", "owner"),
        ("id_token_hint", "eyJ"),
        ("claims", "{}"),
        ("nonce", "n"),
        ("utm", "1"),
    ] {
        let query = client.authorization_with(&[(hint.0, Some(hint.1))]);
        let page = browser
            .get(&server, &format!("/authorize?{query}"))
            .await
            .expect(200);
        assert!(page.text().contains("type=\"password\""));
        assert!(!page.headers.contains_key("location"));
    }
    assert_eq!(server.journal.count("Approved"), 1);
}

/// AZ-27: no approval is remembered, so none can be taken for another one.
#[tokio::test]
async fn who_approved_a_client_a_moment_ago_is_asked_again_for_anything_else() {
    let server = TestServer::with_two_upstreams();
    let client = client_at(&server, &["http://localhost/callback", REDIRECT_URI]).await;
    let mut browser = Browser::default();
    let first = ("redirect_uri", Some("http://localhost:51234/callback"));
    let query = client.authorization_with(&[first]);
    let page = browser.get(&server, &format!("/authorize?{query}")).await;
    let approved = browser.approve(&server, &page, PASSPHRASE).await;
    let _ = approved.expect(303);
    for change in [
        ("redirect_uri", Some("http://localhost:51235/callback")),
        ("redirect_uri", Some(REDIRECT_URI)),
        ("scope", Some("mcp offline_access")),
        ("resource", Some("https://gw.example/mcp/b")),
        first,
    ] {
        let query = client.authorization_with(&[first, change]);
        let page = browser.get(&server, &format!("/authorize?{query}")).await;
        assert!(page.expect(200).text().contains("type=\"password\""));
    }
    assert_eq!(server.journal.count("Approved"), 1);
}

/// AZ-28
#[tokio::test]
async fn the_request_may_come_as_a_form_too() {
    let server = TestServer::new();
    let client = server.mcp_client().await;
    let parameters = client.authorization();
    let fields: Vec<_> = parameters
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    let page = server.send(form("/authorize", &fields)).await.expect(200);
    assert!(page.text().contains("name=\"transaction\""));

    // Half here and half there is one request too many.
    stays_here(
        &server
            .send(form(&format!("/authorize?{}", query(&parameters)), &fields))
            .await,
    );
    let json = request(Method::POST, "/authorize")
        .header(header::CONTENT_TYPE, "application/json")
        .body(Body::from("{}"))
        .unwrap();
    stays_here(&server.send(json).await);
}

/// S1-22
#[tokio::test]
async fn a_form_that_is_too_large_is_refused() {
    let server = TestServer::new();
    let client = server.mcp_client().await;
    let large = "x".repeat(70 * 1024);
    let parameters = client.authorization();
    let mut fields: Vec<_> = parameters
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    fields.push(("utm", &large));
    let answer = server.send(form("/authorize", &fields)).await.expect(413);
    assert!(!answer.headers.contains_key("set-cookie"));
    fields.pop();
    let _ = server.send(form("/authorize", &fields)).await.expect(200);
}

/// TK-22
#[tokio::test]
async fn a_store_in_trouble_is_no_verdict_about_the_client() {
    let server = TestServer::new();
    let client = server.mcp_client().await;
    server.store.set_down(true);
    let answer = authorize(&client, &[]).await.expect(503);
    assert!(answer.headers.contains_key("retry-after"));
    assert!(!answer.headers.contains_key("location"));
    server.store.set_down(false);
    let _ = authorize(&client, &[]).await.expect(200);
}

/// AZ-14
#[tokio::test]
async fn showing_the_page_writes_nothing() {
    let server = TestServer::new();
    let client = server.mcp_client().await;
    let before = (server.state(), server.store.accesses().1);
    for _ in 0..100 {
        let _ = authorize(&client, &[]).await.expect(200);
    }
    assert_eq!((server.state(), server.store.accesses().1), before);
}

/// N-AZ-03
#[tokio::test]
async fn a_client_whose_registration_has_run_out_is_as_unknown_as_any() {
    let server = TestServer::with(policy(&[("one", "/mcp")]));
    let client = server.mcp_client().await;
    let _ = authorize(&client, &[]).await.expect(200);
    server.clock.advance(Duration::from_hours(24));
    let expired = authorize(&client, &[]).await;
    let unknown = authorize(&client, &[("client_id", Some("unknown"))]).await;
    stays_here(&expired);
    assert_eq!(expired.body, unknown.body);
}

/// Case 04: an address that is not one of the client's is shown beside those that are, on the page
/// and in the log, escaped and shortened; and whose mistake it is.
#[tokio::test]
async fn a_page_shows_the_address_that_was_asked_for_and_those_that_are_known() {
    let long = format!("https://app.example/cb?x={}", "y".repeat(1500));
    for (registered, asked, told) in [
        (
            "https://localhost:1234/cb",
            "https://localhost:5678/cb",
            "https://localhost:5678/cb",
        ),
        (
            "https://app.example/cb",
            "https://app.example/cb?server_id=1",
            "https://app.example/cb?server_id=1",
        ),
        (
            "warp://mcp/oauth2callback",
            "warp://mcp/oauth2callback?server_id=1",
            "warp://mcp/oauth2callback?server_id=1",
        ),
        (
            "https://app.example/cb",
            "https://app.example/<b>\"\n\u{202e}",
            "https://app.example/%3Cb%3E%22%0A%E2%80%AE",
        ),
        ("https://app.example/cb", &long, &long[..120]),
    ] {
        let server = TestServer::new();
        let metadata = json!({
            "client_name": "An app", "redirect_uris": [registered], "token_endpoint_auth_method": "none",
        });
        let client = McpClient::register(&server, &metadata).await;
        let answer = authorize(&client, &[("redirect_uri", Some(asked))]).await;
        stays_here(&answer);
        let page = scraper::Html::parse_document(&answer.text());
        let page: String = page.root_element().text().collect();
        let event = server.journal.all().last().unwrap().clone();
        for said in [registered, told, "An app", &client.client_id] {
            assert!(page.contains(said), "{said}: {page}");
            assert!(event.contains(said), "{said}: {event}");
        }
        assert!(
            page.contains("This is a mistake of the app, not yours."),
            "{page}"
        );
        assert!(!event.contains(&"y".repeat(200)), "{event}");
        // Refused as before, and the right one works.
        let right = [("redirect_uri", Some(registered))];
        let _ = authorize(&client, &right).await.expect(200);
    }

    // An app link in place of a loopback address, under a document that is published.
    let server = TestServer::new();
    let id = "https://claude.ai/oauth/claude-code-client-metadata";
    let client = McpClient::by_document(&server, id, "claude://oauth/callback");
    let answer = authorize(&client, &[]).await;
    stays_here(&answer);
    for said in [
        "claude://oauth/callback",
        "http://localhost/callback",
        "its publisher",
    ] {
        assert!(answer.text().contains(said), "{said}: {answer:#?}");
    }
    // A link of an app that the operator could let in.
    let client = McpClient::by_document(&server, id, "myapp://oauth/callback");
    let answer = authorize(&client, &[]).await;
    stays_here(&answer);
    assert!(answer.text().contains("app_schemes"), "{answer:#?}");
}
