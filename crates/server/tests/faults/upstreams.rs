//! MCP servers that fail in the middle of their work.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use http::StatusCode;
use http_body_util::BodyExt;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tokio_util::task::TaskTracker;

use super::{
    from_environment,
    invariants::{Footprint, is_bounded, session_is_whole},
    support::{
        client::{Client, Http, Tokens},
        proxy::Proxy,
        say,
    },
};

/// At one time in a normal run; `STREAMS` asks for another number.
const STREAMS: usize = 70;
/// Connections from one address, below what one address may have.
const PER_ADDRESS: usize = 100;
const GONE_WITHIN: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_mins(1);

/// What the server does once it has a request.
#[derive(Clone, Copy, Debug)]
enum Fault {
    ResetBeforeHead,
    EndBeforeHead,
    ResetInHead,
    Nonsense,
    ResetInBody,
    EndInBody,
    ResetInEvent,
    EndInChunk,
    /// The client leaves.
    Never,
    /// The client leaves in the middle of events.
    Endless,
}

const FAULTS: [Fault; 10] = [
    Fault::ResetBeforeHead,
    Fault::EndBeforeHead,
    Fault::ResetInHead,
    Fault::Nonsense,
    Fault::ResetInBody,
    Fault::EndInBody,
    Fault::ResetInEvent,
    Fault::EndInChunk,
    Fault::Never,
    Fault::Endless,
];

const EVENTS: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\
     transfer-encoding: chunked\r\n\r\n1d\r\ndata: one\n\nda";
const HALF_A_BODY: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\
     content-length: 100000\r\n\r\n{\"jsonrpc\":";

impl Fault {
    async fn happen(self, stream: &mut TcpStream) {
        let (bytes, is_reset) = match self {
            Self::ResetBeforeHead => ("", true),
            Self::EndBeforeHead => ("", false),
            Self::ResetInHead => ("HTTP/1.1 200 OK\r\ncontent-ty", true),
            Self::Nonsense => ("220 smtp.example ready\r\n\r\n", false),
            Self::ResetInBody => (HALF_A_BODY, true),
            Self::EndInBody => (HALF_A_BODY, false),
            Self::ResetInEvent => (EVENTS, true),
            Self::EndInChunk => (EVENTS, false),
            Self::Never | Self::Endless => {
                let mut scrap = [0; 1024];
                loop {
                    match stream.read(&mut scrap).await {
                        Ok(0) | Err(_) => return,
                        Ok(_) => {}
                    }
                }
            }
        };
        let _ = stream.write_all(bytes.as_bytes()).await;
        // What was sent arrives before the reset does.
        sleep(Duration::from_millis(50)).await;
        if is_reset {
            stream.set_zero_linger().unwrap();
        }
    }
}

/// A server whose every answer is the fault that the request asks for. Counts its connections.
async fn chaos() -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let open = Arc::<AtomicUsize>::default();
    let tasks = TaskTracker::new();
    tasks.spawn({
        let (open, tasks) = (Arc::clone(&open), tasks.clone());
        async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let open = Arc::clone(&open);
                open.fetch_add(1, Relaxed);
                tasks.spawn(async move {
                    serve(&mut stream).await;
                    drop(stream);
                    open.fetch_sub(1, Relaxed);
                });
            }
        }
    });
    (address, open)
}

async fn serve(stream: &mut TcpStream) {
    let mut request = Vec::new();
    while !request.ends_with(b"}") {
        if stream.read_buf(&mut request).await.unwrap_or(0) == 0 {
            return;
        }
    }
    let text = String::from_utf8_lossy(&request);
    let (_, body) = text.split_once("\r\n\r\n").unwrap();
    let fault = FAULTS
        .iter()
        .find(|fault| body.contains(&format!("{fault:?}")));
    match fault {
        Some(Fault::Endless) => {
            if stream.write_all(EVENTS.as_bytes()).await.is_ok() {
                Fault::Endless.happen(stream).await;
            }
        }
        Some(fault) => fault.happen(stream).await,
        None => {
            let usual = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\
                 content-length: 2\r\nconnection: close\r\n\r\n{}";
            let _ = stream.write_all(usual.as_bytes()).await;
        }
    }
}

/// FI-11
#[tokio::test]
async fn fi_11_an_upstream_that_fails_is_told_as_such_and_leaves_nothing_behind() {
    let (upstream, open) = chaos().await;
    let proxy = Proxy::with(upstream, "store = \"sqlite\"").await;
    let client = Client::register(&Http::to(proxy.address)).await;
    let tokens = client.sign_in().await;
    let before = Footprint::of(&proxy);

    let streams = from_environment("STREAMS", STREAMS);
    let mut exchanges = JoinSet::new();
    for number in 0..streams {
        let address = u8::try_from(1 + number / PER_ADDRESS).unwrap();
        let from = IpAddr::V4(Ipv4Addr::new(127, 0, 0, address));
        let client = Client {
            http: Http::to(proxy.address).from(from),
            ..client.clone()
        };
        let fault = FAULTS[number % FAULTS.len()];
        exchanges.spawn(exchange(client, tokens.clone(), fault));
    }
    while let Some(exchanged) = exchanges.join_next().await {
        exchanged.unwrap();
    }
    let over = Instant::now();
    while open.load(Relaxed) > 0 {
        let left = open.load(Relaxed);
        assert!(
            over.elapsed() < GONE_WITHIN,
            "{left} connections to the upstream are left"
        );
        sleep(Duration::from_millis(20)).await;
    }
    is_bounded(&proxy, before, GONE_WITHIN).await;
    say(&format!(
        "FI-11: {streams} exchanges with {} faults, nothing left after {:.1?}",
        FAULTS.len(),
        over.elapsed()
    ));
    session_is_whole(&client, &tokens).await;
}

/// The client's side of it: an abort is never taken for an end.
async fn exchange(client: Client, tokens: Tokens, fault: Fault) {
    let mut request = client.call_request(&tokens);
    let body = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{fault:?}"}}"#);
    *request.body_mut() = axum::body::Body::from(body);
    request.headers_mut().remove("content-length");
    let opening = client.http.open(request);
    if matches!(fault, Fault::Never) {
        // Nothing comes; the client goes.
        assert!(timeout(Duration::from_secs(1), opening).await.is_err());
        return;
    }
    let response = timeout(PATIENCE, opening).await.unwrap().unwrap();
    let status = response.status();
    let mut body = response.into_body();
    match fault {
        Fault::ResetBeforeHead | Fault::EndBeforeHead | Fault::ResetInHead | Fault::Nonsense => {
            assert_eq!(status, StatusCode::BAD_GATEWAY, "{fault:?}");
        }
        Fault::Endless => {
            assert_eq!(status, StatusCode::OK);
            let event = timeout(PATIENCE, body.frame())
                .await
                .unwrap()
                .unwrap()
                .unwrap();
            assert!(event.into_data().unwrap().starts_with(b"data: one"));
        }
        _ => {
            assert_eq!(status, StatusCode::OK, "{fault:?}");
            let read = timeout(PATIENCE, body.collect()).await.unwrap();
            assert!(read.is_err(), "{fault:?}: an abort looks like an end");
        }
    }
}
