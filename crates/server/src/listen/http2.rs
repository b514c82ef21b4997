//! HTTP/2 over cleartext with prior knowledge, as a TLS terminator in front may speak it. hyper
//! does the protocol; each stream gets the deadlines that a connection of HTTP/1.1 has, and its
//! request the form that one of HTTP/1.1 has.

use std::{
    future::{Future, poll_fn},
    net::IpAddr,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::{Frame, SizeHint};
use hyper::{body::Incoming, rt::Executor, server::conn::http2, service::service_fn};
use hyper_util::rt::TokioTimer;
use tokio::{net::TcpStream, time::Instant};
use tokio_util::task::TaskTracker;

use super::{
    Limit,
    body::{is_event_stream, request_body},
    connection::{Answering, Connection, Socket, drive},
    deadline::Watch,
    frames::FrameSocket,
};

/// Bytes of an answer that are handed to hyper at a time, and that it may hold of each stream.
const PIECE_BYTES: usize = 16 * 1024;
const SEND_BUFFER_BYTES: usize = 64 * 1024;

/// Streams that the client has reset before we saw them, and that we have reset because of it.
/// More end the connection.
const PENDING_RESETS: usize = 20;
const PROVOKED_RESETS: usize = 100;

/// Quiet time after which the peer is asked whether it is still there, and how long it may take
/// to say so.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(20);

impl Connection {
    pub(super) async fn run_http2<H, F>(self, stream: TcpStream, watch: Arc<Watch>, answer: H)
    where
        H: Fn(Request<Body>, IpAddr) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        let Self {
            peer,
            limits,
            stop,
            tasks,
            ..
        } = self;
        let streams = Streams {
            tasks,
            watch: Arc::clone(&watch),
            pace: Arc::default(),
        };
        let service = {
            let (watch, limits) = (Arc::clone(&watch), Arc::clone(&limits));
            let next = Arc::clone(&streams.pace);
            service_fn(move |request: Request<Incoming>| {
                let pace = Arc::new(Pace::new(
                    limits.write_stall,
                    limits.least(limits.write_stall),
                ));
                *next.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&pace));
                let is_get = request.method() == Method::GET;
                let is_head = request.method() == Method::HEAD;
                let handler = like_http1(request, limits.headers).map(|request| {
                    let request = request.map(|incoming| request_body(incoming, &limits, &watch));
                    // Boxed, or each of the futures around it would carry room for it twice.
                    Box::pin(Answering {
                        handler: catch_unwind(AssertUnwindSafe(|| answer(request, peer))).ok(),
                        peer,
                        is_get,
                        watch: Arc::clone(&watch),
                    })
                });
                let watch = Arc::clone(&watch);
                async move {
                    let answer = match handler {
                        Ok(answering) => answering.await?,
                        Err(status) => {
                            if status == StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE {
                                watch.met(Limit::Head);
                            }
                            let mut refusal = Response::new(Body::empty());
                            *refusal.status_mut() = status;
                            refusal
                        }
                    };
                    Ok::<_, std::convert::Infallible>(paced(answer, is_head, pace))
                }
            })
        };
        let most = |limit: u64| u32::try_from(limit).unwrap_or(u32::MAX);
        let socket = FrameSocket::new(Socket::new(stream, Arc::clone(&watch)), Arc::clone(&watch));
        let http = http2::Builder::new(streams)
            .timer(TokioTimer::new())
            .max_concurrent_streams(most(limits.http2.streams as u64))
            .initial_stream_window_size(most(limits.http2.stream_window))
            .initial_connection_window_size(most(limits.http2.connection_window))
            .max_header_list_size(most(limits.head_bytes as u64))
            .max_send_buf_size(SEND_BUFFER_BYTES)
            .max_pending_accept_reset_streams(PENDING_RESETS)
            .max_local_error_reset_streams(PROVOKED_RESETS)
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .serve_connection(socket, service);
        watch.await_first_stream();
        let shut_down = http2::Connection::graceful_shutdown;
        drive(pin!(http), shut_down, &watch, &stop, limits.drain).await;
    }
}

/// The request as HTTP/1.1 would have brought it: the name it is for in `Host`, all cookies in one
/// header (RFC 9113 §8.3.1, §8.2.3).
fn like_http1<B>(mut request: Request<B>, most: usize) -> Result<Request<B>, StatusCode> {
    if request.headers().len() > most {
        return Err(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    }
    let authority = request
        .uri()
        .authority()
        .map(|name| name.as_str().to_owned());
    let headers = request.headers_mut();
    let mut hosts = headers.get_all(header::HOST).iter();
    match (authority, hosts.next(), hosts.next()) {
        (None, None, _) | (_, _, Some(_)) => return Err(StatusCode::BAD_REQUEST),
        (None, Some(_), None) => {}
        (Some(authority), Some(host), None) => {
            if !authority.as_bytes().eq_ignore_ascii_case(host.as_bytes()) {
                return Err(StatusCode::BAD_REQUEST);
            }
        }
        (Some(authority), None, None) => {
            let host = HeaderValue::try_from(authority).map_err(|_| StatusCode::BAD_REQUEST)?;
            headers.insert(header::HOST, host);
        }
    }
    if headers.get_all(header::COOKIE).iter().nth(1).is_some() {
        let crumbs: Vec<&[u8]> = headers
            .get_all(header::COOKIE)
            .iter()
            .map(HeaderValue::as_bytes)
            .collect();
        let cookie = HeaderValue::from_bytes(&crumbs.join(&b"; "[..]))
            .map_err(|_| StatusCode::BAD_REQUEST)?;
        headers.insert(header::COOKIE, cookie);
    }
    Ok(request)
}

/// Runs each stream as a task that ends when its peer takes too little.
#[derive(Clone)]
struct Streams {
    tasks: TaskTracker,
    watch: Arc<Watch>,
    /// The pace of the stream that is about to begin: hyper calls the service and then at once
    /// the executor.
    pace: Arc<Mutex<Option<Arc<Pace>>>>,
}

impl<F> Executor<F> for Streams
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        let mut next = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
        let pace = next.take().unwrap_or_default();
        let watch = Arc::clone(&self.watch);
        let open = Arc::clone(&watch).open_stream();
        self.tasks.spawn(async move {
            pace.keep(stream, &watch).await;
            drop(open);
        });
    }
}

/// What a peer still owes: to take what was given to hyper for it.
#[derive(Debug, Default)]
struct Pace {
    limit: Duration,
    least: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// When `least` more must have been taken; `None` while there is nothing to take.
    due: Option<Instant>,
    given: u64,
    taken: u64,
}

impl Pace {
    fn new(limit: Duration, least: u64) -> Self {
        Self {
            limit,
            least,
            state: Mutex::default(),
        }
    }

    fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// hyper asks for more, so what it was given before has found room.
    fn taken(&self) {
        self.with(|state| {
            state.taken += std::mem::take(&mut state.given);
            if state.taken >= self.least {
                state.due = None;
            }
        });
    }

    fn given(&self, bytes: usize) {
        self.with(|state| {
            state.given = bytes as u64;
            if state.due.is_none() {
                state.taken = 0;
                state.due = Some(Instant::now() + self.limit);
            }
        });
    }

    fn caught_up(&self) {
        self.with(|state| state.due = None);
    }

    fn due(&self) -> Option<Instant> {
        self.with(|state| state.due)
    }

    /// Runs `stream` to its end, or until it is overdue. Dropping it resets it.
    async fn keep(&self, stream: impl Future<Output = ()>, watch: &Watch) {
        let mut stream = pin!(stream);
        let mut alarm = pin!(tokio::time::sleep(Duration::ZERO));
        let mut changed = pin!(watch.changed());
        poll_fn(|cx| {
            // Event streams end by themselves when the listener stops, once somebody looks.
            while changed.as_mut().poll(cx).is_ready() {
                changed.set(watch.changed());
            }
            if stream.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
            let Some(due) = self.due() else {
                return Poll::Pending;
            };
            if alarm.deadline() != due {
                alarm.as_mut().reset(due);
            }
            let overdue = alarm.as_mut().poll(cx);
            if overdue.is_ready() {
                watch.met(Limit::SlowReader);
            }
            overdue
        })
        .await;
    }
}

/// Makes `answer` tell `pace` what of it was taken.
fn paced(answer: Response<Body>, is_head: bool, pace: Arc<Pace>) -> Response<Body> {
    // hyper would send the content of an answer to HEAD.
    if is_head {
        return answer.map(|_| Body::empty());
    }
    if http_body::Body::is_end_stream(answer.body()) {
        return answer;
    }
    let is_live = is_event_stream(&answer);
    answer.map(|body| {
        Body::new(PacedBody {
            body,
            rest: Bytes::new(),
            is_live,
            pace,
        })
    })
}

/// A body in pieces of which hyper only asks for the next when there is room for it.
struct PacedBody {
    body: Body,
    /// What is left of the last frame.
    rest: Bytes,
    /// It may end at any time, and the last that was sent of it need not be taken.
    is_live: bool,
    pace: Arc<Pace>,
}

impl PacedBody {
    fn piece(&mut self) -> Bytes {
        // The last byte goes by itself: hyper takes anything for which there is room for one
        // byte, so only this one shows that there was room for all.
        let all_but_last = match self.rest.len() {
            length if self.is_live || length == 1 => length,
            length => length - 1,
        };
        let piece = self.rest.split_to(all_but_last.min(PIECE_BYTES));
        self.pace.given(piece.len());
        piece
    }
}

impl http_body::Body for PacedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.pace.taken();
        if self.rest.is_empty() {
            match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) if !data.is_empty() => self.rest = data,
                    Ok(data) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                    Err(frame) => return Poll::Ready(Some(Ok(frame))),
                },
                other => {
                    self.pace.caught_up();
                    return other;
                }
            }
        }
        let piece = self.piece();
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.rest.len() as u64;
        let hint = self.body.size_hint();
        let mut whole = SizeHint::new();
        whole.set_lower(hint.lower() + rest);
        if let Some(upper) = hint.upper() {
            whole.set_upper(upper + rest);
        }
        whole
    }
}
