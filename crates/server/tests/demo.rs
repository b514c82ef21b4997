//! The demonstration server, as clients of both eras meet it.

#![expect(
    clippy::unwrap_used,
    reason = "these functions serve tests only, where a panic is the failure"
)]

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::BodyExt;
use protocol::ports::Entropy;
use serde_json::{Value, json};
use server::demo::{Demo, Person};

const ADA: Person<'static> = Person {
    subject: "ada",
    sign_in: "passphrase",
    client: "Example \"quoted\" client",
};

const BOB: Person<'static> = Person {
    subject: "bob",
    ..ADA
};

const HANDSHAKE_REVISIONS: [&str; 4] = ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"];
const MODERN: &str = "2026-07-28";

struct Counter(AtomicU64);

impl Entropy for Counter {
    fn fill(&self, bytes: &mut [u8]) {
        let next = self.0.fetch_add(1, Ordering::Relaxed);
        bytes[..8].copy_from_slice(&next.to_be_bytes());
    }
}

fn demo() -> Demo {
    Demo::new(Arc::new(Counter(AtomicU64::new(1))))
}

/// A request under construction, well-formed to begin with.
struct Call {
    method: Method,
    headers: HeaderMap,
    body: Bytes,
}

impl Call {
    fn new(method: Method, body: impl Into<Bytes>) -> Self {
        let call = Self {
            method,
            headers: HeaderMap::new(),
            body: body.into(),
        };
        call.with("accept", "application/json, text/event-stream")
            .with("content-type", "application/json")
    }

    fn post(message: &Value) -> Self {
        Self::new(Method::POST, message.to_string())
    }

    /// A request as clients up to 2025-11-25 send it.
    fn handshake(method: &str, params: &Value) -> Self {
        Self::post(&json!({ "jsonrpc": "2.0", "id": 7, "method": method, "params": params }))
    }

    /// A request as clients of 2026-07-28 send it.
    fn modern(method: &str, mut params: Value) -> Self {
        let meta = params
            .as_object_mut()
            .unwrap()
            .entry("_meta")
            .or_insert(json!({}));
        meta["io.modelcontextprotocol/protocolVersion"] = MODERN.into();
        meta["io.modelcontextprotocol/clientCapabilities"] = json!({});
        let name = params["name"].as_str().map(str::to_owned);
        let call = Self::handshake(method, &params)
            .with("mcp-protocol-version", MODERN)
            .with("mcp-method", method);
        match name {
            Some(name) => call.with("mcp-name", &name),
            None => call,
        }
    }

    fn with(mut self, name: &'static str, value: &str) -> Self {
        self.headers.insert(name, value.parse().unwrap());
        self
    }

    fn and(mut self, name: &'static str, value: &str) -> Self {
        self.headers.append(name, value.parse().unwrap());
        self
    }

    fn without(mut self, name: &str) -> Self {
        self.headers.remove(name);
        self
    }

    async fn send(self, demo: &Demo) -> Answer {
        self.send_as(&ADA, demo).await
    }

    async fn send_as(self, person: &Person<'_>, demo: &Demo) -> Answer {
        let (head, body) = self.stream(person, demo).await.into_parts();
        Answer {
            status: head.status,
            headers: head.headers,
            body: body.collect().await.unwrap().to_bytes(),
        }
    }

    async fn stream(self, person: &Person<'_>, demo: &Demo) -> http::Response<Body> {
        let mut request = Request::new(Body::from(self.body));
        *request.method_mut() = self.method;
        *request.headers_mut() = self.headers;
        demo.answer(person, request).await
    }
}

#[derive(Debug)]
#[must_use]
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    #[track_caller]
    fn json(&self) -> Value {
        assert_eq!(self.headers["content-type"], "application/json", "{self:?}");
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The result of a request that succeeded with the id that [`Call`] gives it.
    #[track_caller]
    fn result(&self) -> Value {
        let message = self.json();
        assert_eq!(self.status, StatusCode::OK, "{message}");
        assert_eq!(message["jsonrpc"], "2.0");
        assert_eq!(message["id"], 7);
        assert!(message["result"].is_object(), "{message}");
        message["result"].clone()
    }

    /// The error of a request that failed this way.
    #[track_caller]
    fn failed(&self, status: u16, code: i32) -> Value {
        let message = self.json();
        assert_eq!(self.status, status, "{message}");
        assert_eq!(message["error"]["code"], code, "{message}");
        message["error"].clone()
    }

    #[track_caller]
    fn empty(&self, status: u16) {
        assert_eq!(self.status, status, "{self:?}");
        assert!(self.body.is_empty(), "{self:?}");
    }

    /// The messages of an event stream.
    #[track_caller]
    fn events(&self) -> Vec<Value> {
        assert_eq!(self.status, StatusCode::OK);
        assert_eq!(self.headers["content-type"], "text/event-stream");
        assert_eq!(self.headers["x-accel-buffering"], "no");
        assert_eq!(self.headers["cache-control"], "no-cache, no-transform");
        let text = std::str::from_utf8(&self.body).unwrap();
        text.split_terminator("\n\n")
            .map(|event| {
                let data = event.strip_prefix("event: message\ndata: ").unwrap();
                serde_json::from_str(data).unwrap()
            })
            .collect()
    }
}

/// Begins a session and returns its id.
async fn initialize(demo: &Demo, revision: &str) -> String {
    let answer = initialize_request(revision).send(demo).await;
    assert_eq!(answer.result()["protocolVersion"], revision);
    answer.headers["mcp-session-id"]
        .to_str()
        .unwrap()
        .to_owned()
}

fn initialize_request(revision: &str) -> Call {
    Call::handshake(
        "initialize",
        &json!({
            "protocolVersion": revision,
            "capabilities": {},
            "clientInfo": { "name": "test", "version": "1" },
        }),
    )
}

fn tool_call(name: &str, arguments: &Value) -> Value {
    json!({ "name": name, "arguments": arguments })
}

// The handshake era.

#[tokio::test]
async fn every_handshake_revision_is_agreed_on_and_any_other_becomes_the_newest() {
    let demo = demo();
    for revision in HANDSHAKE_REVISIONS {
        let answer = initialize_request(revision).send(&demo).await;
        let result = answer.result();
        assert_eq!(result["protocolVersion"], revision);
        assert_eq!(result["capabilities"], json!({ "tools": {} }));
        assert_eq!(result["serverInfo"]["name"], "mcp-oauth-proxy-demo");
        assert!(result["instructions"].is_string());
        assert!(result.get("resultType").is_none() && result.get("_meta").is_none());
        let id = answer.headers["mcp-session-id"].as_bytes();
        assert!(id.len() >= 16 && id.iter().all(|byte| (0x21..=0x7E).contains(byte)));
    }
    for revision in ["2024-10-07", "2099-01-01", MODERN, ""] {
        let answer = initialize_request(revision).send(&demo).await;
        assert_eq!(answer.result()["protocolVersion"], "2025-11-25");
    }
    Call::handshake("initialize", &json!({}))
        .send(&demo)
        .await
        .failed(200, -32602);
}

#[tokio::test]
async fn a_session_lasts_until_it_is_deleted() {
    let demo = demo();
    let id = initialize(&demo, "2025-11-25").await;
    let ping = |id: &str| Call::handshake("ping", &json!({})).with("mcp-session-id", id);
    let delete = |id: &str| Call::new(Method::DELETE, "").with("mcp-session-id", id);

    assert_eq!(ping(&id).send(&demo).await.result(), json!({}));
    ping("nonsense").send(&demo).await.failed(404, -32600);
    ping(&id).send_as(&BOB, &demo).await.failed(404, -32600);

    delete(&id).send_as(&BOB, &demo).await.failed(404, -32600);
    assert_eq!(ping(&id).send(&demo).await.result(), json!({}));
    delete(&id).send(&demo).await.empty(204);
    ping(&id).send(&demo).await.failed(404, -32600);
    delete(&id).send(&demo).await.failed(404, -32600);
    Call::new(Method::DELETE, "")
        .send(&demo)
        .await
        .failed(400, -32600);
}

#[tokio::test]
async fn two_sessions_have_different_ids() {
    let demo = demo();
    assert_ne!(
        initialize(&demo, "2025-06-18").await,
        initialize(&demo, "2025-06-18").await
    );
}

#[tokio::test]
async fn a_request_without_a_session_is_served() {
    let answer = Call::handshake("ping", &json!({})).send(&demo()).await;
    assert_eq!(answer.result(), json!({}));
}

#[tokio::test]
async fn notifications_and_responses_are_accepted_without_a_body() {
    let demo = demo();
    let id = initialize(&demo, "2025-11-25").await;
    for message in [
        json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }),
        json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": 7 } }),
        json!({ "jsonrpc": "2.0", "method": "notifications/unheard-of", "params": null }),
        json!({ "jsonrpc": "2.0", "id": 1, "result": {} }),
        json!({ "jsonrpc": "2.0", "id": 1, "error": { "code": 1, "message": "no" } }),
    ] {
        Call::post(&message).send(&demo).await.empty(202);
        let in_session = |id| Call::post(&message).with("mcp-session-id", id);
        in_session(&*id).send(&demo).await.empty(202);
        in_session("nonsense").send(&demo).await.failed(404, -32600);
    }
}

#[tokio::test]
async fn get_and_other_methods_are_not_allowed() {
    let demo = demo();
    for method in [Method::GET, Method::PUT, Method::PATCH, Method::OPTIONS] {
        let answer = Call::new(method, "").send(&demo).await;
        answer.failed(405, -32600);
        assert_eq!(answer.headers["allow"], "POST, DELETE");
    }
}

#[tokio::test]
async fn an_unknown_method_is_an_error_in_a_200_since_404_would_end_the_session() {
    let demo = demo();
    for method in [
        "resources/list",
        "prompts/list",
        "logging/setLevel",
        "completion/complete",
        "server/discover",
        "Ping",
        "",
    ] {
        let answer = Call::handshake(method, &json!({})).send(&demo).await;
        answer.failed(200, -32601);
        assert_eq!(answer.json()["id"], 7);
    }
}

#[tokio::test]
async fn an_unknown_protocol_version_is_refused() {
    let demo = demo();
    for version in ["1999-01-01", "2024-10-07", "2099-01-01", "latest"] {
        let error = Call::handshake("ping", &json!({}))
            .with("mcp-protocol-version", version)
            .send(&demo)
            .await
            .failed(400, -32022);
        assert_eq!(error["data"]["requested"], version);
        Call::post(&json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }))
            .with("mcp-protocol-version", version)
            .send(&demo)
            .await
            .failed(400, -32022);
    }
    for version in HANDSHAKE_REVISIONS {
        let answer = Call::handshake("ping", &json!({}))
            .with("mcp-protocol-version", version)
            .send(&demo)
            .await;
        assert_eq!(answer.result(), json!({}));
    }
}

#[tokio::test]
async fn an_array_of_messages_is_answered_in_the_one_revision_that_has_them() {
    let demo = demo();
    let ping = |id: u32| json!({ "jsonrpc": "2.0", "id": id, "method": "ping" });
    let batch = json!([
        ping(1),
        { "jsonrpc": "2.0", "method": "notifications/initialized" },
        { "jsonrpc": "2.0", "id": "x", "method": "tools/call",
          "params": tool_call("calculate", &json!({ "operation": "add", "a": 1, "b": 2 })) },
        { "jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {
            "name": "count_down", "arguments": { "from": 1, "interval_ms": 10 },
            "_meta": { "progressToken": 1 } } },
        { "jsonrpc": "2.0", "id": 3, "method": "nothing" },
        { "jsonrpc": "2.0", "id": 4, "method": "initialize" },
        "nonsense",
    ]);

    for headers in [vec![], vec![("mcp-protocol-version", "2025-03-26")]] {
        let mut call = Call::post(&batch);
        for (name, value) in headers {
            call = call.with(name, value);
        }
        let answer = call.send(&demo).await;
        assert_eq!(answer.status, StatusCode::OK);
        let responses = answer.json();
        let ids: Vec<&Value> = responses
            .as_array()
            .unwrap()
            .iter()
            .map(|it| &it["id"])
            .collect();
        let null = &Value::Null;
        assert_eq!(
            ids,
            [
                &json!(1),
                &json!("x"),
                &json!(2),
                &json!(3),
                &json!(4),
                null
            ]
        );
        assert_eq!(
            responses[1]["result"]["content"][0]["text"],
            r#"{"result":3}"#
        );
        assert_eq!(responses[2]["result"]["isError"], false);
        assert_eq!(responses[3]["error"]["code"], -32601);
        assert_eq!(responses[4]["error"]["code"], -32600);
        assert_eq!(responses[5]["error"]["code"], -32600);
    }

    let quiet = json!([{ "jsonrpc": "2.0", "method": "notifications/initialized" }]);
    Call::post(&quiet).send(&demo).await.empty(202);
    Call::post(&json!([])).send(&demo).await.failed(400, -32600);
    let many: Vec<Value> = (0..17).map(ping).collect();
    Call::post(&many.into())
        .send(&demo)
        .await
        .failed(400, -32600);

    for version in ["2024-11-05", "2025-06-18", "2025-11-25", MODERN] {
        Call::post(&batch)
            .with("mcp-protocol-version", version)
            .send(&demo)
            .await
            .failed(400, -32600);
    }
    let id = initialize(&demo, "2025-11-25").await;
    Call::post(&batch)
        .with("mcp-session-id", &id)
        .send(&demo)
        .await
        .failed(400, -32600);
}

// What both eras share.

#[tokio::test]
async fn a_body_that_is_no_message_is_refused() {
    let demo = demo();
    let deep = "[".repeat(100_000);
    for body in [
        "",
        "{",
        "hello",
        "{\"jsonrpc\":\"2.0\",\"id\":1e999,\"method\":\"ping\"}",
        &deep,
    ] {
        let answer = Call::new(Method::POST, body.to_owned()).send(&demo).await;
        answer.failed(400, -32700);
        assert!(answer.json().get("id").is_none());
    }
    Call::new(Method::POST, &b"\"\xFF\""[..])
        .send(&demo)
        .await
        .failed(400, -32700);
    for message in [
        json!(1),
        json!(null),
        json!({}),
        json!({ "id": 1, "method": "ping" }),
        json!({ "jsonrpc": "1.0", "id": 1, "method": "ping" }),
        json!({ "jsonrpc": "2.0", "id": 1 }),
        json!({ "jsonrpc": "2.0", "id": 1, "method": 2 }),
        json!({ "jsonrpc": "2.0", "id": null, "method": "ping" }),
        json!({ "jsonrpc": "2.0", "id": {}, "method": "ping" }),
        json!({ "jsonrpc": "2.0", "id": 1, "method": "ping", "params": [] }),
        json!({ "jsonrpc": "2.0", "id": 1, "method": "ping", "params": "x" }),
    ] {
        Call::post(&message).send(&demo).await.failed(400, -32600);
    }
    for id in [json!("a"), json!(0), json!(-1), json!(u64::MAX), json!("")] {
        let answer = Call::post(&json!({ "jsonrpc": "2.0", "id": id, "method": "ping" }))
            .send(&demo)
            .await;
        assert_eq!(answer.status, StatusCode::OK);
        assert_eq!(answer.json()["id"], id);
    }
}

#[tokio::test]
async fn a_body_over_one_mebibyte_is_refused() {
    let demo = demo();
    let ping = |length: usize| {
        let mut body = r#"{"jsonrpc":"2.0","id":7,"method":"ping"}"#.to_owned();
        body.push_str(&" ".repeat(length - body.len()));
        Call::new(Method::POST, body)
    };
    let answer = ping(1024 * 1024).send(&demo).await;
    assert_eq!(answer.result(), json!({}));
    ping(1024 * 1024 + 1).send(&demo).await.failed(413, -32600);
}

#[tokio::test]
async fn a_body_that_breaks_off_is_refused() {
    struct Broken;
    impl http_body::Body for Broken {
        type Data = Bytes;
        type Error = std::io::Error;
        fn poll_frame(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
            std::task::Poll::Ready(Some(Err(std::io::ErrorKind::ConnectionReset.into())))
        }
    }
    let mut request = Request::post("/")
        .header("content-type", "application/json")
        .body(Body::new(Broken))
        .unwrap();
    request
        .headers_mut()
        .insert("accept", "*/*".parse().unwrap());
    let response = demo().answer(&ADA, request).await;
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn both_kinds_of_answer_must_be_acceptable() {
    let demo = demo();
    for accept in ["application/json", "text/event-stream", "text/html", ""] {
        for call in [
            Call::handshake("ping", &json!({})),
            Call::modern("server/discover", json!({})),
        ] {
            call.with("accept", accept)
                .send(&demo)
                .await
                .failed(406, -32600);
        }
    }
    for accept in [
        "*/*",
        "text/event-stream, application/json",
        "text/*, application/*;q=0.1",
    ] {
        let call = Call::handshake("ping", &json!({})).with("accept", accept);
        assert_eq!(call.send(&demo).await.result(), json!({}));
    }
    let call = Call::handshake("ping", &json!({})).without("accept");
    assert_eq!(call.send(&demo).await.result(), json!({}));
}

#[tokio::test]
async fn the_body_must_be_said_to_be_json() {
    let demo = demo();
    let ping = || Call::handshake("ping", &json!({}));
    for content_type in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/jsonp",
        "",
    ] {
        let answer = ping().with("content-type", content_type).send(&demo).await;
        answer.failed(415, -32600);
    }
    ping()
        .without("content-type")
        .send(&demo)
        .await
        .failed(415, -32600);
    let answer = ping()
        .with("content-type", "Application/JSON; charset=utf-8")
        .send(&demo)
        .await;
    assert_eq!(answer.result(), json!({}));
}

#[tokio::test]
async fn tools_are_described_as_far_as_each_revision_can() {
    let demo = demo();
    for revision in HANDSHAKE_REVISIONS {
        // Once by session, once by header: either tells the revision.
        let id = initialize(&demo, revision).await;
        let list = || Call::handshake("tools/list", &json!({}));
        let by_session = list()
            .with("mcp-session-id", &id)
            .send(&demo)
            .await
            .result();
        let by_header = list()
            .with("mcp-protocol-version", revision)
            .send(&demo)
            .await
            .result();
        assert_eq!(by_session, by_header);
        let tools = by_session["tools"].as_array().unwrap();
        let names: Vec<&str> = tools
            .iter()
            .map(|tool| tool["name"].as_str().unwrap())
            .collect();
        assert_eq!(names, ["get_user_info", "calculate", "count_down"]);
        for tool in tools {
            assert_eq!(tool["inputSchema"]["type"], "object");
            assert!(!tool["description"].as_str().unwrap().is_empty());
            assert_eq!(
                tool.get("annotations").is_some(),
                revision >= "2025-03-26",
                "{revision}"
            );
            if let Some(annotations) = tool.get("annotations") {
                assert_eq!(annotations["readOnlyHint"], true);
            }
            for field in ["title", "outputSchema"] {
                assert_eq!(
                    tool.get(field).is_some(),
                    revision >= "2025-06-18",
                    "{revision} {field}"
                );
            }
        }
        assert!(by_session.get("ttlMs").is_none());
    }
    let modern = Call::modern("tools/list", json!({}))
        .send(&demo)
        .await
        .result();
    assert_eq!(modern["tools"].as_array().unwrap().len(), 3);
    assert_eq!(modern["resultType"], "complete");
    assert!(modern["ttlMs"].as_u64().unwrap() > 0);
    assert_eq!(modern["cacheScope"], "public");

    Call::handshake("tools/list", &json!({ "cursor": "x" }))
        .send(&demo)
        .await
        .failed(200, -32602);
}

#[tokio::test]
async fn get_user_info_tells_who_asks() {
    let demo = demo();
    let expected = json!({
        "subject": "ada",
        "sign_in": "passphrase",
        "client": "Example \"quoted\" client",
    });
    let params = json!({ "name": "get_user_info" });
    for revision in HANDSHAKE_REVISIONS {
        let result = Call::handshake("tools/call", &params)
            .with("mcp-protocol-version", revision)
            .send(&demo)
            .await
            .result();
        assert_eq!(result["isError"], false);
        let text = result["content"][0]["text"].as_str().unwrap();
        assert_eq!(serde_json::from_str::<Value>(text).unwrap(), expected);
        let structured = result.get("structuredContent");
        assert_eq!(
            structured,
            (revision >= "2025-06-18").then_some(&expected),
            "{revision}"
        );
    }
    let result = Call::modern("tools/call", params)
        .send_as(&BOB, &demo)
        .await
        .result();
    assert_eq!(result["structuredContent"]["subject"], "bob");
    assert_eq!(result["resultType"], "complete");
}

#[tokio::test]
async fn calculate_answers_with_a_number_or_a_sentence() {
    let demo = demo();
    let calculate = async |arguments: Value| {
        let params = tool_call("calculate", &arguments);
        let answer = Call::handshake("tools/call", &params)
            .with("mcp-protocol-version", "2025-11-25")
            .send(&demo)
            .await;
        let modern = Call::modern("tools/call", params).send(&demo).await;
        let result = answer.result();
        assert_eq!(modern.result()["content"], result["content"]);
        assert_eq!(modern.result()["isError"], result["isError"]);
        result
    };
    let good = calculate(json!({ "operation": "power", "a": 2, "b": 0.5, "more": 1 })).await;
    assert_eq!(good["structuredContent"]["result"], 2_f64.sqrt());
    assert_eq!(good["isError"], false);

    for (arguments, word) in [
        (
            json!({ "operation": "divide", "a": 1, "b": 0 }),
            "divided by zero",
        ),
        (
            json!({ "operation": "multiply", "a": 1e300, "b": 1e300 }),
            "too large",
        ),
        (
            json!({ "operation": "power", "a": -1, "b": 0.5 }),
            "no real number",
        ),
        (json!({ "operation": "add", "a": "1", "b": 2 }), "`a`"),
        (json!({ "operation": "add", "a": 1 }), "`b`"),
        (
            json!({ "operation": "root", "a": 1, "b": 2 }),
            "`operation`",
        ),
        (json!({}), "`operation`"),
        (Value::Null, "`operation`"),
    ] {
        let result = calculate(arguments).await;
        assert_eq!(result["isError"], true);
        assert!(result.get("structuredContent").is_none());
        let text = result["content"][0]["text"].as_str().unwrap();
        assert!(text.contains(word), "{text}");
    }
}

#[tokio::test]
async fn a_call_that_names_no_tool_of_ours_is_a_protocol_error() {
    let demo = demo();
    for params in [
        json!({}),
        json!({ "name": 1 }),
        json!({ "name": "unknown" }),
        json!({ "name": "calculate", "arguments": [] }),
        json!({ "name": "calculate", "arguments": "x" }),
    ] {
        Call::handshake("tools/call", &params)
            .send(&demo)
            .await
            .failed(200, -32602);
        if params["name"].is_number() {
            continue; // No header can repeat it.
        }
        Call::modern("tools/call", params)
            .send(&demo)
            .await
            .failed(200, -32602);
    }
}

fn count_down(arguments: &Value, progress_token: Option<Value>) -> Value {
    let mut params = tool_call("count_down", arguments);
    if let Some(token) = progress_token {
        params["_meta"] = json!({ "progressToken": token });
    }
    params
}

#[tokio::test]
async fn count_down_reports_progress_and_then_the_result() {
    let demo = demo();
    let arguments = json!({ "from": 3, "interval_ms": 10 });
    for token in [json!("t-1"), json!(0)] {
        let params = count_down(&arguments, Some(token.clone()));
        for call in [
            Call::handshake("tools/call", &params).with("mcp-protocol-version", "2025-11-25"),
            Call::modern("tools/call", params.clone()),
        ] {
            let is_modern = call.headers["mcp-protocol-version"] == MODERN;
            let begin = tokio::time::Instant::now();
            let answer = call.send(&demo).await;
            assert!(begin.elapsed() >= Duration::from_millis(30));
            let events = answer.events();
            let (response, progress) = events.split_last().unwrap();
            for (step, notification) in (1..).zip(progress) {
                assert_eq!(notification["method"], "notifications/progress");
                assert!(notification.get("id").is_none());
                let params = &notification["params"];
                assert_eq!(params["progressToken"], token);
                assert_eq!(params["progress"], step);
                assert_eq!(params["total"], 3);
                assert_eq!(params["message"], format!("{} …", 4 - step));
            }
            assert_eq!(progress.len(), 3);
            assert_eq!(response["id"], 7);
            assert_eq!(
                response["result"]["structuredContent"],
                json!({ "counted_from": 3, "progress_notifications": 3 })
            );
            assert_eq!(
                response["result"].get("resultType").is_some(),
                is_modern,
                "{response}"
            );
            assert!(!answer.headers.contains_key("mcp-session-id"));
        }
    }
}

#[tokio::test]
async fn count_down_without_a_token_is_a_plain_result() {
    let demo = demo();
    for token in [None, Some(Value::Null), Some(json!({}))] {
        let params = count_down(&json!({ "from": 1.0, "interval_ms": 10 }), token);
        let result = Call::handshake("tools/call", &params)
            .with("mcp-protocol-version", "2025-11-25")
            .send(&demo)
            .await
            .result();
        assert_eq!(
            result["structuredContent"],
            json!({ "counted_from": 1, "progress_notifications": 0 })
        );
    }
}

#[tokio::test]
async fn count_down_stays_within_its_bounds() {
    let demo = demo();
    for arguments in [
        json!({ "from": 0 }),
        json!({ "from": 11 }),
        json!({ "from": -1 }),
        json!({ "from": 1.5 }),
        json!({ "from": "3" }),
        json!({ "from": null }),
        json!({ "from": 1e300 }),
        json!({ "interval_ms": 9 }),
        json!({ "interval_ms": 2001 }),
        json!({ "interval_ms": [] }),
    ] {
        // Told at once and as JSON, even to a client that wants progress.
        let params = count_down(&arguments, Some(json!("t")));
        let result = Call::handshake("tools/call", &params)
            .send(&demo)
            .await
            .result();
        assert_eq!(result["isError"], true, "{arguments}");
    }
}

#[tokio::test]
async fn progress_leaves_as_it_is_made_and_nothing_outlives_the_stream() {
    let demo = demo();
    let params = count_down(&json!({ "from": 10, "interval_ms": 2000 }), Some(json!(1)));
    let begin = tokio::time::Instant::now();
    let response = Call::modern("tools/call", params).stream(&ADA, &demo).await;
    let mut body = response.into_body();
    let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert!(first.starts_with(b"event: message\ndata: {"));
    assert!(begin.elapsed() < Duration::from_secs(2));
    let second = tokio::time::timeout(Duration::from_millis(20), body.frame()).await;
    assert!(second.is_err(), "the second step is not due yet");
    drop(body);
    let metrics = tokio::runtime::Handle::current().metrics();
    assert_eq!(metrics.num_alive_tasks(), 0);
}

#[tokio::test]
async fn progress_has_a_message_only_where_the_revision_has_one() {
    let demo = demo();
    let params = count_down(&json!({ "from": 1, "interval_ms": 10 }), Some(json!(1)));
    for revision in HANDSHAKE_REVISIONS {
        let answer = Call::handshake("tools/call", &params)
            .with("mcp-protocol-version", revision)
            .send(&demo)
            .await;
        assert_eq!(
            answer.events()[0]["params"].get("message").is_some(),
            revision >= "2025-03-26"
        );
    }
}

// The modern era.

#[tokio::test]
async fn discover_tells_what_this_server_speaks() {
    let answer = Call::modern("server/discover", json!({}))
        .send(&demo())
        .await;
    let result = answer.result();
    assert_eq!(result["supportedVersions"], json!([MODERN]));
    assert_eq!(result["capabilities"], json!({ "tools": {} }));
    assert_eq!(result["resultType"], "complete");
    assert_eq!(result["cacheScope"], "public");
    assert!(result["ttlMs"].is_u64());
    let info = &result["_meta"]["io.modelcontextprotocol/serverInfo"];
    assert_eq!(info["name"], "mcp-oauth-proxy-demo");
    assert!(info["version"].is_string());
}

#[tokio::test]
async fn a_modern_request_needs_no_session_and_gets_none() {
    let demo = demo();
    let answer = Call::modern("tools/list", json!({}))
        .with("mcp-session-id", "left over from another era")
        .with("last-event-id", "1")
        .send(&demo)
        .await;
    assert!(answer.result()["tools"].is_array());
    assert!(!answer.headers.contains_key("mcp-session-id"));
}

/// TM-03, TM-04: of what is here, only the demo reads bodies.
#[tokio::test]
async fn headers_that_disagree_with_the_body_are_refused() {
    let demo = demo();
    let discover = || Call::modern("server/discover", json!({}));
    let tool = || Call::modern("tools/call", json!({ "name": "get_user_info" }));
    for call in [
        discover().with("mcp-protocol-version", "2025-11-25"),
        discover().with("mcp-protocol-version", "1999-01-01"),
        discover().without("mcp-protocol-version"),
        discover().with("mcp-method", "tools/list"),
        discover().with("mcp-method", "Server/Discover"),
        discover().without("mcp-method"),
        tool().with("mcp-name", "calculate"),
        tool().with("mcp-name", "GET_USER_INFO"),
        tool().with("mcp-name", "=?base64?not base64?="),
        tool().with("mcp-name", "=?BASE64?Z2V0X3VzZXJfaW5mbw==?="),
        tool().without("mcp-name"),
        // Sent twice, even if both agree.
        tool().and("mcp-name", "get_user_info"),
        discover().and("mcp-method", "server/discover"),
        discover().and("mcp-protocol-version", MODERN),
        initialize_request("2025-11-25").with("mcp-protocol-version", MODERN),
    ] {
        let answer = call.send(&demo).await;
        answer.failed(400, -32020);
        assert_eq!(answer.json()["id"], 7);
    }
    for call in [
        tool(),
        // The marker is lower-case; what it wraps is what is compared.
        tool().with("mcp-name", "=?base64?Z2V0X3VzZXJfaW5mbw==?="),
        tool().with("mcp-param-unheard-of", "=?base64?4pyT?="),
    ] {
        assert_eq!(call.send(&demo).await.result()["isError"], false);
    }
}

#[tokio::test]
async fn a_modern_request_in_an_unknown_version_is_told_the_known_one() {
    let demo = demo();
    for version in ["2099-01-01", "1900-01-01", "2025-11-25"] {
        let message = json!({ "jsonrpc": "2.0", "id": 7, "method": "server/discover", "params": {
            "_meta": { "io.modelcontextprotocol/protocolVersion": version },
        } });
        let error = Call::post(&message)
            .with("mcp-protocol-version", version)
            .with("mcp-method", "server/discover")
            .send(&demo)
            .await
            .failed(400, -32022);
        assert_eq!(
            error["data"],
            json!({ "supported": [MODERN], "requested": version })
        );
    }
}

#[tokio::test]
async fn a_modern_request_without_its_meta_is_refused() {
    let demo = demo();
    let version = "io.modelcontextprotocol/protocolVersion";
    let capabilities = "io.modelcontextprotocol/clientCapabilities";
    for params in [
        Value::Null,
        json!({}),
        json!({ "_meta": {} }),
        json!({ "_meta": [] }),
        json!({ "_meta": { capabilities: {} } }),
        json!({ "_meta": { version: 20_260_728, capabilities: {} } }),
        json!({ "_meta": { version: MODERN } }),
        json!({ "_meta": { version: MODERN, capabilities: null } }),
    ] {
        let answer = Call::handshake("tools/list", &params)
            .with("mcp-protocol-version", MODERN)
            .with("mcp-method", "tools/list")
            .send(&demo)
            .await;
        answer.failed(400, -32602);
        assert_eq!(answer.json()["id"], 7);
    }
}

#[tokio::test]
async fn an_unknown_modern_method_is_404_with_a_json_rpc_error() {
    let demo = demo();
    for method in [
        "ping",
        "initialize",
        "logging/setLevel",
        "resources/list",
        "prompts/list",
        "subscriptions/listen",
        "nothing",
    ] {
        let answer = Call::modern(method, json!({})).send(&demo).await;
        answer.failed(404, -32601);
        assert_eq!(answer.json()["id"], 7);
    }
}

#[tokio::test]
async fn a_modern_notification_is_accepted_and_a_modern_response_is_not() {
    let demo = demo();
    let cancelled = json!({ "jsonrpc": "2.0", "method": "notifications/cancelled" });
    Call::post(&cancelled)
        .with("mcp-protocol-version", MODERN)
        .send(&demo)
        .await
        .empty(202);
    Call::post(&json!({ "jsonrpc": "2.0", "id": 1, "result": {} }))
        .with("mcp-protocol-version", MODERN)
        .send(&demo)
        .await
        .failed(400, -32600);
}

#[tokio::test]
async fn both_eras_take_turns_at_one_endpoint() {
    let demo = demo();
    let id = initialize(&demo, "2025-11-25").await;
    for _ in 0..3 {
        let handshake = Call::handshake("tools/list", &json!({}))
            .with("mcp-session-id", &id)
            .send(&demo)
            .await
            .result();
        assert!(handshake.get("resultType").is_none());
        let modern = Call::modern("tools/list", json!({}))
            .send(&demo)
            .await
            .result();
        assert_eq!(modern["resultType"], "complete");
    }
}
