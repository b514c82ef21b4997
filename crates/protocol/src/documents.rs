//! What clients publish, metadata documents and sets of keys: fetched when needed, by one request
//! for all who wait, not too often, and remembered.

use std::{
    collections::HashMap,
    future::Future,
    net::IpAddr,
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
    policy::ClientPolicy,
    ports::FetchError,
    rates::{self, Bucket, Buckets},
};

/// Documents remembered; the one that was not asked for longest makes room.
const MOST_COPIES: NonZeroUsize = NonZeroUsize::new(1000).expect("a constant above zero");
/// What is said of a document that did not come, whatever the reason.
const NOT_FETCHED: &str =
    "a document that the client publishes could not be fetched, try again in a minute";
/// How often a document is renewed that is found wanting.
const MINUTE: Duration = Duration::from_mins(1);

type Outcome<D> = Result<Arc<D>, NotLoaded>;
type Fetching<D> = Pin<Box<dyn Future<Output = Outcome<D>> + Send>>;

/// A kind of document.
pub(crate) trait Document: Sized + Send + Sync + 'static {
    /// How long after it was fetched a copy may stand in for one that does not get through.
    const LAST_GOOD_COPY: Duration;

    fn parse(clients: &ClientPolicy, url: &DocumentUrl, body: &[u8]) -> Result<Self, OAuthError>;

    /// The copy in this program, if there is one.
    fn pinned_copy(url: &DocumentUrl) -> Option<Self>;

    /// Whether the operator's configuration names it, and not only a stranger.
    fn is_set_up(clients: &ClientPolicy, url: &DocumentUrl) -> bool;

    /// Where those of this kind are kept.
    fn shelf(documents: &mut Shelves) -> &mut Shelf<Self>;
}

impl Document for ClientMetadata {
    const LAST_GOOD_COPY: Duration = Duration::from_hours(7 * 24);

    fn parse(clients: &ClientPolicy, url: &DocumentUrl, body: &[u8]) -> Result<Self, OAuthError> {
        client_document::parse(url, body, &clients.app_schemes)
    }

    fn pinned_copy(url: &DocumentUrl) -> Option<Self> {
        known_clients::pinned_copy(url)
    }

    fn is_set_up(_: &ClientPolicy, _: &DocumentUrl) -> bool {
        false
    }

    fn shelf(documents: &mut Shelves) -> &mut Shelf<Self> {
        &mut documents.clients
    }
}

impl Document for KeySet {
    /// Shorter, since a key that was withdrawn may be in it.
    const LAST_GOOD_COPY: Duration = Duration::from_hours(24);

    fn parse(_: &ClientPolicy, _: &DocumentUrl, body: &[u8]) -> Result<Self, OAuthError> {
        Self::parse(body)
    }

    fn pinned_copy(_: &DocumentUrl) -> Option<Self> {
        None
    }

    fn is_set_up(clients: &ClientPolicy, url: &DocumentUrl) -> bool {
        clients.sets_up_keys_at(url)
    }

    fn shelf(documents: &mut Shelves) -> &mut Shelf<Self> {
        &mut documents.key_sets
    }
}

/// The documents that this process has seen, or is about to.
#[derive(Default)]
pub(crate) struct Documents {
    shelves: Mutex<Shelves>,
    /// Fetches by the network that made us ask.
    asked_by: Buckets<IpAddr>,
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
    /// How often each document failed by its publisher's word.
    refused: Buckets<DocumentUrl>,
    /// How often each did not get through.
    missed: Buckets<DocumentUrl>,
}

/// A document as it came last. Errors and documents that cannot be used are never kept.
struct Copy<D> {
    document: Arc<D>,
    fetched_at: Duration,
    /// When it was last found wanting, and asked for anew.
    renewed_at: Duration,
    fresh_until: Duration,
    /// Whether the operator's configuration names it; then it makes room for no stranger's.
    is_set_up: bool,
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

/// The document at `url`, for somebody at `address`.
pub(crate) async fn load<D: Document>(app: &App, url: &DocumentUrl, address: IpAddr) -> Outcome<D> {
    let fetching = {
        let now = app.ports.clock.elapsed();
        let mut shelves = app.documents.shelves();
        let shelf = D::shelf(&mut shelves);
        if let Some(document) = shelf.fresh(url, now) {
            return Ok(document);
        }
        match shelf.in_flight(url) {
            Some(fetching) => fetching,
            None => match may_ask(app, shelf, url, address, now) {
                Ok(()) => shelf.start(app, url),
                Err(not_now) => return shelf.without_asking(url, &not_now, now),
            },
        }
    };
    fetching.await
}

/// The document at `url` as it is now, because the copy that we have lacks something: once in a
/// minute, whoever asks how often.
pub(crate) async fn renew<D: Document>(
    app: &App,
    url: &DocumentUrl,
    address: IpAddr,
) -> Outcome<D> {
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
    load(app, url, address).await
}

async fn fetch<D: Document>(app: App, url: DocumentUrl) -> Outcome<D> {
    // Load.
    let fetched = app.ports.fetch.fetch(url.as_url()).await;

    // Decide.
    let now = app.ports.clock.elapsed();
    let read = match fetched {
        Ok(fetched) => D::parse(&app.policy.clients, &url, &fetched.body)
            .map(|document| Copy {
                document: Arc::new(document),
                fetched_at: now,
                renewed_at: now,
                fresh_until: now + client_document::freshness(&fetched.headers),
                is_set_up: D::is_set_up(&app.policy.clients, &url),
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
    let limit = app.policy.limits.failures_per_document;
    let instead = if unusable.is_the_publishers_word() {
        let _ = shelf.refused.take(url.clone(), limit, now);
        shelf.copies.pop(&url);
        None
    } else {
        let _ = shelf.missed.take(url.clone(), limit, now);
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
        (None, Unusable::NotFetched(_)) => Err(NotLoaded::Unavailable(NOT_FETCHED)),
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
            refused: Buckets::default(),
            missed: Buckets::default(),
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
            let mut oldest_first = self.copies.iter().rev();
            let goes = oldest_first.find(|(_, copy)| !copy.is_set_up);
            if let Some(url) = goes.map(|(url, _)| url.clone()) {
                self.copies.pop(&url);
            }
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

    /// What there is when nobody may be asked.
    fn without_asking(&self, url: &DocumentUrl, not_now: &NotNow, now: Duration) -> Outcome<D> {
        let (instead, description) = match not_now {
            NotNow::Refused => (None, NOT_FETCHED),
            NotNow::Missed => (self.instead(url, now), NOT_FETCHED),
            NotNow::TooMany => (
                self.instead(url, now),
                "too many documents of clients were asked for just now, try again in a minute",
            ),
        };
        match instead {
            Some((document, _)) => Ok(document),
            None => Err(NotLoaded::Unavailable(description)),
        }
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

/// Why a document is not asked for.
enum NotNow {
    /// It failed too often by its publisher's word, which stands.
    Refused,
    /// It did not get through too often.
    Missed,
    /// Too many were asked for.
    TooMany,
}

/// Whether the document at `url` may be asked for once more, which then counts as done. What fails
/// again and again uses up nobody's allowance, and one network alone not that of a host. What the
/// operator set up is not counted with what strangers name: each of those few is asked for once in
/// a minute while it comes, and as often as it may fail while it does not.
fn may_ask<D: Document>(
    app: &App,
    shelf: &Shelf<D>,
    url: &DocumentUrl,
    address: IpAddr,
    now: Duration,
) -> Result<(), NotNow> {
    let limits = &app.policy.limits;
    let limited = |limit, address| app.journal.record(&Event::Limited { limit, address });
    for (failed, not_now) in [
        (&shelf.refused, NotNow::Refused),
        (&shelf.missed, NotNow::Missed),
    ] {
        if !failed
            .wait(url, limits.failures_per_document, now)
            .is_zero()
        {
            limited(Limit::FailuresPerDocument, None);
            return Err(not_now);
        }
    }
    if D::is_set_up(&app.policy.clients, url) {
        return Ok(());
    }
    let documents = &app.documents;
    let network = rates::network(address);
    let by_address = documents
        .asked_by
        .take(network, limits.documents_per_address, now);
    if by_address.is_err() {
        limited(Limit::DocumentFetchesPerAddress, Some(address));
        return Err(NotNow::TooMany);
    }
    let host = url.host().to_owned();
    let of_host = documents
        .asked_of
        .take(host, limits.documents_per_host, now);
    if of_host.is_err() {
        limited(Limit::DocumentFetchesPerHost, None);
        return Err(NotNow::TooMany);
    }
    let in_all = documents.asked.take(limits.documents, now);
    in_all.map_err(|_| {
        limited(Limit::DocumentFetches, None);
        NotNow::TooMany
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oauth::client_auth::AuthMethod;

    fn url(n: usize) -> DocumentUrl {
        DocumentUrl::parse(&format!("https://client.example/{n}")).unwrap()
    }

    fn copy(is_set_up: bool) -> Copy<ClientMetadata> {
        Copy {
            document: Arc::new(ClientMetadata {
                client_name: String::new(),
                redirect_uris: Vec::new(),
                token_endpoint_auth_method: AuthMethod::None,
                keys: None,
            }),
            fetched_at: Duration::ZERO,
            renewed_at: Duration::ZERO,
            fresh_until: Duration::from_mins(1),
            is_set_up,
        }
    }

    #[test]
    fn memory_is_bounded_and_forgets_what_was_not_asked_for_longest() {
        let mut shelf = Shelf::default();
        for n in 0..=MOST_COPIES.get() {
            shelf.keep(url(n), copy(false));
            assert!(shelf.fresh(&url(0), Duration::ZERO).is_some());
        }
        assert_eq!(shelf.copies.len(), MOST_COPIES.get());
        assert!(shelf.fresh(&url(1), Duration::ZERO).is_none());
    }
    #[test]
    fn what_the_operator_set_up_makes_room_for_no_strangers() {
        let mut shelf = Shelf::default();
        shelf.keep(url(0), copy(true));
        for n in 1..=2 * MOST_COPIES.get() {
            shelf.keep(url(n), copy(false));
        }
        assert_eq!(shelf.copies.len(), MOST_COPIES.get());
        assert!(shelf.fresh(&url(0), Duration::ZERO).is_some());
        assert!(shelf.fresh(&url(1), Duration::ZERO).is_none());
    }
}
