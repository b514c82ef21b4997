//! What a client hears of answers that are no plain success: the server's own words where they
//! answer its request, and else what happened and who can mend it.

#![expect(clippy::unwrap_used, reason = "all of this is a test")]

mod support;

use std::sync::Arc;

use axum::body::Body;
use http::{Method, Request, Response, header};
use protocol::{
    forward::credential::Credential,
    policy::{Destination, Policy},
    ports::UpstreamError,
};
use support::{
    Answer, TestServer,
    client::{McpClient, Tokens},
    policy,
};

const READ: &str = r#"{"jsonrpc":"2.0","id":7,"method":"resources/read","params":{"uri":"x://y"}}"#;
const DISCOVER: &str = r#"{"jsonrpc":"2.0","id":7,"method":"server/discover","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}"#;

struct Caller {
    client: McpClient,
    tokens: Tokens,
}

impl Caller {
    async fn of(policy: Policy) -> Self {
        let server = TestServer::with(policy);
        let client = server.mcp_client().await;
        let tokens = client.sign_in().await;
        Self { client, tokens }
    }

    async fn new() -> Self {
        Self::of(policy(&[("one", "/mcp")])).await
    }

    fn server(&self) -> &TestServer {
        &self.client.server
    }

    fn request(&self, body: &str) -> Request<Body> {
        let mut request = self.client.call_request(&self.tokens);
        *request.body_mut() = Body::from(body.to_owned());
        request
    }

    /// Sends `body` to an upstream that answers so.
    async fn hears(&self, body: &str, answer: Response<Body>) -> Answer {
        self.server().upstream.answers(answer);
        self.server().send(self.request(body)).await
    }

    async fn listens(&self, answer: Response<Body>) -> Answer {
        self.server().upstream.answers(answer);
        let mut request = self.request("");
        *request.method_mut() = Method::GET;
        let stream = "text/event-stream".parse().unwrap();
        request.headers_mut().insert(header::ACCEPT, stream);
        self.server().send(request).await
    }

    fn last_event(&self) -> String {
        self.server().journal.all().pop().unwrap()
    }
}

fn answer(status: u16, headers: &[(&str, &str)], body: &'static str) -> Response<Body> {
    let mut answer = Response::builder().status(status);
    for (name, value) in headers {
        answer = answer.header(*name, *value);
    }
    answer.body(Body::from(body)).unwrap()
}

fn json(status: u16, body: &'static str) -> Response<Body> {
    answer(status, &[("content-type", "application/json")], body)
}

fn page(status: u16, headers: &[(&str, &str)]) -> Response<Body> {
    let mut page = answer(status, headers, "<html><h1>Forbidden</h1></html>");
    let kind = "text/html; charset=utf-8".parse().unwrap();
    page.headers_mut().insert(header::CONTENT_TYPE, kind);
    page
}

/// Insists on an error of the proxy for the request of that id, in these words.
#[track_caller]
fn failed(answer: &Answer, status: u16, id: i64, words: &str) {
    assert_eq!(answer.status.as_u16(), status, "{answer:#?}");
    assert_eq!(answer.json()["error"]["code"], -32000, "{answer:#?}");
    assert_eq!(answer.json()["id"], id, "{answer:#?}");
    assert!(answer.text().contains(words), "{answer:#?}");
}

/// The one upstream, without a credential.
fn without_credential() -> Policy {
    let mut policy = policy(&[("one", "/mcp")]);
    let upstream = Arc::get_mut(&mut policy.upstreams[0]).unwrap();
    upstream.destination = Destination::Remote {
        endpoint: "https://one.upstream.example/mcp".parse().unwrap(),
        credential: Credential::None,
    };
    policy
}

/// Case 19: what answers the request reaches the client, whole, at a status at which it is read.
#[tokio::test]
async fn an_answer_to_the_request_reaches_the_client_whatever_its_status() {
    const RESULT: &str = r#"{"id":7.0,"jsonrpc":"2.0","result":{}}"#;
    const ANSWER: &str =
        r#"{"jsonrpc":"2.0","id":7,"error":{"code":-32603,"message":"page 12 does not exist"}}"#;
    let caller = Caller::new().await;
    for status in [401, 403, 404, 500, 502, 503, 599] {
        let heard = caller.hears(READ, json(status, ANSWER)).await.expect(200);
        assert_eq!(heard.text(), ANSWER);
        let told = caller.last_event();
        assert!(
            told.contains(&format!("upstream_status: Some({status})")),
            "{told}"
        );
    }
    // What is wrong with the credential is the operator's to know all the same.
    let _ = caller.hears(READ, json(401, ANSWER)).await.expect(200);
    assert!(caller.last_event().contains("why: CredentialRefused"));
    // A result is an answer too, and an id may be written in another way.
    let heard = caller
        .hears(&READ.replace('7', "7.0"), json(500, RESULT))
        .await;
    assert_eq!(heard.expect(200).text(), RESULT);
    // Statuses that mislead nobody stay as they are.
    let heard = caller.hears(READ, json(422, ANSWER)).await.expect(422);
    assert_eq!(heard.text(), ANSWER);

    // What answers another request, or none, does not.
    for other in [
        r#"{"jsonrpc":"2.0","id":8,"error":{"code":-32603,"message":"theirs"}}"#,
        r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32603,"message":"theirs"}}"#,
        r#"{"jsonrpc":"2.0","id":7,"method":"x"}"#,
        r#"[{"jsonrpc":"2.0","id":7,"result":{}}]"#,
        "theirs",
    ] {
        let heard = caller.hears(READ, json(500, other)).await;
        failed(&heard, 502, 7, "failed");
        assert!(!heard.text().contains("theirs"));
    }
}

/// The same within a session, where the request passes unread unless something is wrong.
#[tokio::test]
async fn an_answer_in_a_session_reaches_the_client_too() {
    const ANSWER: &str = r#"{"jsonrpc":"2.0","id":7,"error":{"code":-32603,"message":"no"}}"#;
    let caller = Caller::new().await;
    let opened = answer(200, &[("mcp-session-id", "s-1")], "{}");
    let opened = caller
        .hears(r#"{"id":0,"method":"initialize"}"#, opened)
        .await;
    let session = opened.expect(200).header("mcp-session-id").to_owned();
    let in_session = async |answer| {
        caller.server().upstream.answers(answer);
        let mut request = caller.request(READ);
        request
            .headers_mut()
            .insert("mcp-session-id", session.parse().unwrap());
        caller.server().send(request).await
    };
    assert_eq!(
        in_session(json(500, ANSWER)).await.expect(200).text(),
        ANSWER
    );
    failed(&in_session(json(500, "{}")).await, 502, 7, "failed");
    assert_eq!(caller.server().upstream.last().body(), READ);
}

/// Every error that the proxy makes carries the id of the request.
#[tokio::test]
async fn an_error_of_the_proxy_carries_the_id_of_the_request() {
    let caller = Caller::new().await;
    for (id, error, status) in [
        ("7", UpstreamError::TimedOut, 504),
        ("\"a\\u0062\"", UpstreamError::Broken("reset".into()), 502),
        ("-1.50", UpstreamError::Unreachable("no route".into()), 502),
    ] {
        caller.server().upstream.fails(error);
        let body = READ.replace('7', id);
        let heard = caller
            .server()
            .send(caller.request(&body))
            .await
            .expect(status);
        assert!(
            heard.text().contains(&format!("\"id\":{id},")),
            "{heard:#?}"
        );
    }
    // Of what cannot be read there is no id.
    caller.server().upstream.fails(UpstreamError::TimedOut);
    let heard = caller
        .server()
        .send(caller.request("no JSON"))
        .await
        .expect(504);
    assert!(heard.json()["id"].is_null());
    // Nor of what is too long to be kept, in a session.
    let twice = [("mcp-method", "resources/read"), ("mcp-method", "x")];
    let mut request = caller.request(READ);
    for (name, value) in twice {
        request.headers_mut().append(name, value.parse().unwrap());
    }
    let length = READ.len().into();
    request.headers_mut().insert(header::CONTENT_LENGTH, length);
    let heard = caller.server().send(request).await.refused_rpc(400, -32600);
    assert_eq!(heard.json()["id"], 7);
}

/// Case 24: a client that asks what the server is goes on to the older era.
#[tokio::test]
async fn a_probe_never_looks_like_a_dead_server() {
    const UNKNOWN: &str =
        r#"{"jsonrpc":"2.0","id":7,"error":{"code":-32601,"message":"unknown method"}}"#;
    const FAILED: &str = r#"{"jsonrpc":"2.0","id":7,"error":{"code":-32000,"message":"boom"}}"#;
    let caller = Caller::new().await;
    for (theirs, status) in [(UNKNOWN, 404), (FAILED, 400)] {
        let heard = caller
            .hears(DISCOVER, json(500, theirs))
            .await
            .expect(status);
        assert_eq!(heard.text(), theirs);
    }
    for theirs in [
        answer(500, &[], "Internal Server Error"),
        answer(501, &[], ""),
        page(500, &[]),
        page(404, &[]),
    ] {
        let heard = caller
            .hears(DISCOVER, theirs)
            .await
            .refused_rpc(404, -32601);
        assert_eq!(heard.json()["id"], 7);
    }
    for status in [400, 404, 405] {
        let heard = caller
            .hears(DISCOVER, json(status, "{}"))
            .await
            .expect(status);
        assert_eq!(heard.text(), "{}");
    }
    // A server that is dead is one, and so is a firewall.
    failed(
        &caller.hears(DISCOVER, answer(502, &[], "")).await,
        502,
        7,
        "failed",
    );
    failed(
        &caller.hears(DISCOVER, page(403, &[])).await,
        502,
        7,
        "web page",
    );
}

/// Case 20: a credential is called bad only when nothing speaks against it.
#[tokio::test]
async fn one_refused_call_does_not_make_the_credential_bad() {
    const FORBIDDEN: &str = r#"{"jsonrpc":"2.0","id":7,"error":{"code":-32001,"message":"admin needs the scope admin"}}"#;
    let scope = ("www-authenticate", "Bearer error=\"insufficient_scope\"");
    let caller = Caller::new().await;
    let says = async |answer| caller.hears(READ, answer).await;
    // From the start, and again: it is bad.
    failed(
        &says(answer(401, &[], "")).await,
        502,
        7,
        "does not accept the proxy's credential",
    );
    assert!(caller.last_event().contains("CredentialRefused"));
    // Not when a success came between, nor when it lacks a right.
    let _ = says(json(200, "{}")).await.expect(200);
    failed(
        &says(answer(401, &[], "")).await,
        502,
        7,
        "refused this call",
    );
    failed(&says(answer(401, &[], "")).await, 502, 7, "does not accept");
    failed(
        &says(answer(401, &[scope], "")).await,
        502,
        7,
        "refused this call",
    );
    failed(
        &says(answer(403, &[scope], "")).await,
        502,
        7,
        "refused this call",
    );
    failed(
        &says(answer(403, &[], "no")).await,
        502,
        7,
        "refused this call",
    );
    // The words of the server, where it has some for this very call.
    let heard = says(answer(
        403,
        &[scope, ("content-type", "application/json")],
        FORBIDDEN,
    ))
    .await;
    assert_eq!(heard.expect(200).text(), FORBIDDEN);
}

/// What is not configured cannot be bad.
#[tokio::test]
async fn a_credential_that_does_not_exist_is_not_blamed() {
    let caller = Caller::of(without_credential()).await;
    let says = async |answer| caller.hears(READ, answer).await;
    failed(&says(answer(401, &[], "")).await, 502, 7, "has none for it");
    let oauth = "Bearer resource_metadata=\"https://up.example/.well-known/x\"";
    let oauth = answer(401, &[("www-authenticate", oauth)], "");
    let heard = says(oauth).await;
    failed(&heard, 502, 7, "requires its own OAuth sign-in");
    assert!(!heard.headers.contains_key(header::WWW_AUTHENTICATE));
    failed(
        &says(answer(403, &[], "")).await,
        502,
        7,
        "refused this call",
    );
}

/// Case 21: a page is a page, of whatever status, and names whose it is likely to be.
#[tokio::test]
async fn a_web_page_is_called_one_and_its_firewall_named() {
    let caller = Caller::new().await;
    for status in [200, 400, 403, 404, 500] {
        let heard = caller.hears(READ, page(status, &[("cf-ray", "1")])).await;
        failed(&heard, 502, 7, "web page");
        assert!(heard.text().contains("Cloudflare"), "{heard:#?}");
        let told = caller.last_event();
        assert!(
            told.contains("Page") && told.contains(&format!("Some({status})")),
            "{told}"
        );
        failed(
            &caller.hears(READ, page(status, &[])).await,
            502,
            7,
            "web page",
        );
    }
    let none = Caller::of(without_credential()).await;
    failed(&none.hears(READ, page(401, &[])).await, 502, 7, "web page");
}

/// Case 18: the server refuses the name by which it is called, and both sides hear which.
#[tokio::test]
async fn a_server_that_checks_its_host_is_named_as_such() {
    let caller = Caller::new().await;
    for theirs in [
        answer(
            421,
            &[("content-type", "text/plain")],
            "Invalid Host header",
        ),
        answer(421, &[], ""),
        answer(403, &[], "Invalid Host: one.upstream.example"),
        json(
            403,
            r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32000,"message":"Invalid Host header: x"}}"#,
        ),
    ] {
        let heard = caller.hears(READ, theirs).await;
        failed(&heard, 502, 7, "host name one.upstream.example");
        let told = caller.last_event();
        assert!(
            told.contains("HostRefused") && told.contains("one.upstream.example"),
            "{told}"
        );
    }
}

/// Case 17: a redirect within the origin that keeps method and body is followed once.
#[tokio::test]
async fn a_redirect_within_the_origin_is_followed_once() {
    let caller = Caller::new().await;
    let upstream = &caller.server().upstream;
    for status in [307, 308] {
        upstream.answers(answer(status, &[("location", "/mcp/")], ""));
        let heard = caller
            .hears(READ, json(200, "{\"id\":7}"))
            .await
            .expect(200);
        assert_eq!(heard.text(), "{\"id\":7}");
        let [.., first, second] = &upstream.received()[..] else {
            panic!("two requests went out");
        };
        assert_eq!(second.uri(), "https://one.upstream.example/mcp/");
        assert_eq!(second.method(), first.method());
        assert_eq!(second.body(), READ);
        assert_eq!(second.headers(), first.headers());
    }
    let noted = caller.server().journal.count("RedirectFollowed");
    assert_eq!(noted, 1, "once is enough");

    // Once, and never to another place.
    upstream.answers(answer(307, &[("location", "/mcp/")], ""));
    let again = answer(307, &[("location", "/mcp/")], "");
    failed(
        &caller.hears(READ, again).await,
        502,
        7,
        "redirects elsewhere",
    );
    for (status, location) in [
        (307, "https://evil.example/mcp/"),
        (307, "http://one.upstream.example/mcp/"),
        (302, "/mcp/"),
        (
            301,
            "https://www.one.upstream.example/8f14e45fceea167a5a36dedd4bea2543?key=secret",
        ),
    ] {
        let before = upstream.received().len();
        let heard = caller
            .hears(READ, answer(status, &[("location", location)], ""))
            .await;
        failed(&heard, 502, 7, "redirects elsewhere");
        assert!(!heard.headers.contains_key(header::LOCATION));
        assert_eq!(upstream.received().len(), before + 1);
        let told = caller.last_event();
        let host = location.split('/').nth(2).filter(|host| !host.is_empty());
        assert!(
            told.contains(host.unwrap_or("one.upstream.example")),
            "{told}"
        );
        assert!(!told.contains("secret") && !told.contains("8f14"), "{told}");
        let text = format!("{:?}", upstream.received());
        assert!(!text.contains("evil"));
    }
}

/// Case 25: nothing but a stream is an answer to a GET for one.
#[tokio::test]
async fn a_get_that_is_answered_by_no_stream_is_a_405() {
    let caller = Caller::new().await;
    for theirs in [
        page(200, &[]),
        json(200, "{\"status\":\"ok\"}"),
        answer(204, &[], ""),
        answer(302, &[("location", "/welcome")], ""),
        answer(400, &[], "Bad Request: session ID is required"),
        page(404, &[]),
        answer(405, &[], ""),
        answer(406, &[], ""),
        answer(500, &[], ""),
        answer(501, &[], "not implemented"),
    ] {
        let status = theirs.status();
        let heard = caller.listens(theirs).await.expect(405);
        assert_eq!(heard.header("allow"), "POST", "{status}");
        assert!(!heard.text().contains("ok"));
        let told = caller.last_event();
        assert!(told.starts_with("CallForwarded"), "{told}");
        assert!(
            told.contains(&format!("upstream_status: Some({})", status.as_u16())),
            "{told}"
        );
    }
    let stream = answer(200, &[("content-type", "text/event-stream")], "data: 1\n\n");
    assert_eq!(
        caller.listens(stream).await.expect(200).text(),
        "data: 1\n\n"
    );
    // A server that is away is away for streams too.
    let _ = caller
        .listens(answer(503, &[], ""))
        .await
        .refused_rpc(502, -32000);
    let _ = caller
        .listens(answer(401, &[], ""))
        .await
        .refused_rpc(502, -32000);
    // Who asks for a document by GET gets it.
    caller.server().upstream.answers(json(200, "{}"));
    let mut request = caller.request("");
    *request.method_mut() = Method::GET;
    request
        .headers_mut()
        .insert(header::ACCEPT, "application/json".parse().unwrap());
    assert_eq!(caller.server().send(request).await.expect(200).text(), "{}");
}

const INITIALIZE: &str =
    r#"{"jsonrpc":"2.0","id":7,"method":"initialize","params":{"protocolVersion":"2025-11-25"}}"#;

/// A 404 would tell the client that its own address is wrong.
#[tokio::test]
async fn a_server_that_is_not_at_its_path_is_told_from_an_address_that_is_wrong_here() {
    let caller = Caller::new().await;
    for status in [404, 405] {
        let heard = caller.hears(INITIALIZE, answer(status, &[], "")).await;
        failed(&heard, 502, 7, "the address in this client is right");
        assert!(caller.last_event().contains("why: NothingThere"));
        // What answers in JSON-RPC is there.
        let theirs = r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32000,"message":"no"}}"#;
        let heard = caller.hears(INITIALIZE, json(status, theirs)).await;
        assert_eq!(heard.expect(status).text(), theirs);
        // And a call of another kind says nothing of the path.
        let heard = caller.hears(READ, answer(status, &[], "")).await;
        let _ = heard.expect(status);
    }
    let asked = caller.server().upstream.asked();
    assert!(
        asked.iter().all(|it| it.method() == Method::GET),
        "{asked:?}"
    );
    assert_eq!(asked.len(), 2);
}

#[tokio::test]
async fn the_transport_of_2024_is_called_so() {
    const STREAM: &str = "event: endpoint\ndata: /messages\n\n";
    let stream = || answer(200, &[("content-type", "text/event-stream")], STREAM);
    let caller = Caller::new().await;
    for refusal in [answer(405, &[], ""), page(404, &[])] {
        caller.server().upstream.tells(Ok(stream()));
        let heard = caller.hears(INITIALIZE, refusal).await;
        failed(&heard, 502, 7, "HTTP with SSE of 2024");
    }
    // One that opens its stream whatever it is asked.
    let heard = caller.hears(INITIALIZE, stream()).await;
    failed(&heard, 502, 7, "HTTP with SSE of 2024");
    // In any other call it is an event like any.
    let heard = caller.hears(READ, stream()).await.expect(200);
    assert_eq!(heard.text(), STREAM);
}

#[tokio::test]
async fn tls_that_one_side_does_not_speak_is_named() {
    let caller = Caller::new().await;
    let upstream = &caller.server().upstream;
    upstream.fails(UpstreamError::NoTls("no handshake".into()));
    let heard = caller.server().send(caller.request(READ)).await;
    failed(&heard, 502, 7, "does not speak TLS");

    let mut policy = without_credential();
    let one = Arc::get_mut(&mut policy.upstreams[0]).unwrap();
    one.destination = Destination::Remote {
        endpoint: "http://one.upstream.example/mcp".parse().unwrap(),
        credential: Credential::None,
    };
    let caller = Caller::of(policy).await;
    let go = "Client sent an HTTP request to an HTTPS server.\n";
    failed(
        &caller.hears(READ, answer(400, &[], go)).await,
        502,
        7,
        "speaks TLS",
    );
    let upstream = &caller.server().upstream;
    for (probed, words) in [
        (Ok(answer(404, &[], "")), "speaks TLS"),
        (Err(UpstreamError::NoTls("no".into())), "broke off"),
    ] {
        upstream.fails(UpstreamError::Broken("closed".into()));
        upstream.tells(probed);
        let heard = caller.server().send(caller.request(INITIALIZE)).await;
        failed(&heard, 502, 7, words);
    }
}
