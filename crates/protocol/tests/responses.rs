//! Every error code at every endpoint: its status, headers and body, in one table.

#![expect(clippy::unwrap_used, reason = "all of this is a test")]

mod support;

use std::{fmt::Write, time::Duration};

use axum::body::Body;
use http::{Method, header};
use protocol::oauth::identifiers::{Alias, Issuer};
use serde_json::json;
use support::{
    Answer, PASSPHRASE, TestServer,
    client::{McpClient, REDIRECT_URI, Tokens, VERIFIER},
    form, request,
};

/// The rows so far.
#[derive(Default)]
struct Table(String);

impl Table {
    /// One answer as its reader sees it: a program the bytes, a person the text of the page.
    fn row(&mut self, endpoint: &str, case: &str, answer: &Answer) {
        let table = &mut self.0;
        writeln!(table, "{endpoint} · {case}").unwrap();
        writeln!(table, "    {}", answer.status).unwrap();
        let mut headers: Vec<_> = answer
            .headers
            .iter()
            // It follows from the body.
            .filter(|(name, _)| *name != header::CONTENT_LENGTH)
            .map(|(name, value)| format!("{name}: {}", without_hash(value.to_str().unwrap())))
            .collect();
        headers.sort();
        for line in headers {
            writeln!(table, "    {line}").unwrap();
        }
        for line in body(answer).lines() {
            writeln!(table, "    | {line}").unwrap();
        }
        table.push('\n');
    }
}

/// A header without the hash of the style sheet, which every page has and `pages.rs` checks.
fn without_hash(value: &str) -> String {
    match value.split_once("'sha256-") {
        Some((before, after)) => {
            let (_, after) = after.split_once('\'').unwrap();
            format!("{before}'sha256-…'{after}")
        }
        None => value.to_owned(),
    }
}

fn body(answer: &Answer) -> String {
    let text = answer.text();
    if !text.starts_with("<!") {
        return text;
    }
    let document = scraper::Html::parse_document(&text);
    let shown = scraper::Selector::parse("h1, p:not(p p), #problem, dt, dd").unwrap();
    let lines: Vec<_> = document
        .select(&shown)
        .map(|element| element.text().collect::<String>())
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .filter(|line| !line.is_empty())
        .collect();
    lines.join("\n")
}

async fn authorize(client: &McpClient, changes: &[(&'static str, Option<&str>)]) -> Answer {
    client.opens(&client.authorization_with(changes)).await.1
}

async fn with_header(
    server: &TestServer,
    mut request: http::Request<Body>,
    name: &'static str,
    value: &str,
) -> Answer {
    request.headers_mut().insert(name, value.parse().unwrap());
    server.send(request).await
}

async fn empty(server: &TestServer, method: Method, path: &str) -> Answer {
    server
        .send(request(method, path).body(Body::empty()).unwrap())
        .await
}

async fn down(server: &TestServer, request: impl Future<Output = Answer>) -> Answer {
    server.store.set_down(true);
    let answer = request.await;
    server.store.set_down(false);
    answer
}

/// RG-09, TK-15, AZ-01, AZ-04
#[tokio::test]
async fn what_each_error_looks_like_at_each_endpoint() {
    let mut table = Table::default();
    registration(&mut table).await;
    authorization(&mut table).await;
    consent(&mut table).await;
    token(&mut table).await;
    revocation(&mut table).await;
    mcp(&mut table).await;
    elsewhere(&mut table).await;
    insta::assert_snapshot!(table.0);
}

async fn registration(table: &mut Table) {
    let server = TestServer::new();
    let large = "x".repeat(16 * 1024 + 1);
    for (case, answer) in [
        (
            "invalid_redirect_uri",
            server.post_json("/register", &json!({})).await,
        ),
        (
            "invalid_client_metadata",
            server.post_json("/register", &json!([])).await,
        ),
        (
            "invalid_client_metadata (not JSON)",
            server.post_form("/register", &[]).await,
        ),
        (
            "invalid_client_metadata (too large)",
            server.post_json("/register", &json!(large)).await,
        ),
        (
            "temporarily_unavailable",
            down(
                &server,
                server.post_json("/register", &json!({ "redirect_uris": [REDIRECT_URI] })),
            )
            .await,
        ),
        (
            "another method",
            empty(&server, Method::GET, "/register").await,
        ),
    ] {
        table.row("/register", case, &answer);
    }
}

async fn authorization(table: &mut Table) {
    let server = TestServer::new();
    let client = server.mcp_client().await;
    let large = "x".repeat(65 * 1024);
    for (case, answer) in [
        (
            "invalid_request (no client)",
            authorize(&client, &[("client_id", None)]).await,
        ),
        (
            "invalid_request (unknown client)",
            authorize(&client, &[("client_id", Some("unknown"))]).await,
        ),
        (
            "invalid_request (redirect_uri)",
            authorize(&client, &[("redirect_uri", Some("https://evil.example"))]).await,
        ),
        (
            "invalid_request (too large)",
            server.post_form("/authorize", &[("x", &large)]).await,
        ),
        (
            "temporarily_unavailable",
            down(&server, authorize(&client, &[])).await,
        ),
        (
            "invalid_request, to the client",
            authorize(&client, &[("code_challenge", None)]).await,
        ),
        (
            "invalid_scope",
            authorize(&client, &[("scope", Some("\""))]).await,
        ),
        (
            "invalid_target",
            authorize(&client, &[("resource", Some("x"))]).await,
        ),
        (
            "unsupported_response_type",
            authorize(&client, &[("response_type", Some("token"))]).await,
        ),
        (
            "request_not_supported",
            authorize(&client, &[("request", Some("x"))]).await,
        ),
        (
            "request_uri_not_supported",
            authorize(&client, &[("request_uri", Some("x"))]).await,
        ),
        (
            "another method",
            empty(&server, Method::DELETE, "/authorize").await,
        ),
    ] {
        table.row("/authorize", case, &answer);
    }
}

async fn consent(table: &mut Table) {
    let server = TestServer::with_two_upstreams();
    let client = server.mcp_client().await;
    let (mut browser, page) = client.opens(&client.authorization_with(&[])).await;
    let choosing = client.authorization_with(&[("resource", None)]);
    let (mut chooser, choice) = client.opens(&choosing).await;
    table.row(
        "/consent",
        "no upstream chosen",
        &chooser.approve(&server, &choice, PASSPHRASE).await,
    );
    table.row(
        "/consent",
        "invalid_request (no decision)",
        &browser.decide(&server, &page, &[]).await,
    );
    table.row(
        "/consent",
        "invalid_request (not a form)",
        &server.post_json("/consent", &json!({})).await,
    );
    table.row(
        "/consent",
        "another site's form",
        &server.post_form("/consent", &[]).await,
    );
    for time in ["first", "second", "third", "fourth", "last"] {
        let answer = browser.approve(&server, &page, "wrong").await;
        table.row(
            "/consent",
            &format!("wrong passphrase, {time} time"),
            &answer,
        );
    }
    table.row(
        "/consent",
        "too many wrong attempts",
        &browser.approve(&server, &page, "wrong").await,
    );
    table.row(
        "/consent",
        "temporarily_unavailable",
        &down(&server, browser.deny(&server, &page)).await,
    );
    table.row(
        "/consent",
        "access_denied",
        &browser.deny(&server, &page).await,
    );
    server.clock.advance(Duration::from_mins(10));
    table.row(
        "/consent",
        "page open for too long",
        &browser.deny(&server, &page).await,
    );

    server.clock.advance(Duration::from_mins(15));
    let (mut browser, page) = client.opens(&client.authorization_with(&[])).await;
    let _ = browser
        .approve(&server, &page, PASSPHRASE)
        .await
        .expect(303);
    table.row(
        "/consent",
        "denied after it was approved",
        &browser.deny(&server, &page).await,
    );
    let (mut browser, page) = client.opens(&client.authorization_with(&[])).await;
    let _ = browser.deny(&server, &page).await.expect(303);
    table.row(
        "/consent",
        "approved after it was denied",
        &browser.approve(&server, &page, PASSPHRASE).await,
    );
}

async fn token(table: &mut Table) {
    let server = TestServer::new();
    let client = server.mcp_client().await;
    let code = client.code().await;
    let large = "x".repeat(65 * 1024);
    let by_header = form("/token", &[("grant_type", "refresh_token")]);
    for (case, answer) in [
        (
            "invalid_request",
            client.redeem_with(&code, &[("code", None)]).await,
        ),
        (
            "invalid_request (not a form)",
            server.post_json("/token", &json!({})).await,
        ),
        ("invalid_request (too large)", client.redeem(&large).await),
        (
            "invalid_client",
            server
                .post_form(
                    "/token",
                    &[("grant_type", "refresh_token"), ("client_id", "unknown")],
                )
                .await,
        ),
        (
            "invalid_client (by header)",
            with_header(&server, by_header, "authorization", "Basic eDp5").await,
        ),
        ("invalid_grant", client.redeem("unknown").await),
        (
            "invalid_grant (verifier)",
            client
                .redeem_with(
                    &code,
                    &[("code_verifier", Some(&VERIFIER.replace('d', "e")))],
                )
                .await,
        ),
        (
            "invalid_target",
            client.redeem_with(&code, &[("resource", Some("x"))]).await,
        ),
        (
            "unsupported_grant_type",
            client
                .redeem_with(&code, &[("grant_type", Some("password"))])
                .await,
        ),
        (
            "temporarily_unavailable",
            down(&server, client.redeem(&code)).await,
        ),
        (
            "another method",
            empty(&server, Method::GET, "/token").await,
        ),
    ] {
        table.row("/token", case, &answer);
    }
    let tokens = Tokens::of(&client.redeem(&code).await.expect(200));
    let wider = [
        ("grant_type", "refresh_token"),
        ("refresh_token", &*tokens.refresh_token),
        ("scope", "offline_access"),
    ];
    table.row("/token", "invalid_scope", &client.token(&wider).await);
}

async fn revocation(table: &mut Table) {
    let server = TestServer::new();
    let client = server.mcp_client().await;
    let by_header = form("/revoke", &[("token", "x")]);
    for (case, answer) in [
        ("unknown token", client.revoke("unknown").await),
        ("invalid_request", client.revoke("").await),
        (
            "invalid_client",
            server
                .post_form("/revoke", &[("token", "x"), ("client_id", "unknown")])
                .await,
        ),
        (
            "invalid_client (by header)",
            with_header(&server, by_header, "authorization", "Basic eDp5").await,
        ),
        (
            "temporarily_unavailable",
            down(&server, client.revoke("x")).await,
        ),
        (
            "another method",
            empty(&server, Method::GET, "/revoke").await,
        ),
    ] {
        table.row("/revoke", case, &answer);
    }
}

async fn mcp(table: &mut Table) {
    let server = TestServer::new();
    let client = server.mcp_client().await;
    let tokens = client.sign_in().await;
    let unknown = Tokens {
        access_token: "x".to_owned(),
        ..tokens.clone()
    };
    let call = || client.call_request(&tokens);
    let other_process = client.on(&server.another(support::policy(&[("one", "/mcp")])));
    let mut local = support::policy(&[("one", "/mcp")]);
    local.issuer = Issuer::parse("http://127.0.0.1:8080").unwrap();
    local.aliases = vec![Alias::parse(support::ISSUER).unwrap()];
    let local = TestServer::with(local);
    let mut in_query = client.call_request(&tokens);
    *in_query.uri_mut() = "/mcp?access_token=x".parse().unwrap();
    let mut below = client.call_request(&tokens);
    *below.uri_mut() = "/mcp/below".parse().unwrap();
    for (case, answer) in [
        ("no token", empty(&server, Method::POST, "/mcp").await),
        ("invalid_token", client.call(&unknown).await),
        ("invalid_request (two tokens)", server.send(in_query).await),
        (
            "another origin, on this computer alone",
            with_header(&local, call(), "origin", "https://evil.example").await,
        ),
        (
            "unknown session",
            with_header(&server, call(), "mcp-session-id", "x").await,
        ),
        ("nothing below", server.send(below).await),
        (
            "temporarily_unavailable",
            down(&server, other_process.call(&tokens)).await,
        ),
    ] {
        table.row("/mcp", case, &answer);
    }
    assert!(server.upstream.received().is_empty());
}

async fn elsewhere(table: &mut Table) {
    let server = TestServer::new();
    table.row("anywhere else", "not_found", &server.get("/nothing").await);
    table.row(
        "/ready",
        "temporarily_unavailable",
        &down(&server, server.get("/ready")).await,
    );
}

/// The public address in a browser is a page for a person; for programs nothing is there, so that
/// discovery does not take it for anything. No name of what is behind it is told.
#[tokio::test]
async fn the_public_address_is_a_page_in_a_browser_and_nothing_to_programs() {
    let server = TestServer::with_two_upstreams();
    let asking = async |method: &str, path: &str, accept: &str| {
        let request = request(method.parse().unwrap(), path);
        let request = request.header(header::ACCEPT, accept);
        server.send(request.body(Body::empty()).unwrap()).await
    };
    for accept in [
        "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
        "application/xhtml+xml, Text/HTML;q=0.9",
    ] {
        let page = asking("GET", "/", accept).await.expect(200);
        assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
        assert_eq!(page.header("cache-control"), "no-store");
        assert_eq!(page.header("x-frame-options"), "DENY");
        let text = page.text();
        assert!(text.contains("https://gw.example/ and goes"), "{text}");
        for secret in ["/mcp", "Server a", "Server b", "upstream"] {
            assert!(!text.contains(secret), "{secret}: {text}");
        }
    }
    for (method, path, accept) in [
        ("GET", "/", "*/*"),
        ("GET", "/", "application/json"),
        ("GET", "/", "application/json, text/event-stream"),
        ("GET", "/", "text/htmlx"),
        ("POST", "/", "text/html"),
        ("DELETE", "/", "text/html"),
        ("GET", "/other", "application/json"),
        ("GET", "/.well-known/openid-configuration", "text/html"),
        ("GET", "/favicon.ico", "image/avif,*/*"),
    ] {
        let answer = asking(method, path, accept).await.refused(404, "not_found");
        assert_eq!(answer.header("content-type"), "application/json");
    }
}

/// A method that an address does not take is refused like anything else: in JSON that nobody keeps.
#[tokio::test]
async fn a_wrong_method_is_answered_in_json_that_no_cache_keeps() {
    let server = TestServer::new();
    for (method, path, allowed) in [
        (Method::GET, "/token", "POST"),
        (Method::PUT, "/register", "POST"),
        (Method::DELETE, "/revoke", "POST"),
        (Method::GET, "/consent", "POST"),
        (Method::PUT, "/authorize", "GET,HEAD,POST"),
        (Method::POST, "/health", "GET,HEAD"),
        (Method::POST, "/ready", "GET,HEAD"),
        (
            Method::POST,
            "/.well-known/oauth-authorization-server",
            "GET,HEAD",
        ),
    ] {
        let request = request(method, path).body(Body::empty()).unwrap();
        let answer = server.send(request).await.refused(405, "invalid_request");
        assert_eq!(answer.header("allow"), allowed, "{path}");
        assert_eq!(answer.header("cache-control"), "no-store", "{path}");
    }
}
