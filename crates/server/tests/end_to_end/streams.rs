//! Streams and slow answers, as they pass over TCP.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use server::upstream::UpstreamTimeouts;
use tokio::{
    sync::oneshot,
    time::{Instant, timeout},
};

use super::{
    World,
    support::upstream::{USUAL, usual},
};

/// Far longer than anything here takes.
const SOON: Duration = Duration::from_secs(5);

/// The next chunk of a body, however the connection cut it.
pub(crate) async fn next_chunk(body: &mut Incoming) -> Bytes {
    let frame = timeout(SOON, body.frame()).await.expect("nothing comes");
    frame.unwrap().unwrap().into_data().unwrap()
}

/// Whether a body ends, and not by breaking off.
pub(crate) async fn ended_cleanly(body: &mut Incoming) -> bool {
    timeout(SOON, body.frame()).await.unwrap().is_none()
}

/// TL-03, TL-07, TL-08, TM-13, S5-16
#[tokio::test]
async fn events_arrive_byte_for_byte_as_soon_as_they_are_sent() {
    let world = World::new().await;
    let session = world.starts_session("s-1").await;
    for method in [Method::GET, Method::POST] {
        let events = world.upstream.streams();
        let mut request = world.in_session(&session);
        *request.method_mut() = method;
        let last_event = "s-1:7".parse().unwrap();
        request.headers_mut().insert("last-event-id", last_event);

        // The head is here before the first event.
        let response = timeout(SOON, world.client.http.open(request));
        let response = response.await.unwrap().unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        let headers = response.headers();
        assert_eq!(headers["content-type"], "text/event-stream");
        assert_eq!(headers["x-accel-buffering"], "no");
        assert!(!headers.contains_key(header::CONTENT_LENGTH));
        assert!(!headers.contains_key(header::CONTENT_ENCODING));
        let mut body = response.into_body();
        let long = format!("data: {}\n\n", "x".repeat(200_000));
        let mut took = Vec::new();
        for sent in [
            ": a comment\n",
            "\n",
            "id: 1\nret",
            "ry: 3000\ndata:\n\nda",
            "ta: a\r\ndata: b\r\n\r\n",
            "event: message\nid\ndata: \u{e9}\u{0}\u{feff}\n\n",
            "\r\r\n\n",
            &long,
            "data: without an end",
        ] {
            let started = Instant::now();
            events.send(sent.to_owned().into()).unwrap();
            let mut arrived = Vec::new();
            while arrived.len() < sent.len() {
                arrived.extend(next_chunk(&mut body).await);
            }
            took.push(started.elapsed());
            assert!(arrived == sent.as_bytes(), "{sent:?}");
        }
        drop(events);
        assert!(ended_cleanly(&mut body).await);
        took.sort();
        let median = took[took.len() / 2];
        assert!(median < Duration::from_millis(100), "{took:?}");
        assert_eq!(world.upstream.last().headers()["last-event-id"], "s-1:7");
    }
}

impl World {
    /// The session that the client is given when the upstream starts one called `id`.
    async fn starts_session(&self, id: &'static str) -> HeaderValue {
        let mut started = usual();
        let value = HeaderValue::from_static(id);
        started.headers_mut().insert("mcp-session-id", value);
        self.upstream.answers(async { started });
        let answer = self.client.call(&self.tokens).await.expect(200);
        answer.headers["mcp-session-id"].clone()
    }

    /// A call in that session.
    fn in_session(&self, session: &HeaderValue) -> Request<Body> {
        let mut request = self.client.call_request(&self.tokens);
        let headers = request.headers_mut();
        headers.insert("mcp-session-id", session.clone());
        request
    }
}

/// TL-13: who loses the connection in the middle of an answer has lost neither the session nor
/// what the answer is about, and nothing is said to the upstream in the client's name.
#[tokio::test]
async fn a_session_outlives_the_connections_that_break_in_it() {
    let world = World::new().await;
    let session = world.starts_session("s-1").await;
    let events = world.upstream.streams();
    let request = world.in_session(&session);
    let mut response = world.client.http.open(request).await.unwrap();
    events.send("id: 7\ndata: 1\n\n".into()).unwrap();
    let _ = next_chunk(response.body_mut()).await;

    drop(response);
    timeout(SOON, events.closed()).await.unwrap();

    let rest = world.upstream.streams();
    let mut resumed = world.in_session(&session);
    *resumed.method_mut() = Method::GET;
    *resumed.body_mut() = Body::empty();
    let last = HeaderValue::from_static("7");
    resumed.headers_mut().insert("last-event-id", last);
    let mut response = world.client.http.open(resumed).await.unwrap();
    rest.send("id: 8\ndata: 2\n\n".into()).unwrap();
    let next = next_chunk(response.body_mut()).await;
    assert_eq!(next, "id: 8\ndata: 2\n\n");
    let next = world.client.http.send(world.in_session(&session)).await;
    let _ = next.expect(200);

    let received = world.upstream.received();
    let methods: Vec<_> = received.iter().map(Request::method).collect();
    assert_eq!(methods, ["POST", "POST", "GET", "POST"]);
    for request in &received[1..] {
        assert_eq!(request.headers()["mcp-session-id"], "s-1");
    }
}

/// TM-08
#[tokio::test]
async fn a_client_that_closes_its_stream_closes_the_upstreams_at_once() {
    let world = World::new().await;
    let events = world.upstream.streams();
    let request = world.client.call_request(&world.tokens);
    let mut response = world.client.http.open(request).await.unwrap();
    events.send("data: 1\n\n".into()).unwrap();
    let _ = next_chunk(response.body_mut()).await;
    assert!(!events.is_closed());

    drop(response);

    timeout(Duration::from_secs(1), events.closed())
        .await
        .expect("the upstream's stream is still open after a second");
}

/// TM-08: leaving before the answer has begun counts too.
#[tokio::test]
async fn a_client_that_leaves_before_the_answer_ends_the_request_upstream() {
    let world = World::new().await;
    let (arrived, in_flight) = oneshot::channel();
    let (held, released) = oneshot::channel::<()>();
    world.upstream.answers(async {
        arrived.send(()).unwrap();
        let _ = released.await;
        usual()
    });
    let call = world.client.call(&world.tokens);
    tokio::select! {
        _ = call => panic!("nothing was answered"),
        arrived = in_flight => arrived.unwrap(),
    }
    // The call is dropped, and with it what waits at the upstream.
    let mut held = held;
    timeout(Duration::from_secs(1), held.closed())
        .await
        .expect("the upstream still works on it after a second");
}

/// TL-09: a tool may think before it answers. That it may do so for five minutes is the default.
#[tokio::test]
async fn a_slow_tool_is_waited_for() {
    let world = World::new().await;
    world.upstream.answers(async {
        tokio::time::sleep(Duration::from_secs(3)).await;
        usual()
    });
    let answer = world.client.call(&world.tokens).await.expect(200);
    assert_eq!(answer.text(), USUAL);

    let events = world.upstream.streams();
    let request = world.client.call_request(&world.tokens);
    let mut stream = world.client.http.open(request).await.unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    events.send("data: late\n\n".into()).unwrap();
    assert_eq!(next_chunk(stream.body_mut()).await, "data: late\n\n");

    assert_eq!(UpstreamTimeouts::default().head, Duration::from_secs(310));
}

/// PX-09, S5-18: an upstream that is not there.
#[tokio::test]
async fn an_upstream_that_is_down_is_a_bad_gateway() {
    let nobody = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = nobody.local_addr().unwrap();
    drop(nobody);
    let proxy = super::Proxy::in_front_of(address).await;
    let client = super::Client::register(&super::Http::to(proxy.address)).await;
    let tokens = client.sign_in().await;

    let answer = client.call(&tokens).await.expect(502);

    let message = answer.json()["error"]["message"].to_string();
    assert!(message.contains("cannot be reached"), "{message}");
    assert!(!answer.text().contains(&address.to_string()));
}
