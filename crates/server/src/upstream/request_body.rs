//! The client's request body on its way to the upstream, with a copy for a retry.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::{Context, Poll, ready},
};

use axum::body::Body;
use bytes::Bytes;
use http_body::{Frame, SizeHint};

/// Limits of the copy. Requests that read something are far below.
const KEPT_BYTES: usize = 64 * 1024;
const KEPT_PIECES: usize = 64;

/// The client's request body, whose errors can be told from those of the upstream.
pub(super) struct RequestBody {
    body: Body,
    copy: Weak<RequestCopy>,
}

impl RequestBody {
    pub(super) fn new(body: Body) -> Self {
        Self {
            body,
            copy: Weak::new(),
        }
    }

    /// Keeps what passes from now on, for as long as the copy is held. `None` if it is known to be
    /// too much.
    pub(super) fn copy(&mut self) -> Option<Arc<RequestCopy>> {
        if http_body::Body::size_hint(&self.body).lower() > KEPT_BYTES as u64 {
            return None;
        }
        let copy = Arc::new(RequestCopy::default());
        copy.state().is_whole = http_body::Body::is_end_stream(&self.body);
        self.copy = Arc::downgrade(&copy);
        Some(copy)
    }
}

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = RequestBodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, RequestBodyError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx))
            .transpose()
            .map_err(RequestBodyError)?;
        if let Some(copy) = self.copy.upgrade() {
            copy.note(frame.as_ref(), self.body.is_end_stream());
        }
        Poll::Ready(frame.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the request body failed")]
pub(super) struct RequestBodyError(#[source] axum::Error);

/// A copy of the part of a body that has passed. The bytes are shared.
#[derive(Default)]
pub(super) struct RequestCopy(Mutex<State>);

#[derive(Default)]
struct State {
    pieces: Vec<Bytes>,
    bytes: usize,
    is_whole: bool,
    is_too_much: bool,
}

impl RequestCopy {
    fn note(&self, frame: Option<&Frame<Bytes>>, is_last: bool) {
        let mut state = self.state();
        if let Some(frame) = frame {
            match frame.data_ref() {
                Some(data) => {
                    state.bytes = state.bytes.saturating_add(data.len());
                    state.pieces.push(data.clone());
                }
                // Trailers are not kept.
                None => state.is_too_much = true,
            }
            state.is_too_much |= state.bytes > KEPT_BYTES || state.pieces.len() > KEPT_PIECES;
        }
        if state.is_too_much {
            state.pieces.clear();
        }
        state.is_whole |= is_last || frame.is_none();
    }

    /// The body, if all of it has passed and was not too much.
    pub(super) fn whole(&self) -> Option<Bytes> {
        let state = self.state();
        if !state.is_whole || state.is_too_much {
            return None;
        }
        Some(match &state.pieces[..] {
            [piece] => piece.clone(),
            pieces => pieces.concat().into(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt, channel::Channel};

    use super::*;

    /// The length of the copy of a body that came in pieces of these sizes.
    async fn kept(sizes: &[usize]) -> Option<usize> {
        let (mut pieces, body) = Channel::<Bytes>::new(sizes.len().max(1));
        for size in sizes {
            pieces.send_data(vec![b'x'; *size].into()).await.unwrap();
        }
        drop(pieces);
        let mut body = RequestBody::new(Body::new(body));
        let copy = body.copy().unwrap();
        assert!(copy.whole().is_none(), "it has not passed yet");
        body.collect().await.unwrap();
        copy.whole().map(|copy| copy.len())
    }

    #[tokio::test]
    async fn a_body_is_kept_whole_or_not_at_all() {
        assert_eq!(kept(&[]).await, Some(0));
        assert_eq!(kept(&[3]).await, Some(3));
        assert_eq!(kept(&[60_000, 5_536]).await, Some(65_536));
        assert_eq!(kept(&[60_000, 5_537]).await, None);
        assert_eq!(kept(&[1; 64]).await, Some(64));
        assert_eq!(kept(&[1; 65]).await, None);
    }

    #[tokio::test]
    async fn what_is_known_to_be_too_much_or_nothing_needs_no_look() {
        let mut large = RequestBody::new(Body::from(vec![0; 65_537]));
        assert!(large.copy().is_none());
        let mut none = RequestBody::new(Body::empty());
        assert_eq!(none.copy().unwrap().whole(), Some(Bytes::new()));
    }

    #[tokio::test]
    async fn nothing_is_kept_once_nobody_wants_it() {
        let mut body = RequestBody::new(Body::from("x"));
        drop(body.copy().unwrap());
        assert_eq!(body.copy.strong_count(), 0);
        assert_eq!(body.collect().await.unwrap().to_bytes(), "x");
    }
}
