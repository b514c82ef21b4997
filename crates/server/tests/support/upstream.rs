//! An MCP server on a real port that answers as the test tells it, and remembers what it got.

use std::{
    collections::VecDeque,
    convert::Infallible,
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};
use http_body::Frame;
use http_body_util::BodyExt;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpListener, sync::mpsc};
use tokio_util::task::TaskTracker;

/// What it answers when it is told nothing.
pub const USUAL: &str = r#"{"jsonrpc":"2.0","id":1,"result":{}}"#;

type Answering = Pin<Box<dyn Future<Output = Response<Body>> + Send>>;

/// An upstream that lives as long as its test.
#[derive(Clone)]
pub struct Upstream {
    pub address: SocketAddr,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    queued: Mutex<VecDeque<Answering>>,
    to_trial: Mutex<Option<Answering>>,
    begun: AtomicUsize,
    received: Mutex<Vec<Request<Bytes>>>,
}

impl Upstream {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::<State>::default();
        let tasks = TaskTracker::new();
        tasks.spawn(serve(listener, Arc::clone(&state), tasks.clone()));
        Self { address, state }
    }

    /// Answers the next request with what `answering` comes to.
    pub fn answers(&self, answering: impl Future<Output = Response<Body>> + Send + 'static) {
        let mut queued = self.state.queued.lock().unwrap();
        queued.push_back(Box::pin(answering));
    }

    /// Answers the proxy's own question whether it answers with what `answering` comes to.
    pub fn answers_trial(&self, answering: impl Future<Output = Response<Body>> + Send + 'static) {
        *self.state.to_trial.lock().unwrap() = Some(Box::pin(answering));
    }

    /// Answers the next request with a stream of events, sent as the test sends them. They end
    /// when the sender is dropped, and the sender knows when the stream is closed before that.
    pub fn streams(&self) -> mpsc::UnboundedSender<Bytes> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let response = Response::builder()
            .header(header::CONTENT_TYPE, "text/event-stream")
            .body(Body::new(Live(receiver)))
            .unwrap();
        self.answers(async { response });
        sender
    }

    /// How many requests have reached it, also those that broke off.
    pub fn begun(&self) -> usize {
        self.state.begun.load(Ordering::Relaxed)
    }

    /// Every request so far, with its body.
    pub fn received(&self) -> Vec<Request<Bytes>> {
        self.state.received.lock().unwrap().clone()
    }

    /// The last request.
    #[track_caller]
    pub fn last(&self) -> Request<Bytes> {
        self.received().pop().expect("the upstream got a request")
    }
}

async fn serve(listener: TcpListener, state: Arc<State>, tasks: TaskTracker) {
    while let Ok((stream, _)) = listener.accept().await {
        stream.set_nodelay(true).unwrap();
        let state = Arc::clone(&state);
        let answer = service_fn(move |request| answer(Arc::clone(&state), request));
        let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), answer);
        tasks.spawn(connection);
    }
}

async fn answer(
    state: Arc<State>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let (parts, mut body) = request.into_parts();
    let first = body.frame().await;
    let first = match first {
        Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
        Some(Err(_)) => {
            state.begun.fetch_add(1, Ordering::Relaxed);
            return Ok(Response::default());
        }
        None => Bytes::new(),
    };
    if is_trial(&first) {
        let told = state.to_trial.lock().unwrap().take();
        if let Some(answering) = told {
            return Ok(answering.await);
        }
        // The next has a connection of its own, as if there had been no trial.
        let mut answer = usual();
        let close = HeaderValue::from_static("close");
        answer.headers_mut().insert(header::CONNECTION, close);
        return Ok(answer);
    }
    state.begun.fetch_add(1, Ordering::Relaxed);
    // A request that breaks off was not received.
    let Ok(rest) = body.collect().await else {
        return Ok(Response::default());
    };
    let body = [first, rest.to_bytes()].concat().into();
    let request = Request::from_parts(parts, body);
    state.received.lock().unwrap().push(request);
    let queued = state.queued.lock().unwrap().pop_front();
    Ok(match queued {
        Some(answering) => answering.await,
        None => usual(),
    })
}

/// Whether it is the proxy itself that asks, at its start or in `check`. No test told it to, so none has
/// to know of it.
pub fn is_trial(body: &[u8]) -> bool {
    let body = String::from_utf8_lossy(body);
    body.contains(r#""method":"initialize""#) && body.contains(r#""name":"mcp-oauth-proxy""#)
}

/// The answer to a request that nothing was queued for.
pub fn usual() -> Response<Body> {
    Response::builder()
        .header(header::CONTENT_TYPE, "application/json")
        .body(Body::from(USUAL))
        .unwrap()
}

/// A body of what comes through a channel, and ends with it.
struct Live(mpsc::UnboundedReceiver<Bytes>);

impl http_body::Body for Live {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let chunk = self.0.poll_recv(cx);
        chunk.map(|chunk| chunk.map(|chunk| Ok(Frame::data(chunk))))
    }
}
