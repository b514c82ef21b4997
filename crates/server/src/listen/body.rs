//! Bodies that know when to give up: a request's when the client stalls, an event stream's when
//! the listener stops.

use std::{
    error::Error,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::body::Body;
use bytes::Bytes;
use http::{Response, header};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};

use super::{ConnectionLimits, Limit, deadline::Watch};

/// The client did not send its request's body, or too slowly.
#[derive(Debug, thiserror::Error)]
#[error("the request body arrived too slowly; {least} bytes were not there within {within:?}")]
pub struct BodyStalled {
    least: u64,
    within: Duration,
}

/// A request's body as the handler gets it. One that is not there costs nothing, and one that
/// has already arrived costs no timer.
pub(super) fn request_body(
    incoming: Incoming,
    limits: &ConnectionLimits,
    watch: &Arc<Watch>,
) -> Body {
    if http_body::Body::is_end_stream(&incoming) {
        return Body::empty();
    }
    Body::new(RequestBody {
        incoming,
        limit: limits.body_stall,
        least: limits.least(limits.body_stall),
        patience: limits.body_stall,
        arrived: 0,
        alarm: None,
        waiting: false,
        ended: false,
        watch: Arc::clone(watch),
    })
}

struct RequestBody {
    incoming: Incoming,
    limit: Duration,
    least: u64,
    /// How much longer it is waited for until `least` bytes are there. Only the client's own time
    /// is taken from it, not that of an upstream which reads slowly.
    patience: Duration,
    /// Bytes that came since patience was last full.
    arrived: u64,
    /// Made by the first read that has to wait, and kept for later ones.
    alarm: Option<Pin<Box<Sleep>>>,
    /// The last read found nothing, so the alarm is set.
    waiting: bool,
    ended: bool,
    watch: Arc<Watch>,
}

impl RequestBody {
    /// The alarm, which goes off when patience ends.
    fn alarm(&mut self) -> Pin<&mut Sleep> {
        let due = (!self.waiting).then(|| Instant::now() + self.patience);
        self.waiting = true;
        let alarm = self
            .alarm
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(self.patience)));
        if let Some(due) = due {
            alarm.as_mut().reset(due);
        }
        alarm.as_mut()
    }

    fn came(&mut self, bytes: usize) {
        self.arrived = self.arrived.saturating_add(bytes as u64);
        if let (true, Some(alarm)) = (self.waiting, &self.alarm) {
            self.patience = alarm.deadline().saturating_duration_since(Instant::now());
        }
        self.waiting = false;
        if self.arrived >= self.least {
            self.arrived = 0;
            self.patience = self.limit;
        }
    }
}

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.incoming).poll_frame(cx) {
            match &frame {
                Some(Ok(frame)) => self.came(frame.data_ref().map_or(0, Bytes::len)),
                Some(Err(_)) | None => self.ended = true,
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        ready!(self.alarm().poll(cx));
        // Nor is it listened to any longer.
        self.ended = true;
        self.watch.met(Limit::SlowBody);
        let stalled = BodyStalled {
            least: self.least,
            within: self.limit,
        };
        Poll::Ready(Some(Err(stalled.into())))
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        if !self.ended && !http_body::Body::is_end_stream(&self.incoming) {
            self.watch.leave_unread();
        }
    }
}

/// Makes an event stream end when the listener stops: one that was asked for by `GET`, and so only
/// listens, at once; one that answers a call when the time to finish calls is over. Other answers
/// pass as they are.
pub(super) fn end_on_stop(
    answer: Response<Body>,
    is_get: bool,
    watch: &Arc<Watch>,
) -> Response<Body> {
    if !is_event_stream(&answer) {
        return answer;
    }
    answer.map(|body| {
        Body::new(EventStream {
            body: Some(body),
            is_get,
            watch: Arc::clone(watch),
        })
    })
}

/// Whether the answer is an event stream that may end at any event. One whose length has been
/// announced may not.
pub(super) fn is_event_stream(answer: &Response<Body>) -> bool {
    const EVENT_STREAM: &str = "text/event-stream";
    let headers = answer.headers();
    let named = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.as_bytes().get(..EVENT_STREAM.len()))
        .is_some_and(|start| start.eq_ignore_ascii_case(EVENT_STREAM.as_bytes()));
    named
        && !headers.contains_key(header::CONTENT_LENGTH)
        && http_body::Body::size_hint(answer.body()).exact().is_none()
}

struct EventStream {
    body: Option<Body>,
    is_get: bool,
    watch: Arc<Watch>,
}

impl http_body::Body for EventStream {
    type Data = Bytes;
    type Error = axum::Error;

    /// Needs no wake-up of its own: the task that polls this, of the connection or with HTTP/2 of
    /// the stream, is woken by the stop.
    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.watch.is_out_of_time() || self.is_get && self.watch.is_stopping() {
            self.body = None;
        }
        match &mut self.body {
            Some(body) => Pin::new(body).poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.body {
            Some(body) => body.is_end_stream(),
            None => true,
        }
    }
}
