//! Connections to upstreams, of which each carries one exchange at a time, and those that are kept
//! for the next one.
//!
//! hyper's own client keeps all of them equally long. A server that closes one just when a call is
//! sent loses the call, so here each is kept for as long as its server says or was seen to, and it is
//! known whether anything came back on it.

use std::{
    collections::HashMap,
    fmt,
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, Request, Response, Uri, Version, header,
    uri::{Authority, PathAndQuery, Scheme},
};
use http_body::{Frame, SizeHint};
use hyper::{
    body::Incoming,
    client::conn::http1::{self, SendRequest},
    rt::{Executor, Read, Write},
};
use hyper_util::{
    client::legacy::connect::Connection,
    rt::{TokioExecutor, TokioIo},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};
use tower::{Service, ServiceExt};

use super::{Cause, request_body::RequestBody};

/// Unused connections kept for each upstream. After a burst of streams the rest would only be
/// memory.
const KEPT_PER_HOST: usize = 64;

/// The longest that a connection is kept, whatever its upstream says.
const KEPT_LONGEST: Duration = Duration::from_mins(1);

/// A connection is closed this long before its upstream would close it. A request has to arrive
/// there within this time.
const MARGIN: Duration = Duration::from_secs(1);

/// How long an early close by an upstream is remembered.
const REMEMBERED: Duration = Duration::from_mins(10);

/// How often expired connections are closed.
const SWEEP: Duration = Duration::from_secs(1);

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");

/// Where connections lead: how, and to whom.
pub(super) type Host = (Scheme, Authority);

/// Makes connections with `C`, and keeps them.
#[derive(Debug)]
pub(super) struct Pool<C> {
    connector: C,
    /// How long an unused connection is kept if its upstream does not say.
    kept_for: Duration,
    kept: Arc<Kept>,
}

impl<C> Pool<C>
where
    C: Service<Uri, Error = Cause> + Clone,
    C::Response: Connection + Read + Write + Unpin + Send + 'static,
{
    pub(super) fn new(connector: C, kept_for: Duration) -> Self {
        Self {
            connector,
            kept_for,
            kept: Arc::default(),
        }
    }

    /// A connection that has served before, if one is free.
    pub(super) fn kept(&self, host: &Host) -> Option<Line> {
        let now = Instant::now();
        let idle = self.kept.take(host, now)?;
        let idle_for = now.saturating_duration_since(idle.since);
        Some(self.line(idle.connection, host, Some(idle_for)))
    }

    /// A connection of its own.
    pub(super) async fn connect(&self, host: &Host) -> Result<Line, Cause> {
        let to = Uri::builder()
            .scheme(host.0.clone())
            .authority(host.1.clone())
            .path_and_query(PathAndQuery::from_static("/"))
            .build()?;
        let stream = self.connector.clone().oneshot(to).await?;
        let is_proxied = stream.connected().is_proxied();
        let heard = Arc::<AtomicBool>::default();
        let stream = TokioIo::new(Listening {
            stream: TokioIo::new(stream),
            heard: Arc::clone(&heard),
        });
        let (sender, connection) = http1::handshake(stream).await?;
        TokioExecutor::new().execute(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to an upstream ended");
            }
        });
        let connection = Link {
            sender,
            heard,
            is_proxied,
        };
        Ok(self.line(connection, host, None))
    }

    fn line(&self, connection: Link, host: &Host, idle_for: Option<Duration>) -> Line {
        Line {
            connection,
            idle_for,
            host: host.clone(),
            kept_for: self.kept_for,
            kept: Arc::clone(&self.kept),
        }
    }
}

/// A connection at work. Dropping it closes the connection.
pub(super) struct Line {
    connection: Link,
    /// How long it had been kept, unless it is new.
    idle_for: Option<Duration>,
    host: Host,
    kept_for: Duration,
    kept: Arc<Kept>,
}

/// Why a request got no answer.
pub(super) enum Unanswered {
    /// Nothing was written of the request. This is its body.
    Unsent(RequestBody, hyper::Error),
    /// It may have arrived. `heard` is whether anything came back.
    Sent { error: hyper::Error, heard: bool },
}

impl Line {
    /// Sends a request whose URI is absolute, and returns the answer as soon as its head is there.
    pub(super) async fn send(
        mut self,
        mut request: Request<RequestBody>,
    ) -> Result<Response<AnswerBody>, Unanswered> {
        if !self.connection.is_proxied {
            *request.uri_mut() = origin_form(request.uri());
        }
        self.connection.heard.store(false, Relaxed);
        match self.connection.sender.try_send_request(request).await {
            Ok(answer) => {
                let kept_for = if goes_on(&answer) {
                    said(answer.headers()).unwrap_or(self.kept_for)
                } else {
                    Duration::ZERO
                };
                Ok(answer.map(|body| AnswerBody::new(body, self, kept_for)))
            }
            Err(mut failed) => {
                let heard = self.connection.heard.load(Relaxed);
                if let Some(idle_for) = self.idle_for
                    && !heard
                    && !failed.error().is_user()
                {
                    self.kept.note_close(&self.host, idle_for);
                }
                Err(match failed.take_message() {
                    Some(request) => Unanswered::Unsent(request.into_body(), failed.into_error()),
                    None => Unanswered::Sent {
                        error: failed.into_error(),
                        heard,
                    },
                })
            }
        }
    }

    fn keep(self, kept_for: Duration) {
        self.kept.put(self.host, self.connection, kept_for);
    }
}

/// Whether the connection goes on after the answer (RFC 9112 §9.3), whose length is then known.
fn goes_on(answer: &Response<Incoming>) -> bool {
    let headers = answer.headers();
    let is_delimited = headers.contains_key(header::CONTENT_LENGTH)
        || headers.contains_key(header::TRANSFER_ENCODING)
        || http_body::Body::is_end_stream(answer.body());
    let closes = headers.get_all(header::CONNECTION).iter().any(|value| {
        let mut options = value.as_bytes().split(|byte| *byte == b',');
        options.any(|option| option.trim_ascii().eq_ignore_ascii_case(b"close"))
    });
    answer.version() >= Version::HTTP_11 && is_delimited && !closes
}

/// How long the upstream keeps the connection, by its own word, less a margin.
fn said(answer: &HeaderMap) -> Option<Duration> {
    let parameters = answer.get(KEEP_ALIVE)?.to_str().ok()?.split(',');
    let timeout = parameters
        .filter_map(|parameter| parameter.split_once('='))
        .find(|(name, _)| name.trim().eq_ignore_ascii_case("timeout"))?;
    let seconds = timeout.1.trim().parse().ok()?;
    let time = Duration::from_secs(seconds).saturating_sub(MARGIN);
    Some(time.min(KEPT_LONGEST))
}

/// The address as a server that is not a proxy is asked for it (RFC 9112 §3.2.1).
fn origin_form(uri: &Uri) -> Uri {
    uri.path_and_query()
        .cloned()
        .map_or_else(Uri::default, Uri::from)
}

/// The body of an answer, at whose end the connection is free again.
pub(super) struct AnswerBody {
    body: Incoming,
    line: Option<Line>,
    kept_for: Duration,
}

impl AnswerBody {
    fn new(body: Incoming, line: Line, kept_for: Duration) -> Self {
        let mut answer = Self {
            body,
            line: Some(line),
            kept_for,
        };
        answer.keep_at_end();
        answer
    }

    fn keep_at_end(&mut self) {
        if http_body::Body::is_end_stream(&self.body)
            && let Some(line) = self.line.take()
        {
            line.keep(self.kept_for);
        }
    }
}

impl http_body::Body for AnswerBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &frame {
            Some(Ok(_)) => self.keep_at_end(),
            Some(Err(_)) => self.line = None,
            None => {
                let kept_for = self.kept_for;
                if let Some(line) = self.line.take() {
                    line.keep(kept_for);
                }
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A connection, and what is known of it.
struct Link {
    sender: SendRequest<RequestBody>,
    heard: Arc<AtomicBool>,
    is_proxied: bool,
}

/// One without an exchange.
struct Idle {
    connection: Link,
    since: Instant,
    until: Instant,
}

impl Idle {
    /// Whether its upstream has closed it before its time.
    fn is_closed(&self) -> bool {
        self.connection.sender.is_closed()
    }
}

/// Connections that are kept.
#[derive(Default)]
struct Kept(Mutex<State>);

#[derive(Default)]
struct State {
    hosts: HashMap<Host, Idles>,
    is_swept: bool,
}

/// The connections to one host; those that were used last come last.
#[derive(Default)]
struct Idles {
    connections: Vec<Idle>,
    /// How long one may be kept since the upstream was seen to close one, and until when that holds.
    at_most: Option<(Duration, Instant)>,
}

impl Idles {
    /// Notes that the upstream closed a connection that had been idle for at most this time. Half of
    /// it is safe, since a close is noticed with some delay.
    fn note_close(&mut self, idle_for: Duration, now: Instant) {
        let known = self.at_most(now).unwrap_or(Duration::MAX);
        self.at_most = Some((known.min(idle_for / 2), now + REMEMBERED));
    }

    fn at_most(&self, now: Instant) -> Option<Duration> {
        let (at_most, until) = self.at_most?;
        (now < until).then_some(at_most)
    }

    /// Drops expired and closed connections.
    fn sweep(&mut self, now: Instant) {
        let closed = self.connections.iter().filter(|idle| idle.is_closed());
        let shortest = closed
            .map(|idle| now.saturating_duration_since(idle.since))
            .min();
        if let Some(idle_for) = shortest {
            self.note_close(idle_for, now);
        }
        self.connections
            .retain(|idle| idle.until > now && !idle.is_closed());
    }
}

impl Kept {
    /// Takes the connection that was used last of those that are still good.
    fn take(&self, host: &Host, now: Instant) -> Option<Idle> {
        let mut state = self.state();
        let idles = state.hosts.get_mut(host)?;
        for at in (0..idles.connections.len()).rev() {
            let idle = &idles.connections[at];
            if idle.is_closed() {
                idles.note_close(now.saturating_duration_since(idle.since), now);
                idles.connections.remove(at);
            } else if idle.until <= now {
                idles.connections.remove(at);
            } else if idle.connection.sender.is_ready() {
                return Some(idles.connections.remove(at));
            }
        }
        None
    }

    fn put(self: &Arc<Self>, host: Host, connection: Link, kept_for: Duration) {
        let now = Instant::now();
        let mut state = self.state();
        let idles = state.hosts.entry(host).or_default();
        let kept_for = kept_for.min(idles.at_most(now).unwrap_or(Duration::MAX));
        if kept_for.is_zero() || idles.connections.len() == KEPT_PER_HOST {
            return;
        }
        idles.connections.push(Idle {
            connection,
            since: now,
            until: now + kept_for,
        });
        if !state.is_swept {
            state.is_swept = true;
            TokioExecutor::new().execute(sweep(Arc::downgrade(self)));
        }
    }

    fn note_close(&self, host: &Host, idle_for: Duration) {
        if let Some(idles) = self.state().hosts.get_mut(host) {
            idles.note_close(idle_for, Instant::now());
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kept").finish_non_exhaustive()
    }
}

/// Closes expired connections, until none is kept.
async fn sweep(kept: Weak<Kept>) {
    loop {
        tokio::time::sleep(SWEEP).await;
        let Some(kept) = kept.upgrade() else { return };
        let now = Instant::now();
        let mut state = kept.state();
        for idles in state.hosts.values_mut() {
            idles.sweep(now);
        }
        if state
            .hosts
            .values()
            .all(|idles| idles.connections.is_empty())
        {
            state.is_swept = false;
            return;
        }
    }
}

/// A connection that notes whether anything came over it.
struct Listening<T> {
    stream: T,
    heard: Arc<AtomicBool>,
}

impl<T: AsyncRead + Unpin> AsyncRead for Listening<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        if buffer.filled().len() > before {
            self.heard.store(true, Relaxed);
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Listening<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn an_upstream_says_how_long_it_keeps_a_connection() {
        for (value, expected) in [
            ("timeout=5", Some(4)),
            ("timeout=5, max=100", Some(4)),
            ("max=100, Timeout = 30", Some(29)),
            ("timeout=3600", Some(60)),
            ("timeout=1", Some(0)),
            ("timeout=0", Some(0)),
            ("timeout=-1", None),
            ("timeout=soon", None),
            ("timeout", None),
            ("max=100", None),
            ("", None),
        ] {
            let mut answer = HeaderMap::new();
            answer.insert(KEEP_ALIVE, HeaderValue::from_static(value));
            let expected = expected.map(Duration::from_secs);
            assert_eq!(said(&answer), expected, "{value:?}");
        }
        assert_eq!(said(&HeaderMap::new()), None);
    }

    #[test]
    fn a_server_is_asked_for_a_path() {
        for (uri, path) in [
            ("http://a.example:1/mcp?a=b", "/mcp?a=b"),
            ("https://a.example", "/"),
            ("https://a.example?a", "/?a"),
        ] {
            assert_eq!(origin_form(&Uri::from_static(uri)), path);
        }
    }
}
