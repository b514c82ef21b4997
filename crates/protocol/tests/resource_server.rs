//! The resource server: whom it lets through to an upstream, and what it tells everybody else.

#![expect(clippy::unwrap_used, reason = "all of this is a test")]

mod support;

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::body::Body;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Response, Version, header};
use http_body::Frame;
use http_body_util::BodyExt;
use protocol::{
    oauth::identifiers::{Alias, Issuer, Resource},
    policy::Policy,
    ports::UpstreamError,
};
use serde_json::json;
use support::{
    Answer, FaultyStore, HOME, ISSUER, TestServer, UPSTREAM_KEY,
    client::{McpClient, Tokens},
    encoded, in_time, policy, request,
};

/// What a caller without a token is told at `/mcp`.
const CHALLENGE: &str = "Bearer resource_metadata=\
    \"https://gw.example/.well-known/oauth-protected-resource/mcp\", scope=\"mcp\"";

/// One upstream at `/mcp`, and a client that is signed in to it.
async fn signed_in() -> (McpClient, Tokens) {
    signed_in_to(&TestServer::new()).await
}

async fn signed_in_to(server: &TestServer) -> (McpClient, Tokens) {
    let client = server.mcp_client().await;
    let tokens = client.sign_in().await;
    (client, tokens)
}

/// A call whose `Authorization` headers are these.
fn call_with(path: &str, authorization: &[&str]) -> Request<Body> {
    let mut request = request(Method::POST, path)
        .header(header::CONTENT_TYPE, "application/json")
        .body(Body::from("{}"))
        .unwrap();
    for value in authorization {
        let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
        request.headers_mut().append(header::AUTHORIZATION, value);
    }
    request
}

/// A call with a good token and one more header.
fn call_saying(
    client: &McpClient,
    tokens: &Tokens,
    name: &'static str,
    value: &str,
) -> Request<Body> {
    let mut request = client.call_request(tokens);
    let name = HeaderName::from_static(name);
    request.headers_mut().append(name, value.parse().unwrap());
    request
}

/// Insists that a call was refused with 401 and this error, with a challenge a client can follow.
#[track_caller]
fn challenged(answer: Answer, error: &str) -> Answer {
    let answer = answer.expect(401);
    let challenge = answer.header("www-authenticate");
    assert!(
        challenge.starts_with(&format!("Bearer error=\"{error}\", ")),
        "{challenge}"
    );
    let pointer = CHALLENGE.strip_prefix("Bearer ").unwrap();
    assert!(challenge.ends_with(pointer), "{challenge}");
    answer
}

/// Steps of a request body, each taken when the proxy asks for more.
struct Upload(VecDeque<Box<dyn FnMut() -> Bytes + Send>>);

impl http_body::Body for Upload {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let step = self.0.pop_front();
        Poll::Ready(step.map(|mut step| Ok(Frame::data(step()))))
    }
}

/// A body that comes in pieces of unknown number, so without a length.
fn chunked(chunks: &[&'static [u8]]) -> Body {
    let steps = chunks.iter().map(|chunk| {
        let chunk = *chunk;
        Box::new(move || Bytes::from_static(chunk)) as Box<dyn FnMut() -> Bytes + Send>
    });
    Body::new(Upload(steps.collect()))
}

/// RS-01, RS-02, RS-03, RS-04, RS-06, RS-07, RS-08, RS-25, S2-04, S2-16, N-RS-01
#[tokio::test]
async fn whoever_has_no_token_gets_the_complete_challenge_whatever_else_is_wrong() {
    let (client, tokens) = signed_in().await;
    let server = &client.server;
    for method in [
        "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "post",
    ] {
        for (name, value) in [
            (header::ACCEPT, "*/*"),
            (header::ACCEPT, "text/html"),
            (header::CONTENT_TYPE, "text/nonsense"),
            (header::CONTENT_LENGTH, "999999999"),
            (HeaderName::from_static("mcp-session-id"), "made up"),
            (
                HeaderName::from_static("mcp-protocol-version"),
                "1999-01-01",
            ),
        ] {
            let request = request(method.parse().unwrap(), "/mcp")
                .header(&name, value)
                .body(Body::from("x"))
                .unwrap();
            let answer = server.send(request).await.expect(401);
            assert_eq!(answer.header("www-authenticate"), CHALLENGE);
            // A person who opens the address sees what to do with it; the rest is the same.
            let content_type = match (method, value) {
                ("GET" | "HEAD", "text/html") => "text/html; charset=utf-8",
                _ => "application/json",
            };
            assert_eq!(answer.header("content-type"), content_type);
            assert_eq!(answer.header("cache-control"), "no-store");
            assert!(!answer.headers.contains_key(header::LOCATION));
        }
    }
    assert!(server.upstream.received().is_empty());

    let _ = client.call(&tokens).await.expect(200);
    assert_eq!(server.upstream.received().len(), 1);
}

/// RS-02, RS-11, S2-04
#[tokio::test]
async fn the_challenge_leads_to_metadata_that_names_the_called_address_exactly() {
    let server = TestServer::with_two_upstreams();
    for path in ["/mcp/a", "/mcp/b"] {
        let answer = server.get(path).await.expect(401);
        let challenge = answer.header("www-authenticate");
        let url = challenge
            .split("resource_metadata=\"")
            .nth(1)
            .and_then(|rest| rest.split('"').next())
            .unwrap();
        let document = server.get(url.strip_prefix(ISSUER).unwrap()).await;
        let document = document.expect(200).json();
        assert_eq!(document["resource"], format!("{ISSUER}{path}"));
        assert_eq!(document["authorization_servers"], json!([ISSUER]));
    }
}

/// RS-05, RS-06, RS-18, RS-23, N-RS-02, N-RS-03, N-RS-06, N-RS-07, N-RS-08, S2-16
#[tokio::test]
async fn what_is_not_a_good_token_is_an_invalid_token() {
    let (client, tokens) = signed_in().await;
    let server = &client.server;
    let good = &tokens.access_token;
    let (rest, last) = good.split_at(good.len() - 1);
    // The last letter of 60 bytes in base 64 carries six bits, so any other one is another token.
    let changed = format!("Bearer {rest}{}", if last == "A" { "B" } else { "A" });
    for authorization in [
        "",
        "Bearer",
        "Bearer ",
        "Bearer x",
        "Bearer é",
        "Basic eDp5",
        "DPoP abc",
        good,
        &changed,
        &format!("Bearer {good}A"),
        &format!("Bearer  {good}"),
        &format!("Bearer\t{good}"),
        &format!("Bearer {good}, Bearer {good}"),
        &format!("Bearer {}", good.to_uppercase()),
        &format!("Bearer {UPSTREAM_KEY}"),
        &format!("Bearer {}", tokens.refresh_token),
        &format!("Token {good}"),
        &format!("Bearer {}", "x".repeat(20_000)),
    ] {
        let answer = server.send(call_with("/mcp", &[authorization])).await;
        let answer = challenged(answer, "invalid_token");
        assert_eq!(answer.json()["error"], "invalid_token", "{authorization}");
    }
    assert!(server.upstream.received().is_empty());

    let request = call_with("/mcp", &[&format!("Bearer {good}")]);
    let _ = server.send(request).await.expect(200);
}

/// N-RS-04
#[tokio::test]
async fn the_scheme_is_read_in_any_case() {
    let (client, tokens) = signed_in().await;
    for scheme in ["bearer", "BEARER", "bEaReR"] {
        let request = call_with("/mcp", &[&format!("{scheme} {}", tokens.access_token)]);
        let _ = client.server.send(request).await.expect(200);
    }
}

/// RS-05, RS-18
#[tokio::test]
async fn a_token_that_this_store_does_not_know_is_invalid() {
    let (client, tokens) = signed_in().await;
    let elsewhere = TestServer::new();

    let answer = elsewhere.send(client.call_request(&tokens)).await;

    let _ = challenged(answer, "invalid_token");
    assert!(elsewhere.upstream.received().is_empty());
    let _ = client.call(&tokens).await.expect(200);
}

/// RS-18
#[tokio::test]
async fn a_token_of_another_issuer_is_invalid_even_with_the_same_key_and_store() {
    let store = Arc::<FaultyStore>::default();
    let here = TestServer::on(policy(&[("one", "/mcp")]), store.clone());
    let (client, tokens) = signed_in_to(&here).await;
    let there = TestServer::on(at_issuer("https://other.example"), store);

    let answer = there.send(client.call_request(&tokens)).await.expect(401);

    let challenge = answer.header("www-authenticate");
    assert!(challenge.contains("invalid_token"), "{challenge}");
    assert!(there.upstream.received().is_empty());
    let _ = client.call(&tokens).await.expect(200);
}

/// One upstream at `/mcp` of another public URL.
fn at_issuer(issuer: &str) -> Policy {
    let mut policy = policy(&[("one", "/mcp")]);
    policy.issuer = Issuer::parse(issuer).unwrap();
    let upstream = Arc::get_mut(&mut policy.upstreams[0]).unwrap();
    upstream.resource = Resource::at(&policy.issuer, "/mcp");
    policy
}

/// What two deployments have in common may be the key file and the store, by a copy or by mistake.
#[tokio::test]
async fn nothing_of_one_issuer_is_taken_by_another_even_with_the_same_key_and_store() {
    let store = Arc::<FaultyStore>::default();
    let here = TestServer::on(policy(&[("one", "/mcp")]), store.clone());
    let (client, tokens) = signed_in_to(&here).await;
    let code = client.code().await;
    let there = client.on(&TestServer::on(at_issuer("https://other.example"), store));

    for token in [&tokens.access_token, &tokens.refresh_token] {
        let _ = there.revoke(token).await.expect(200);
    }
    let _ = there.refresh(&tokens).await.refused(400, "invalid_grant");
    let _ = there
        .redeem_with(&code, &[("resource", None)])
        .await
        .refused(400, "invalid_grant");

    let _ = client.call(&tokens).await.expect(200);
    let _ = client.refresh(&tokens).await.expect(200);
    let _ = client.redeem(&code).await.expect(200);
}

/// What a token says is readable, and nothing of it can be changed.
#[tokio::test]
async fn no_token_can_be_made_to_last_longer_or_to_name_another_grant() {
    let server = TestServer::new();
    let (client, tokens) = signed_in_to(&server).await;
    let (_, others) = signed_in_to(&server).await;
    let bytes = |tokens: &Tokens| {
        let text = tokens.access_token.strip_prefix("mopa_").unwrap();
        BASE64_URL_SAFE_NO_PAD.decode(text).unwrap()
    };
    let (mine, theirs) = (bytes(&tokens), bytes(&others));
    let call = async |changed: &[u8]| {
        let access_token = format!("mopa_{}", BASE64_URL_SAFE_NO_PAD.encode(changed));
        let tokens = Tokens {
            access_token,
            ..tokens.clone()
        };
        client.call(&tokens).await
    };
    for hours in [1_i64, 24, 24 * 365] {
        let expires_at = i64::from_be_bytes(mine[20..28].try_into().unwrap());
        let mut longer = mine.clone();
        longer[20..28].copy_from_slice(&(expires_at + hours * 3600).to_be_bytes());
        let _ = challenged(call(&longer).await, "invalid_token");
    }
    let mut of_another = mine.clone();
    of_another[..16].copy_from_slice(&theirs[..16]);
    let _ = challenged(call(&of_another).await, "invalid_token");
    let mut later = mine.clone();
    later[19] += 1;
    let _ = challenged(call(&later).await, "invalid_token");
    let _ = call(&mine).await.expect(200);
}

/// What the listener takes for one framing, something behind it may take for another.
#[tokio::test]
async fn a_transfer_coding_that_can_be_read_in_two_ways_is_refused_before_anything_else() {
    let (client, tokens) = signed_in().await;
    let with_codings = |codings: &[&'static str]| {
        let mut request = client.call_request(&tokens);
        for coding in codings {
            let value = HeaderValue::from_static(coding);
            request
                .headers_mut()
                .append(header::TRANSFER_ENCODING, value);
        }
        request
    };
    for odd in [
        &["chunked", "chunked"][..],
        &["chunked, chunked"],
        &["gzip", "chunked"],
        &["gzip, chunked"],
        &["identity"],
        &["chunked", "identity"],
        &[""],
    ] {
        let _ = client.server.send(with_codings(odd)).await.expect(400);
    }
    assert!(client.server.upstream.received().is_empty());
    for plain in [&["chunked"][..], &["Chunked"], &[]] {
        let _ = client.server.send(with_codings(plain)).await.expect(200);
    }
}

/// RS-05, RS-23
#[tokio::test]
async fn an_expired_token_is_invalid_and_never_forbidden() {
    let (client, tokens) = signed_in().await;
    client.server.clock.advance(Duration::from_secs(3599));
    let _ = client.call(&tokens).await.expect(200);

    client.server.clock.advance(Duration::from_secs(1));
    let _ = challenged(client.call(&tokens).await, "invalid_token");

    assert_eq!(client.server.upstream.received().len(), 1);
}

/// RS-05, S2-12
#[tokio::test]
async fn a_revoked_token_is_invalid_at_once_and_another_clients_is_not() {
    let server = TestServer::new();
    let (one, its) = signed_in_to(&server).await;
    let (other, others) = signed_in_to(&server).await;
    let _ = one.call(&its).await.expect(200);

    let _ = one.revoke(&its.refresh_token).await.expect(200);

    let _ = challenged(one.call(&its).await, "invalid_token");
    let _ = other.call(&others).await.expect(200);
    let _ = other.refresh(&others).await.expect(200);
}

/// RS-26, N-RS-05
#[tokio::test]
async fn two_authorization_headers_are_a_malformed_request() {
    let (client, tokens) = signed_in().await;
    let server = &client.server;
    let good = format!("Bearer {}", tokens.access_token);
    for second in [good.as_str(), "Bearer x", "Basic eDp5", ""] {
        let answer = server.send(call_with("/mcp", &[&good, second])).await;
        let answer = answer.refused(400, "invalid_request");
        let challenge = answer.header("www-authenticate");
        assert!(
            challenge.contains("error=\"invalid_request\""),
            "{challenge}"
        );
    }
    assert!(server.upstream.received().is_empty());

    let _ = server.send(call_with("/mcp", &[&good])).await.expect(200);
}

/// RS-15, N-RS-10
#[tokio::test]
async fn a_token_anywhere_but_in_the_header_opens_nothing() {
    let (client, tokens) = signed_in().await;
    let server = &client.server;
    let token = tokens.access_token.as_str();

    let by_query = format!("/mcp?access_token={token}");
    let answer = server.send(call_with(&by_query, &[])).await.expect(401);
    assert_eq!(answer.header("www-authenticate"), CHALLENGE);

    let mut by_cookie = call_with("/mcp", &[]);
    let cookie = format!("access_token={token}; Authorization=Bearer {token}");
    by_cookie
        .headers_mut()
        .insert(header::COOKIE, cookie.parse().unwrap());
    let _ = server.send(by_cookie).await.expect(401);

    let by_form = support::form("/mcp", &[("access_token", token)]);
    let _ = server.send(by_form).await.expect(401);

    let twice = call_with(&by_query, &[&format!("Bearer {token}")]);
    let _ = server.send(twice).await.refused(400, "invalid_request");

    assert!(server.upstream.received().is_empty());
    let _ = client.call(&tokens).await.expect(200);
}

/// RS-16, PX-20
#[tokio::test]
async fn a_session_does_not_stand_in_for_a_token() {
    let (client, tokens) = signed_in().await;
    let server = &client.server;
    let started = Response::builder().header("mcp-session-id", "s-1");
    server
        .upstream
        .answers(started.body(Body::empty()).unwrap());
    let answer = client.call(&tokens).await.expect(200);
    let session = answer.header("mcp-session-id");

    for method in [Method::GET, Method::POST, Method::DELETE] {
        let request = request(method, "/mcp")
            .header("mcp-session-id", session)
            .body(Body::empty())
            .unwrap();
        let _ = server.send(request).await.expect(401);
    }
    assert_eq!(server.upstream.received().len(), 1);

    let request = call_saying(&client, &tokens, "mcp-session-id", session);
    let _ = server.send(request).await.expect(200);
}

/// RS-17, N-RS-11, N-RS-12
#[tokio::test]
async fn a_token_opens_the_one_resource_it_was_issued_for() {
    let paths = ["/mcp/a", "/mcp/ab", "/mcp/b"];
    let server = TestServer::with(policy(&[
        ("a", paths[0]),
        ("ab", paths[1]),
        ("b", paths[2]),
    ]));
    for own in paths {
        let client = server.mcp_client().await.at(own);
        let tokens = client.sign_in().await;
        for path in paths {
            let before = server.upstream.received().len();
            let answer = client.at(path).call(&tokens).await;
            if path == own {
                let _ = answer.expect(200);
                assert_eq!(server.upstream.received().len(), before + 1);
            } else {
                let answer = answer.expect(401);
                assert!(answer.header("www-authenticate").contains(&format!(
                    "resource_metadata=\"{ISSUER}/.well-known/oauth-protected-resource{path}\""
                )));
                assert_eq!(server.upstream.received().len(), before);
            }
        }
    }
}

/// N-RS-09, PX-05
#[tokio::test]
async fn every_spelling_of_the_path_is_guarded_and_only_the_plain_one_leads_on() {
    let (client, tokens) = signed_in().await;
    let server = &client.server;
    for path in [
        "/mcp/x",
        "//mcp",
        "/mcp//",
        "/./mcp",
        "/mcp/.",
        "/mcp/..",
        "/mcp/../mcp",
        "/mcp/../../etc",
        "/x/../mcp",
        "/mcp%2e",
        "/%6dcp",
        "/mcp%2f",
        "/mcp%2F..%2Fx",
        "/mcp/%2e%2e/x",
        "/mcp;x",
        "/mcp;x=/mcp",
        "/MCP",
        "/Mcp",
        "/mcp.css",
        "/mcp/style.css",
        "/mcp%00",
        "/mcp/%00",
        "/mcp/@evil.example",
        "/mcp/https://evil.example",
        "/mcp\\x",
    ] {
        let Ok(uri) = path.parse::<http::Uri>() else {
            continue;
        };
        let without = request(Method::POST, path).body(Body::empty()).unwrap();
        let answer = server.send(without).await;
        assert!([401, 404].contains(&answer.status.as_u16()), "{answer:#?}");
        let mut with = client.call_request(&tokens);
        *with.uri_mut() = uri;
        let answer = server.send(with).await.expect(404);
        assert!(!answer.text().contains("jsonrpc"));
    }
    assert!(server.upstream.received().is_empty());

    for path in ["/mcp", "/mcp?", "/mcp?a=/../b", "/mcp/"] {
        let mut with = client.call_request(&tokens);
        *with.uri_mut() = path.parse().unwrap();
        let _ = server.send(with).await.expect(200);
    }
}

/// RS-13
#[tokio::test]
async fn an_address_with_a_slash_at_its_end_is_served_and_described_with_it() {
    let (client, tokens) = signed_in().await;
    let server = &client.server;
    let answer = server.get("/mcp/").await.expect(401);
    let with_slash = CHALLENGE.replace("resource/mcp\"", "resource/mcp/\"");
    assert_eq!(answer.header("www-authenticate"), with_slash);
    let metadata = server
        .get("/.well-known/oauth-protected-resource/mcp/")
        .await
        .expect(200);
    assert_eq!(metadata.json()["resource"], "https://gw.example/mcp/");
    let mut request = client.call_request(&tokens);
    *request.uri_mut() = "/mcp/".parse().unwrap();

    let _ = server.send(request).await.expect(200);

    assert_eq!(server.upstream.last().uri().path(), "/mcp");
}

/// RS-14
#[tokio::test]
async fn a_query_breaks_neither_the_challenge_nor_the_metadata_nor_the_audience() {
    let (client, tokens) = signed_in().await;
    let server = &client.server;
    let answer = server.get("/mcp?utm=1").await.expect(401);
    assert_eq!(answer.header("www-authenticate"), CHALLENGE);
    let metadata = "/.well-known/oauth-protected-resource/mcp";
    let with_query = server.get(&format!("{metadata}?utm=1")).await.expect(200);
    assert_eq!(with_query.body, server.get(metadata).await.expect(200).body);

    let mut request = client.call_request(&tokens);
    *request.uri_mut() = "/mcp?utm=1".parse().unwrap();
    let _ = server.send(request).await.expect(200);
    assert_eq!(server.upstream.last().uri().query(), Some("utm=1"));
}

/// RS-24, N-RS-16
#[tokio::test]
async fn the_challenge_names_the_public_address_whatever_the_host_header_says() {
    let server = TestServer::new();
    for host in ["gw.example", "evil.example", "192.0.2.7:8080", "127.0.0.1"] {
        let request = Request::post("/mcp").header(header::HOST, host);
        let forwarded = request.header("x-forwarded-host", "evil.example");
        let answer = server.send(forwarded.body(Body::empty()).unwrap()).await;
        assert_eq!(answer.expect(401).header("www-authenticate"), CHALLENGE);
    }
}

/// N-RS-16 (RFC 9112 §3.2)
#[tokio::test]
async fn a_request_names_its_host_exactly_once() {
    let server = TestServer::new();
    let with = |hosts: &[&str]| {
        let mut request = Request::get("/health").body(Body::empty()).unwrap();
        for host in hosts {
            let value = host.parse().unwrap();
            request.headers_mut().append(header::HOST, value);
        }
        request
    };
    let _ = server.send(with(&["gw.example"])).await.expect(200);
    for hosts in [&[][..], &["gw.example", "gw.example"], &["a", "b"]] {
        let answer = server.send(with(hosts)).await;
        let _ = answer.refused(400, "invalid_request");
    }

    let mut old = with(&[]);
    *old.version_mut() = Version::HTTP_10;
    let _ = server.send(old).await.expect(200);
}

/// TL-16, N-RS-16, N-RS-18
#[tokio::test]
async fn a_proxy_for_this_computer_alone_answers_to_no_other_name() {
    let server = TestServer::with(at_issuer("http://127.0.0.1:8080"));
    let named = |host| {
        let request = Request::post("/mcp").header(header::HOST, host);
        request.body(Body::empty()).unwrap()
    };
    for host in ["evil.example", "evil.example:8080", "192.0.2.7", ""] {
        let answer = server.send(named(host)).await.expect(421);
        assert!(!answer.headers.contains_key(header::WWW_AUTHENTICATE));
    }
    for host in ["127.0.0.1:8080", "localhost:8080", "[::1]:8080"] {
        let _ = server.send(named(host)).await.expect(401);
    }
}

/// A proxy for this computer alone. The clients of these tests call it by another name.
fn for_this_computer() -> TestServer {
    let mut policy = at_issuer("http://127.0.0.1:8080");
    policy.aliases = vec![Alias::parse(ISSUER).unwrap()];
    policy.allowed_origins = vec!["https://app.example".to_owned()];
    TestServer::with(policy)
}

/// TL-15, N-RS-15: of a proxy for this computer alone.
#[tokio::test]
async fn a_page_of_a_foreign_origin_gets_403_for_every_method_with_or_without_a_token() {
    let (client, tokens) = signed_in_to(&for_this_computer()).await;
    let server = &client.server;
    for origin in [
        "https://evil.example",
        "null",
        "",
        "HTTPS://GW.EXAMPLE",
        "https://gw.example/",
        "https://gw.example/mcp",
        "https://gw.example:8443",
        "http://gw.example",
        "https://gw.example.evil.example",
        "https://app.example.evil.example",
        "http://localhost.evil.example",
        "http://127.0.0.1@evil.example",
        "http://localhost:3000/",
        "http://x@localhost:3000",
        "HTTP://LOCALHOST:3000",
        "http://192.168.0.7",
    ] {
        for method in [Method::GET, Method::POST, Method::DELETE, Method::OPTIONS] {
            let mut with = call_saying(&client, &tokens, "origin", origin);
            *with.method_mut() = method.clone();
            let without = request(method, "/mcp").header(header::ORIGIN, origin);
            for request in [with, without.body(Body::empty()).unwrap()] {
                let answer = server.send(request).await.refused(403, "forbidden");
                let description = answer.json()["error_description"].to_string();
                let origin_in_json = serde_json::Value::from(origin).to_string();
                assert!(description.contains(origin_in_json.trim_matches('"')));
                assert!(description.contains("allowed_origins"), "{description}");
                let told = server.journal.all().pop().unwrap();
                assert!(told.contains(&format!("origin: {origin:?}")), "{told}");
                assert!(!answer.headers.contains_key(header::WWW_AUTHENTICATE));
                let allowed = header::ACCESS_CONTROL_ALLOW_ORIGIN;
                assert!(!answer.headers.contains_key(allowed), "{origin}");
            }
        }
    }
    assert!(server.upstream.received().is_empty());

    for origin in [
        "https://gw.example",
        "https://app.example",
        "http://localhost:6274",
        "http://127.0.0.1:3000",
        "http://[::1]:3000",
    ] {
        let request = call_saying(&client, &tokens, "origin", origin);
        let answer = server.send(request).await.expect(200);
        assert_eq!(answer.header("access-control-allow-origin"), origin);
    }
    let _ = client.call(&tokens).await.expect(200);
}

/// Case 13: at a public address the token decides, as no browser adds it by itself. A page of any origin
/// is called with a good one, and may read the answer; the upstream never learns the origin.
#[tokio::test]
async fn at_a_public_address_the_token_decides_and_not_the_origin() {
    let (client, tokens) = signed_in().await;
    let server = &client.server;
    for origin in [
        "https://app.example",
        "chrome-extension://abcdefghijklmnop",
        "moz-extension://2f1c8a4e-7d53-4b08-9e6a-0c4d1b7a9f35",
        "app://obsidian.md",
        "capacitor://localhost",
        "null",
    ] {
        let call = call_saying(&client, &tokens, "origin", origin);
        let answer = server.send(call).await.expect(200);
        assert_eq!(answer.header("access-control-allow-origin"), origin);
        assert!(answer.header("vary").contains("Origin"));
        assert!(
            !server
                .upstream
                .last()
                .headers()
                .contains_key(header::ORIGIN)
        );

        let before = server.upstream.received().len();
        for bad in [&[][..], &["Bearer x"], &["Basic eDp5"]] {
            let mut call = call_with("/mcp", bad);
            let headers = call.headers_mut();
            headers.insert(header::ORIGIN, origin.parse().unwrap());
            // What a browser adds by itself opens nothing.
            headers.insert(header::COOKIE, "mcp=1".parse().unwrap());
            let answer = server.send(call).await.expect(401);
            assert_eq!(answer.header("access-control-allow-origin"), origin);
            let exposed = answer.header("access-control-expose-headers");
            assert!(exposed.contains("WWW-Authenticate"), "{exposed}");
            let challenge = answer.header("www-authenticate");
            assert!(challenge.contains("resource_metadata="), "{challenge}");
            let credentials = header::ACCESS_CONTROL_ALLOW_CREDENTIALS;
            assert!(!answer.headers.contains_key(credentials));
        }
        let preflight = request(Method::OPTIONS, "/mcp")
            .header(header::ORIGIN, origin)
            .header("access-control-request-method", "POST")
            .body(Body::empty());
        let answer = server.send(preflight.unwrap()).await.expect(204);
        assert_eq!(answer.header("access-control-allow-origin"), origin);
        assert_eq!(server.upstream.received().len(), before);
    }
}

/// Case 13: where people decide, a page of another origin still decides nothing.
#[tokio::test]
async fn a_foreign_page_cannot_approve_at_a_public_address() {
    let server = TestServer::new();
    let client = server.mcp_client().await;
    let query = client.authorization_with(&[]);
    let (browser, page) = client.opens(&query).await;
    let decision = [("secret", support::PASSPHRASE), ("decision", "approve")];
    for (origin, status) in [("https://app.example", 403), (ISSUER, 303)] {
        let mut form = browser.form(&page, &decision);
        let value = HeaderValue::from_static(origin);
        form.headers_mut().insert(header::ORIGIN, value);
        let answer = server.send(form).await.expect(status);
        let allowed = header::ACCESS_CONTROL_ALLOW_ORIGIN;
        assert!(!answer.headers.contains_key(allowed), "{origin}");
    }
}

/// S2-19, case 27: what passes to the upstream by the operator's wish may be sent too.
#[tokio::test]
async fn a_browser_page_is_told_what_it_may_send_and_may_read_every_answer() {
    const ASKED: &str = "authorization,mcp-name,x-mcp-toolsets";
    let (client, tokens) = signed_in().await;
    let server = &client.server;
    let preflight = |origin| {
        let request = request(Method::OPTIONS, "/mcp")
            .header(header::ORIGIN, origin)
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", ASKED);
        request.body(Body::empty()).unwrap()
    };

    let answer = server.send(preflight(ISSUER)).await.expect(204);
    assert_eq!(answer.header("access-control-allow-origin"), ISSUER);
    let allowed = answer.header("access-control-allow-headers");
    assert_eq!(allowed, ASKED);
    for method in ["GET", "POST", "DELETE"] {
        let methods = answer.header("access-control-allow-methods");
        assert!(methods.contains(method), "{methods}");
    }
    assert!(answer.body.is_empty());
    let local = for_this_computer();
    let _ = local
        .send(preflight("https://evil.example"))
        .await
        .expect(403);
    for server in [server, &local] {
        assert!(server.upstream.received().is_empty());
    }

    let good = call_saying(&client, &tokens, "origin", ISSUER);
    let mut bad = call_with("/mcp", &[]);
    let origin = HeaderValue::from_static(ISSUER);
    bad.headers_mut().insert(header::ORIGIN, origin);
    for (request, status) in [(good, 200), (bad, 401)] {
        let answer = server.send(request).await.expect(status);
        assert_eq!(answer.header("access-control-allow-origin"), ISSUER);
        let exposed = answer.header("access-control-expose-headers");
        assert!(exposed.contains("Mcp-Session-Id"), "{exposed}");
        assert!(exposed.contains("WWW-Authenticate"), "{exposed}");
        assert!(answer.header("vary").contains("Origin"));
        let credentials = header::ACCESS_CONTROL_ALLOW_CREDENTIALS;
        assert!(!answer.headers.contains_key(credentials));
    }
}

/// N-RS-19 (RFC 9110 §15.5.6)
#[tokio::test]
async fn methods_that_no_mcp_server_has_are_not_passed_on() {
    let (client, tokens) = signed_in().await;
    let server = &client.server;
    let long = "X".repeat(1024);
    for method in ["TRACE", "CONNECT", "PROPFIND", "post", long.as_str()] {
        let mut request = client.call_request(&tokens);
        *request.method_mut() = method.parse().unwrap();
        let answer = server.send(request).await.expect(405);
        let allow = answer.header("allow");
        assert!(
            allow.contains("POST") && !allow.contains("TRACE"),
            "{allow}"
        );
    }
    assert!(server.upstream.received().is_empty());

    for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
        let mut request = client.call_request(&tokens);
        *request.method_mut() = method.parse().unwrap();
        // What is no event stream is no answer to a GET for one.
        let status = if method == "GET" { 405 } else { 200 };
        let _ = server.send(request).await.expect(status);
        assert_eq!(server.upstream.last().method(), method);
    }
}

/// N-RS-21, N-RS-22, TL-18, S1-22
#[tokio::test]
async fn a_body_may_be_as_long_as_the_limit_with_or_without_a_declared_length() {
    let mut policy = policy(&[("one", "/mcp")]);
    policy.limits.mcp_body = 8;
    let (client, tokens) = signed_in_to(&TestServer::with(policy)).await;
    let server = &client.server;
    let call = |body: Body, length: Option<&str>| {
        let mut request = client.call_request(&tokens);
        *request.body_mut() = body;
        if let Some(length) = length {
            let value = length.parse().unwrap();
            request.headers_mut().insert(header::CONTENT_LENGTH, value);
        }
        request
    };
    for (request, status) in [
        (call(Body::empty(), None), 200),
        (call(Body::empty(), Some("0")), 200),
        (call(Body::from("12345678"), Some("8")), 200),
        (call(chunked(&[b"1234", b"5678"]), None), 200),
        (call(Body::from("123456789"), Some("9")), 413),
        (call(Body::empty(), Some("9999999999999999999")), 413),
        (call(chunked(&[b"1234", b"5678", b"9"]), None), 413),
        (call(chunked(&[b"123456789"]), None), 413),
    ] {
        let before = server.upstream.received().len();
        let answer = server.send(request).await.expect(status);
        let whole = server.upstream.received().len() - before;
        assert_eq!(whole, usize::from(status == 200), "{answer:#?}");
        if status == 413 {
            assert_eq!(answer.json()["error"]["code"], -32600);
        }
    }
    // It is the length that is refused, and only of whoever may call.
    let mut stranger = call(Body::from("123456789"), Some("9"));
    stranger.headers_mut().remove(header::AUTHORIZATION);
    let _ = server.send(stranger).await.expect(401);
}

/// N-RS-22, TL-18: the default limit lets four mebibytes through.
#[tokio::test]
async fn four_mebibytes_pass_by_default() {
    let (client, tokens) = signed_in().await;
    let mut request = client.call_request(&tokens);
    *request.body_mut() = Body::from(vec![b'x'; 4 << 20]);
    let _ = client.server.send(request).await.expect(200);
    assert_eq!(client.server.upstream.last().body().len(), 4 << 20);

    let mut request = client.call_request(&tokens);
    *request.body_mut() = Body::from(vec![b'x'; (4 << 20) + 1]);
    let _ = client.server.send(request).await.expect(413);
    assert_eq!(client.server.upstream.received().len(), 1);
}

/// N-RS-13: what counts is the moment at which the request arrived.
#[tokio::test]
async fn a_token_that_expires_during_an_upload_was_good_for_it() {
    let (client, tokens) = signed_in().await;
    let server = &client.server;
    let clock = Arc::clone(&server.clock);
    let mut request = client.call_request(&tokens);
    *request.body_mut() = Body::new(Upload(VecDeque::from([
        Box::new(|| Bytes::from_static(b"first ")) as Box<dyn FnMut() -> Bytes + Send>,
        Box::new(move || {
            clock.advance(Duration::from_hours(2));
            Bytes::from_static(b"last")
        }),
    ])));

    let _ = server.send(request).await.expect(200);

    assert_eq!(server.upstream.last().body(), "first last");
    let _ = challenged(client.call(&tokens).await, "invalid_token");
}

/// N-RS-14
#[tokio::test]
async fn a_revocation_refuses_the_next_request_and_ends_a_begun_stream() {
    let (client, tokens) = signed_in().await;
    let server = &client.server;
    let stream = Response::builder().header(header::CONTENT_TYPE, "text/event-stream");
    let events = chunked(&[b"data: 1\n\n", b"data: 2\n\n"]);
    server.upstream.answers(stream.body(events).unwrap());
    let response = server.front.answer(client.call_request(&tokens), HOME);
    let mut body = response.await.into_body();
    let first = in_time(body.frame())
        .await
        .unwrap()
        .unwrap()
        .into_data()
        .unwrap();
    assert_eq!(first, "data: 1\n\n");

    let _ = client.revoke(&tokens.refresh_token).await.expect(200);

    let _ = challenged(client.call(&tokens).await, "invalid_token");
    let rest = in_time(body.collect()).await.unwrap().to_bytes();
    assert_eq!(rest, "");
}

/// Whether the grant lives is one cached lookup.
#[tokio::test]
async fn a_token_seen_before_costs_no_store_access() {
    let (client, tokens) = signed_in().await;
    let server = &client.server;
    // The first use of a generation is written down once.
    let _ = client.call(&tokens).await.expect(200);
    let before = server.store.accesses();

    for _ in 0..100 {
        let _ = client.call(&tokens).await.expect(200);
    }
    assert_eq!(server.store.accesses(), before);

    // Nor do refused calls that no grant has anything to do with.
    for authorization in ["Bearer x", "Bearer mopa_x", "Basic eDp5"] {
        let request = call_with("/mcp", &[authorization]);
        let _ = server.send(request).await.expect(401);
    }
    assert_eq!(server.store.accesses(), before);

    let second = Tokens::of(&client.refresh(&tokens).await.expect(200));
    let _ = client.call(&second).await.expect(200);
    let before = server.store.accesses();
    for tokens in [&tokens, &second] {
        let _ = client.call(tokens).await.expect(200);
    }
    assert_eq!(
        server.store.accesses(),
        before,
        "rotation ends no access token"
    );
}

/// A process that believes what it read for five seconds, on a store that others write too.
fn one_of_several(store: &Arc<FaultyStore>) -> TestServer {
    let mut policy = policy(&[("one", "/mcp")]);
    policy.grant_freshness = Some(Duration::from_secs(5));
    TestServer::on(policy, Arc::clone(store))
}

/// PX-19: revoked here at once, elsewhere within five seconds.
#[tokio::test]
async fn another_process_sees_a_revocation_within_five_seconds() {
    let store = Arc::default();
    let (here, there) = (one_of_several(&store), one_of_several(&store));
    let (client, tokens) = signed_in_to(&here).await;
    let (other, others) = signed_in_to(&here).await;
    let elsewhere = McpClient {
        server: there.clone(),
        ..client.clone()
    };
    let _ = elsewhere.call(&tokens).await.expect(200);

    let _ = client.revoke(&tokens.access_token).await.expect(200);
    let _ = challenged(client.call(&tokens).await, "invalid_token");

    there.clock.advance(Duration::from_secs(5));
    let _ = challenged(elsewhere.call(&tokens).await, "invalid_token");
    assert_eq!(there.upstream.received().len(), 1);
    let theirs = McpClient {
        server: there.clone(),
        ..other
    };
    let _ = theirs.call(&others).await.expect(200);
}

/// S5-15, PX-19: what one process began another goes on with, without sticky sessions.
#[tokio::test]
async fn processes_on_one_store_share_clients_codes_and_tokens() {
    let store = Arc::default();
    let (one, two) = (one_of_several(&store), one_of_several(&store));
    let client = one.mcp_client().await;
    let elsewhere = McpClient {
        server: two.clone(),
        ..client.clone()
    };
    let code = client.code().await;
    let first = Tokens::of(&elsewhere.redeem(&code).await.expect(200));
    let _ = client.call(&first).await.expect(200);
    let second = Tokens::of(&client.refresh(&first).await.expect(200));
    let _ = elsewhere.call(&second).await.expect(200);
}

/// A store in trouble is no refusal.
#[tokio::test]
async fn known_tokens_work_on_while_the_store_is_down_as_long_as_they_are_fresh() {
    let store = Arc::default();
    let server = one_of_several(&store);
    let (client, tokens) = signed_in_to(&server).await;
    let _ = client.call(&tokens).await.expect(200);
    store.set_down(true);

    server.clock.advance(Duration::from_secs(4));
    let _ = client.call(&tokens).await.expect(200);

    server.clock.advance(Duration::from_secs(1));
    let answer = client.call(&tokens).await.expect(503);
    assert_eq!(answer.header("retry-after"), "5");
    assert!(!answer.headers.contains_key(header::WWW_AUTHENTICATE));
    assert_eq!(server.upstream.received().len(), 2);

    store.set_down(false);
    let _ = client.call(&tokens).await.expect(200);
}

/// The only process on its store needs it for nothing that it knows.
#[tokio::test]
async fn known_tokens_of_a_single_process_need_no_store_at_all() {
    let (client, tokens) = signed_in().await;
    client.server.store.set_down(true);
    client.server.clock.advance(Duration::from_mins(30));
    let _ = client.call(&tokens).await.expect(200);
}

/// S5-22
#[tokio::test]
async fn health_says_that_the_process_lives_and_readiness_that_it_can_work() {
    let server = TestServer::new();
    let _ = server.get("/health").await.expect(200);
    let _ = server.get("/ready").await.expect(200);

    // What was seen is believed for two seconds.
    server.clock.advance(Duration::from_secs(2));
    server.store.set_down(true);
    let _ = server.get("/health").await.expect(200);
    let answer = server.get("/ready").await.expect(503);
    assert_eq!(answer.header("retry-after"), "5");

    server.store.set_down(false);
    server.clock.advance(Duration::from_secs(2));
    let _ = server.get("/ready").await.expect(200);
}

/// TM-07, S5-18
#[tokio::test]
async fn our_own_not_found_is_no_message_of_the_protocol() {
    let (client, tokens) = signed_in().await;
    let server = &client.server;
    for path in ["/nope", "/mcp/nope", "/metrics", "/admin", "/debug"] {
        let mut request = client.call_request(&tokens);
        *request.uri_mut() = path.parse().unwrap();
        let answer = server.send(request).await.refused(404, "not_found");
        assert!(!answer.text().contains("jsonrpc"));
    }
    assert!(server.upstream.received().is_empty());
}

/// A body that asks a method of one thing, with an argument.
fn calling(method: &str, member: &str, name: &str) -> Body {
    let params = json!({ member: name, "arguments": { "city": "Argumentville" } });
    let call = json!({ "jsonrpc": "2.0", "id": 7, "method": method, "params": params });
    Body::from(call.to_string())
}

/// PX-16, S5-19: one event for each call, with who, where and why, and nothing secret.
#[tokio::test]
async fn every_call_is_in_the_journal_and_no_token_is() {
    let (client, tokens) = signed_in().await;
    let server = &client.server;
    let mut call = call_saying(&client, &tokens, "mcp-method", "tools/call");
    let tool = HeaderValue::from_static("send_message");
    call.headers_mut().insert("mcp-name", tool);
    *call.body_mut() = calling("tools/call", "name", "send_message");
    let _ = server.send(call).await.expect(200);
    let _ = server.get("/mcp").await.expect(401);
    let bad = format!("Bearer {}x", tokens.access_token);
    let _ = server.send(call_with("/mcp", &[&bad])).await.expect(401);
    let local = for_this_computer();
    let evil = call_saying(&client, &tokens, "origin", "https://evil.example");
    let _ = local.send(evil).await.expect(403);

    let mut events = server.journal.all();
    events.extend(local.journal.all());
    assert_eq!(server.journal.count("CallForwarded"), 1, "{events:#?}");
    let forwarded = events
        .iter()
        .find(|event| event.starts_with("CallForwarded"));
    for part in [
        client.client_id.as_str(),
        "subject: \"owner\"",
        "method: POST",
        "Some(\"tools/call\")",
        "Some(\"send_message\")",
        "status: 200",
        "name: \"one\"",
    ] {
        assert!(forwarded.unwrap().contains(part), "{part}: {forwarded:?}");
    }
    for (event, why) in [
        ("CallRefused", "NoToken"),
        ("CallRefused", "InvalidToken"),
        ("OriginRefused", "origin: \"https://evil.example\""),
    ] {
        let refused = events
            .iter()
            .find(|it| it.starts_with(event) && it.contains(why) && it.contains("one"));
        assert!(refused.is_some(), "{why}: {events:#?}");
    }
    let text = events.join("\n");
    for secret in [
        tokens.access_token.as_str(),
        &tokens.refresh_token,
        UPSTREAM_KEY,
        &encoded(&[("k", UPSTREAM_KEY)]),
    ] {
        assert!(!text.contains(secret));
    }
}

/// PX-16: whatever comes of a call is told once, with who called; what a call is about is not.
#[tokio::test]
async fn a_call_is_told_once_with_its_caller_and_without_its_arguments() {
    let (client, tokens) = signed_in().await;
    let server = &client.server;
    let asking = |method: &str, name: &str| {
        let mut request = call_saying(&client, &tokens, "mcp-method", method);
        let headers = request.headers_mut();
        headers.insert("mcp-name", name.parse().unwrap());
        headers.insert("mcp-param-city", "Argumentville".parse().unwrap());
        let member = if method == "tools/call" {
            "name"
        } else {
            "uri"
        };
        *request.body_mut() = calling(method, member, name);
        request
    };
    let address = "file:///home/argument";
    let _ = server.send(asking("resources/read", address)).await;
    let long = "x".repeat(500);
    let _ = server.send(asking("tools/call", &long)).await;
    let mut foreign = asking("tools/call", "look_up");
    let session = HeaderValue::from_static("made up");
    foreign.headers_mut().insert("mcp-session-id", session);
    let _ = server.send(foreign).await.expect(404);
    server.upstream.fails(UpstreamError::TimedOut);
    let _ = server.send(asking("tools/call", "look_up")).await;
    let failed = Response::builder().status(401).body(Body::empty());
    server.upstream.answers(failed.unwrap());
    let _ = server.send(asking("tools/call", "look_up")).await;

    let events = server.journal.all();
    let calls: Vec<_> = events.iter().filter(|it| it.contains("Call {")).collect();
    let [read, long_one, refused, timed_out, failed] = calls[..] else {
        panic!("{calls:#?}")
    };
    let caller = format!(
        "Caller {{ subject: \"owner\", client_id: ClientId(\"{}\") }}",
        client.client_id
    );
    assert!(
        calls.iter().all(|call| call.contains(&caller)),
        "{calls:#?}"
    );
    assert!(read.contains("Some(\"resources/read\")") && read.contains(" tool: None"));
    assert!(long_one.contains(&long[..128]) && !long_one.contains(&long[..129]));
    for (event, status) in [(refused, 404), (timed_out, 504), (failed, 502)] {
        assert!(event.contains("Some(\"look_up\")"), "{event}");
        assert!(event.contains(&format!("status: {status}")), "{event}");
    }
    assert!(!events.join("\n").to_lowercase().contains("argument"));
}

/// Pain 5 of the newcomers: people test an address by opening it.
#[tokio::test]
async fn an_address_that_is_opened_in_a_browser_is_a_page_that_says_what_to_do() {
    let browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
    let open = async |server: &TestServer, path: &str, accept: &str| {
        let request = request(Method::GET, path).header(header::ACCEPT, accept);
        server.send(request.body(Body::empty()).unwrap()).await
    };
    let server = TestServer::new();
    for path in ["/mcp", "/mcp/"] {
        let program = open(&server, path, "application/json, text/event-stream").await;
        let program = program.refused(401, "unauthorized");
        // Whatever a client adds to it.
        let odd = open(
            &server,
            path,
            "application/json, text/event-stream, text/html",
        )
        .await;
        let _ = odd.refused(401, "unauthorized");
        let page = open(&server, path, browser).await.expect(401);
        assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
        // The challenge is as complete as ever.
        let challenge = program.header("www-authenticate");
        assert_eq!(page.header("www-authenticate"), challenge);
        for said in [
            "Server one",
            &format!("{ISSUER}{path}<"),
            &format!("claude mcp add --transport http one {ISSUER}{path}<"),
        ] {
            assert!(page.text().contains(said), "{said}: {page:#?}");
        }
        assert!(
            page.header("content-security-policy")
                .contains("default-src 'none'")
        );
    }
    let two = TestServer::with_two_upstreams();
    let page = open(&two, "/mcp/b", browser).await.expect(401);
    assert!(page.text().contains("http b https://gw.example/mcp/b<"));

    for (path, status) in [("/nowhere", 404), ("/consent", 405), ("/token", 405)] {
        let json = open(&two, path, "*/*").await.expect(status);
        assert_eq!(json.header("content-type"), "application/json");
        let page = open(&two, path, browser).await.expect(status);
        assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
        assert_eq!(page.headers.get("allow"), json.headers.get("allow"));
        assert!(page.text().contains("What to do now"), "{page:#?}");
        // What is behind a public proxy no page tells.
        assert!(!page.text().contains("/mcp/a"), "{page:#?}");
    }
    // With a token it is a call, whatever it accepts; and documents stay documents.
    let client = server.mcp_client().await;
    let tokens = client.sign_in().await;
    let mut call = client.call_request(&tokens);
    *call.method_mut() = Method::GET;
    call.headers_mut()
        .insert(header::ACCEPT, browser.parse().unwrap());
    let _ = server.send(call).await.expect(200);
    let metadata = open(&server, "/.well-known/oauth-authorization-server", browser).await;
    assert!(metadata.expect(200).json()["issuer"].is_string());
}
