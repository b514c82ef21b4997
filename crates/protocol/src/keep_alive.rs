//! Keeps silent event streams alive, since load balancers and reverse proxies cut them.
//!
//! This is the one place where a body does not leave as it came: a comment stands between two
//! events, where it means nothing (HTML, "Server-sent events"). Nothing else is added or moved.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::body::Body;
use bytes::{Buf, Bytes};
use futures_util::future::BoxFuture;
use http::{HeaderMap, header};
use http_body::{Frame, SizeHint};

use crate::{
    mcp::event_boundary::{BOM, EventBoundary},
    ports::Clock,
};

/// The comment that is sent when the upstream is silent.
const COMMENT: Bytes = Bytes::from_static(b": keep-alive\n\n");

/// How long a stream may be silent when it opens. Some fronts hold even its head back until the
/// first byte of the body. An answer that follows at once stays as it is.
const AT_ONCE: Duration = Duration::from_millis(100);

/// An event stream that is never silent for longer than a limit.
pub(crate) struct KeptAlive {
    body: Body,
    comments: Option<Comments>,
}

impl KeptAlive {
    /// `headers` are those of the stream. `every` is how long it may be silent, if that matters.
    /// What is compressed, or has a length, is left alone.
    pub(crate) fn new(
        body: Body,
        headers: &HeaderMap,
        every: Option<Duration>,
        clock: &Arc<dyn Clock>,
    ) -> Self {
        let is_open = !headers.contains_key(header::CONTENT_ENCODING)
            && !headers.contains_key(header::CONTENT_LENGTH)
            && http_body::Body::size_hint(&body).exact().is_none();
        let comments = every.filter(|_| is_open).map(|every| Comments {
            every,
            clock: Arc::clone(clock),
            boundary: EventBoundary::default(),
            has_begun: false,
            displaced: None,
            silent_since: None,
            alarm: None,
        });
        Self { body, comments }
    }
}

impl http_body::Body for KeptAlive {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        loop {
            let Some(comments) = &mut this.comments else {
                return Pin::new(&mut this.body).poll_frame(cx);
            };
            let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) else {
                ready!(comments.poll_silence(cx));
                return Poll::Ready(Some(Ok(Frame::data(COMMENT))));
            };
            let frame = match frame.transpose()?.map(Frame::into_data) {
                Some(Ok(data)) => match comments.pass(data) {
                    Some(data) => Some(Frame::data(data)),
                    None => continue,
                },
                // After trailers nothing follows.
                Some(Err(trailers)) => Some(trailers),
                None => None,
            };
            return Poll::Ready(frame.map(Ok));
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match self.comments {
            Some(_) => SizeHint::default(),
            None => self.body.size_hint(),
        }
    }
}

/// When to say something, and where.
struct Comments {
    every: Duration,
    clock: Arc<dyn Clock>,
    boundary: EventBoundary,
    /// Whether anything was passed on, by the upstream or by us.
    has_begun: bool,
    /// How much of a byte order mark has come, if the first comment took its place.
    displaced: Option<usize>,
    silent_since: Option<Duration>,
    /// Left as it is while the upstream speaks: one that goes off too early is cheaper than one
    /// that is moved with each frame.
    alarm: Option<BoxFuture<'static, ()>>,
}

impl Comments {
    /// Takes in what the upstream said, and returns what of it goes on.
    fn pass(&mut self, data: Bytes) -> Option<Bytes> {
        let data = match self.displaced {
            Some(come) => self.without_mark(come, data)?,
            None => data,
        };
        self.has_begun |= !data.is_empty();
        self.silent_since = None;
        self.boundary.pass(&data);
        Some(data)
    }

    /// A byte order mark counts only as the very first (HTML, "Server-sent events"); after a comment
    /// it would be part of the first line, and spoil it.
    fn without_mark(&mut self, come: usize, mut data: Bytes) -> Option<Bytes> {
        let expected = &BOM[come..];
        let common = expected
            .iter()
            .zip(&data)
            .take_while(|(one, other)| one == other);
        let common = common.count();
        if common == data.len() && common < expected.len() {
            self.displaced = Some(come + common);
            return None;
        }
        self.displaced = None;
        if common == expected.len() {
            data.advance(common);
        } else if come > 0 {
            data = [&BOM[..come], &data].concat().into();
        }
        (!data.is_empty()).then_some(data)
    }

    /// Ready when the upstream has been silent for too long, and a comment can stand here.
    fn poll_silence(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let clock = &self.clock;
        let since = self.silent_since.get_or_insert_with(|| clock.elapsed());
        loop {
            if let Some(alarm) = &mut self.alarm {
                ready!(alarm.as_mut().poll(cx));
                self.alarm = None;
            }
            let now = clock.elapsed();
            let may_last = if self.has_begun { self.every } else { AT_ONCE };
            let left = may_last.saturating_sub(now.saturating_sub(*since));
            if left.is_zero() {
                *since = now;
                if self.boundary.is_here() {
                    if !self.has_begun {
                        self.displaced = Some(0);
                    }
                    self.has_begun = true;
                    return Poll::Ready(());
                }
            } else {
                self.alarm = Some(clock.sleep(left));
            }
        }
    }
}
