//! HTTP/2 from the outside: a well-behaved client, and frames written by hand.
#![expect(clippy::unwrap_used, reason = "all of this is a test")]

#[path = "support/frames.rs"]
#[expect(unreachable_pub, reason = "a part of several test programs")]
mod frames;

use std::{
    convert::Infallible,
    future::{pending, ready},
    iter::repeat_n,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use axum::body::Body;
use bytes::Bytes;
use frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, PREFACE, RST_STREAM, Raw,
    SETTINGS, WINDOW_UPDATE, field, fields, frame,
};
use http::{Method, Request, Response, StatusCode, Version, header};
use http_body::Frame;
use http_body_util::{BodyExt, channel::Channel};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use server::listen::{ConnectionLimits, Limit, Meter, serve};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Far longer than anything here takes, far shorter than the limits that are not under test.
const SOON: Duration = Duration::from_secs(10);

struct Server {
    address: SocketAddr,
    stop: CancellationToken,
    tasks: TaskTracker,
    met: Arc<Mutex<Vec<Limit>>>,
}

impl Server {
    async fn start<H, F>(limits: ConnectionLimits, answer: H) -> Self
    where
        H: Fn(Request<Body>, IpAddr) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let met = Arc::<Mutex<Vec<Limit>>>::default();
        let meter: Meter = {
            let met = Arc::clone(&met);
            Arc::new(move |limit| met.lock().unwrap().push(limit))
        };
        tasks.spawn(serve(listener, limits, meter, stop.clone(), answer));
        tasks.close();
        Self {
            address,
            stop,
            tasks,
            met,
        }
    }

    /// A client as it should be.
    async fn client(&self) -> SendRequest<Body> {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let io = TokioIo::new(stream);
        let (client, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
        TaskTracker::new().spawn(connection);
        client
    }

    async fn raw(&self) -> Raw {
        Raw::begin(TcpStream::connect(self.address).await.unwrap()).await
    }

    fn met(&self) -> Vec<Limit> {
        self.met.lock().unwrap().clone()
    }

    async fn still_serves(&self) {
        let answer = self.client().await.send_request(get("/")).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
    }
}

fn head(method: &str) -> Vec<u8> {
    fields(&[
        (":method", method),
        (":scheme", "http"),
        (":authority", "here"),
        (":path", "/"),
    ])
}

/// A `SETTINGS` frame that lets the server send this much of each answer.
fn window(bytes: u32) -> Vec<u8> {
    let [a, b, c, d] = bytes.to_be_bytes();
    frame(SETTINGS, 0, 0, &[0, 4, a, b, c, d])
}

fn get(path: &str) -> Request<Body> {
    Request::builder()
        .uri(format!("http://here{path}"))
        .body(Body::empty())
        .unwrap()
}

fn post(body: Body) -> Request<Body> {
    let mut request = get("/").map(|_| body);
    *request.method_mut() = Method::POST;
    request
}

async fn ok(_: Request<Body>, _: IpAddr) -> Response<Body> {
    Response::new(Body::from("ok"))
}

async fn collect(request: Request<Body>, _: IpAddr) -> Response<Body> {
    let mut answer = Response::default();
    match request.into_body().collect().await {
        Ok(body) => *answer.body_mut() = Body::from(body.to_bytes().len().to_string()),
        Err(_) => *answer.status_mut() = StatusCode::REQUEST_TIMEOUT,
    }
    answer
}

async fn large(_: Request<Body>, _: IpAddr) -> Response<Body> {
    Response::new(Body::from(vec![b'x'; 1024 * 1024]))
}

fn milliseconds(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// TL-17, C-15
#[tokio::test]
async fn one_port_speaks_both() {
    let server = Server::start(ConnectionLimits::default(), collect).await;
    let mut client = server.client().await;
    for length in [0, 5, 4 * 1024 * 1024] {
        let body = Body::from(vec![b'x'; length]);
        let answer = client.send_request(post(body)).await.unwrap();
        assert_eq!(answer.version(), Version::HTTP_2);
        let answer = answer.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(answer, length.to_string());
    }

    let mut old = TcpStream::connect(server.address).await.unwrap();
    old.write_all(
        b"POST / HTTP/1.1\r\nhost: here\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}",
    )
    .await
    .unwrap();
    let mut answer = String::new();
    old.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

/// The preface may come in parts, and what only looks like one is no HTTP at all.
#[tokio::test]
async fn a_connection_is_what_its_first_bytes_say() {
    let server = Server::start(ConnectionLimits::default(), ok).await;
    let mut raw = Raw(TcpStream::connect(server.address).await.unwrap());
    for part in PREFACE.chunks(5) {
        raw.send(part).await;
        sleep(milliseconds(30)).await;
    }
    raw.frame(SETTINGS, 0, 0, &[]).await;
    raw.frame(HEADERS, END_HEADERS | END_STREAM, 1, &head("GET"))
        .await;
    assert_eq!(raw.next_of(DATA).await.1, 1);

    // N-HD-25
    for garbage in [
        "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\nGET / HTTP/1.1\r\nhost: here\r\n\r\n",
        "\r\n\r\n\0\r\nQUIT\n\u{11}\u{11}",
        "\u{16}\u{3}\u{1}\u{2}",
    ] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(garbage.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        let end = timeout(SOON, stream.read_to_end(&mut answer)).await;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(end.is_ok(), "open after {garbage:?}");
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 400 "),
            "{garbage:?}: {answer}"
        );
    }
}

/// What the handler sees does not depend on the version.
#[tokio::test]
async fn a_request_is_as_http1_would_have_brought_it() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let server = Server::start(ConnectionLimits::default(), {
        let seen = Arc::clone(&seen);
        move |request: Request<Body>, _| {
            let headers = request.headers();
            let one = |name| {
                let mut all = headers.get_all(name).iter();
                let first = all.next().map(|value| value.to_str().unwrap().to_owned());
                assert!(all.next().is_none());
                first
            };
            seen.lock()
                .unwrap()
                .push((one(header::HOST), one(header::COOKIE)));
            ready(Response::default())
        }
    })
    .await;
    let mut raw = server.raw().await;
    let crumbs = fields(&[("cookie", "a=1"), ("cookie", "b=2")]);
    let block = [head("GET"), crumbs].concat();
    raw.frame(HEADERS, END_HEADERS | END_STREAM, 1, &block)
        .await;
    raw.next_of(HEADERS).await;
    let expected = (Some("here".to_owned()), Some("a=1; b=2".to_owned()));
    assert_eq!(*seen.lock().unwrap(), [expected]);
}

/// N-HD-20
#[tokio::test]
async fn a_malformed_request_does_not_reach_the_handler() {
    let server = Server::start(ConnectionLimits::default(), ok).await;
    let good = [
        (":method", "GET"),
        (":scheme", "http"),
        (":authority", "here"),
        (":path", "/"),
    ];
    let with = |more: &[(&str, &str)]| fields(&[&good, more].concat());
    let without = |name: &str| {
        let mut rest = good.to_vec();
        rest.retain(|(known, _)| *known != name);
        fields(&rest)
    };
    // What the version alone forbids is a broken stream; the rest is an answer.
    for (what, block, status) in [
        ("two names", with(&[("host", "there")]), Some("400")),
        (
            "two hosts",
            with(&[("host", "here"), ("host", "here")]),
            Some("400"),
        ),
        ("no name", without(":authority"), Some("400")),
        ("upper case", with(&[("X-Upper", "x")]), None),
        ("a line break", with(&[("x", "a\r\nb: c")]), None),
        ("a NUL", with(&[("x", "a\0b")]), None),
        (
            "transfer-encoding",
            with(&[("transfer-encoding", "chunked")]),
            None,
        ),
        ("connection", with(&[("connection", "close")]), None),
        ("te", with(&[("te", "gzip")]), None),
        (
            "pseudo-header late",
            with(&[("x", "y"), (":path", "/2")]),
            None,
        ),
        ("pseudo-header twice", with(&[(":path", "/2")]), None),
        ("pseudo-header unknown", with(&[(":other", "x")]), None),
        ("no path", without(":path"), None),
        ("no method", without(":method"), None),
        ("101 headers", with(&[("x", "y"); 101]), Some("431")),
    ] {
        let mut raw = server.raw().await;
        raw.frame(HEADERS, END_HEADERS | END_STREAM, 1, &block)
            .await;
        let outcome = loop {
            match raw.next().await {
                Some((HEADERS, _, 1, content)) => break Some(status_of(&content)),
                Some((RST_STREAM | GOAWAY, ..)) | None => break None,
                Some(_) => {}
            }
        };
        assert_eq!(outcome.as_deref(), status, "{what}");
    }
    for more in [&[][..], &[("host", "here")], &[("te", "trailers")]] {
        let mut raw = server.raw().await;
        raw.frame(HEADERS, END_HEADERS | END_STREAM, 1, &with(more))
            .await;
        assert_eq!(status_of(&raw.next_of(HEADERS).await.2), "200");
    }
}

/// The status in a block of headers that begins with it (RFC 7541 §6.1, §6.2, appendix A).
fn status_of(block: &[u8]) -> String {
    match block {
        [0x88, ..] => "200".to_owned(),
        [0x8c, ..] => "400".to_owned(),
        // `:status` by its number in the table, then three digits in Huffman code.
        [0x48, 0x83, 0x69, 0x90, 0xff, ..] => "431".to_owned(),
        other => format!("{other:x?}"),
    }
}

#[tokio::test]
async fn a_silent_connection_is_closed_and_so_is_one_that_begins_nothing() {
    let limits = ConnectionLimits {
        head: milliseconds(300),
        ..Default::default()
    };
    let server = Server::start(limits, ok).await;
    // Not even the preface; half of it; no request after it.
    for start in [&b""[..], &PREFACE[..9], PREFACE] {
        let mut raw = Raw(TcpStream::connect(server.address).await.unwrap());
        raw.send(start).await;
        raw.is_closed().await;
    }
    assert_eq!(server.met(), [Limit::SlowHead; 3]);
}

#[tokio::test]
async fn a_used_connection_may_idle_and_ping_but_not_for_ever() {
    let limits = ConnectionLimits {
        head: milliseconds(300),
        idle: milliseconds(1500),
        ..Default::default()
    };
    let server = Server::start(limits, ok).await;
    let mut raw = server.raw().await;
    for stream in [1, 3] {
        raw.frame(HEADERS, END_HEADERS | END_STREAM, stream, &head("GET"))
            .await;
        while raw.next_of(DATA).await.0 & END_STREAM == 0 {}
        sleep(milliseconds(700)).await;
        raw.frame(PING, 0, 0, &[0; 8]).await;
    }
    raw.is_closed().await;
    assert_eq!(server.met(), [Limit::Idle]);
}

#[tokio::test]
async fn headers_that_drip_in_are_cut_off() {
    let limits = ConnectionLimits {
        head: milliseconds(400),
        ..Default::default()
    };
    let server = Server::start(limits, |_, _| pending()).await;
    let block = head("GET");
    let whole = frame(HEADERS, END_HEADERS | END_STREAM, 3, &block);
    let unfinished = frame(HEADERS, END_STREAM, 3, &block);
    // In the middle of a frame's header, of a frame, and of a block. A request in progress on the
    // same connection does not help.
    for begun in [&whole[..5], &whole[..20], &unfinished] {
        let mut raw = server.raw().await;
        raw.frame(HEADERS, END_HEADERS | END_STREAM, 1, &block)
            .await;
        let begins = Instant::now();
        raw.send(begun).await;
        raw.is_closed().await;
        assert!(begins.elapsed() < Duration::from_secs(3));
    }
    assert_eq!(server.met(), [Limit::SlowHead; 3]);
}

#[tokio::test]
async fn a_body_that_drips_in_fails_and_one_that_moves_arrives() {
    let limits = ConnectionLimits {
        body_stall: milliseconds(600),
        min_rate: 10_000,
        ..Default::default()
    };
    let server = Server::start(limits, collect).await;
    let mut client = server.client().await;
    for (piece, status) in [(10, 408), (5000, 200)] {
        let (mut sender, body) = Channel::<Bytes, Infallible>::new(1);
        let sending = async {
            for _ in 0..15 {
                let piece = Bytes::from(vec![b'x'; piece]);
                if sender.send_data(piece).await.is_err() {
                    break;
                }
                sleep(milliseconds(100)).await;
            }
            drop(sender);
        };
        let (answer, ()) = tokio::join!(client.send_request(post(Body::new(body))), sending);
        assert_eq!(answer.unwrap().status().as_u16(), status);
    }
    assert_eq!(server.met(), [Limit::SlowBody]);
}

/// N-HD-23: a reader that gives no room, or one byte of it now and then.
#[tokio::test]
async fn a_stream_that_takes_nothing_is_reset_and_the_others_go_on() {
    let limits = ConnectionLimits {
        write_stall: milliseconds(500),
        min_rate: 10_000,
        ..Default::default()
    };
    for answer in ["large", "small"] {
        let server = Server::start(limits.clone(), move |request, peer| async move {
            match answer {
                "large" => large(request, peer).await,
                _ => ok(request, peer).await,
            }
        })
        .await;
        // One byte is room for a part of the smallest answer.
        for bytes in [0, 1] {
            let mut raw = server.raw().await;
            raw.send(&window(bytes)).await;
            raw.frame(HEADERS, END_HEADERS | END_STREAM, 1, &head("GET"))
                .await;
            let room = 2_000_000_u32.to_be_bytes();
            raw.frame(WINDOW_UPDATE, 0, 0, &room).await;
            raw.frame(HEADERS, END_HEADERS | END_STREAM, 3, &head("GET"))
                .await;
            raw.frame(WINDOW_UPDATE, 0, 3, &room).await;
            let (mut complete, mut reset) = (false, false);
            while let Some((kind, flags, stream, _)) = raw.next().await {
                complete |= kind == DATA && stream == 3 && flags & END_STREAM != 0;
                reset |= kind == RST_STREAM && stream == 1;
            }
            // With nothing left to do, a connection that was slow has ended too.
            assert!(complete && reset, "{answer} {bytes}: {complete} {reset}");
        }
        let slow = Limit::SlowReader;
        assert_eq!(server.met(), [slow, Limit::Idle, slow, Limit::Idle]);
    }
}

#[tokio::test]
async fn a_reader_that_sips_is_reset() {
    let limits = ConnectionLimits {
        write_stall: milliseconds(800),
        min_rate: 100_000,
        ..Default::default()
    };
    let server = Server::start(limits, large).await;
    let mut raw = server.raw().await;
    raw.send(&window(0)).await;
    raw.frame(HEADERS, END_HEADERS | END_STREAM, 1, &head("GET"))
        .await;
    let sipping = async {
        loop {
            raw.frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]).await;
            if raw.next_of_either(DATA, RST_STREAM).await == RST_STREAM {
                break;
            }
            sleep(milliseconds(10)).await;
        }
    };
    timeout(SOON, sipping).await.expect("it is still served");
    assert_eq!(server.met(), [Limit::SlowReader]);
}

impl Raw {
    async fn next_of_either(&mut self, one: u8, other: u8) -> u8 {
        loop {
            let (kind, ..) = self.next().await.expect("the connection ended");
            if kind == one || kind == other {
                return kind;
            }
        }
    }
}

/// A reader of the whole socket that stops.
#[tokio::test]
async fn a_connection_that_is_not_read_is_closed() {
    let limits = ConnectionLimits {
        write_stall: milliseconds(500),
        min_rate: 1_000_000,
        ..Default::default()
    };
    let server = Server::start(limits, large).await;
    let mut raw = server.raw().await;
    raw.send(&window(i32::MAX as u32)).await;
    raw.frame(WINDOW_UPDATE, 0, 0, &0x7f00_0000_u32.to_be_bytes())
        .await;
    for request in 0..50 {
        let stream = request * 2 + 1;
        raw.frame(HEADERS, END_HEADERS | END_STREAM, stream, &head("GET"))
            .await;
    }
    // First its streams have had their time, then the connection.
    sleep(Duration::from_secs(2)).await;
    assert!(server.met().contains(&Limit::SlowReader));
    raw.is_closed().await;
}

#[tokio::test]
async fn a_slow_reader_that_reads_gets_everything_and_a_quiet_stream_is_left_alone() {
    let limits = ConnectionLimits {
        head: milliseconds(300),
        idle: milliseconds(300),
        write_stall: milliseconds(600),
        min_rate: 10_000,
        ..Default::default()
    };
    let (mut events, stream) = Channel::<Bytes, Infallible>::new(1);
    let stream = Arc::new(Mutex::new(Some(stream)));
    let server = Server::start(limits, move |request: Request<Body>, peer| {
        let stream = match request.uri().path() {
            "/events" => stream.lock().unwrap().take(),
            _ => None,
        };
        async move {
            match stream {
                Some(stream) => event_stream(Body::new(stream)),
                None => large(request, peer).await,
            }
        }
    })
    .await;
    let mut client = server.client().await;
    let answer = client.send_request(get("/events")).await.unwrap();
    let mut stream = answer.into_body();
    for event in ["data: 1\n\n", "data: 2\n\n"] {
        events.send_data(event.into()).await.unwrap();
        let mut arrived = Vec::new();
        while arrived.len() < event.len() {
            let frame = timeout(SOON, stream.frame()).await.unwrap();
            arrived.extend(frame.unwrap().unwrap().into_data().unwrap());
        }
        assert_eq!(arrived, event.as_bytes());
        sleep(milliseconds(1200)).await;
    }

    let mut answer = client.send_request(get("/")).await.unwrap().into_body();
    let mut read = 0;
    while let Some(frame) = answer.frame().await {
        read += frame.unwrap().into_data().unwrap().len();
        sleep(milliseconds(20)).await;
    }
    assert_eq!(read, 1024 * 1024);
    assert_eq!(server.met(), []);
}

fn event_stream(body: Body) -> Response<Body> {
    Response::builder()
        .header(header::CONTENT_TYPE, "text/event-stream")
        .body(body)
        .unwrap()
}

/// A stop is announced, lets requests finish, and ends streams.
#[tokio::test]
async fn a_stop_ends_streams_cleanly_and_lets_requests_finish() {
    let server = Server::start(
        ConnectionLimits {
            drain: milliseconds(800),
            ..Default::default()
        },
        |request: Request<Body>, _| async move {
            match request.uri().path() {
                "/events" => event_stream(Body::new(Quiet)),
                "/never" => pending().await,
                _ => {
                    sleep(milliseconds(300)).await;
                    Response::new(Body::from("done"))
                }
            }
        },
    )
    .await;
    let mut client = server.client().await;
    let listening = client.send_request(get("/events")).await.unwrap();
    let mut calling = get("/events");
    *calling.method_mut() = Method::POST;
    let calling = client.send_request(calling).await.unwrap();
    let slow = client.send_request(get("/"));
    let never = client.send_request(get("/never"));
    let begun = Instant::now();
    let stopping = async {
        sleep(milliseconds(100)).await;
        server.stop.cancel();
        // Both end as if the upstream had ended them, the second when the time is over.
        listening.into_body().collect().await.unwrap();
        let first = begun.elapsed();
        calling.into_body().collect().await.unwrap();
        (first, begun.elapsed())
    };
    let (slow, never, (first, second)) = tokio::join!(slow, never, stopping);
    assert!(first < milliseconds(700), "{first:?}");
    assert!(second >= milliseconds(800), "{second:?}");
    let slow = slow.unwrap().into_body().collect().await.unwrap();
    assert_eq!(slow.to_bytes(), "done");
    assert!(never.is_err());
    timeout(SOON, server.tasks.wait()).await.unwrap();
}

/// A body that never says anything.
struct Quiet;

impl http_body::Body for Quiet {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Pending
    }
}

/// N-HD-21, N-HD-22, N-HD-23
#[tokio::test]
async fn floods_end_their_connection_and_nobody_elses() {
    const TIMES: usize = 100_000;
    let server = Server::start(ConnectionLimits::default(), ok).await;
    let mut witness = server.client().await;
    let witnessed = witness.send_request(get("/")).await.unwrap();
    assert_eq!(witnessed.status(), StatusCode::OK);
    let before = resident();

    let request = |stream: u32| frame(HEADERS, END_HEADERS, stream, &head("POST"));
    for (what, opening, repeated) in [
        ("PING", vec![], frame(PING, 0, 0, &[0; 8])),
        ("SETTINGS", vec![], frame(SETTINGS, 0, 0, &[])),
        ("PRIORITY", vec![], frame(2, 0, 1, &[0, 0, 0, 0, 1])),
        ("empty DATA", request(1), frame(DATA, 0, 1, &[])),
        (
            "WINDOW_UPDATE",
            request(1),
            frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]),
        ),
        ("an unknown kind", vec![], frame(0x42, 0, 0, &[])),
        (
            "empty CONTINUATION",
            frame(HEADERS, 0, 1, &head("GET")),
            frame(CONTINUATION, 0, 1, &[]),
        ),
        (
            "CONTINUATION",
            frame(HEADERS, 0, 1, &head("GET")),
            frame(CONTINUATION, 0, 1, &field("x", &"y".repeat(1000))),
        ),
    ] {
        let mut raw = server.raw().await;
        raw.send(&opening).await;
        let sent = raw.flood(repeat_n(repeated, TIMES)).await;
        assert!(sent < TIMES, "{what} went on");
    }
    // Rapid reset; and resets that we are provoked to, by a window that grows by nothing.
    for provocation in [
        &|stream| frame(RST_STREAM, 0, stream, &[0, 0, 0, 8]),
        &(|stream| frame(WINDOW_UPDATE, 0, stream, &[0; 4])) as &dyn Fn(u32) -> Vec<u8>,
    ] {
        let requests = (0..100_000).map(|request| {
            let stream = request * 2 + 1;
            let whole = frame(HEADERS, END_HEADERS | END_STREAM, stream, &head("GET"));
            [whole, provocation(stream)].concat()
        });
        let sent = server.raw().await.flood(requests).await;
        assert!(sent < TIMES, "all resets were taken");
    }

    let witnessed = witness.send_request(get("/")).await.unwrap();
    assert_eq!(witnessed.status(), StatusCode::OK);
    server.still_serves().await;
    assert!(server.met().contains(&Limit::EmptyFrames));
    if let (Some(before), Some(after)) = (before, resident()) {
        let grown = after.saturating_sub(before) / 1024;
        assert!(grown < 64 * 1024, "{grown} KiB more than before");
    }
}

/// N-HD-23: a few bytes that stand for many.
#[tokio::test]
async fn a_header_bomb_is_refused() {
    let server = Server::start(ConnectionLimits::default(), ok).await;
    let mut raw = server.raw().await;
    // One field goes into the table, and is then named by one byte each, 4 KiB at a time.
    let mut block = head("GET");
    let mut kept = field("x", &"y".repeat(4000));
    kept[0] = 0x40;
    block.extend(kept);
    block.extend([0xbe; 8000]);
    raw.frame(HEADERS, END_HEADERS | END_STREAM, 1, &block)
        .await;
    while let Some((kind, _, _, content)) = raw.next().await {
        assert!(kind != HEADERS || status_of(&content) == "431");
    }
    server.still_serves().await;
}

/// The bytes of memory in use, where the system tells.
fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim()
        .strip_suffix(" kB")?
        .parse::<u64>()
        .ok()
        .map(|kib| kib * 1024)
}
