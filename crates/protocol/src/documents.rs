//! What clients publish, metadata documents and sets of keys: fetched when needed, by one request
//! for all who wait, not too often, and remembered.

use std::{
    collections::HashMap,
    future::Future,
    num::NonZeroUsize,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::{
    FutureExt,
    future::{Shared, WeakShared},
};
use http::StatusCode;
use lru::LruCache;

use crate::{
    endpoint::App,
    journal::{Event, Instead, Limit},
    oauth::{
        client::ClientMetadata,
        client_document::{self, DocumentUrl},
        error::OAuthError,
        jwks::KeySet,
        known_clients,
    },
    ports::FetchError,
    rates::{Bucket, Buckets},
};

/// Documents remembered; the one that was not asked for longest makes room.
const MOST_COPIES: NonZeroUsize = NonZeroUsize::new(1000).expect("a constant above zero");
/// How often a document is renewed that is found wanting.
const MINUTE: Duration = Duration::from_mins(1);

type Outcome<D> = Result<Arc<D>, NotLoaded>;
type Fetching<D> = Pin<Box<dyn Future<Output = Outcome<D>> + Send>>;

/// A kind of document.
pub(crate) trait Document: Sized + Send + Sync + 'static {
    /// How long after it was fetched a copy may stand in for one that does not get through.
    const LAST_GOOD_COPY: Duration;

    fn parse(url: &DocumentUrl, body: &[u8]) -> Result<Self, OAuthError>;

    /// The copy in this program, if there is one.
    fn pinned_copy(url: &DocumentUrl) -> Option<Self>;

    /// Where those of this kind are kept.
    fn shelf(documents: &mut Shelves) -> &mut Shelf<Self>;
}

impl Document for ClientMetadata {
    const LAST_GOOD_COPY: Duration = Duration::from_hours(7 * 24);

    fn parse(url: &DocumentUrl, body: &[u8]) -> Result<Self, OAuthError> {
        client_document::parse(url, body)
    }

    fn pinned_copy(url: &DocumentUrl) -> Option<Self> {
        known_clients::pinned_copy(url)
    }

    fn shelf(documents: &mut Shelves) -> &mut Shelf<Self> {
        &mut documents.clients
    }
}

impl Document for KeySet {
    /// Shorter, since a key that was withdrawn may be in it.
    const LAST_GOOD_COPY: Duration = Duration::from_hours(24);

    fn parse(_: &DocumentUrl, body: &[u8]) -> Result<Self, OAuthError> {
        Self::parse(body)
    }

    fn pinned_copy(_: &DocumentUrl) -> Option<Self> {
        None
    }

    fn shelf(documents: &mut Shelves) -> &mut Shelf<Self> {
        &mut documents.key_sets
    }
}

/// The documents that this process has seen, or is about to.
#[derive(Default)]
pub(crate) struct Documents {
    shelves: Mutex<Shelves>,
    /// Fetches by host.
    asked_of: Buckets<String>,
    asked: Bucket,
}

#[derive(Default)]
pub(crate) struct Shelves {
    clients: Shelf<ClientMetadata>,
    key_sets: Shelf<KeySet>,
}

/// Documents of one kind.
pub(crate) struct Shelf<D: Document> {
    copies: LruCache<DocumentUrl, Copy<D>>,
    /// Held weakly, so that a fetch ends when nobody waits for it any more.
    in_flight: HashMap<DocumentUrl, WeakShared<Fetching<D>>>,
}

/// A document as it came last. Errors and documents that cannot be used are never kept.
struct Copy<D> {
    document: Arc<D>,
    fetched_at: Duration,
    /// When it was last found wanting, and asked for anew.
    renewed_at: Duration,
    fresh_until: Duration,
}

/// Why there is no document. Of one that did not come only that is told: what is or is not at an
/// address is not for a stranger to learn through us.
#[derive(Clone, Debug)]
pub(crate) enum NotLoaded {
    /// It came, and is no good.
    Invalid(OAuthError),
    /// It did not come now; the words say what to do.
    Unavailable(&'static str),
}

/// The document at `url`.
pub(crate) async fn load<D: Document>(app: &App, url: &DocumentUrl) -> Outcome<D> {
    let fetching = {
        let now = app.ports.clock.elapsed();
        let mut shelves = app.documents.shelves();
        if let Some(document) = D::shelf(&mut shelves).fresh(url, now) {
            return Ok(document);
        }
        let in_flight = D::shelf(&mut shelves).in_flight(url);
        let may_ask = in_flight.is_some() || may_ask(app, url.host(), now);
        let shelf = D::shelf(&mut shelves);
        match in_flight {
            Some(fetching) => fetching,
            None if may_ask => shelf.start(app, url),
            None => {
                return match shelf.instead(url, now) {
                    Some((document, _)) => Ok(document),
                    None => Err(NotLoaded::Unavailable(
                        "too many documents of clients were asked for just now, try again in a \
                         minute",
                    )),
                };
            }
        }
    };
    fetching.await
}

/// The document at `url` as it is now, because the copy that we have lacks something: once in a
/// minute, whoever asks how often.
pub(crate) async fn renew<D: Document>(app: &App, url: &DocumentUrl) -> Outcome<D> {
    {
        let now = app.ports.clock.elapsed();
        let mut shelves = app.documents.shelves();
        if let Some(copy) = D::shelf(&mut shelves).copies.peek_mut(url)
            && copy.renewed_at + MINUTE <= now
        {
            copy.renewed_at = now;
            copy.fresh_until = now;
        }
    }
    load(app, url).await
}

async fn fetch<D: Document>(app: App, url: DocumentUrl) -> Outcome<D> {
    // Load.
    let fetched = app.ports.fetch.fetch(url.as_url()).await;

    // Decide.
    let now = app.ports.clock.elapsed();
    let read = match fetched {
        Ok(fetched) => D::parse(&url, &fetched.body)
            .map(|document| Copy {
                document: Arc::new(document),
                fetched_at: now,
                renewed_at: now,
                fresh_until: now + client_document::freshness(&fetched.headers),
            })
            .map_err(Unusable::Invalid),
        Err(error) => Err(Unusable::NotFetched(error)),
    };

    // Commit.
    let mut shelves = app.documents.shelves();
    let shelf = D::shelf(&mut shelves);
    shelf.in_flight.remove(&url);
    let unusable = match read {
        Ok(copy) => {
            let document = Arc::clone(&copy.document);
            shelf.keep(url.clone(), copy);
            drop(shelves);
            let url = url.as_str();
            app.journal.record(&Event::DocumentFetched { url });
            return Ok(document);
        }
        Err(unusable) => unusable,
    };
    let instead = if unusable.is_the_publishers_word() {
        shelf.copies.pop(&url);
        None
    } else {
        shelf.instead(&url, now)
    };
    drop(shelves);
    app.journal.record(&Event::DocumentFailed {
        url: url.as_str(),
        cause: &unusable,
        instead: instead.as_ref().map(|(_, instead)| *instead),
    });
    match (instead, unusable) {
        (Some((document, _)), _) => Ok(document),
        (None, Unusable::Invalid(error)) => Err(NotLoaded::Invalid(error)),
        (None, Unusable::NotFetched(_)) => Err(NotLoaded::Unavailable(
            "a document that the client publishes could not be fetched, try again in a minute",
        )),
    }
}

/// Why a document is of no use.
#[derive(Debug, thiserror::Error)]
enum Unusable {
    #[error(transparent)]
    NotFetched(FetchError),
    #[error(transparent)]
    Invalid(OAuthError),
}

impl Unusable {
    /// Whether this is what the publisher has to say: that the document is gone, or is another one
    /// now. It is not when the publisher was not reached, or when a guard before it answered,
    /// which takes us for a bot.
    fn is_the_publishers_word(&self) -> bool {
        match self {
            Self::Invalid(_) | Self::NotFetched(FetchError::TooLarge | FetchError::Encoded) => true,
            Self::NotFetched(FetchError::Status(status)) => {
                *status != StatusCode::FORBIDDEN
                    && *status != StatusCode::TOO_MANY_REQUESTS
                    && !status.is_server_error()
            }
            Self::NotFetched(
                FetchError::Refused
                | FetchError::Unreachable(_)
                | FetchError::TimedOut
                | FetchError::Broken(_)
                | FetchError::Html,
            ) => false,
        }
    }
}

impl Documents {
    fn shelves(&self) -> MutexGuard<'_, Shelves> {
        self.shelves.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<D: Document> Default for Shelf<D> {
    fn default() -> Self {
        Self {
            // Unbounded so that nothing is allocated before it is needed; `keep` keeps the bound.
            copies: LruCache::unbounded(),
            in_flight: HashMap::new(),
        }
    }
}

impl<D: Document> Shelf<D> {
    fn fresh(&mut self, url: &DocumentUrl, now: Duration) -> Option<Arc<D>> {
        let copy = self.copies.get(url)?;
        (now < copy.fresh_until).then(|| Arc::clone(&copy.document))
    }

    fn keep(&mut self, url: DocumentUrl, copy: Copy<D>) {
        self.copies.put(url, copy);
        if self.copies.len() > MOST_COPIES.get() {
            self.copies.pop_lru();
        }
    }

    /// What may stand in for a document that did not get through.
    fn instead(&self, url: &DocumentUrl, now: Duration) -> Option<(Arc<D>, Instead)> {
        let last_good = self
            .copies
            .peek(url)
            .filter(|copy| now < copy.fetched_at + D::LAST_GOOD_COPY)
            .map(|copy| (Arc::clone(&copy.document), Instead::LastGoodCopy));
        last_good.or_else(|| {
            let pinned = D::pinned_copy(url)?;
            Some((Arc::new(pinned), Instead::PinnedCopy))
        })
    }

    fn in_flight(&self, url: &DocumentUrl) -> Option<Shared<Fetching<D>>> {
        self.in_flight.get(url)?.upgrade()
    }

    fn start(&mut self, app: &App, url: &DocumentUrl) -> Shared<Fetching<D>> {
        let fetching: Fetching<D> = Box::pin(fetch(app.clone(), url.clone()));
        let fetching = fetching.shared();
        // Those that everybody stopped waiting for never came to remove themselves.
        self.in_flight
            .retain(|_, fetching| fetching.upgrade().is_some());
        self.in_flight
            .extend(fetching.downgrade().map(|weak| (url.clone(), weak)));
        fetching
    }
}

/// Whether `host` may be asked once more, which then counts as done.
fn may_ask(app: &App, host: &str, now: Duration) -> bool {
    let limits = &app.policy.limits;
    let refused = |limit| {
        move |_| {
            app.journal.record(&Event::Limited {
                limit,
                address: None,
            });
        }
    };
    let documents = &app.documents;
    documents
        .asked_of
        .take(host.to_owned(), limits.documents_per_host, now)
        .map_err(refused(Limit::DocumentFetchesPerHost))
        .and_then(|()| {
            documents
                .asked
                .take(limits.documents, now)
                .map_err(refused(Limit::DocumentFetches))
        })
        .is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oauth::client_auth::AuthMethod;

    fn url(n: usize) -> DocumentUrl {
        DocumentUrl::parse(&format!("https://client.example/{n}")).unwrap()
    }

    #[test]
    fn memory_is_bounded_and_forgets_what_was_not_asked_for_longest() {
        let mut shelf = Shelf::default();
        for n in 0..=MOST_COPIES.get() {
            let copy = Copy {
                document: Arc::new(ClientMetadata {
                    client_name: String::new(),
                    redirect_uris: Vec::new(),
                    token_endpoint_auth_method: AuthMethod::None,
                    keys: None,
                }),
                fetched_at: Duration::ZERO,
                renewed_at: Duration::ZERO,
                fresh_until: Duration::from_mins(1),
            };
            shelf.keep(url(n), copy);
            assert!(shelf.fresh(&url(0), Duration::ZERO).is_some());
        }
        assert_eq!(shelf.copies.len(), MOST_COPIES.get());
        assert!(shelf.fresh(&url(1), Duration::ZERO).is_none());
    }
}
