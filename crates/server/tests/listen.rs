//! The accept loop, from the outside: raw sockets on one side, handlers on the other.
#![expect(clippy::unwrap_used, clippy::panic, reason = "all of this is a test")]

use std::{
    error::Error,
    fs::File,
    future::{pending, ready},
    io::{self, Read, Seek},
    net::{IpAddr, SocketAddr},
    pin::Pin,
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::body::Body;
use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::BodyExt;
use server::listen::{BodyStalled, ConnectionLimits, Limit, Meter, serve};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{Notify, mpsc, oneshot},
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Far longer than anything here takes, far shorter than the limits that are not under test.
const SOON: Duration = Duration::from_secs(5);

const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: here\r\n\r\n";

struct Server {
    address: SocketAddr,
    stop: CancellationToken,
    /// The limits that were met.
    met: Arc<Mutex<Vec<Limit>>>,
    serving: JoinHandle<()>,
}

impl Server {
    async fn start<H, F>(limits: ConnectionLimits, answer: H) -> Self
    where
        H: Fn(Request<Body>, IpAddr) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let met = Arc::<Mutex<Vec<Limit>>>::default();
        let meter: Meter = {
            let met = Arc::clone(&met);
            Arc::new(move |limit| met.lock().unwrap().push(limit))
        };
        let serving = serve(listener, limits, meter, stop.clone(), answer);
        Self {
            address,
            stop,
            met,
            serving: TaskTracker::new().spawn(serving),
        }
    }

    async fn connect(&self) -> Peer {
        Peer(TcpStream::connect(self.address).await.unwrap())
    }

    async fn stopped(self) {
        timeout(SOON, self.serving).await.unwrap().unwrap();
    }
}

/// The client's end of a connection.
struct Peer(TcpStream);

impl Peer {
    async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.write_all(bytes.as_ref()).await.unwrap();
    }

    /// Everything up to and including `end`.
    async fn read_until(&mut self, end: &str) -> String {
        let mut seen = Vec::new();
        while !seen.ends_with(end.as_bytes()) {
            match timeout(SOON, self.0.read_u8()).await {
                Ok(Ok(byte)) => seen.push(byte),
                other => panic!(
                    "waiting for {end:?}: {other:?} after {:?}",
                    String::from_utf8_lossy(&seen)
                ),
            }
        }
        String::from_utf8(seen).unwrap()
    }

    /// Everything until the server closes, in order or not.
    async fn read_to_end(&mut self) -> (String, io::Result<()>) {
        let mut seen = Vec::new();
        let end = timeout(SOON, self.0.read_to_end(&mut seen))
            .await
            .expect("the server does not close the connection");
        (String::from_utf8(seen).unwrap(), end.map(drop))
    }

    async fn is_closed(&mut self) {
        assert_eq!(self.read_to_end().await.0, "");
    }
}

/// Says when it is dropped.
struct Dropped(Option<oneshot::Sender<()>>);

impl Dropped {
    fn watched() -> (Self, oneshot::Receiver<()>) {
        let (dropped, watch) = oneshot::channel();
        (Self(Some(dropped)), watch)
    }
}

impl Drop for Dropped {
    fn drop(&mut self) {
        let _ = self.0.take().unwrap().send(());
    }
}

/// A body of what comes through a channel.
struct Channel {
    frames: mpsc::Receiver<Result<Bytes, io::Error>>,
    _dropped: Option<Dropped>,
}

impl http_body::Body for Channel {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        self.frames
            .poll_recv(cx)
            .map(|frame| frame.map(|frame| frame.map(Frame::data)))
    }
}

fn channel(dropped: Option<Dropped>) -> (mpsc::Sender<Result<Bytes, io::Error>>, Body) {
    let (sender, frames) = mpsc::channel(1);
    let body = Channel {
        frames,
        _dropped: dropped,
    };
    (sender, Body::new(body))
}

fn event_stream(body: Body) -> Response<Body> {
    Response::builder()
        .header(header::CONTENT_TYPE, "text/event-stream; charset=utf-8")
        .body(body)
        .unwrap()
}

/// A handler that gives its answer to whoever asks first.
fn once(
    answer: Response<Body>,
) -> impl Fn(Request<Body>, IpAddr) -> std::future::Ready<Response<Body>> + Clone {
    let answer = Arc::new(Mutex::new(Some(answer)));
    move |_, _| ready(answer.lock().unwrap().take().unwrap())
}

async fn ok(_: Request<Body>, _: IpAddr) -> Response<Body> {
    Response::new(Body::from("ok"))
}

async fn echo(request: Request<Body>, _: IpAddr) -> Response<Body> {
    Response::new(request.into_body())
}

async fn never(_: Request<Body>, _: IpAddr) -> Response<Body> {
    pending().await
}

/// 200 for a body that came whole, 408 for one that stalled.
async fn collect(request: Request<Body>, _: IpAddr) -> Response<Body> {
    let mut answer = Response::default();
    if let Err(error) = request.into_body().collect().await {
        let cause = error.source().and_then(|cause| cause.downcast_ref());
        assert!(matches!(cause, Some(BodyStalled { .. })), "{error:?}");
        *answer.status_mut() = StatusCode::REQUEST_TIMEOUT;
    }
    answer
}

fn milliseconds(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

#[tokio::test]
async fn a_silent_connection_is_closed() {
    let limits = ConnectionLimits {
        head: milliseconds(200),
        ..Default::default()
    };
    let server = Server::start(limits, ok).await;
    let begun = Instant::now();
    server.connect().await.is_closed().await;
    assert!(begun.elapsed() >= milliseconds(190));
    assert_eq!(*server.met.lock().unwrap(), [Limit::SlowHead]);
}

#[tokio::test]
async fn a_head_that_drips_in_is_cut_off() {
    let limits = ConnectionLimits {
        head: milliseconds(300),
        ..Default::default()
    };
    let server = Server::start(limits, ok).await;
    let mut peer = server.connect().await;
    peer.send("GET / HTTP/1.1\r\nhost: here\r\nx: ").await;
    let dripping = async {
        let mut drops = 0;
        while peer.0.write_all(b"x").await.is_ok() && drops < 100 {
            sleep(milliseconds(20)).await;
            drops += 1;
        }
        drops
    };
    let drops = timeout(SOON, dripping).await.unwrap();
    assert!((5..50).contains(&drops), "{drops} drops");
    assert_eq!(*server.met.lock().unwrap(), [Limit::SlowHead]);
}

#[tokio::test]
async fn a_used_connection_may_idle_but_must_finish_what_it_begins() {
    let limits = ConnectionLimits {
        head: milliseconds(250),
        idle: milliseconds(1800),
        ..Default::default()
    };
    let server = Server::start(limits, ok).await;
    let mut peer = server.connect().await;
    for _ in 0..2 {
        peer.send(GET).await;
        peer.read_until("ok").await;
        sleep(milliseconds(500)).await;
    }

    let begun = Instant::now();
    peer.send("GET / HTTP").await;
    peer.is_closed().await;
    let took = begun.elapsed();
    assert!(
        (milliseconds(240)..milliseconds(900)).contains(&took),
        "closed after {took:?}"
    );

    let mut peer = server.connect().await;
    peer.send(GET).await;
    peer.read_until("ok").await;
    let begun = Instant::now();
    peer.is_closed().await;
    let took = begun.elapsed();
    assert!(
        (milliseconds(1700)..milliseconds(4000)).contains(&took),
        "closed after {took:?}"
    );
    assert_eq!(*server.met.lock().unwrap(), [Limit::SlowHead, Limit::Idle]);
}

/// Case 15: a request that has arrived is answered, though the connection was about to end, and the
/// runtime did not know yet.
#[tokio::test]
async fn a_request_that_has_just_been_sent_is_not_lost_with_an_idle_connection() {
    let ok_later = async |request: Request<Body>, peer: IpAddr| {
        tokio::task::yield_now().await;
        ok(request, peer).await
    };
    for rest in ["", "\r\n"] {
        let server = Server::start(ConnectionLimits::default(), ok_later).await;
        let mut peer = idle(&server).await;
        let (sent, later) = GET.split_at(GET.len() - rest.len());
        assert_eq!(peer.0.try_write(sent).unwrap(), sent.len());
        server.stop.cancel();
        sleep(milliseconds(20)).await;
        peer.send(later).await;
        let (answer, end) = peer.read_to_end().await;
        end.unwrap();
        assert!(answer.ends_with("\r\n\r\nok"), "{answer:?}");
        assert!(answer.contains("connection: close"), "{answer:?}");
        server.stopped().await;
    }
    let limits = ConnectionLimits {
        idle: milliseconds(200),
        ..Default::default()
    };
    let server = Server::start(limits, ok).await;
    let mut peer = idle(&server).await;
    // Nothing else runs meanwhile.
    std::thread::sleep(milliseconds(250));
    assert_eq!(peer.0.try_write(GET).unwrap(), GET.len());
    peer.read_until("ok").await;
}

/// TM-09: a subscription may be open for as long as it likes.
#[tokio::test]
async fn an_answer_may_take_longer_than_any_limit() {
    let limits = ConnectionLimits {
        head: milliseconds(100),
        idle: milliseconds(100),
        body_stall: milliseconds(100),
        write_stall: milliseconds(100),
        ..Default::default()
    };
    let (frames, body) = channel(None);
    let server = Server::start(limits, once(event_stream(body))).await;
    let mut peer = server.connect().await;
    peer.send(GET).await;
    for event in ["data: 1\n\n", "data: 2\n\n"] {
        sleep(milliseconds(300)).await;
        frames.send(Ok(event.into())).await.unwrap();
        peer.read_until(event).await;
    }
}

#[tokio::test]
async fn a_hundred_headers_are_enough() {
    for most in [ConnectionLimits::default().headers, 20] {
        let limits = ConnectionLimits {
            headers: most,
            ..Default::default()
        };
        let server = Server::start(limits, ok).await;
        for (headers, status) in [(most - 1, "200"), (most, "431")] {
            let mut peer = server.connect().await;
            let many = "x: y\r\n".repeat(headers);
            peer.send(format!("GET / HTTP/1.1\r\nhost: here\r\n{many}\r\n"))
                .await;
            let head = peer.read_until("\r\n\r\n").await;
            assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
        }
        assert_eq!(*server.met.lock().unwrap(), [Limit::Head]);
    }
}

#[tokio::test]
async fn a_head_beyond_32_kib_is_refused_in_words() {
    let server = Server::start(ConnectionLimits::default(), ok).await;
    for (kib, status) in [(31, "200"), (33, "431"), (1024, "431")] {
        let mut peer = server.connect().await;
        let long = "y".repeat(kib * 1024);
        peer.send(format!("GET / HTTP/1.1\r\nhost: here\r\nx: {long}\r\n\r\n"))
            .await;
        let head = peer.read_until("\r\n\r\n").await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
    }
}

#[tokio::test]
async fn a_body_that_stalls_fails() {
    let limits = ConnectionLimits {
        body_stall: milliseconds(200),
        ..Default::default()
    };
    let server = Server::start(limits, collect).await;
    for framing in [
        "content-length: 10\r\n\r\nhal",
        "transfer-encoding: chunked\r\n\r\n3\r\nhal\r\n",
        "content-length: 10\r\n\r\n",
    ] {
        let mut peer = server.connect().await;
        peer.send(format!("POST / HTTP/1.1\r\nhost: here\r\n{framing}"))
            .await;
        let head = peer.read_until("\r\n\r\n").await;
        assert!(head.starts_with("HTTP/1.1 408 "), "{head}");
        peer.is_closed().await;
    }
}

/// To send something now and then is not enough.
#[tokio::test]
async fn a_body_that_drips_in_fails() {
    let limits = ConnectionLimits {
        body_stall: milliseconds(500),
        min_rate: 1000,
        ..Default::default()
    };
    let server = Server::start(limits, collect).await;
    for framing in [
        ("content-length: 100000\r\n\r\n", "x"),
        ("transfer-encoding: chunked\r\n\r\n", "1\r\nx\r\n"),
    ] {
        let mut peer = server.connect().await;
        let begun = Instant::now();
        peer.send(format!("POST / HTTP/1.1\r\nhost: here\r\n{}", framing.0))
            .await;
        let (mut read, mut write) = peer.0.into_split();
        let dripping = TaskTracker::new().spawn(async move {
            while write.write_all(framing.1.as_bytes()).await.is_ok() {
                sleep(milliseconds(20)).await;
            }
        });
        let mut answer = Vec::new();
        // The drops that come after the end may reset what is left of the connection.
        let _ = timeout(SOON, read.read_to_end(&mut answer)).await.unwrap();
        assert!(answer.starts_with(b"HTTP/1.1 408 "), "{answer:?}");
        let took = begun.elapsed();
        assert!(took < milliseconds(2500), "closed after {took:?}");
        timeout(SOON, dripping).await.unwrap().unwrap();
    }
    assert_eq!(*server.met.lock().unwrap(), [Limit::SlowBody; 2]);
}

#[tokio::test]
async fn a_body_that_is_slow_but_moves_arrives() {
    let limits = ConnectionLimits {
        body_stall: milliseconds(800),
        min_rate: 10_000,
        ..Default::default()
    };
    let server = Server::start(limits, collect).await;
    let mut peer = server.connect().await;
    // Three times as long as the limit, at several times the least rate.
    peer.send("POST / HTTP/1.1\r\nhost: here\r\ncontent-length: 120000\r\n\r\n")
        .await;
    for _ in 0..24 {
        sleep(milliseconds(100)).await;
        peer.send(vec![b'x'; 5000]).await;
    }
    let head = peer.read_until("\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert_eq!(*server.met.lock().unwrap(), []);
}

/// What a slow upstream takes its time over is not the client's fault.
#[tokio::test]
async fn a_body_that_nobody_reads_may_wait() {
    let limits = ConnectionLimits {
        body_stall: milliseconds(300),
        min_rate: 100_000,
        ..Default::default()
    };
    let read_slowly = |request: Request<Body>, _| async {
        let mut body = request.into_body();
        while let Some(frame) = body.frame().await {
            frame.unwrap();
            sleep(milliseconds(400)).await;
        }
        Response::default()
    };
    let server = Server::start(limits, read_slowly).await;
    let mut peer = server.connect().await;
    peer.send("POST / HTTP/1.1\r\nhost: here\r\ncontent-length: 3\r\n\r\n")
        .await;
    for _ in 0..3 {
        peer.send("x").await;
        sleep(milliseconds(450)).await;
    }
    let head = peer.read_until("\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
}

/// To take a byte now and then is not enough either, not even of an answer that is ready.
#[tokio::test]
async fn a_reader_that_sips_is_dropped() {
    let limits = ConnectionLimits {
        write_stall: milliseconds(500),
        min_rate: 1_000_000,
        ..Default::default()
    };
    let answer = Response::new(Body::from(vec![b'x'; 16 * 1024 * 1024]));
    let server = Server::start(limits, once(answer)).await;
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut peer = Peer(socket.connect(server.address).await.unwrap());
    peer.send(GET).await;
    let sipping = async {
        let mut piece = [0; 256];
        while peer.0.read(&mut piece).await.is_ok_and(|read| read > 0) {
            sleep(milliseconds(5)).await;
        }
    };
    timeout(SOON, sipping).await.expect("it is still served");
    assert_eq!(*server.met.lock().unwrap(), [Limit::SlowReader]);
}

#[tokio::test]
async fn a_reader_that_takes_nothing_is_dropped() {
    let limits = ConnectionLimits {
        write_stall: milliseconds(300),
        ..Default::default()
    };
    let (dropped, is_dropped) = Dropped::watched();
    let (frames, body) = channel(Some(dropped));
    let server = Server::start(limits, once(event_stream(body))).await;
    let mut peer = server.connect().await;
    peer.send(GET).await;
    let sending = async {
        let much = Bytes::from(vec![b'x'; 1024 * 1024]);
        while frames.send(Ok(much.clone())).await.is_ok() {}
    };
    timeout(SOON, sending).await.unwrap();
    is_dropped.await.unwrap();
    // Reset, so that the kernel keeps nothing for it either.
    let (_, end) = peer.read_to_end().await;
    assert_eq!(end.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
}

/// Nor is it when each answer is small, and asked for before the last was taken.
#[tokio::test]
async fn a_reader_that_asks_faster_than_it_reads_is_dropped() {
    let limits = ConnectionLimits {
        write_stall: milliseconds(500),
        min_rate: 1_000_000,
        ..Default::default()
    };
    let answer = |_, _| async { Response::new(Body::from(vec![b'x'; 2000])) };
    let server = Server::start(limits, answer).await;
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let peer = socket.connect(server.address).await.unwrap();
    let (mut read, mut write) = peer.into_split();
    let asking = async { while write.write_all(&GET.repeat(100)).await.is_ok() {} };
    let sipping = async {
        let mut piece = [0; 256];
        while read.read(&mut piece).await.is_ok_and(|read| read > 0) {
            sleep(milliseconds(1)).await;
        }
    };
    let both = async { tokio::join!(asking, sipping) };
    timeout(SOON, both).await.expect("it is still served");
    assert_eq!(*server.met.lock().unwrap(), [Limit::SlowReader]);
}

#[tokio::test]
async fn a_reader_that_is_slow_but_reads_gets_everything() {
    const TOTAL: usize = 24 * 1024 * 1024;
    let limits = ConnectionLimits {
        write_stall: milliseconds(400),
        ..Default::default()
    };
    let answer = Response::new(Body::from(vec![b'x'; TOTAL]));
    let server = Server::start(limits, once(answer)).await;
    let mut peer = server.connect().await;
    peer.send(GET).await;
    peer.read_until("\r\n\r\n").await;
    let mut read = 0;
    let mut piece = vec![0; 2 * 1024 * 1024];
    while read < TOTAL {
        sleep(milliseconds(50)).await;
        let length = timeout(SOON, peer.0.read(&mut piece)).await.unwrap();
        let length = length.unwrap();
        assert_ne!(length, 0, "cut off after {read}");
        read += length;
    }
}

/// Answers `/wait` never, and all else at once.
async fn ok_or_never(request: Request<Body>, _: IpAddr) -> Response<Body> {
    if request.uri().path() == "/wait" {
        pending::<()>().await;
    }
    Response::new(Body::from("ok"))
}

const WAIT: &[u8] = b"GET /wait HTTP/1.1\r\nhost: here\r\n\r\n";

/// A connection with a request that is not answered.
async fn busy(server: &Server) -> Peer {
    let mut peer = server.connect().await;
    peer.send(WAIT).await;
    peer
}

/// A connection that was of use, and may be again.
async fn idle(server: &Server) -> Peer {
    let mut peer = server.connect().await;
    peer.send(GET).await;
    peer.read_until("ok").await;
    peer
}

#[tokio::test]
async fn one_address_has_a_bounded_number_of_connections() {
    let limits = ConnectionLimits {
        per_address: 2,
        ..Default::default()
    };
    let server = Server::start(limits, ok_or_never).await;
    let _first = busy(&server).await;
    let second = busy(&server).await;
    server.connect().await.is_closed().await;
    assert_eq!(*server.met.lock().unwrap(), [Limit::PerAddress]);

    drop(second);
    // The server learns of the close in its own time.
    let admitted = async {
        loop {
            let mut third = server.connect().await;
            if third.0.write_all(GET).await.is_ok() && third.0.read_u8().await.is_ok() {
                break;
            }
        }
    };
    timeout(SOON, admitted).await.unwrap();
}

/// The twin: of those that are idle, one gives way.
#[tokio::test]
async fn an_idle_connection_of_one_address_gives_way_to_its_next() {
    let limits = ConnectionLimits {
        per_address: 3,
        ..Default::default()
    };
    let server = Server::start(limits, ok_or_never).await;
    let _busy = busy(&server).await;
    let mut longest = idle(&server).await;
    sleep(milliseconds(5)).await;
    let mut shorter = idle(&server).await;
    let _newcomer = idle(&server).await;
    longest.is_closed().await;
    shorter.send(GET).await;
    shorter.read_until("ok").await;
}

#[tokio::test]
async fn a_shared_address_has_as_many_connections_as_there_are() {
    let limits = ConnectionLimits {
        per_address: 1,
        shared_addresses: vec!["127.0.0.0/8".parse().unwrap()],
        ..Default::default()
    };
    let server = Server::start(limits, ok).await;
    let mut peers = Vec::new();
    for _ in 0..3 {
        let mut peer = server.connect().await;
        peer.send(GET).await;
        peer.read_until("ok").await;
        peers.push(peer);
    }
}

#[tokio::test]
async fn connections_beyond_the_cap_wait_for_their_turn() {
    let limits = ConnectionLimits {
        connections: 1,
        ..Default::default()
    };
    let server = Server::start(limits, ok_or_never).await;
    let first = busy(&server).await;

    let mut second = server.connect().await;
    second.send(GET).await;
    let early = timeout(milliseconds(200), second.0.read_u8()).await;
    assert!(early.is_err(), "answered beyond the cap");
    assert_eq!(*server.met.lock().unwrap(), [Limit::Connections]);

    drop(first);
    second.read_until("ok").await;
}

/// Case 15: a longer idle time keeps nobody out. Of those that are idle, the longest is closed, and
/// only for one that has come.
#[tokio::test]
async fn an_idle_connection_gives_way_when_all_are_taken() {
    let limits = ConnectionLimits {
        connections: 3,
        ..Default::default()
    };
    let server = Server::start(limits, ok_or_never).await;
    let mut busy = busy(&server).await;
    let mut longest = idle(&server).await;
    sleep(milliseconds(100)).await;
    let mut shorter = idle(&server).await;
    sleep(milliseconds(100)).await;
    longest.send(GET).await;
    longest.read_until("ok").await;
    sleep(milliseconds(100)).await;
    // Now it is the other that was idle for longest.
    let _newcomer = idle(&server).await;
    shorter.is_closed().await;
    longest.send(GET).await;
    longest.read_until("ok").await;
    assert!(timeout(milliseconds(50), busy.0.read_u8()).await.is_err());
    assert_eq!(
        *server.met.lock().unwrap(),
        [Limit::Connections, Limit::GaveWay]
    );
}

/// A connection on which nothing was asked yet is not idle: its client is about to ask.
#[tokio::test]
async fn a_connection_that_has_just_come_does_not_give_way() {
    let limits = ConnectionLimits {
        connections: 2,
        ..Default::default()
    };
    let server = Server::start(limits, ok_or_never).await;
    let mut silent = server.connect().await;
    let mut begun = idle(&server).await;
    begun.send("GET / HTTP/1.1\r\n").await;
    sleep(milliseconds(50)).await;
    let mut newcomer = server.connect().await;
    newcomer.send(GET).await;
    assert!(
        timeout(milliseconds(300), newcomer.0.read_u8())
            .await
            .is_err()
    );
    silent.send(GET).await;
    silent.read_until("ok").await;
    newcomer.read_until("ok").await;
    silent.is_closed().await;
    begun.send("host: here\r\n\r\n").await;
    begun.read_until("ok").await;
}

/// FI-22
#[tokio::test]
async fn a_panic_is_one_clients_500() {
    let server = Server::start(
        ConnectionLimits::default(),
        |request: Request<Body>, peer| {
            assert!(request.uri() != "/early", "before there is a future");
            async move {
                tokio::task::yield_now().await;
                assert!(request.uri() != "/late", "after the first await");
                ok(request, peer).await
            }
        },
    )
    .await;
    for path in ["/early", "/late"] {
        let mut peer = server.connect().await;
        peer.send(format!("GET {path} HTTP/1.1\r\nhost: here\r\n\r\n"))
            .await;
        let head = peer.read_until("\r\n\r\n").await;
        assert!(head.starts_with("HTTP/1.1 500 "), "{head}");
    }
    let mut peer = server.connect().await;
    peer.send(GET).await;
    peer.read_until("ok").await;
}

#[tokio::test]
async fn the_handler_learns_the_peer() {
    let server = Server::start(ConnectionLimits::default(), |_, peer: IpAddr| async move {
        Response::new(Body::from(peer.to_string()))
    })
    .await;
    let mut peer = server.connect().await;
    peer.send(GET).await;
    peer.read_until("\r\n\r\n127.0.0.1").await;
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let count = Arc::new(AtomicUsize::new(0));
    let server = Server::start(ConnectionLimits::default(), move |_, _| {
        let number = count.fetch_add(1, Ordering::Relaxed);
        async move {
            tokio::task::yield_now().await;
            Response::new(Body::from(format!("answer {number}")))
        }
    })
    .await;
    let mut peer = server.connect().await;
    peer.send([GET, GET, GET].concat()).await;
    for number in 0..3 {
        peer.read_until(&format!("\r\n\r\nanswer {number}")).await;
    }
}

#[tokio::test]
async fn lengths_survive_in_both_directions() {
    let server = Server::start(ConnectionLimits::default(), echo).await;
    let mut peer = server.connect().await;
    peer.send("POST / HTTP/1.1\r\nhost: here\r\ncontent-length: 5\r\n\r\nhallo")
        .await;
    let head = peer.read_until("\r\n\r\nhallo").await;
    assert!(head.contains("content-length: 5\r\n"), "{head}");

    peer.send(GET).await;
    let head = peer.read_until("\r\n\r\n").await;
    assert!(head.contains("content-length: 0\r\n"), "{head}");
}

#[tokio::test]
async fn a_client_with_a_large_body_still_reads_its_early_answer() {
    let refuse = |_, _| async {
        let mut answer = Response::new(Body::from("who are you?"));
        *answer.status_mut() = StatusCode::UNAUTHORIZED;
        answer
    };
    let server = Server::start(ConnectionLimits::default(), refuse).await;
    let mut peer = server.connect().await;
    peer.send("POST / HTTP/1.1\r\nhost: here\r\ncontent-length: 4194304\r\n\r\n")
        .await;
    peer.send(vec![b'x'; 4 * 1024 * 1024]).await;
    let (answer, end) = peer.read_to_end().await;
    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
    assert!(answer.ends_with("who are you?"), "{answer}");
    end.unwrap();
}

#[tokio::test]
async fn the_handler_is_dropped_when_its_client_leaves() {
    let (dropped, is_dropped) = Dropped::watched();
    let dropped = Arc::new(Mutex::new(Some(dropped)));
    let (entered, mut has_entered) = mpsc::channel(1);
    let server = Server::start(ConnectionLimits::default(), move |_, _| {
        let dropped = dropped.lock().unwrap().take();
        let entered = entered.clone();
        async move {
            let _dropped = dropped;
            entered.send(()).await.unwrap();
            pending().await
        }
    })
    .await;
    let mut peer = server.connect().await;
    peer.send(GET).await;
    has_entered.recv().await.unwrap();
    drop(peer);
    timeout(Duration::from_secs(1), is_dropped)
        .await
        .expect("the handler outlives its client")
        .unwrap();
}

#[tokio::test]
async fn the_body_is_dropped_when_its_client_leaves() {
    let (dropped, is_dropped) = Dropped::watched();
    let (frames, body) = channel(Some(dropped));
    let server = Server::start(ConnectionLimits::default(), once(event_stream(body))).await;
    let mut peer = server.connect().await;
    peer.send(GET).await;
    frames.send(Ok("data: 1\n\n".into())).await.unwrap();
    peer.read_until("data: 1\n\n").await;
    drop(peer);
    timeout(Duration::from_secs(1), is_dropped)
        .await
        .expect("the body outlives its client")
        .unwrap();
}

#[tokio::test]
async fn a_body_that_fails_is_no_complete_answer() {
    for (version, chunk) in [("1.1", "6\r\nabcdef\r\n"), ("1.0", "abcdef")] {
        let (frames, body) = channel(None);
        let server = Server::start(ConnectionLimits::default(), once(Response::new(body))).await;
        let mut peer = server.connect().await;
        peer.send(format!("GET / HTTP/{version}\r\nhost: here\r\n\r\n"))
            .await;
        frames.send(Ok("abcdef".into())).await.unwrap();
        peer.read_until(chunk).await;
        frames.send(Err(io::Error::other("lost"))).await.unwrap();
        let (rest, end) = peer.read_to_end().await;
        assert_eq!(rest, "");
        // An old client sees no chunks, so only a reset tells it.
        assert_eq!(end.is_err(), version == "1.0", "{end:?}");
    }
}

#[tokio::test]
async fn a_stop_ends_event_streams_cleanly_and_lets_requests_finish() {
    let finish = Arc::new(Notify::new());
    let (frames, body) = channel(None);
    let stream = Arc::new(Mutex::new(Some(event_stream(body))));
    let server = Server::start(ConnectionLimits::default(), {
        let finish = Arc::clone(&finish);
        move |request: Request<Body>, _| {
            let finish = Arc::clone(&finish);
            let stream = Arc::clone(&stream);
            async move {
                match request.uri().path() {
                    "/stream" => stream.lock().unwrap().take().unwrap(),
                    "/slow" => {
                        finish.notified().await;
                        Response::new(Body::from("done"))
                    }
                    _ => Response::new(Body::from("ok")),
                }
            }
        }
    })
    .await;

    let mut idle = server.connect().await;
    idle.send(GET).await;
    idle.read_until("ok").await;
    let mut stream = server.connect().await;
    stream
        .send("GET /stream HTTP/1.1\r\nhost: here\r\n\r\n")
        .await;
    frames.send(Ok("data: 1\n\n".into())).await.unwrap();
    stream.read_until("data: 1\n\n\r\n").await;
    let mut slow = server.connect().await;
    slow.send("GET /slow HTTP/1.1\r\nhost: here\r\n\r\n").await;
    // One thread runs everything here: once this is answered, `slow` is in flight.
    let mut fresh = server.connect().await;
    fresh.send(GET).await;
    fresh.read_until("ok").await;

    server.stop.cancel();
    idle.is_closed().await;
    let (end, closed) = stream.read_to_end().await;
    assert_eq!(end, "0\r\n\r\n");
    closed.unwrap();
    assert!(frames.is_closed(), "the stream's source is still held");
    let refused = TcpStream::connect(server.address).await.unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    assert!(!server.serving.is_finished());

    finish.notify_one();
    let (answer, closed) = slow.read_to_end().await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(answer.contains("connection: close\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\ndone"), "{answer}");
    closed.unwrap();
    server.stopped().await;
}

#[tokio::test]
async fn an_event_stream_that_begins_after_the_stop_ends_at_once() {
    let entered = Arc::new(Notify::new());
    let begin = Arc::new(Notify::new());
    let server = Server::start(ConnectionLimits::default(), {
        let entered = Arc::clone(&entered);
        let begin = Arc::clone(&begin);
        move |_, _| {
            let entered = Arc::clone(&entered);
            let begin = Arc::clone(&begin);
            async move {
                entered.notify_one();
                begin.notified().await;
                let (frames, body) = channel(None);
                std::mem::forget(frames);
                event_stream(body)
            }
        }
    })
    .await;
    let mut peer = server.connect().await;
    peer.send(GET).await;
    entered.notified().await;
    server.stop.cancel();
    begin.notify_one();
    let (answer, closed) = peer.read_to_end().await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    closed.unwrap();
    server.stopped().await;
}

const CALL: &str = "POST / HTTP/1.1\r\nhost: here\r\ncontent-length: 2\r\n\r\n{}";

#[tokio::test]
async fn a_call_that_is_answered_by_a_stream_may_finish_after_the_stop() {
    let (frames, body) = channel(None);
    let server = Server::start(ConnectionLimits::default(), once(event_stream(body))).await;
    let mut peer = server.connect().await;
    peer.send(CALL).await;
    frames.send(Ok("data: 1\n\n".into())).await.unwrap();
    peer.read_until("data: 1\n\n\r\n").await;
    server.stop.cancel();
    frames.send(Ok("data: 2\n\n".into())).await.unwrap();
    peer.read_until("data: 2\n\n\r\n").await;
    drop(frames);
    let (end, closed) = peer.read_to_end().await;
    assert_eq!(end, "0\r\n\r\n");
    closed.unwrap();
    server.stopped().await;
}

#[tokio::test]
async fn a_call_that_is_answered_by_an_endless_stream_ends_cleanly_when_the_time_is_over() {
    let limits = ConnectionLimits {
        drain: milliseconds(200),
        ..Default::default()
    };
    let (frames, body) = channel(None);
    let server = Server::start(limits, once(event_stream(body))).await;
    let mut peer = server.connect().await;
    peer.send(CALL).await;
    frames.send(Ok("data: 1\n\n".into())).await.unwrap();
    peer.read_until("data: 1\n\n\r\n").await;
    server.stop.cancel();
    let (end, closed) = peer.read_to_end().await;
    assert_eq!(end, "0\r\n\r\n");
    closed.unwrap();
    server.stopped().await;
}

#[tokio::test]
async fn what_is_not_answered_in_time_is_dropped() {
    let limits = ConnectionLimits {
        drain: milliseconds(300),
        ..Default::default()
    };
    let server = Server::start(limits, never).await;
    let mut peer = server.connect().await;
    peer.send(GET).await;
    let early = timeout(milliseconds(100), peer.0.read_u8()).await;
    assert!(early.is_err(), "{early:?}");
    let begun = Instant::now();
    server.stop.cancel();
    peer.is_closed().await;
    let took = begun.elapsed();
    assert!(
        (milliseconds(290)..milliseconds(2000)).contains(&took),
        "closed after {took:?}"
    );
    assert_eq!(*server.met.lock().unwrap(), [Limit::Drain]);
    server.stopped().await;
}

/// Set in the process that this test starts for itself.
const FEW_FILES: &str = "LISTEN_TEST_HAS_FEW_FILES";

#[tokio::test]
async fn running_out_of_file_descriptors_neither_ends_nor_spins_the_loop() {
    if std::env::var_os(FEW_FILES).is_none() {
        let test = "running_out_of_file_descriptors_neither_ends_nor_spins_the_loop";
        let output = Command::new("sh")
            .args(["-c", "ulimit -n 64; exec \"$0\" \"$@\""])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture"])
            .env(FEW_FILES, "yes")
            .output()
            .unwrap();
        let stdout = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && stdout.contains("1 passed"),
            "{stdout}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        return;
    }
    let server = Server::start(ConnectionLimits::default(), ok).await;
    let mut first = server.connect().await;
    first.send(GET).await;
    first.read_until("ok").await;
    let mut stat = File::open("/proc/self/stat").unwrap();
    // Without a pause for the server, so that the clients take all that are left.
    let mut waiting = Vec::new();
    while let Ok(stream) = std::net::TcpStream::connect(server.address) {
        waiting.push(stream);
    }
    assert!(waiting.len() > 10, "only {}", waiting.len());

    let before = processor_time(&mut stat);
    sleep(milliseconds(500)).await;
    let spent = processor_time(&mut stat) - before;
    assert!(spent < 20, "spun for {spent} hundredths of a second");
    first.send(GET).await;
    first.read_until("ok").await;

    drop(waiting);
    let mut late = timeout(SOON, server.connect()).await.unwrap();
    late.send(GET).await;
    late.read_until("ok").await;
}

/// The time that this process has spent computing, which Linux counts in hundredths of a second.
fn processor_time(stat: &mut File) -> u64 {
    let mut text = String::new();
    stat.rewind().unwrap();
    stat.read_to_string(&mut text).unwrap();
    let fields: Vec<&str> = text
        .rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}
