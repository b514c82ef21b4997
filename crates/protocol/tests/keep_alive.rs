//! Event streams that are silent get a comment, between two events and nowhere else.

#![expect(clippy::unwrap_used, reason = "all of this is a test")]

mod support;

use std::{convert::Infallible, time::Duration};

use axum::body::Body;
use bytes::Bytes;
use futures_util::{FutureExt, stream};
use http::{Method, Request, Response, header};
use http_body_util::BodyExt;
use support::{
    HOME, TestServer,
    client::{McpClient, Tokens},
    policy, request,
};
use tokio::sync::mpsc;

const COMMENT: &str = ": keep-alive\n\n";
const AT_ONCE: Duration = Duration::from_millis(100);
const SECOND: Duration = Duration::from_secs(1);

/// A client, and a stream of its own.
struct Listener {
    server: TestServer,
    upstream: mpsc::UnboundedSender<Bytes>,
    body: Body,
}

impl Listener {
    async fn open() -> Self {
        Self::open_on(TestServer::new(), Method::GET, &[]).await
    }

    /// `headers` are beside those of any event stream.
    async fn open_on(server: TestServer, method: Method, headers: &[(&str, &str)]) -> Self {
        let client = server.mcp_client().await;
        let tokens = client.sign_in().await;
        let (upstream, events) = mpsc::unbounded_channel();
        let events = stream::unfold(events, async |mut events: mpsc::UnboundedReceiver<_>| {
            let event: Bytes = events.recv().await?;
            Some((Ok::<_, Infallible>(event), events))
        });
        let mut answer = Response::builder().header(header::CONTENT_TYPE, "text/event-stream");
        for (name, value) in headers {
            answer = answer.header(*name, *value);
        }
        server
            .upstream
            .answers(answer.body(Body::from_stream(events)).unwrap());
        let answer = server
            .front
            .answer(ask(&client, &tokens, method), HOME)
            .await;
        assert_eq!(answer.status(), 200);
        Self {
            server,
            upstream,
            body: answer.into_body(),
        }
    }

    /// What has come, without waiting for more.
    fn heard(&mut self) -> String {
        let mut heard = Vec::new();
        while let Some(Some(frame)) = self.body.frame().now_or_never() {
            heard.extend_from_slice(&frame.unwrap().into_data().unwrap());
        }
        String::from_utf8(heard).unwrap()
    }

    fn says(&self, text: impl AsRef<[u8]>) {
        self.upstream
            .send(Bytes::copy_from_slice(text.as_ref()))
            .unwrap();
    }

    /// What comes within that time, in steps that no timer can miss.
    fn hears_within(&mut self, time: Duration) -> String {
        let mut heard = self.heard();
        let steps = time.as_millis() / AT_ONCE.as_millis();
        for _ in 0..steps {
            self.server.clock.advance(AT_ONCE);
            heard += &self.heard();
        }
        heard
    }
}

fn ask(client: &McpClient, tokens: &Tokens, method: Method) -> Request<Body> {
    if method == Method::POST {
        return client.call_request(tokens);
    }
    request(method, &client.path)
        .header(
            header::AUTHORIZATION,
            format!("Bearer {}", tokens.access_token),
        )
        .header(header::ACCEPT, "text/event-stream")
        .body(Body::empty())
        .unwrap()
}

/// Case 14: a stream with nothing to say.
#[tokio::test]
async fn a_silent_stream_gets_a_comment_when_it_opens_and_every_twenty_seconds() {
    for method in [Method::GET, Method::POST] {
        let mut stream = Listener::open_on(TestServer::new(), method, &[]).await;
        assert_eq!(stream.heard(), "");
        assert_eq!(stream.hears_within(AT_ONCE), COMMENT);
        for _ in 0..3 {
            assert_eq!(
                stream.hears_within((20 * SECOND).saturating_sub(AT_ONCE)),
                ""
            );
            assert_eq!(stream.hears_within(AT_ONCE), COMMENT);
        }
        // Its end is not put off.
        let Listener { upstream, body, .. } = stream;
        drop(upstream);
        assert!(body.collect().await.unwrap().to_bytes().is_empty());
    }
}

/// Case 14
#[tokio::test]
async fn a_stream_that_speaks_stays_as_it_is() {
    let mut stream = Listener::open().await;
    stream.says("data: 1\n\n");
    assert_eq!(stream.heard(), "data: 1\n\n");
    for second in 0..60 {
        let event = format!("id: {second}\ndata: {second}\n\n");
        stream.says(&event);
        assert_eq!(stream.hears_within(SECOND), event);
    }
    // Silence counts from the last event, whenever the one before was.
    assert_eq!(
        stream.hears_within((19 * SECOND).saturating_sub(AT_ONCE)),
        ""
    );
    assert_eq!(stream.hears_within(AT_ONCE), COMMENT);
}

/// Case 14: only between events.
#[tokio::test]
async fn a_comment_never_stands_inside_an_event() {
    let mut stream = Listener::open().await;
    for (part, is_between) in [
        ("id: 1\nda", false),
        ("ta: 1", false),
        ("\n", false),
        ("\n", true),
        ("data: 2\r", false),
        ("\n", false),
        ("\r", true),
        ("\n", true),
        ("data: 3\r", false),
        ("\r", true),
        ("data: 4\n", false),
        ("\r\n", true),
        (": a comment of its own\n", false),
        ("\n", true),
        ("data: {\"text\": \"", false),
        ("\\n\\n", false),
    ] {
        stream.says(part);
        assert_eq!(stream.heard(), part);
        let comments = if is_between { COMMENT } else { "" };
        assert_eq!(stream.hears_within(20 * SECOND), comments, "{part:?}");
    }
    stream.says("\"}\n\n");
    assert_eq!(stream.heard(), "\"}\n\n");
}

/// A neighbour of case 14: the mark is nothing at the beginning, and a part of the name of the first
/// field anywhere else.
#[tokio::test]
async fn a_byte_order_mark_after_the_first_comment_is_left_out() {
    const MARKED: &[u8] = b"\xEF\xBB\xBFdata: 1\n\n";
    for cut in 0..=5 {
        let mut stream = Listener::open().await;
        assert_eq!(stream.hears_within(AT_ONCE), COMMENT);
        let (first, second) = MARKED.split_at(cut);
        stream.says(first);
        stream.says(second);
        assert_eq!(stream.heard(), "data: 1\n\n", "{cut}");
        // Only the first, and only the whole.
        stream.says("\u{feff}: x\n\n");
        assert_eq!(stream.heard(), "\u{feff}: x\n\n");
    }
    let mut stream = Listener::open().await;
    assert_eq!(stream.hears_within(AT_ONCE), COMMENT);
    stream.says(b"\xEF\xBB");
    assert_eq!(stream.heard(), "");
    stream.says(b"\xAD: x\n\n");
    assert_eq!(stream.heard(), "\u{feed}: x\n\n");

    // Nothing came before it here.
    let mut stream = Listener::open().await;
    stream.says(MARKED);
    assert_eq!(stream.heard().as_bytes(), MARKED);
    assert_eq!(stream.hears_within(20 * SECOND), COMMENT);
}

/// Case 14: only into what can take it.
#[tokio::test]
async fn nothing_is_put_into_other_bodies() {
    for headers in [
        &[("content-encoding", "gzip")][..],
        &[("content-length", "1000")],
    ] {
        let mut stream = Listener::open_on(TestServer::new(), Method::GET, headers).await;
        assert_eq!(stream.hears_within(60 * SECOND), "", "{headers:?}");
    }
    let server = TestServer::new();
    let client = server.mcp_client().await;
    let tokens = client.sign_in().await;
    for (kind, body) in [
        ("application/json", Body::from_stream(silence())),
        ("text/plain", Body::from_stream(silence())),
        ("text/event-stream", Body::empty()),
    ] {
        let answer = Response::builder().header(header::CONTENT_TYPE, kind);
        server.upstream.answers(answer.body(body).unwrap());
        let call = ask(&client, &tokens, Method::POST);
        let mut body = server.front.answer(call, HOME).await.into_body();
        let first = body.frame().now_or_never();
        server.clock.advance(60 * SECOND);
        let second = body.frame().now_or_never();
        let nothing = [first, second].into_iter().flatten().flatten().next();
        assert!(nothing.is_none(), "{kind}: {nothing:?}");
    }
}

fn silence() -> stream::Pending<Result<Bytes, Infallible>> {
    stream::pending()
}

/// Case 14: a key to turn it off, or to have it sooner.
#[tokio::test]
async fn how_long_a_stream_may_be_silent_is_the_operators_choice() {
    for (every, expected) in [(None, ""), (Some(5 * SECOND), COMMENT)] {
        let mut policy = policy(&[("one", "/mcp")]);
        policy.limits.stream_keep_alive = every;
        let mut stream = Listener::open_on(TestServer::with(policy), Method::GET, &[]).await;
        assert_eq!(stream.hears_within(AT_ONCE), expected);
        assert_eq!(stream.hears_within(5 * SECOND), expected);
    }
}
