//! Exchanges with remote MCP servers: raw sockets that play the server, alone and behind the
//! accept loop.
#![expect(clippy::unwrap_used, reason = "all of this is a test")]

use std::{
    error::Error,
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::body::Body;
use bytes::Bytes;
use http::{Request, Response, StatusCode, Uri, Version, header};
use http_body::Frame;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use protocol::ports::UpstreamError;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};
use server::{
    listen::{BodyStalled, ConnectionLimits, serve},
    upstream::{RemoteUpstream, UpstreamTimeouts, system_tls},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinSet,
    time::{Instant, timeout},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Far longer than anything here takes.
const SOON: Duration = Duration::from_secs(5);

/// A server whose every connection, counted from 0, is played by `script`.
async fn server<F>(script: impl Fn(TcpStream, usize) -> F + Send + 'static) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let tasks = TaskTracker::new();
    tasks.clone().spawn(async move {
        for number in 0.. {
            let (stream, _) = listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            tasks.spawn(script(stream, number));
        }
    });
    address
}

/// A server that gives `answer` to one request, and closes.
async fn answering(answer: impl Into<Bytes>) -> SocketAddr {
    let answer = answer.into();
    server(move |mut stream, _| {
        let answer = answer.clone();
        async move {
            read_head(&mut stream).await;
            stream.write_all(&answer).await.unwrap();
        }
    })
    .await
}

async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let byte = timeout(SOON, stream.read_u8()).await.unwrap();
        head.push(byte.unwrap());
    }
    String::from_utf8(head).unwrap()
}

/// The proxy in small: everything that arrives goes to `address`; failures become 502.
async fn proxy_to(address: SocketAddr, limits: ConnectionLimits) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = listener.local_addr().unwrap();
    let upstream = Arc::new(plain(&UpstreamTimeouts::default()));
    let answer = move |mut request: Request<Body>, _: IpAddr| {
        let upstream = Arc::clone(&upstream);
        async move {
            *request.uri_mut() = uri(address);
            request.headers_mut().remove(header::HOST);
            exchange_with(&upstream, request)
                .await
                .unwrap_or_else(|error| {
                    let mut answer = Response::new(Body::from(format!("{error:?}")));
                    *answer.status_mut() = StatusCode::BAD_GATEWAY;
                    answer
                })
        }
    };
    TaskTracker::new().spawn(serve(
        listener,
        limits,
        Arc::new(|_| {}),
        CancellationToken::new(),
        answer,
    ));
    proxy
}

fn uri(address: SocketAddr) -> Uri {
    format!("http://{address}/mcp?a=b").parse().unwrap()
}

fn get(address: SocketAddr) -> Request<Body> {
    Request::get(uri(address)).body(Body::empty()).unwrap()
}

fn post(address: SocketAddr, body: Body) -> Request<Body> {
    Request::post(uri(address)).body(body).unwrap()
}

fn tls_trusting(roots: RootCertStore) -> ClientConfig {
    ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth()
}

/// An upstream whose TLS trusts nobody, for tests without TLS.
fn plain(timeouts: &UpstreamTimeouts) -> RemoteUpstream {
    RemoteUpstream::new(tls_trusting(RootCertStore::empty()), timeouts)
}

async fn exchange_with(
    upstream: &RemoteUpstream,
    request: Request<Body>,
) -> Result<Response<Body>, UpstreamError> {
    let (head, body) = request.into_parts();
    upstream.exchange(&head, body).await
}

async fn exchange(request: Request<Body>) -> Result<Response<Body>, UpstreamError> {
    let upstream = plain(&UpstreamTimeouts::default());
    timeout(SOON, exchange_with(&upstream, request))
        .await
        .unwrap()
}

async fn text(answer: Response<Body>) -> String {
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap()
}

/// A request body of what comes through a channel.
struct Channel(mpsc::Receiver<Bytes>);

impl http_body::Body for Channel {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        self.0
            .poll_recv(cx)
            .map(|frame| frame.map(|frame| Ok(Frame::data(frame))))
    }
}

#[tokio::test]
async fn a_request_and_its_answer_cross_as_they_are() {
    let (saw, mut seen) = mpsc::channel(1);
    let address = server(move |mut stream, _| {
        let saw = saw.clone();
        async move {
            let head = read_head(&mut stream).await;
            let mut body = [0; 5];
            stream.read_exact(&mut body).await.unwrap();
            saw.send((head, body)).await.unwrap();
            stream
                .write_all(b"HTTP/1.0 202 Whatever\r\nx-a: b\r\ncontent-length: 2\r\n\r\nok")
                .await
                .unwrap();
        }
    })
    .await;
    let mut request = post(address, Body::from("hallo"));
    *request.version_mut() = Version::HTTP_10;
    let answer = exchange(request).await.unwrap();

    let (head, body) = seen.recv().await.unwrap();
    assert!(head.starts_with("POST /mcp?a=b HTTP/1.1\r\n"), "{head}");
    assert!(head.contains(&format!("host: {address}\r\n")), "{head}");
    assert!(head.contains("content-length: 5\r\n"), "{head}");
    assert_eq!(&body, b"hallo");
    assert_eq!(answer.status(), StatusCode::ACCEPTED);
    assert_eq!(answer.version(), Version::HTTP_11);
    assert_eq!(answer.headers()["x-a"], "b");
    assert!(answer.extensions().is_empty());
    assert_eq!(http_body::Body::size_hint(answer.body()).exact(), Some(2));
    assert_eq!(text(answer).await, "ok");
}

#[tokio::test]
async fn a_redirect_is_an_answer() {
    let elsewhere = answering("HTTP/1.1 200 OK\r\n\r\nfollowed").await;
    let address = answering(format!(
        "HTTP/1.1 307 Temporary Redirect\r\nlocation: http://{elsewhere}/\r\n\r\n"
    ))
    .await;
    let answer = exchange(get(address)).await.unwrap();
    assert_eq!(answer.status(), StatusCode::TEMPORARY_REDIRECT);
}

#[tokio::test]
async fn early_hints_are_skipped() {
    let address = answering(
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n\
         HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
    )
    .await;
    let answer = exchange(get(address)).await.unwrap();
    assert!(!answer.headers().contains_key("link"));
    assert_eq!(text(answer).await, "ok");
}

#[tokio::test]
async fn nobody_there_is_unreachable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let refused = exchange(get(address)).await.unwrap_err();
    assert!(
        matches!(refused, UpstreamError::Unreachable(_)),
        "{refused:?}"
    );

    // Too long for a label, so that no name server need be asked.
    let unknown = format!("http://{}.invalid/", "a".repeat(64));
    let request = Request::get(unknown).body(Body::empty()).unwrap();
    let unknown = exchange(request).await.unwrap_err();
    assert!(
        matches!(unknown, UpstreamError::Unreachable(_)),
        "{unknown:?}"
    );
}

#[tokio::test]
async fn a_connection_that_is_not_usable_in_time_is_unreachable() {
    let address = server(|stream, _| async move {
        let _stream = stream;
        std::future::pending::<()>().await;
    })
    .await;
    let upstream = plain(&UpstreamTimeouts {
        connect: Duration::from_millis(200),
        ..Default::default()
    });
    let request = Request::get(format!("https://{address}/"))
        .body(Body::empty())
        .unwrap();
    let error = timeout(SOON, exchange_with(&upstream, request))
        .await
        .unwrap();
    let error = error.unwrap_err();
    assert!(matches!(error, UpstreamError::Unreachable(_)), "{error:?}");
}

#[tokio::test]
async fn an_answer_that_does_not_come_is_timed_out_and_let_go() {
    let (closed, mut is_closed) = mpsc::channel(1);
    let address = server(move |mut stream, _| {
        let closed = closed.clone();
        async move {
            read_head(&mut stream).await;
            stream.write_all(b"HTTP/1.1 200 O").await.unwrap();
            closed.send(stream.read(&mut [0]).await).await.unwrap();
        }
    })
    .await;
    let upstream = plain(&UpstreamTimeouts {
        head: Duration::from_millis(200),
        ..Default::default()
    });
    let error = timeout(SOON, exchange_with(&upstream, get(address)))
        .await
        .unwrap();
    assert!(matches!(error, Err(UpstreamError::TimedOut)), "{error:?}");
    let end = timeout(Duration::from_secs(1), is_closed.recv()).await;
    assert_eq!(end.unwrap().unwrap().unwrap(), 0);
}

/// TM-09: a subscription may be open for as long as it likes.
#[tokio::test]
async fn what_follows_the_head_may_take_longer_than_the_head() {
    let address = server(|mut stream, _| async move {
        read_head(&mut stream).await;
        let head = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n";
        stream.write_all(head).await.unwrap();
        tokio::time::sleep(Duration::from_millis(500)).await;
        stream.write_all(b"ok").await.unwrap();
    })
    .await;
    let upstream = plain(&UpstreamTimeouts {
        connect: Duration::from_millis(200),
        head: Duration::from_millis(200),
        idle: Duration::from_millis(200),
    });
    let answer = exchange_with(&upstream, get(address)).await.unwrap();
    assert_eq!(text(answer).await, "ok");
}

#[tokio::test]
async fn what_is_no_answer_is_broken() {
    let many = "x: y\r\n".repeat(101);
    let long = "y".repeat(65 * 1024);
    for answer in [
        String::new(),
        "garbage\r\n\r\n".into(),
        "<html>HTTP/0.9</html>".into(),
        "HTTP/1.1 2000 OK\r\n\r\n".into(),
        "HTTP/1.1 200 OK\r\ncontent-le".into(),
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab".into(),
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n"
            .into(),
        "HTTP/1.1 100 Continue\r\n\r\n".into(),
        format!("HTTP/1.1 200 OK\r\n{many}\r\n"),
        format!("HTTP/1.1 200 OK\r\nx: {long}\r\n\r\n"),
    ] {
        let address = answering(answer.clone()).await;
        let answered = exchange(get(address)).await;
        let shown = answer.get(..60).unwrap_or(&answer);
        assert!(
            matches!(answered, Err(UpstreamError::Broken(_))),
            "{shown:?}: {answered:?}"
        );
    }
}

#[tokio::test]
async fn a_large_head_within_the_limit_arrives() {
    let many = "x: y\r\n".repeat(98);
    let long = "y".repeat(60 * 1024);
    for headers in [many, format!("x: {long}\r\n")] {
        let address = answering(format!(
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n{headers}\r\nok"
        ))
        .await;
        assert_eq!(text(exchange(get(address)).await.unwrap()).await, "ok");
    }
}

/// Whether `error` or what caused it is an `E`.
fn is_due_to<E: Error + 'static>(error: &(dyn Error + 'static)) -> bool {
    error.is::<E>() || error.source().is_some_and(is_due_to::<E>)
}

#[tokio::test]
async fn a_request_body_that_is_too_long_is_the_clients_fault() {
    let address = server(|mut stream, _| async move {
        while stream.read(&mut [0; 1024]).await.is_ok_and(|read| read > 0) {}
    })
    .await;
    let (frames, body) = mpsc::channel(2);
    frames.send("1234567".into()).await.unwrap();
    frames.send("89abcde".into()).await.unwrap();
    let body = Body::new(Limited::new(Channel(body), 10));
    let error = exchange(post(address, body)).await.unwrap_err();
    assert!(matches!(error, UpstreamError::RequestBody(_)), "{error:?}");
    assert!(is_due_to::<LengthLimitError>(&error), "{error:?}");
}

#[tokio::test]
async fn a_request_body_that_stalls_is_the_clients_fault() {
    let (failed, mut has_failed) = mpsc::channel(1);
    let address = server(|mut stream, _| async move {
        while stream.read(&mut [0; 1024]).await.is_ok_and(|read| read > 0) {}
    })
    .await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let front = listener.local_addr().unwrap();
    let limits = ConnectionLimits {
        body_stall: Duration::from_millis(200),
        ..Default::default()
    };
    let answer = move |request: Request<Body>, _: IpAddr| {
        let failed = failed.clone();
        async move {
            let error = exchange(post(address, request.into_body())).await;
            failed.send(error.unwrap_err()).await.unwrap();
            Response::default()
        }
    };
    TaskTracker::new().spawn(serve(
        listener,
        limits,
        Arc::new(|_| {}),
        CancellationToken::new(),
        answer,
    ));
    let mut client = TcpStream::connect(front).await.unwrap();
    client
        .write_all(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nhal")
        .await
        .unwrap();
    let error = timeout(SOON, has_failed.recv()).await.unwrap().unwrap();
    assert!(matches!(error, UpstreamError::RequestBody(_)), "{error:?}");
    assert!(is_due_to::<BodyStalled>(&error), "{error:?}");
}

#[tokio::test]
async fn an_answer_that_ends_early_is_never_complete() {
    for (answer, seen) in [
        ("content-length: 9\r\n\r\nabc", "abc"),
        (
            "transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n",
            "3\r\nabc\r\n",
        ),
        ("transfer-encoding: chunked\r\n\r\n9\r\nabc", "3\r\nabc\r\n"),
    ] {
        let address = server(move |mut stream, _| async move {
            read_head(&mut stream).await;
            let answer = format!("HTTP/1.1 200 OK\r\n{answer}");
            stream.write_all(answer.as_bytes()).await.unwrap();
        })
        .await;
        let body = exchange(get(address)).await.unwrap().into_body();
        body.collect().await.unwrap_err();

        let proxy = proxy_to(address, ConnectionLimits::default()).await;
        let mut client = TcpStream::connect(proxy).await.unwrap();
        client
            .write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            .await
            .unwrap();
        let mut whole = String::new();
        timeout(SOON, client.read_to_string(&mut whole))
            .await
            .unwrap()
            .unwrap();
        // Nothing at all is fine too: the head and what came of the body may be lost with it.
        let (_, body) = whole.split_once("\r\n\r\n").unwrap_or_default();
        assert!(seen.starts_with(body), "{answer:?} became {whole:?}");
    }
}

/// A certificate authority, and servers with certificates of it.
struct Authority {
    roots: RootCertStore,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let mut roots = RootCertStore::empty();
        let certificate = params.self_signed(&key).unwrap();
        roots.add(certificate.der().clone()).unwrap();
        Self {
            roots,
            issuer: Issuer::new(params, key),
        }
    }

    fn acceptor(&self, params: &CertificateParams) -> TlsAcceptor {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let key = PrivatePkcs8KeyDer::from(key.serialize_der());
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::Pkcs8(key))
            .unwrap();
        TlsAcceptor::from(Arc::new(config))
    }

    async fn server(&self, params: CertificateParams) -> SocketAddr {
        let tls = self.acceptor(&params);
        server(move |stream, _| {
            let accepting = tls.accept(stream);
            async move {
                let Ok(mut stream) = accepting.await else {
                    return;
                };
                read_head(&mut stream).await;
                send(
                    &mut stream,
                    "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
                )
                .await;
                stream.shutdown().await.unwrap();
            }
        })
        .await
    }
}

async fn send(stream: &mut (impl AsyncWrite + Unpin), text: &str) {
    stream.write_all(text.as_bytes()).await.unwrap();
}

fn certificate_for(name: &str) -> CertificateParams {
    CertificateParams::new([name.to_owned()]).unwrap()
}

#[tokio::test]
async fn only_a_good_certificate_is_good_enough() {
    let authority = Authority::new();
    let good = authority.server(certificate_for("127.0.0.1")).await;
    let other_name = authority.server(certificate_for("other.example")).await;
    let mut expired = certificate_for("127.0.0.1");
    expired.not_after = rcgen::date_time_ymd(2020, 1, 1);
    let expired = authority.server(expired).await;
    let stranger = Authority::new().server(certificate_for("127.0.0.1")).await;
    let no_tls = server(|mut stream, _| async move {
        send(&mut stream, "HTTP/1.1 200 OK\r\n\r\n").await;
        read_head(&mut stream).await;
    })
    .await;

    let tls = tls_trusting(authority.roots.clone());
    let upstream = RemoteUpstream::new(tls, &UpstreamTimeouts::default());
    let ask = |address: SocketAddr| {
        let request = Request::get(format!("https://{address}/"));
        exchange_with(&upstream, request.body(Body::empty()).unwrap())
    };
    assert_eq!(text(ask(good).await.unwrap()).await, "ok");
    for (what, address) in [
        ("another name", other_name),
        ("expired", expired),
        ("unknown authority", stranger),
    ] {
        let answered = timeout(SOON, ask(address)).await.unwrap();
        assert!(
            matches!(answered, Err(UpstreamError::Untrusted(_))),
            "{what}: {answered:?}"
        );
    }
    let answered = timeout(SOON, ask(no_tls)).await.unwrap();
    assert!(
        matches!(answered, Err(UpstreamError::NoTls(_))),
        "{answered:?}"
    );
}

#[tokio::test]
async fn the_systems_own_trust_does_not_include_a_stranger() {
    let Ok(tls) = system_tls() else {
        // A system without certificates cannot reach any server over TLS, which is right too.
        return;
    };
    let stranger = Authority::new().server(certificate_for("127.0.0.1")).await;
    let upstream = RemoteUpstream::new(tls, &UpstreamTimeouts::default());
    let request = Request::get(format!("https://{stranger}/"));
    let answered = exchange_with(&upstream, request.body(Body::empty()).unwrap()).await;
    assert!(
        matches!(answered, Err(UpstreamError::Untrusted(_))),
        "{answered:?}"
    );
}

/// A server that says when it has read a request, sends `beginning`, and says when the client
/// is gone.
async fn waiting_server(
    beginning: &'static str,
) -> (SocketAddr, mpsc::Receiver<()>, mpsc::Receiver<()>) {
    let (entered, has_entered) = mpsc::channel(1);
    let (left, has_left) = mpsc::channel(1);
    let address = server(move |mut stream, _| {
        let (entered, left) = (entered.clone(), left.clone());
        async move {
            read_head(&mut stream).await;
            send(&mut stream, beginning).await;
            entered.send(()).await.unwrap();
            while stream.read(&mut [0]).await.is_ok_and(|read| read > 0) {}
            left.send(()).await.unwrap();
        }
    })
    .await;
    (address, has_entered, has_left)
}

const STREAM: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\
                      transfer-encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n";

#[tokio::test]
async fn giving_up_ends_the_exchange() {
    let upstream = plain(&UpstreamTimeouts::default());

    let (address, mut entered, mut left) = waiting_server("").await;
    tokio::select! {
        answered = exchange_with(&upstream, get(address)) => unreachable!("{answered:?}"),
        _ = entered.recv() => {}
    }
    let end = timeout(Duration::from_secs(1), left.recv()).await;
    end.expect("the upstream still waits for the dropped request");

    let (address, mut entered, mut left) = waiting_server(STREAM).await;
    let mut answer = exchange_with(&upstream, get(address)).await.unwrap();
    entered.recv().await.unwrap();
    answer.body_mut().frame().await.unwrap().unwrap();
    drop(answer);
    let end = timeout(Duration::from_secs(1), left.recv()).await;
    end.expect("the upstream still streams to the dropped body");
}

#[tokio::test]
async fn a_client_that_leaves_ends_the_exchange() {
    for beginning in ["", STREAM] {
        let (address, mut entered, mut left) = waiting_server(beginning).await;
        let proxy = proxy_to(address, ConnectionLimits::default()).await;
        let mut client = TcpStream::connect(proxy).await.unwrap();
        send(&mut client, "GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
        entered.recv().await.unwrap();
        if !beginning.is_empty() {
            let head = read_head(&mut client).await;
            assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        }
        drop(client);
        let end = timeout(Duration::from_secs(1), left.recv()).await;
        end.expect("the upstream still serves a client that has left");
    }
}

#[tokio::test]
async fn each_event_leaves_as_it_arrives() {
    let (feed, events) = mpsc::channel::<String>(1);
    let events = Arc::new(tokio::sync::Mutex::new(events));
    let address = server(move |mut stream, _| {
        let events = Arc::clone(&events);
        async move {
            read_head(&mut stream).await;
            send(&mut stream, STREAM).await;
            while let Some(event) = events.lock().await.recv().await {
                send(&mut stream, &format!("{:x}\r\n{event}\r\n", event.len())).await;
            }
            send(&mut stream, "0\r\n\r\n").await;
        }
    })
    .await;
    let proxy = proxy_to(address, ConnectionLimits::default()).await;
    let mut body = exchange(get(proxy)).await.unwrap().into_body();
    let mut next = async || {
        let frame = timeout(SOON, body.frame()).await.expect("held back");
        frame.map(|frame| frame.unwrap().into_data().unwrap())
    };
    assert_eq!(next().await.unwrap(), "data: 1\n\n");
    // Each is read before the next is sent, so nothing can be waiting for company.
    for number in 0..50 {
        let event = format!("id: {number}\ndata: {number}\n\n");
        let begun = Instant::now();
        feed.send(event.clone()).await.unwrap();
        assert_eq!(next().await.unwrap(), event);
        let took = begun.elapsed();
        assert!(took < Duration::from_millis(500), "{number} took {took:?}");
    }
    drop(feed);
    assert_eq!(next().await, None);
}

#[tokio::test]
async fn an_event_stream_is_relayed_byte_for_byte() {
    const EVENTS: &str = ": a comment\n\nretry: 3000\n\nid: 1\ndata:\n\n\nevent: message\r\n\
                          data: {\"jsonrpc\":\"2.0\"}\r\n\r\n\u{feff}data: \u{1f980} \0\n\
                          id\n\ndata\r\rdata: no end";
    let address = server(|mut stream, _| async move {
        read_head(&mut stream).await;
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\
                    transfer-encoding: chunked\r\n\r\n";
        send(&mut stream, head).await;
        let mut rest = EVENTS.as_bytes();
        for length in (1..8).cycle() {
            let (chunk, after) = rest.split_at(rest.len().min(length));
            send(&mut stream, &format!("{:X};odd=yes\r\n", chunk.len())).await;
            stream.write_all(chunk).await.unwrap();
            send(&mut stream, "\r\n").await;
            tokio::task::yield_now().await;
            rest = after;
            if rest.is_empty() {
                break;
            }
        }
        send(&mut stream, "0\r\n\r\n").await;
    })
    .await;
    let proxy = proxy_to(address, ConnectionLimits::default()).await;
    let answer = exchange(get(proxy)).await.unwrap();
    assert_eq!(answer.headers()[header::CONTENT_TYPE], "text/event-stream");
    assert_eq!(text(answer).await, EVENTS);
}

const MEBIBYTE: usize = 1024 * 1024;

#[tokio::test]
async fn large_bodies_pass_without_being_collected() {
    let (arrived, mut has_arrived) = mpsc::channel(1);
    let (proceed, may_proceed) = mpsc::channel::<()>(1);
    let may_proceed = Arc::new(tokio::sync::Mutex::new(may_proceed));
    let address = server(move |mut stream, _| {
        let arrived = arrived.clone();
        let may_proceed = Arc::clone(&may_proceed);
        async move {
            let head = read_head(&mut stream).await;
            assert!(head.contains("content-length: 1048576\r\n"), "{head}");
            let mut body = vec![0; MEBIBYTE];
            stream.read_exact(&mut body[..1024]).await.unwrap();
            arrived.send(()).await.unwrap();
            stream.read_exact(&mut body[1024..]).await.unwrap();
            let head = "HTTP/1.1 200 OK\r\ncontent-length: 1048576\r\n\r\n";
            send(&mut stream, head).await;
            stream.write_all(&body[..1024]).await.unwrap();
            may_proceed.lock().await.recv().await.unwrap();
            stream.write_all(&body[1024..]).await.unwrap();
        }
    })
    .await;
    let proxy = proxy_to(address, ConnectionLimits::default()).await;
    let body: Vec<u8> = (0..=250).cycle().take(MEBIBYTE).collect();
    let mut client = TcpStream::connect(proxy).await.unwrap();
    let head = "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1048576\r\n\r\n";
    send(&mut client, head).await;

    client.write_all(&body[..1024]).await.unwrap();
    timeout(SOON, has_arrived.recv()).await.expect("collected");
    client.write_all(&body[1024..]).await.unwrap();

    let head = read_head(&mut client).await;
    assert!(head.contains("content-length: 1048576\r\n"), "{head}");
    let mut echo = vec![0; MEBIBYTE];
    let first = client.read_exact(&mut echo[..1024]);
    timeout(SOON, first).await.expect("collected").unwrap();
    proceed.send(()).await.unwrap();
    client.read_exact(&mut echo[1024..]).await.unwrap();
    assert!(echo == body, "the body changed on its way");
}

/// A server that answers every request on a connection and keeps count of connections.
async fn counting_server(per_connection: usize) -> (SocketAddr, Arc<AtomicUsize>) {
    let open = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&open);
    let address = server(move |mut stream, _| {
        let open = Arc::clone(&counter);
        async move {
            open.fetch_add(1, Ordering::SeqCst);
            for _ in 0..per_connection {
                let mut byte = [0];
                // The first byte of a request, or the end.
                if !matches!(stream.read(&mut byte).await, Ok(1)) {
                    break;
                }
                let head = read_head(&mut stream).await;
                if head.contains("content-length: 4") {
                    stream.read_exact(&mut [0; 4]).await.unwrap();
                } else if head.contains("chunked") {
                    read_head(&mut stream).await;
                }
                let answer = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
                send(&mut stream, answer).await;
            }
            open.fetch_sub(1, Ordering::SeqCst);
        }
    })
    .await;
    (address, open)
}

#[tokio::test]
async fn a_connection_serves_one_request_after_the_other() {
    let (address, open) = counting_server(usize::MAX).await;
    let upstream = plain(&UpstreamTimeouts::default());
    for _ in 0..20 {
        let answer = exchange_with(&upstream, get(address)).await.unwrap();
        assert_eq!(text(answer).await, "ok");
    }
    assert_eq!(open.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_connection_that_the_upstream_has_closed_is_not_used_again() {
    let (address, _) = counting_server(1).await;
    let upstream = plain(&UpstreamTimeouts::default());
    for _ in 0..100 {
        // A body of unknown length cannot be sent twice, so it must not be spent on a dead one.
        let (frames, body) = mpsc::channel(1);
        frames.send("body".into()).await.unwrap();
        drop(frames);
        let request = post(address, Body::new(Channel(body)));
        let answer = exchange_with(&upstream, request).await.unwrap();
        assert_eq!(text(answer).await, "ok");
    }
}

/// Waits until no more than `most` connections are open.
async fn settles_at(open: &AtomicUsize, most: usize) {
    let settled = async {
        while open.load(Ordering::SeqCst) > most {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(SOON, settled).await.expect("too many are kept");
}

#[tokio::test]
async fn few_unused_connections_are_kept() {
    let (address, open) = counting_server(usize::MAX).await;
    let upstream = Arc::new(plain(&UpstreamTimeouts::default()));
    let mut asking = JoinSet::new();
    for _ in 0..100 {
        let upstream = Arc::clone(&upstream);
        asking.spawn(async move { exchange_with(&upstream, get(address)).await.unwrap() });
    }
    let answers = asking.join_all().await;
    let most = open.load(Ordering::SeqCst);
    assert!(most > 64, "only {most} at the same time");
    for answer in answers {
        assert_eq!(text(answer).await, "ok");
    }
    settles_at(&open, 64).await;
}

#[tokio::test]
async fn unused_connections_are_not_kept_for_long() {
    let (address, open) = counting_server(usize::MAX).await;
    let upstream = plain(&UpstreamTimeouts {
        idle: Duration::from_millis(200),
        ..Default::default()
    });
    let answer = exchange_with(&upstream, get(address)).await.unwrap();
    assert_eq!(text(answer).await, "ok");
    settles_at(&open, 0).await;
}

/// A request with that method in its body.
fn call(address: SocketAddr, method: &str) -> Request<Body> {
    let body = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{{}}}}"#);
    post(address, Body::from(body))
}

/// Reads a request with a length; the line it begins with and its body.
async fn read_request(stream: &mut (impl AsyncRead + Unpin)) -> Option<String> {
    let first = stream.read_u8().await.ok()?;
    let head = format!("{}{}", char::from(first), read_head(stream).await);
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    stream.read_exact(&mut body).await.unwrap();
    let line = head.lines().next().unwrap();
    Some(format!("{line} {}", String::from_utf8(body).unwrap()))
}

/// How a server treats the second request of a connection.
#[derive(Clone, Copy)]
enum Second {
    /// It closes in order.
    Closes,
    /// It closes without having read everything, which is a reset.
    Resets,
    /// It begins an answer and closes.
    Begins,
}

/// A server that answers the first request of each connection, and tells of every request.
async fn forgetful_server(second: Second) -> (SocketAddr, mpsc::UnboundedReceiver<String>) {
    let (saw, seen) = mpsc::unbounded_channel();
    let address = server(move |mut stream, _| {
        let saw = saw.clone();
        async move {
            let Some(first) = read_request(&mut stream).await else {
                return;
            };
            saw.send(first).unwrap();
            send(
                &mut stream,
                "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
            )
            .await;
            if let Second::Resets = second {
                let Ok(first) = stream.read_u8().await else {
                    return;
                };
                saw.send(format!("{}…", char::from(first))).unwrap();
                // Unread bytes make it a reset.
                return;
            }
            let Some(next) = read_request(&mut stream).await else {
                return;
            };
            saw.send(next).unwrap();
            if let Second::Begins = second {
                send(&mut stream, "HTTP/1.1 2").await;
            }
        }
    })
    .await;
    (address, seen)
}

/// An upstream that has made one call and keeps the connection.
async fn with_kept_connection(address: SocketAddr) -> RemoteUpstream {
    let upstream = plain(&UpstreamTimeouts::default());
    let first = exchange_with(&upstream, call(address, "ping")).await;
    assert_eq!(text(first.unwrap()).await, "ok");
    upstream
}

/// All that has been seen so far.
fn all(seen: &mut mpsc::UnboundedReceiver<String>) -> usize {
    std::iter::from_fn(|| seen.try_recv().ok()).count()
}

/// Case 16: the server closes the connection just as the next request arrives.
#[tokio::test]
async fn what_can_do_no_harm_is_sent_again_when_a_kept_connection_was_closed() {
    for second in [Second::Closes, Second::Resets] {
        let (address, mut seen) = forgetful_server(second).await;
        for make in [
            (|to| call(to, "ping")) as fn(SocketAddr) -> Request<Body>,
            |to| call(to, "initialize"),
            |to| call(to, "tools/list"),
            |to| call(to, "resources/read"),
            |to| call(to, "notifications/initialized"),
            get,
            |to| Request::delete(uri(to)).body(Body::empty()).unwrap(),
        ] {
            let upstream = with_kept_connection(address).await;
            assert_eq!(all(&mut seen), 1);
            let answer = timeout(SOON, exchange_with(&upstream, make(address)))
                .await
                .unwrap();
            assert_eq!(text(answer.unwrap()).await, "ok");
            assert_eq!(all(&mut seen), 2, "on the old connection and on a new one");
            assert_eq!(upstream.repeated.get(), 1);
        }
    }
}

/// Case 16, the twins: a tool is never run twice, and what began to be answered was received.
#[tokio::test]
async fn what_may_have_been_done_is_not_sent_again() {
    let list = |to| call(to, "tools/list");
    let large = |to| {
        let padding = "x".repeat(70_000);
        let body = format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{{"_":"{padding}"}}}}"#
        );
        post(to, Body::from(body))
    };
    let batch = |to| {
        let body = r#"[{"jsonrpc":"2.0","id":1,"method":"ping"}]"#;
        post(to, Body::from(body))
    };
    for (second, make) in [
        (
            Second::Closes,
            (|to| call(to, "tools/call")) as fn(SocketAddr) -> Request<Body>,
        ),
        (Second::Resets, |to| call(to, "tools/call")),
        (Second::Begins, list),
        (Second::Begins, get),
        (Second::Closes, large),
        (Second::Closes, batch),
        (Second::Closes, |to| call(to, "x/list")),
    ] {
        let (address, mut seen) = forgetful_server(second).await;
        let upstream = with_kept_connection(address).await;
        assert_eq!(all(&mut seen), 1);
        let answer = timeout(SOON, exchange_with(&upstream, make(address)))
            .await
            .unwrap();
        assert!(
            matches!(answer, Err(UpstreamError::Broken(_))),
            "{answer:?}"
        );
        assert_eq!(all(&mut seen), 1, "sent once");
        assert_eq!(upstream.repeated.get(), 0);
    }
}

/// Case 16: not even what is safe is sent a third time, nor again on a fresh connection.
#[tokio::test]
async fn a_fresh_connection_that_is_closed_is_not_replaced() {
    let (saw, mut seen) = mpsc::unbounded_channel();
    let address = server(move |mut stream, number| {
        let saw = saw.clone();
        async move {
            if number == 0 {
                saw.send(read_request(&mut stream).await.unwrap()).unwrap();
                send(
                    &mut stream,
                    "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
                )
                .await;
            }
            saw.send(read_request(&mut stream).await.unwrap()).unwrap();
        }
    })
    .await;
    let upstream = with_kept_connection(address).await;
    assert_eq!(all(&mut seen), 1);
    // On the old connection and a fresh one, and then on a fresh one alone.
    for times in [2, 1] {
        let answer = exchange_with(&upstream, call(address, "ping")).await;
        assert!(
            matches!(answer, Err(UpstreamError::Broken(_))),
            "{answer:?}"
        );
        assert_eq!(all(&mut seen), times);
    }
    assert_eq!(upstream.repeated.get(), 1);
}

/// Case 16, over TLS, where a close without a farewell is an error of its own.
#[tokio::test]
async fn a_kept_connection_over_tls_is_replaced_too() {
    let authority = Authority::new();
    let tls = authority.acceptor(&certificate_for("127.0.0.1"));
    let address = server(move |stream, _| {
        let accepting = tls.accept(stream);
        async move {
            let mut stream = accepting.await.unwrap();
            read_request(&mut stream).await.unwrap();
            send(
                &mut stream,
                "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
            )
            .await;
            read_request(&mut stream).await;
        }
    })
    .await;
    let upstream = || {
        let tls = tls_trusting(authority.roots.clone());
        RemoteUpstream::new(tls, &UpstreamTimeouts::default())
    };
    let first = upstream();
    let secure = |mut request: Request<Body>| {
        *request.uri_mut() = format!("https://{address}/mcp").parse().unwrap();
        request
    };
    for _ in 0..2 {
        let answer = exchange_with(&first, secure(call(address, "ping"))).await;
        assert_eq!(text(answer.unwrap()).await, "ok");
    }
    assert_eq!(first.repeated.get(), 1);
    // One that has not learnt yet how soon the server closes.
    let second = upstream();
    let answer = exchange_with(&second, secure(call(address, "ping"))).await;
    assert_eq!(text(answer.unwrap()).await, "ok");
    let answer = exchange_with(&second, secure(call(address, "tools/call"))).await;
    assert!(
        matches!(answer, Err(UpstreamError::Broken(_))),
        "{answer:?}"
    );
}

/// A server that answers all requests of a connection with that header, and counts connections.
async fn counted_server(header: &'static str) -> (SocketAddr, Arc<AtomicUsize>) {
    let connections = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&connections);
    let address = server(move |mut stream, _| {
        counter.fetch_add(1, Ordering::SeqCst);
        async move {
            let answer = format!("HTTP/1.1 200 OK\r\n{header}content-length: 2\r\n\r\nok");
            while read_request(&mut stream).await.is_some() {
                send(&mut stream, &answer).await;
            }
        }
    })
    .await;
    (address, connections)
}

/// Case 16: given up before the server would close it.
#[tokio::test]
async fn a_connection_is_kept_for_as_long_as_its_server_says() {
    const PAUSE: Duration = Duration::from_millis(1300);
    let by_default = |idle| UpstreamTimeouts {
        idle,
        ..Default::default()
    };
    let (long, short) = (Duration::from_mins(1), Duration::from_millis(100));
    let uses = async |header, idle, connections| {
        let (address, counter) = counted_server(header).await;
        let upstream = plain(&by_default(idle));
        for _ in 0..2 {
            let answer = exchange_with(&upstream, call(address, "tools/call")).await;
            assert_eq!(text(answer.unwrap()).await, "ok");
            tokio::time::sleep(PAUSE).await;
        }
        assert_eq!(
            counter.load(Ordering::SeqCst),
            connections,
            "{header}{idle:?}"
        );
    };
    tokio::join!(
        uses("", long, 1),
        uses("", short, 2),
        uses("keep-alive: timeout=2\r\n", long, 2),
        uses("keep-alive: timeout=3, max=9\r\n", short, 1),
        uses("keep-alive: timeout=1\r\n", long, 2),
        uses("connection: close\r\n", long, 2),
    );
    let default = UpstreamTimeouts::default().idle;
    assert!(default < Duration::from_secs(5), "{default:?}");
}

/// Case 16, a neighbour: a server that closes earlier than anybody would think, and does not say so.
#[tokio::test]
async fn a_server_that_closed_a_connection_early_costs_no_further_call() {
    let (address, mut seen) = forgetful_server(Second::Closes).await;
    let upstream = plain(&UpstreamTimeouts::default());
    let ask = async |method| exchange_with(&upstream, call(address, method)).await;
    assert_eq!(text(ask("ping").await.unwrap()).await, "ok");
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(text(ask("ping").await.unwrap()).await, "ok");
    assert_eq!(all(&mut seen), 3, "the second was sent again");
    for _ in 0..2 {
        // Far longer than half of what was too long.
        tokio::time::sleep(Duration::from_millis(1500)).await;
        assert_eq!(text(ask("tools/call").await.unwrap()).await, "ok");
        assert_eq!(all(&mut seen), 1, "on a fresh connection");
    }
    assert_eq!(upstream.repeated.get(), 1);
}
