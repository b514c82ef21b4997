//! One connection: HTTP by hyper, our deadlines around it.

use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    io::{self, IoSlice, Read as _},
    net::IpAddr,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::body::Body;
use http::{Method, Request, Response, StatusCode};
use hyper::{
    body::Incoming,
    rt::{Read, ReadBufCursor, Write},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use pin_project_lite::pin_project;
use socket2::SockRef;
use tokio::{io::AsyncReadExt, net::TcpStream, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    ConnectionLimits, Limit,
    body::{end_on_stop, request_body},
    deadline::{FAREWELL, HeadTimer, Watch},
};

/// How long, and for how many bytes, a client that still sends is listened to after its answer.
const LINGER: Duration = Duration::from_secs(10);
const LINGER_BYTES: usize = 8 * 1024 * 1024;

/// Bytes that the last look at an idle connection takes in; the rest is read as always.
const LAST_LOOK_BYTES: usize = 1024;

/// How many headers hyper takes when it is told nothing.
const HYPERS_HEADERS: usize = 100;

/// The first bytes of a connection whose client knows that we speak HTTP/2 (RFC 9113 §3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How long to wait for the rest of a preface that came in parts. Bytes that are already there
/// would keep a wait for more from waiting. Twice as long each time, so that a client that never
/// sends the rest costs a few looks.
const PREFACE_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PREFACE_PAUSE: Duration = Duration::from_millis(640);

/// What every connection has, beside its socket and the handler.
pub(super) struct Connection {
    pub(super) peer: IpAddr,
    pub(super) limits: Arc<ConnectionLimits>,
    pub(super) watch: Arc<Watch>,
    pub(super) stop: CancellationToken,
    /// Where the streams of HTTP/2 run.
    pub(super) tasks: TaskTracker,
}

impl Connection {
    /// Answers the requests of one connection until either side has had enough.
    pub(super) async fn run<H, F>(self, stream: TcpStream, answer: H)
    where
        H: Fn(Request<Body>, IpAddr) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        let watch = Arc::clone(&self.watch);
        let first = tokio::time::timeout(self.limits.head, speaks_http2(&stream));
        match self.stop.run_until_cancelled(first).await {
            Some(Ok(Ok(false))) => self.run_http1(stream, watch, answer).await,
            // Boxed, or every connection would carry room for it.
            Some(Ok(Ok(true))) => Box::pin(self.run_http2(stream, watch, answer)).await,
            Some(Err(_)) => watch.met(Limit::SlowHead),
            Some(Ok(Err(_))) | None => {}
        }
    }

    async fn run_http1<H, F>(self, stream: TcpStream, watch: Arc<Watch>, answer: H)
    where
        H: Fn(Request<Body>, IpAddr) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        let Self {
            peer, limits, stop, ..
        } = self;
        let service = {
            let (watch, limits) = (Arc::clone(&watch), Arc::clone(&limits));
            service_fn(move |request: Request<Incoming>| {
                watch.note_version(request.version());
                let is_get = request.method() == Method::GET;
                let request = request.map(|incoming| request_body(incoming, &limits, &watch));
                Answering {
                    handler: catch_unwind(AssertUnwindSafe(|| Box::pin(answer(request, peer))))
                        .ok(),
                    peer,
                    is_get,
                    watch: Arc::clone(&watch),
                }
            })
        };
        let mut builder = http1::Builder::new();
        builder
            .timer(HeadTimer::new(Arc::clone(&watch)))
            .header_read_timeout(limits.idle)
            .max_header_size(limits.head_bytes);
        // To name hyper's own number would cost an allocation for each request.
        if limits.headers != HYPERS_HEADERS {
            builder.max_headers(limits.headers);
        }
        let socket = Socket::new(stream, Arc::clone(&watch));
        let mut http = builder.serve_connection(socket, service);

        let shut_down = http1::Connection::graceful_shutdown;
        let end = drive(Pin::new(&mut http), shut_down, &watch, &stop, limits.drain).await;
        let stream = http.into_parts().io.stream.into_inner();
        match end {
            // What the kernel still holds for a peer that takes nothing would stay for minutes,
            // and an old client would take an orderly close for the end of a complete answer.
            End::Overdue if watch.is_write_blocked() || watch.is_old_client() => reset(&stream),
            End::Overdue => {}
            End::Closed(Err(error)) if error.is_user() => {
                tracing::debug!(%peer, %error, "broke off an answer");
                if watch.is_old_client() {
                    reset(&stream);
                }
            }
            End::Closed(outcome) => {
                let malformed = outcome.is_err_and(|error| {
                    if error.is_parse_too_large() {
                        watch.met(Limit::Head);
                    }
                    error.is_parse()
                });
                if watch.has_unread() || malformed {
                    stop.run_until_cancelled(linger(stream)).await;
                }
            }
        }
    }
}

/// Whether the client begins as HTTP/2 does. Returns as soon as that is certain.
async fn speaks_http2(stream: &TcpStream) -> io::Result<bool> {
    let mut start = [0; PREFACE.len()];
    let mut pause = PREFACE_PAUSE;
    loop {
        let seen = stream.peek(&mut start).await?;
        if seen == 0 || !PREFACE.starts_with(&start[..seen]) {
            return Ok(false);
        }
        if seen == PREFACE.len() {
            return Ok(true);
        }
        tokio::time::sleep(pause).await;
        pause = (2 * pause).min(LONGEST_PREFACE_PAUSE);
    }
}

/// How a connection came to its end.
pub(super) enum End {
    Closed(hyper::Result<()>),
    Overdue,
}

/// Runs `http` to its end, or to the first deadline that passes.
pub(super) async fn drive<C>(
    mut http: Pin<&mut C>,
    shut_down: fn(Pin<&mut C>),
    watch: &Watch,
    stop: &CancellationToken,
    drain: Duration,
) -> End
where
    C: Future<Output = hyper::Result<()>>,
{
    let mut stopped = pin!(stop.cancelled());
    let mut drained: Option<Instant> = None;
    let mut alarm = pin!(tokio::time::sleep(Duration::ZERO));
    let mut alarm_set: Option<Instant> = None;
    let mut is_to_end = false;
    let mut told_to_end = false;
    // The idle time before whose end it was looked whether a request has come.
    let mut looked: Option<Instant> = None;

    poll_fn(|cx| {
        if drained.is_none() && stopped.as_mut().poll(cx).is_ready() {
            drained = Some(Instant::now() + drain);
            watch.stop();
            watch.look_once_more();
            is_to_end = true;
        }
        loop {
            if let Poll::Ready(outcome) = http.as_mut().poll(cx) {
                return Poll::Ready(End::Closed(outcome));
            }
            // With HTTP/1.1 nothing announces the end of a connection but an answer on it, so a
            // request that has arrived gets one.
            if is_to_end && !watch.is_in_head() {
                is_to_end = false;
                shut_down(http.as_mut());
                continue;
            }
            let Some(due) = [watch.due(), drained].into_iter().flatten().min() else {
                return Poll::Pending;
            };
            // An alarm that goes off too early is cheaper than one that is moved at each request.
            if alarm_set.is_none_or(|set| due < set) {
                alarm.as_mut().reset(due);
                alarm_set = Some(due);
            }
            while alarm.as_mut().poll(cx).is_ready() && Instant::now() < due {
                alarm.as_mut().reset(due);
                alarm_set = Some(due);
            }
            if Instant::now() < due {
                return Poll::Pending;
            }
            if drained == Some(due) && watch.is_out_of_time() {
                watch.met(Limit::Drain);
                return Poll::Ready(End::Overdue);
            }
            if drained != Some(due) {
                let limit = watch.overdue();
                if told_to_end && limit == Limit::Idle {
                    return Poll::Ready(End::Overdue);
                }
                if limit == Limit::Idle && looked != Some(due) {
                    looked = Some(due);
                    watch.look_once_more();
                    continue;
                }
                watch.met(limit);
                if limit != Limit::Idle {
                    return Poll::Ready(End::Overdue);
                }
                // With HTTP/2, a request may be on its way: announced, the end loses none.
                told_to_end = true;
                watch.await_end();
                shut_down(http.as_mut());
                alarm_set = None;
                continue;
            }
            // Streams that answer a call may now end cleanly too; all else has had its time.
            watch.run_out_of_time();
            drained = Some(due + FAREWELL);
            alarm_set = None;
        }
    })
    .await
}

pin_project! {
    /// The handler at work on a request. hyper moves this about, and keeps the room for it as long
    /// as the connection lives: so the handler's future, which is large, is in a box.
    pub(super) struct Answering<F> {
        // `None`: it panicked before it had a future.
        #[pin]
        pub(super) handler: Option<F>,
        pub(super) peer: IpAddr,
        pub(super) is_get: bool,
        pub(super) watch: Arc<Watch>,
    }
}

impl<F: Future<Output = Response<Body>>> Future for Answering<F> {
    type Output = Result<Response<Body>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let answered = this
            .handler
            .as_pin_mut()
            .and_then(|handler| catch_unwind(AssertUnwindSafe(|| handler.poll(cx))).ok());
        let Some(answered) = answered else {
            tracing::error!(peer = %this.peer, "answered 500: the handler panicked");
            let mut answer = Response::new(Body::empty());
            *answer.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            return Poll::Ready(Ok(answer));
        };
        Poll::Ready(Ok(end_on_stop(ready!(answered), *this.is_get, this.watch)))
    }
}

/// Makes the close of `stream` an abort that the peer cannot mistake for an end.
fn reset(stream: &TcpStream) {
    if let Err(error) = stream.set_zero_linger() {
        tracing::debug!(%error, "closing without a reset");
    }
}

/// Reads on for a little, since a socket that is closed with unread bytes in it sends a reset,
/// and the peer's kernel may then throw away the answer that it has not yet read: a client with
/// a large body would never learn of its 401.
async fn linger(mut stream: TcpStream) {
    let reading = async {
        let mut scrap = vec![0; 16 * 1024];
        let mut left = LINGER_BYTES;
        while left > 0 {
            match stream.read(&mut scrap).await {
                Ok(0) | Err(_) => break,
                Ok(read) => left = left.saturating_sub(read),
            }
        }
    };
    // Whether the client was done in time makes no difference any more.
    let _ = tokio::time::timeout(LINGER, reading).await;
}

/// The connection's socket, telling the [`Watch`] what moves.
pub(super) struct Socket {
    stream: TokioIo<TcpStream>,
    watch: Arc<Watch>,
}

impl Socket {
    pub(super) fn new(stream: TcpStream, watch: Arc<Watch>) -> Self {
        Self {
            stream: TokioIo::new(stream),
            watch,
        }
    }

    /// Makes the close an abort.
    pub(super) fn reset(&self) {
        reset(self.stream.inner());
    }

    fn note(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match written {
            Poll::Pending => self.watch.write_blocked(),
            Poll::Ready(Ok(bytes)) => self.watch.write_progressed(bytes),
            Poll::Ready(Err(_)) => self.watch.write_caught_up(),
        }
        written
    }
}

impl Read for Socket {
    /// Before the end, the socket itself is asked: the runtime may not know yet what has arrived.
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.watch.looks_once_more() {
            let mut bytes = [0; LAST_LOOK_BYTES];
            let room = buffer.remaining().min(bytes.len());
            let socket = SockRef::from(this.stream.inner());
            if let Ok(read) = (&*socket).read(&mut bytes[..room]) {
                this.watch.bytes_arrived();
                buffer.put_slice(&bytes[..read]);
                return Poll::Ready(Ok(()));
            }
        }
        let read = Pin::new(&mut this.stream).poll_read(cx, buffer);
        if read.is_ready() {
            this.watch.bytes_arrived();
        }
        read
    }
}

impl Write for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.note(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, parts);
        self.note(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// hyper comes here when all that it had is written.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.watch.write_caught_up();
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;
    use tokio_util::task::TaskTracker;

    use super::*;

    /// What the kernel's own timeout does on Linux, which `run` alone does not ask for.
    #[tokio::test]
    async fn a_reader_that_takes_nothing_is_dropped_without_the_kernels_help() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        let (stream, peer) = listener.accept().await.unwrap();
        let limits = ConnectionLimits {
            write_stall: Duration::from_millis(200),
            ..Default::default()
        };
        let connection = Connection {
            peer: peer.ip(),
            watch: Arc::new(Watch::new(&limits, Arc::new(|_| {}))),
            limits: Arc::new(limits),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        };
        let answer = |_, _| async { Response::new(Body::from(vec![b'x'; 64 * 1024 * 1024])) };
        let connection = TaskTracker::new().spawn(connection.run(stream, answer));
        tokio::io::AsyncWriteExt::write_all(&mut client, b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            .await
            .unwrap();
        tokio::time::timeout(Duration::from_secs(5), connection)
            .await
            .expect("the connection outlives its limit")
            .unwrap();
    }
}
