//! Event streams end with the grant that opened them, and not only when they end by themselves. One
//! that ends by itself at once is counted against its grant.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::body::Body;
use bytes::Bytes;
use futures_util::task::AtomicWaker;
use http_body::{Frame, SizeHint};

use crate::{
    keep_alive::KeptAlive, oauth::access_token::Family, ports::Clock, rates::Bucket, rates::Rate,
};

/// A stream that ends sooner than this was of no use to anybody.
const BRIEF: Duration = Duration::from_secs(1);

/// The streams that are open in this process, by grant.
#[derive(Default)]
pub(crate) struct Streams(Mutex<HashMap<Family, Vec<Weak<Ending>>>>);

/// A place among the streams of a grant, taken before its upstream is asked. Dropping it, or the
/// stream made of it, gives it back.
pub(crate) struct Place(Arc<Ending>);

/// What one stream listens to beside its upstream.
#[derive(Default)]
struct Ending {
    /// Whether it is one of those whose number is limited.
    is_counted: bool,
    is_over: AtomicBool,
    stream: AtomicWaker,
}

impl Streams {
    /// Takes a place for one more stream of `family`, of which `most` may be open.
    pub(crate) fn reserve(&self, family: Family, most: usize) -> Option<Place> {
        let mut streams = self.streams();
        let open = streams.entry(family).or_default();
        let is_counted = |ending: &Weak<Ending>| ending.upgrade().is_some_and(|it| it.is_counted);
        if open.iter().filter(|ending| is_counted(ending)).count() >= most {
            return None;
        }
        Some(Place(add(open, true)))
    }

    /// Makes `body` end, as if the upstream had ended it, when the grant of `family` does. It is
    /// one of those that are counted if it has a place among them.
    pub(crate) fn until_end_of(
        &self,
        family: Family,
        place: Option<Place>,
        body: KeptAlive,
        opening: Option<Opening>,
    ) -> Body {
        let ending = match place {
            Some(Place(ending)) => ending,
            None => add(self.streams().entry(family).or_default(), false),
        };
        Body::new(UntilEnd {
            body: Some(body),
            ending,
            opening,
        })
    }

    /// Ends every stream of a grant that has ended.
    pub(crate) fn end(&self, family: Family) {
        let open = self.streams().remove(&family).unwrap_or_default();
        for ending in open.iter().filter_map(Weak::upgrade) {
            ending.is_over.store(true, Ordering::Release);
            ending.stream.wake();
        }
    }

    /// The grants that have streams open.
    pub(crate) fn families(&self) -> Vec<Family> {
        let mut streams = self.streams();
        streams.retain(|_, open| open.iter().any(|ending| ending.strong_count() > 0));
        streams.keys().copied().collect()
    }

    fn streams(&self) -> MutexGuard<'_, HashMap<Family, Vec<Weak<Ending>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn add(open: &mut Vec<Weak<Ending>>, is_counted: bool) -> Arc<Ending> {
    let ending = Arc::new(Ending {
        is_counted,
        ..Ending::default()
    });
    open.retain(|ending| ending.strong_count() > 0);
    open.push(Arc::downgrade(&ending));
    ending
}

/// The opening of a stream, which costs its grant one of a few if the upstream ends the stream at
/// once. A client that then asks again at once would go on for ever.
pub(crate) struct Opening {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) at: Duration,
    pub(crate) brief_streams: Arc<Bucket>,
    pub(crate) rate: Option<Rate>,
}

impl Opening {
    /// Notes that the upstream has ended the stream.
    fn ended(self) {
        let now = self.clock.elapsed();
        if now.saturating_sub(self.at) < BRIEF {
            // More than there may be cannot be counted, and need not be.
            let _ = self.brief_streams.take(self.rate, now);
        }
    }
}

/// A body that goes on until its upstream or its grant ends it.
struct UntilEnd {
    body: Option<KeptAlive>,
    ending: Arc<Ending>,
    opening: Option<Opening>,
}

impl UntilEnd {
    fn note_end(&mut self) {
        if let Some(opening) = self.opening.take() {
            opening.ended();
        }
    }
}

impl http_body::Body for UntilEnd {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        // First, so that an end that comes between is not missed.
        self.ending.stream.register(cx.waker());
        if self.ending.is_over.load(Ordering::Acquire) {
            // Gone at once, and with it the connection to the upstream.
            self.body = None;
        }
        let Some(body) = &mut self.body else {
            return Poll::Ready(None);
        };
        let frame = Pin::new(body).poll_frame(cx);
        if matches!(frame, Poll::Ready(None | Some(Err(_)))) {
            self.note_end();
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body
            .as_ref()
            .is_none_or(http_body::Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

impl Drop for UntilEnd {
    /// What is known to have nothing more is not asked for more.
    fn drop(&mut self) {
        if self
            .body
            .as_ref()
            .is_some_and(http_body::Body::is_end_stream)
        {
            self.note_end();
        }
    }
}
