//! Bodies of which a part was read, and bodies that are overheard while they pass.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use axum::body::Body;
use bytes::Bytes;
use futures_util::future::{Either, select};
use http::{HeaderMap, header};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt as _;

use crate::{
    forward::headers,
    mcp::{opening, revision::Revision},
    ports::Clock,
};

/// Bytes of a body that are buffered to know what it is about. Refusals and answers to `initialize`
/// are shorter.
pub(super) const LONGEST: usize = 64 * 1024;
/// Pieces in which such a body may come: each takes memory of its own, however short it is.
const MOST_FRAMES: usize = 64;

/// A body that begins with what was read of it.
pub(super) struct Ahead {
    read: VecDeque<Bytes>,
    rest: Option<Body>,
}

impl Ahead {
    pub(super) fn body(read: impl Into<VecDeque<Bytes>>, rest: Option<Body>) -> Body {
        let read = read.into();
        Body::new(Self { read, rest })
    }
}

impl http_body::Body for Ahead {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if let Some(read) = self.read.pop_front() {
            return Poll::Ready(Some(Ok(Frame::data(read))));
        }
        match &mut self.rest {
            Some(rest) => Pin::new(rest).poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.read.is_empty()
            && self
                .rest
                .as_ref()
                .is_none_or(http_body::Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let read = self.read.iter().map(|it| it.len() as u64).sum::<u64>();
        let rest = self.rest.as_ref().map(http_body::Body::size_hint);
        let mut hint = rest.unwrap_or_else(|| SizeHint::with_exact(0));
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper.saturating_add(read));
        }
        hint.set_lower(hint.lower().saturating_add(read));
        hint
    }
}

/// A copy of a request body that goes to the upstream as it comes, in case that something has to be
/// said about it. The bytes are shared, not copied.
#[derive(Clone, Default)]
pub(super) struct Overheard(Arc<Mutex<Heard>>);

#[derive(Default)]
struct Heard {
    frames: Vec<Bytes>,
    length: usize,
    has_ended: bool,
}

impl Overheard {
    pub(super) fn body(&self, body: Body) -> Body {
        Body::new(Passing {
            body,
            heard: Arc::clone(&self.0),
        })
    }

    /// The whole body, if it has passed and was not too long. An upstream may answer before it has
    /// read all of it.
    pub(super) fn bytes(&self) -> Option<Bytes> {
        let heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if heard.length > LONGEST || !heard.has_ended {
            return None;
        }
        match &heard.frames[..] {
            [one] => Some(one.clone()),
            frames => Some(frames.concat().into()),
        }
    }
}

struct Passing {
    body: Body,
    heard: Arc<Mutex<Heard>>,
}

impl http_body::Body for Passing {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(cx));
        // The reader does not poll again after the last frame.
        let has_ended = frame.is_none() || self.body.is_end_stream();
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.has_ended |= has_ended;
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            heard.length = heard.length.saturating_add(data.len());
            if heard.frames.len() == MOST_FRAMES {
                heard.length = usize::MAX;
            }
            if heard.length <= LONGEST {
                heard.frames.push(data.clone());
            } else {
                heard.frames = Vec::new();
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

/// Timeout for the rest of a refusal, or of an answer to `initialize`.
const PATIENCE: Duration = Duration::from_secs(10);

/// The whole text of an answer that is short, and the answer as if nothing of it had been read.
pub(super) async fn text(
    clock: &dyn Clock,
    headers: &HeaderMap,
    mut body: Body,
) -> (Option<Bytes>, Body) {
    let is_text =
        !headers.contains_key(header::CONTENT_ENCODING) && !headers::is_event_stream(headers);
    if !is_text {
        return (None, body);
    }
    let mut read = VecDeque::new();
    let mut length = 0;
    let mut late = clock.sleep(PATIENCE);
    while length <= LONGEST {
        let Either::Left((frame, _)) = select(body.frame(), &mut late).await else {
            break;
        };
        match frame {
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    length += data.len();
                    read.push_back(data);
                }
            }
            None => {
                let text = Bytes::from(Vec::from(read.clone()).concat());
                return (Some(text), Ahead::body(read, None));
            }
            // The client sees a truncated answer as such.
            Some(Err(_)) => break,
        }
    }
    (None, Ahead::body(read, Some(body)))
}

/// What an answer to `initialize` begins with.
pub(super) enum Begun {
    /// Both sides agree on this revision.
    Agreed(Revision),
    /// It is the stream of the HTTP with SSE of 2024, which answers whatever it is asked.
    OldTransport,
    Unknown,
}

/// What an answer to `initialize` begins with, and the answer as if nothing of it had been read.
pub(super) async fn opening(
    clock: &dyn Clock,
    headers: &HeaderMap,
    mut body: Body,
) -> (Begun, Body) {
    if headers.contains_key(header::CONTENT_ENCODING) {
        return (Begun::Unknown, body);
    }
    let is_stream = headers::is_event_stream(headers);
    let find = if is_stream {
        opening::in_events
    } else {
        opening::in_json
    };
    let mut read = VecDeque::new();
    let mut text = Vec::new();
    let mut late = clock.sleep(PATIENCE);
    while text.len() <= LONGEST {
        let Either::Left((Some(Ok(frame)), _)) = select(body.frame(), &mut late).await else {
            break;
        };
        let Ok(data) = frame.into_data() else {
            continue;
        };
        text.extend_from_slice(&data);
        read.push_back(data);
        if is_stream && opening::is_of_2024(&text) {
            return (Begun::OldTransport, body);
        }
        if let Some(revision) = find(&text) {
            let body = Ahead::body(read, Some(body));
            return (Begun::Agreed(revision), body);
        }
    }
    (Begun::Unknown, Ahead::body(read, Some(body)))
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures_util::stream;
    use http_body_util::StreamBody;

    use super::*;

    fn in_pieces(pieces: &[&'static [u8]]) -> Body {
        let frames = pieces.iter().copied().map(Bytes::from_static);
        let frames: Vec<_> = frames.map(Frame::data).map(Ok::<_, Infallible>).collect();
        Body::new(StreamBody::new(stream::iter(frames)))
    }

    /// Otherwise a request could be retried with a part of its body.
    #[tokio::test]
    async fn a_body_was_overheard_when_all_of_it_has_passed() {
        static LONG: [u8; LONGEST + 1] = [b'x'; LONGEST + 1];
        let overheard = Overheard::default();
        let mut body = overheard.body(in_pieces(&[b"ab", b"cd"]));
        assert_eq!(overheard.bytes(), None);
        for _ in 0..2 {
            let _ = body.frame().await.unwrap().unwrap();
            assert_eq!(overheard.bytes(), None);
        }
        assert!(body.frame().await.is_none());
        assert_eq!(overheard.bytes().unwrap(), "abcd");

        let overheard = Overheard::default();
        let mut whole = overheard.body(Body::from("ab"));
        let _ = whole.frame().await.unwrap().unwrap();
        assert_eq!(overheard.bytes().unwrap(), "ab");

        let overheard = Overheard::default();
        let _ = overheard.body(in_pieces(&[&LONG])).collect().await.unwrap();
        assert_eq!(overheard.bytes(), None);
    }
}
