//! Which era a request speaks, and which session it means, as hosted clients really send them.

#![expect(clippy::unwrap_used, reason = "all of this is a test")]

mod support;

use std::{sync::Arc, time::Duration};

use axum::body::Body;
use bytes::Bytes;
use http::{Method, Request, Response};
use protocol::policy::Policy;
use support::{
    Answer, TestServer,
    client::{McpClient, Tokens},
    policy,
};

const OLD: &str = "2025-11-25";
const NEW: &str = "2026-07-28";
const LIST: &str = r#"{"jsonrpc":"2.0","id":2,"method":"tools/list"}"#;
const NEW_LIST: &str = r#"{"jsonrpc":"2.0","id":2,"method":"tools/list","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}"#;
const INITIALIZE: &str =
    r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25"}}"#;
const INITIALIZED: &str = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
const AGREED: &str = r#"{"jsonrpc":"2.0","id":0,"result":{"protocolVersion":"2025-11-25"}}"#;

/// A client with one grant, as far as the MCP endpoint goes.
struct Conversation {
    client: McpClient,
    tokens: Tokens,
}

impl Conversation {
    async fn at(server: &TestServer) -> Self {
        let client = server.mcp_client().await;
        let tokens = client.sign_in().await;
        Self { client, tokens }
    }

    /// The same client, approved once more: another grant.
    async fn approved_again(&self) -> Self {
        Self {
            client: self.client.clone(),
            tokens: self.client.sign_in().await,
        }
    }

    fn on(&self, server: &TestServer) -> Self {
        Self {
            client: self.client.on(server),
            tokens: self.tokens.clone(),
        }
    }

    fn server(&self) -> &TestServer {
        &self.client.server
    }

    /// Sends a body with the version header and session id that the client has, or none.
    async fn sends(&self, method: Method, version: &str, session: &str, body: &str) -> Answer {
        let mut request = self.client.call_request(&self.tokens);
        *request.method_mut() = method;
        *request.body_mut() = Body::from(body.to_owned());
        for (name, value) in [
            ("mcp-protocol-version", version),
            ("mcp-session-id", session),
        ] {
            if !value.is_empty() {
                request.headers_mut().insert(name, value.parse().unwrap());
            }
        }
        self.server().send(request).await
    }

    async fn posts(&self, version: &str, body: &str) -> Answer {
        self.sends(Method::POST, version, "", body).await
    }

    /// Begins a session that the upstream calls `id`, and returns what the client calls it.
    async fn initializes(&self, id: &str) -> String {
        let answer = Response::builder()
            .header("content-type", "application/json")
            .header("mcp-session-id", id)
            .body(Body::from(AGREED));
        self.server().upstream.answers(answer.unwrap());
        let answer = self.posts("", INITIALIZE).await.expect(200);
        assert_eq!(answer.text(), AGREED);
        answer.header("mcp-session-id").to_owned()
    }

    fn upstream_says(&self, status: u16, text: &'static str) {
        let answer = Response::builder()
            .status(status)
            .header("content-type", "application/json")
            .body(Body::from(text));
        self.server().upstream.answers(answer.unwrap());
    }

    /// The session and version headers of the last request to the upstream.
    fn arrived(&self) -> (Option<String>, Option<String>) {
        let got = self.server().upstream.last();
        (
            header(&got, "mcp-session-id"),
            header(&got, "mcp-protocol-version"),
        )
    }
}

fn header(request: &Request<Bytes>, name: &str) -> Option<String> {
    let value = request.headers().get(name)?;
    Some(value.to_str().unwrap().to_owned())
}

fn of_several() -> Policy {
    Policy {
        grant_freshness: Some(Duration::from_secs(3)),
        ..policy(&[("one", "/mcp")])
    }
}

/// Case 32: the session decides, and it speaks the revision that was agreed on.
#[tokio::test]
async fn a_newer_version_header_in_a_session_of_the_older_era_is_put_right() {
    let claude = Conversation::at(&TestServer::new()).await;
    let session = claude.initializes("s-1").await;
    for (method, body) in [
        (Method::POST, LIST),
        (Method::POST, INITIALIZED),
        (Method::POST, r#"{"jsonrpc":"2.0","id":"s1","result":{}}"#),
        (Method::POST, NEW_LIST),
        (Method::GET, ""),
        (Method::DELETE, ""),
    ] {
        for version in [NEW, OLD, "", "2025-06-18"] {
            let _ = claude.sends(method.clone(), version, &session, body).await;
            assert_eq!(
                claude.arrived(),
                (Some("s-1".into()), Some(OLD.into())),
                "{method} {body}"
            );
            assert_eq!(claude.server().upstream.last().body(), body);
        }
    }
}

/// Case 32, of a server that says nothing readable about its revision.
#[tokio::test]
async fn no_session_speaks_a_version_of_the_newer_era() {
    let claude = Conversation::at(&TestServer::new()).await;
    let answer = Response::builder()
        .header("mcp-session-id", "s-1")
        .body(Body::from("{}"));
    claude.server().upstream.answers(answer.unwrap());
    let answer = claude.posts("", INITIALIZE).await.expect(200);
    let session = answer.header("mcp-session-id");
    let _ = claude
        .sends(Method::POST, NEW, session, LIST)
        .await
        .expect(200);
    assert_eq!(claude.arrived(), (Some("s-1".into()), None));
    let _ = claude
        .sends(Method::POST, OLD, session, LIST)
        .await
        .expect(200);
    assert_eq!(claude.arrived(), (Some("s-1".into()), Some(OLD.into())));
}

/// The answer to `initialize` may come as an event stream, and passes byte for byte.
#[tokio::test]
async fn what_was_agreed_on_is_read_from_an_event_stream_too() {
    let claude = Conversation::at(&TestServer::new()).await;
    let events = format!("id: 1\r\ndata:\r\n\r\nevent: message\r\ndata: {AGREED}\r\n\r\n");
    let answer = Response::builder()
        .header("content-type", "text/event-stream")
        .header("mcp-session-id", "s-1")
        .body(Body::from(events.clone()));
    claude.server().upstream.answers(answer.unwrap());
    let answer = claude.posts("", INITIALIZE).await.expect(200);
    assert_eq!(answer.text(), events);
    let session = answer.header("mcp-session-id");
    let _ = claude
        .sends(Method::POST, NEW, session, LIST)
        .await
        .expect(200);
    assert_eq!(claude.arrived(), (Some("s-1".into()), Some(OLD.into())));
}

/// Case 33: the body decides, and the headers that repeat it are written from it.
#[tokio::test]
async fn an_older_version_header_on_a_body_of_the_newer_era_is_put_right() {
    let claude = Conversation::at(&TestServer::new()).await;
    let _ = claude.initializes("s-1").await;
    for version in [OLD, "", "2024-11-05"] {
        let _ = claude.posts(version, NEW_LIST).await.expect(200);
        assert_eq!(claude.arrived(), (None, Some(NEW.into())), "{version}");
        let got = claude.server().upstream.last();
        assert_eq!(header(&got, "mcp-method"), Some("tools/list".into()));
        assert_eq!(got.body(), NEW_LIST);
    }
    assert_eq!(claude.server().journal.count("VersionMended"), 1);

    // A client that names the revision itself is its server's to judge.
    let _ = claude.posts(NEW, NEW_LIST).await.expect(200);
    assert_eq!(claude.arrived(), (None, Some(NEW.into())));
    let got = claude.server().upstream.last();
    assert_eq!(header(&got, "mcp-method"), None);

    // So is one of that era that calls what the era has dropped.
    let dropped = NEW_LIST.replace("tools/list", "initialize");
    let _ = claude.posts(NEW, &dropped).await.expect(200);
    assert_eq!(claude.arrived(), (None, Some(NEW.into())));

    let call = NEW_LIST
        .replace("tools/list\"", "tools/call\"")
        .replace("{\"_meta", "{\"name\":\"✓\",\"_meta");
    let _ = claude.posts(OLD, &call).await.expect(200);
    let got = claude.server().upstream.last();
    assert_eq!(header(&got, "mcp-name"), Some("=?base64?4pyT?=".into()));

    // Without any header, and with no revision in the body, none is made up.
    let discover = r#"{"jsonrpc":"2.0","id":1,"method":"server/discover"}"#;
    let _ = claude.posts("", discover).await.expect(200);
    assert_eq!(claude.arrived(), (None, None));
    let got = claude.server().upstream.last();
    assert_eq!(header(&got, "mcp-method"), Some("server/discover".into()));
}

/// Reserved members of the older era are no sign of the newer one (ChatGPT sends them).
#[tokio::test]
async fn other_metadata_in_an_old_body_changes_nothing() {
    let client = Conversation::at(&TestServer::new()).await;
    let _ = client.initializes("s-1").await;
    let body = r#"{"jsonrpc":"2.0","id":2,"method":"tools/list","params":{"_meta":{"io.modelcontextprotocol/related-task":{},"openai/locale":"de"}}}"#;
    let _ = client.posts(OLD, body).await.expect(200);
    assert_eq!(client.arrived(), (Some("s-1".into()), Some(OLD.into())));
}

/// `initialize` is of the older era whatever the header says, and names no version by header.
#[tokio::test]
async fn a_handshake_with_a_newer_header_is_a_handshake() {
    let claude = Conversation::at(&TestServer::new()).await;
    let _ = claude.initializes("s-1").await;
    let _ = claude.posts(NEW, INITIALIZE).await.expect(200);
    assert_eq!(claude.arrived(), (None, None));
    let _ = claude.posts(OLD, INITIALIZE).await.expect(200);
    assert_eq!(claude.arrived(), (None, Some(OLD.into())));
}

/// Case 34: what names no session goes on in the newest one of its grant.
#[tokio::test]
async fn a_request_without_a_session_uses_the_newest_one_of_its_grant() {
    let claude = Conversation::at(&TestServer::new()).await;
    let _ = claude.posts(OLD, LIST).await.expect(200);
    assert_eq!(claude.arrived(), (None, Some(OLD.into())));
    for id in ["s-1", "s-2"] {
        let _ = claude.initializes(id).await;
        for (method, version, body) in [
            (Method::POST, OLD, INITIALIZED),
            (Method::POST, OLD, LIST),
            (Method::POST, "", LIST),
            (Method::POST, NEW, LIST),
            (Method::POST, NEW, INITIALIZED),
            (Method::GET, "", ""),
            (Method::GET, NEW, ""),
        ] {
            let _ = claude.sends(method, version, "", body).await;
            assert_eq!(
                claude.arrived(),
                (Some(id.into()), Some(OLD.into())),
                "{version} {body}"
            );
        }
    }
    // It outlives a refresh: the grant is the same.
    let refreshed = claude.client.refresh(&claude.tokens).await.expect(200);
    let claude = Conversation {
        tokens: Tokens::of(&refreshed),
        ..claude
    };
    let _ = claude.posts(OLD, LIST).await.expect(200);
    assert_eq!(claude.arrived(), (Some("s-2".into()), Some(OLD.into())));
}

/// Case 34: not of the same person and client, and not of another one.
#[tokio::test]
async fn nobody_comes_into_the_session_of_another_grant() {
    let server = TestServer::new();
    let claude = Conversation::at(&server).await;
    let again = claude.approved_again().await;
    let other = Conversation::at(&server).await;
    let _ = claude.initializes("s-1").await;
    for stranger in [&again, &other] {
        for (method, version) in [
            (Method::POST, OLD),
            (Method::POST, NEW),
            (Method::GET, OLD),
            (Method::DELETE, OLD),
        ] {
            let _ = stranger.sends(method, version, "", LIST).await;
            assert_eq!(stranger.arrived().0, None);
        }
    }
    let _ = claude.posts(OLD, LIST).await.expect(200);
    assert_eq!(claude.arrived().0, Some("s-1".into()));
}

/// Case 34: the end of a session is the end of what is kept.
#[tokio::test]
async fn a_session_that_is_over_is_forgotten() {
    const NOT_FOUND: &str =
        r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32001,"message":"Session not found"}}"#;
    let claude = Conversation::at(&TestServer::new()).await;
    for by_name in [true, false] {
        let session = claude.initializes("s-1").await;
        let name = if by_name { session.as_str() } else { "" };
        let _ = claude
            .sends(Method::DELETE, OLD, name, "")
            .await
            .expect(200);
        assert_eq!(claude.arrived().0, Some("s-1".into()));
        let _ = claude.posts(OLD, LIST).await.expect(200);
        assert_eq!(claude.arrived().0, None, "after DELETE");

        let session = claude.initializes("s-2").await;
        let name = if by_name { session.as_str() } else { "" };
        claude.upstream_says(404, NOT_FOUND);
        let lost = claude.sends(Method::POST, OLD, name, LIST).await;
        let lost = lost.refused_rpc(404, -32001);
        assert_eq!(lost.json()["id"], 2);
        let _ = claude.posts(OLD, LIST).await.expect(200);
        assert_eq!(claude.arrived().0, None, "after 404");
    }
    // The end of an older one is not the end of the newest.
    let older = claude.initializes("s-3").await;
    let _ = claude.initializes("s-4").await;
    let _ = claude
        .sends(Method::DELETE, OLD, &older, "")
        .await
        .expect(200);
    let _ = claude.posts(OLD, LIST).await.expect(200);
    assert_eq!(claude.arrived().0, Some("s-4".into()));
}

/// What is kept is bounded in age.
#[tokio::test]
async fn a_session_is_kept_for_its_lifetime() {
    let mut policy = policy(&[("one", "/mcp")]);
    policy.limits.kept_session_lifetime = Duration::from_mins(10);
    policy.tokens.access_lifetime = Duration::from_hours(1);
    let claude = Conversation::at(&TestServer::with(policy)).await;
    let _ = claude.initializes("s-1").await;
    claude.server().clock.advance(Duration::from_secs(599));
    let _ = claude.posts(OLD, LIST).await.expect(200);
    assert_eq!(claude.arrived().0, Some("s-1".into()));
    claude.server().clock.advance(Duration::from_secs(1));
    let _ = claude.posts(OLD, LIST).await.expect(200);
    assert_eq!(claude.arrived().0, None);
}

/// Case 34 with several processes on one store: each knows what any of them was told.
#[tokio::test]
async fn processes_that_share_a_store_share_the_newest_session() {
    let first = TestServer::on(of_several(), Arc::default());
    let second = first.another(of_several());
    let here = Conversation::at(&first).await;
    let there = here.on(&second);
    let _ = here.initializes("s-1").await;
    let _ = there.posts(OLD, LIST).await.expect(200);
    assert_eq!(there.arrived(), (Some("s-1".into()), Some(OLD.into())));
    let _ = there.posts(NEW, LIST).await.expect(200);
    assert_eq!(there.arrived(), (Some("s-1".into()), Some(OLD.into())));

    let _ = there.initializes("s-2").await;
    first.clock.advance(Duration::from_secs(3));
    let _ = here.posts(OLD, LIST).await.expect(200);
    assert_eq!(here.arrived().0, Some("s-2".into()));

    let _ = here.sends(Method::DELETE, OLD, "", "").await;
    first.clock.advance(Duration::from_secs(3));
    let _ = there.posts(OLD, LIST).await.expect(200);
    assert_eq!(there.arrived().0, None);

    // It is in the store as the client would hold it, and not as the upstream knows it.
    let _ = here.initializes("session-4711").await;
    assert!(!first.stored().contains("session-4711"));
    let another = here.approved_again().await.on(&second);
    let _ = another.posts(OLD, LIST).await.expect(200);
    assert_eq!(another.arrived().0, None);
}

/// With the grant goes what was kept for it, from the store as well.
#[tokio::test]
async fn a_kept_session_ends_with_its_grant() {
    let server = TestServer::on(of_several(), Arc::default());
    let claude = Conversation::at(&server).await;
    let session = claude.initializes("s-1").await;
    assert!(server.stored().contains(&session));
    let _ = claude
        .client
        .revoke(&claude.tokens.refresh_token)
        .await
        .expect(200);
    assert!(!server.stored().contains(&session));
}

/// Case 34: one process forgets when it is started anew. The client then hears that it has to begin
/// again, and not the upstream's own refusal, at which clients only try again.
#[tokio::test]
async fn after_a_restart_a_client_without_a_session_is_made_to_begin_again() {
    const NEEDED: [&str; 3] = [
        r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32000,"message":"session required"}}"#,
        r#"{"jsonrpc":"2.0","error":{"code":-32000,"message":"Bad Request: Server not initialized"}}"#,
        r#"{"jsonrpc":"2.0","id":"server-error","error":{"code":-32600,"message":"Bad Request: Missing session ID"}}"#,
    ];
    let server = TestServer::new();
    let claude = Conversation::at(&server).await;
    let _ = claude.initializes("s-1").await;
    let restarted = server.another(policy(&[("one", "/mcp")]));
    let claude = claude.on(&restarted);
    for needed in NEEDED {
        for version in [OLD, ""] {
            claude.upstream_says(400, needed);
            let answer = claude.posts(version, LIST).await.refused_rpc(404, -32001);
            assert_eq!(answer.json()["id"], 2);
        }
    }
    // The same in the other direction: a header alone does not make a request of the newer era.
    claude.upstream_says(400, r#"{"error":{"code":-32000,"message":"Bad Request: Unsupported protocol version: 2026-07-28"}}"#);
    let _ = claude.posts(NEW, LIST).await.refused_rpc(404, -32001);
    let _ = claude.initializes("s-2").await;
    let _ = claude.posts(OLD, LIST).await.expect(200);
    assert_eq!(claude.arrived().0, Some("s-2".into()));

    // Other refusals stay what they are, and so does one of the newer era.
    for (body, text) in [
        (
            LIST,
            r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"Parse error"}}"#,
        ),
        (
            LIST,
            r#"{"jsonrpc":"2.0","id":2,"error":{"code":-32602,"message":"session: no such property"}}"#,
        ),
        (NEW_LIST, NEEDED[0]),
    ] {
        claude.upstream_says(400, text);
        let answer = claude.posts(OLD, body).await.expect(400);
        assert_eq!(answer.text(), text);
    }
}

/// Case 22: a server that forgot a session says so in many ways; the client hears the one that
/// makes it begin again.
#[tokio::test]
async fn a_lost_session_is_a_404_for_its_client_whatever_the_server_says() {
    let claude = Conversation::at(&TestServer::new()).await;
    for (status, text) in [
        (
            400,
            r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32000,"message":"Bad Request: No valid session ID provided"}}"#,
        ),
        (
            400,
            r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32000,"message":"Bad Request: Server not initialized"}}"#,
        ),
        (400, "Invalid session ID"),
        (401, "Unauthorized: Session not found"),
        (404, ""),
        (500, r#"{"error":"session does not exist"}"#),
    ] {
        for by_name in [true, false] {
            let session = claude.initializes("s-1").await;
            let name = if by_name { session.as_str() } else { "" };
            claude.upstream_says(status, text);
            let answer = claude.sends(Method::POST, OLD, name, LIST).await;
            let answer = answer.refused_rpc(404, -32001);
            assert_eq!(answer.json()["id"], 2, "{text}");
            assert!(
                claude
                    .server()
                    .journal
                    .all()
                    .pop()
                    .unwrap()
                    .contains("SessionLost")
            );
        }
    }
    let session = claude.initializes("s-1").await;
    for (status, text, here) in [
        (
            400,
            r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32000,"message":"Bad Request: unsupported media type"}}"#,
            400,
        ),
        (500, "out of memory", 502),
        (
            404,
            r#"{"jsonrpc":"2.0","id":2,"error":{"code":-32601,"message":"no such method"}}"#,
            200,
        ),
    ] {
        claude.upstream_says(status, text);
        let _ = claude
            .sends(Method::POST, OLD, &session, LIST)
            .await
            .expect(here);
        let _ = claude.posts(OLD, LIST).await.expect(200);
        assert_eq!(claude.arrived().0, Some("s-1".into()), "{text}");
    }
}

/// A server without sessions still agreed on a revision, which every later request has to name.
#[tokio::test]
async fn a_handshake_without_a_session_is_remembered() {
    for policy in [policy(&[("one", "/mcp")]), of_several()] {
        let claude = Conversation::at(&TestServer::with(policy)).await;
        claude.upstream_says(200, AGREED);
        let answer = claude.posts("", INITIALIZE).await.expect(200);
        assert!(!answer.headers.contains_key("mcp-session-id"));
        for version in [NEW, OLD] {
            let _ = claude.posts(version, LIST).await.expect(200);
            assert_eq!(claude.arrived(), (None, Some(OLD.into())));
        }
        let _ = claude.posts(NEW, NEW_LIST).await.expect(200);
        assert_eq!(claude.arrived(), (None, Some(NEW.into())));
    }
}

/// A refusal opens no session, even if it names one, as those of some servers do.
#[tokio::test]
async fn a_session_in_a_refusal_is_none() {
    let claude = Conversation::at(&TestServer::new()).await;
    let refusal = Response::builder()
        .status(406)
        .header("mcp-session-id", "s-1")
        .body(Body::empty());
    claude.server().upstream.answers(refusal.unwrap());
    let answer = claude.posts("", INITIALIZE).await.expect(406);
    assert!(!answer.headers.contains_key("mcp-session-id"));
    let _ = claude.posts(OLD, LIST).await.expect(200);
    assert_eq!(claude.arrived().0, None);
}

/// Case 35: a header that contradicts the body is refused in both eras, with the request's id.
#[tokio::test]
async fn a_header_that_contradicts_the_body_is_refused_in_both_eras() {
    let client = Conversation::at(&TestServer::new()).await;
    let session = client.initializes("s-1").await;
    let server = client.server();
    for (version, session, body) in [(NEW, "", NEW_LIST), (OLD, session.as_str(), LIST)] {
        for (headers, status) in [
            (
                &[("mcp-method", "tools/call"), ("mcp-name", "other")][..],
                400,
            ),
            (&[("mcp-method", "Tools/List")], 400),
            (&[("mcp-method", "tools/list")], 200),
            (&[("mcp-method", "tools/list"), ("mcp-name", "other")], 200),
        ] {
            let mut request = client.client.call_request(&client.tokens);
            *request.body_mut() = Body::from(body);
            let has = request.headers_mut();
            has.insert("mcp-protocol-version", version.parse().unwrap());
            if !session.is_empty() {
                has.insert("mcp-session-id", session.parse().unwrap());
            }
            for (name, value) in headers {
                has.insert(*name, value.parse().unwrap());
            }
            let before = server.upstream.received().len();
            let answer = server.send(request).await.expect(status);
            let went = server.upstream.received().len() - before;
            assert_eq!(went, usize::from(status == 200), "{headers:?}");
            if status == 400 {
                assert_eq!(answer.json()["id"], 2);
                assert_eq!(answer.json()["error"]["code"], -32020);
            }
        }
    }
    // What the journal calls a call is what the body says.
    assert!(!server.journal.all().join("\n").contains("tools/call"));
}

/// What headers say of a body has to be read in it, whatever else they say of it.
#[tokio::test]
async fn headers_that_name_a_message_stand_beside_one_that_is_read() {
    const CALL: &str = r#"{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"x"}}"#;
    let client = Conversation::at(&TestServer::new()).await;
    let server = client.server();
    let bom = format!("\u{feff}{LIST}");
    let batch = format!("[{LIST}]");
    for (body, headers, status) in [
        (LIST, &[][..], 200),
        (CALL, &[], 400),
        (&bom, &[], 400),
        (&batch, &[], 400),
        ("tools/list", &[], 400),
        (LIST, &[("content-encoding", "identity")], 200),
        (CALL, &[("content-encoding", "identity")], 400),
        (CALL, &[("content-encoding", "")], 400),
        (CALL, &[("content-encoding", " , Identity")], 400),
        // What is compressed nobody reads on the way, and the server hears that it is.
        (
            CALL,
            &[
                ("content-encoding", "gzip"),
                ("connection", "content-encoding"),
            ],
            200,
        ),
    ] {
        let mut request = client.client.call_request(&client.tokens);
        *request.body_mut() = Body::from(body.to_owned());
        for (name, value) in [("mcp-method", "tools/list")].iter().chain(headers) {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        let before = server.upstream.received().len();
        let _ = server.send(request).await.expect(status);
        let received = server.upstream.received();
        assert_eq!(
            received.len() - before,
            usize::from(status == 200),
            "{body}"
        );
        if headers.len() == 2 {
            assert_eq!(received[before].headers()["content-encoding"], "gzip");
        }
    }
}

/// A member that decides is there once: the upstream may go by the other one.
#[tokio::test]
async fn a_body_that_says_two_things_is_refused() {
    let client = Conversation::at(&TestServer::new()).await;
    for body in [
        r#"{"jsonrpc":"2.0","id":2,"method":"tools/list","method":"tools/call"}"#,
        r#"{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"a","name":"b"}}"#,
    ] {
        let _ = client.posts(OLD, body).await.refused_rpc(400, -32600);
    }
    assert!(client.server().upstream.received().is_empty());
}
