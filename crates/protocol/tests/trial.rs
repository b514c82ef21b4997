//! What the proxy finds out about an upstream by asking it once: each way to be wrong has a name of
//! its own, which is the name that a failing call has.

#![expect(clippy::unwrap_used, reason = "all of this is a test")]

mod support;

use std::{sync::Arc, time::Duration};

use axum::body::Body;
use futures_util::FutureExt as _;
use http::{Response, StatusCode, header};
use protocol::{
    forward::credential::Credential,
    policy::{Destination, Policy},
    ports::UpstreamError,
};
use support::{TestServer, UPSTREAM_KEY, in_time, policy};

const ANSWER: &str = r#"{"jsonrpc":"2.0","id":1,"result":{"protocolVersion":"2025-06-18","capabilities":{},"serverInfo":{"name":"Tickets","version":"3.1"}}}"#;
const ANSWERS: &str = r#"UpstreamTried { upstream: "one", outcome: Answered(About { name: Some("Tickets"), version: Some("3.1"), revision: Some(2025-06-18) }) }"#;
const OLD_STREAM: &str = "event: endpoint\ndata: /messages?session=1\n\n";

fn answer(status: u16, kind: &str, body: &'static str) -> Response<Body> {
    let answer = Response::builder().status(status);
    let answer = answer.header(header::CONTENT_TYPE, kind);
    answer.body(Body::from(body)).unwrap()
}

fn json(status: u16, body: &'static str) -> Response<Body> {
    answer(status, "application/json", body)
}

/// The one upstream, elsewhere and with another credential.
fn at(endpoint: &str, credential: Credential) -> Policy {
    let mut policy = policy(&[("one", "/mcp")]);
    let upstream = Arc::get_mut(&mut policy.upstreams[0]).unwrap();
    upstream.destination = Destination::Remote {
        endpoint: endpoint.parse().unwrap(),
        credential,
    };
    policy
}

/// Tries the upstream of a policy, which answers so, and returns what the journal has of it.
async fn tried(
    policy: Policy,
    answers: impl IntoIterator<Item = Result<Response<Body>, UpstreamError>>,
) -> (TestServer, String) {
    let server = TestServer::with(policy);
    for answer in answers {
        server.upstream.tells(answer);
    }
    in_time(server.app.try_upstreams()).await;
    let mut events = server.journal.all();
    let event = events.pop().unwrap();
    assert!(events.is_empty(), "{events:?}");
    (server, event)
}

/// The same with the upstream as it is usually.
async fn outcome(answers: impl IntoIterator<Item = Response<Body>>) -> String {
    let usual = policy(&[("one", "/mcp")]);
    tried(usual, answers.into_iter().map(Ok)).await.1
}

#[track_caller]
fn failed(event: &str, why: &str) {
    let is_so = event.starts_with("UpstreamTried") && event.contains(&format!("why: {why}, "));
    assert!(is_so, "{why}: {event}");
}

#[tokio::test]
async fn a_server_that_answers_says_what_it_is_and_its_session_is_ended() {
    let mut opened = json(200, ANSWER);
    let headers = opened.headers_mut();
    headers.insert("mcp-session-id", "s-1".parse().unwrap());
    let (server, event) = tried(policy(&[("one", "/mcp")]), [Ok(opened)]).await;
    assert_eq!(event, ANSWERS);
    let asked = server.upstream.asked();
    let [initialize, delete] = &asked[..] else {
        unreachable!("{asked:?}")
    };
    assert_eq!(initialize.method(), "POST");
    assert_eq!(initialize.uri(), "https://one.upstream.example/mcp");
    let body: serde_json::Value = serde_json::from_slice(initialize.body()).unwrap();
    assert_eq!(body["method"], "initialize");
    assert_eq!(body["params"]["clientInfo"]["name"], "mcp-oauth-proxy");
    assert_eq!(delete.method(), "DELETE");
    assert_eq!(delete.headers()["mcp-session-id"], "s-1");
    assert_eq!(delete.headers()["mcp-protocol-version"], "2025-06-18");
    for request in &asked {
        let headers = request.headers();
        let key = format!("Bearer {UPSTREAM_KEY}");
        assert_eq!(headers["authorization"], *key);
        let name = headers["cdn-loop"].to_str().unwrap();
        assert!(name.starts_with("mcp-oauth-proxy-"), "{name}");
        assert!(headers.contains_key("user-agent"));
    }
    // Nothing went by way of a call.
    assert!(server.upstream.received().is_empty());

    // Where there is no session, none is ended; and a stream is an answer too.
    let stream = "event: message\ndata: {\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"protocolVersion\":\"2025-06-18\",\"serverInfo\":{\"name\":\"Tickets\",\"version\":\"3.1\"}}}\n\n";
    let stream = Ok(answer(200, "text/event-stream", stream));
    let (server, event) = tried(policy(&[("one", "/mcp")]), [stream]).await;
    assert_eq!(event, ANSWERS);
    assert_eq!(server.upstream.asked().len(), 1);
}

#[tokio::test]
async fn a_server_of_the_newer_era_only_counts_as_well() {
    const MODERN: &str = r#"{"jsonrpc":"2.0","id":1,"result":{"supportedVersions":["2026-07-28"],"_meta":{"io.modelcontextprotocol/serverInfo":{"name":"New","version":"1"}}}}"#;
    for (status, refusal) in [
        (
            404,
            r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32601,"message":"unknown"}}"#,
        ),
        (
            400,
            r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32020,"message":"no header"}}"#,
        ),
        (
            200,
            r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32022,"message":"version"}}"#,
        ),
    ] {
        let answers = [Ok(json(status, refusal)), Ok(json(200, MODERN))];
        let (server, event) = tried(policy(&[("one", "/mcp")]), answers).await;
        assert!(
            event.contains("Answered(About { name: Some(\"New\")"),
            "{event}"
        );
        let asked = server.upstream.asked();
        assert_eq!(asked[1].headers()["mcp-method"], "server/discover");
        assert_eq!(asked[1].headers()["mcp-protocol-version"], "2026-07-28");

        // Where that fails too, the error is told, without the server's words for it.
        let refused = outcome([json(status, refusal), json(status, refusal)]).await;
        failed(&refused, "NoMcp");
        assert!(!refused.contains("no header"), "{refused}");
    }
}

#[tokio::test]
async fn each_way_to_be_wrong_has_its_own_name() {
    let with = |name: &'static str, value: &str, mut answer: Response<Body>| {
        answer.headers_mut().insert(name, value.parse().unwrap());
        answer
    };
    let page = |status| answer(status, "text/html", "<h1>Hello</h1>");
    for (answer, why) in [
        (json(401, ""), "CredentialRefused"),
        (json(403, ""), "CallForbidden"),
        (
            json(403, r#"{"error":"Invalid Host: one.upstream.example"}"#),
            "HostRefused",
        ),
        (json(404, ""), "NothingThere"),
        (json(405, ""), "NothingThere"),
        (page(200), "Page"),
        (page(404), "NothingThere"),
        (page(405), "NothingThere"),
        (json(200, r#"{"ok":true}"#), "NoMcp"),
        (answer(202, "text/plain", ""), "NoMcp"),
        (json(500, ""), "ServerError"),
        (json(429, ""), "ServerError"),
        (json(508, ""), "Looped"),
        (
            with("location", "https://two.example/mcp?key=x", json(302, "")),
            "Redirected",
        ),
        (answer(200, "text/event-stream", OLD_STREAM), "OldTransport"),
    ] {
        let event = outcome([answer]).await;
        failed(&event, why);
        assert!(!event.contains("key=x"), "{event}");
        if why == "Redirected" {
            assert!(event.contains("https://two.example/mcp"), "{event}");
        }
    }
}

#[tokio::test]
async fn without_a_credential_none_is_blamed() {
    let none = || at("https://one.upstream.example/mcp", Credential::None);
    let event = tried(none(), [Ok(json(401, ""))]).await.1;
    failed(&event, "CredentialMissing");
    let mut oauth = json(401, "");
    let challenge = r#"Bearer resource_metadata="https://one.upstream.example/.well-known/x""#;
    let headers = oauth.headers_mut();
    headers.insert("www-authenticate", challenge.parse().unwrap());
    failed(&tried(none(), [Ok(oauth)]).await.1, "SignInDemanded");
}

/// A server of 2024 refuses a `POST`, in its framework's words, and opens its stream at a `GET`.
#[tokio::test]
async fn the_transport_of_2024_is_recognised() {
    let stream = || answer(200, "text/event-stream", OLD_STREAM);
    for refusal in [
        json(404, ""),
        json(405, ""),
        answer(404, "text/html", "Cannot POST /sse"),
    ] {
        let (server, event) = tried(policy(&[("one", "/mcp")]), [Ok(refusal), Ok(stream())]).await;
        failed(&event, "OldTransport");
        let asked = server.upstream.asked();
        assert_eq!(asked[1].method(), "GET");
        assert_eq!(asked[1].headers()["accept"], "text/event-stream");
    }
    // Any other stream is none of it.
    let other = answer(200, "text/event-stream", "data: {}\n\n");
    failed(&outcome([json(404, ""), other]).await, "NothingThere");
    // And nobody looks where a `POST` is taken.
    failed(&outcome([json(200, "{}"), stream()]).await, "NoMcp");
}

#[tokio::test]
async fn no_answer_is_told_by_its_cause() {
    for (error, why) in [
        (
            UpstreamError::Unreachable("no such host".into()),
            "Unreachable",
        ),
        (UpstreamError::NoTls("no handshake".into()), "NoTls"),
        (UpstreamError::TimedOut, "TimedOut"),
        (UpstreamError::Broken("reset".into()), "Broken"),
    ] {
        let (server, event) = tried(policy(&[("one", "/mcp")]), [Err(error)]).await;
        failed(&event, why);
        assert_eq!(server.upstream.asked().len(), 1, "{event}");
    }
}

/// What closes on a call without TLS may be waiting for one with it. It is asked with nothing of ours.
#[tokio::test]
async fn a_port_that_wants_tls_is_told_from_one_that_is_broken() {
    let plain = || {
        at(
            "http://one.upstream.example:8443/mcp?a=b",
            Credential::bearer("k-1").unwrap(),
        )
    };
    let closed = || Err(UpstreamError::Broken("closed".into()));
    let (server, event) = tried(plain(), [closed(), Ok(json(404, ""))]).await;
    failed(&event, "WantsTls");
    let asked = server.upstream.asked();
    assert_eq!(asked[1].uri(), "https://one.upstream.example:8443/");
    assert!(asked[1].headers().is_empty());
    let no_tls = Err(UpstreamError::NoTls("no".into()));
    failed(&tried(plain(), [closed(), no_tls]).await.1, "Broken");

    let nginx = "The plain HTTP request was sent to HTTPS port";
    let says_so = || answer(400, "text/html", nginx);
    failed(&tried(plain(), [Ok(says_so())]).await.1, "WantsTls");
    // Where TLS is spoken, that is something else.
    failed(&outcome([says_so()]).await, "Page");
}

#[tokio::test]
async fn a_redirect_within_the_origin_is_followed_as_in_a_call() {
    let mut moved = json(307, "");
    moved
        .headers_mut()
        .insert("location", "/mcp/".parse().unwrap());
    let (server, event) = tried(
        policy(&[("one", "/mcp")]),
        [Ok(moved), Ok(json(200, ANSWER))],
    )
    .await;
    assert_eq!(event, ANSWERS);
    let asked = server.upstream.asked();
    assert_eq!(asked[1].uri(), "https://one.upstream.example/mcp/");
    assert_eq!(asked[1].body(), asked[0].body());
}

#[tokio::test]
async fn a_trial_ends_after_ten_seconds() {
    let server = TestServer::new();
    let silent =
        Body::from_stream(futures_util::stream::pending::<Result<&[u8], std::io::Error>>());
    let mut answer = json(200, "");
    *answer.body_mut() = silent;
    server.upstream.tells(Ok(answer));
    let mut trying = Box::pin(server.app.try_upstreams());
    assert!(trying.as_mut().now_or_never().is_none());
    server.clock.advance(Duration::from_secs(9));
    assert!(trying.as_mut().now_or_never().is_none());
    server.clock.advance(Duration::from_secs(2));
    in_time(trying).await;
    failed(&server.journal.all().pop().unwrap(), "TimedOut");
}

#[tokio::test]
async fn what_is_part_of_the_program_is_not_tried() {
    let mut policy = policy(&[("one", "/mcp")]);
    Arc::get_mut(&mut policy.upstreams[0]).unwrap().destination = Destination::Demo;
    let server = TestServer::with(policy);
    in_time(server.app.try_upstreams()).await;
    assert!(server.upstream.asked().is_empty() && server.journal.all().is_empty());
    assert_eq!(server.get("/mcp").await.status, StatusCode::UNAUTHORIZED);
}
