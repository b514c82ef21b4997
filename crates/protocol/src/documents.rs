//! The metadata documents of clients: fetched when needed, by one request for all who wait, not
//! too often, and remembered.

use std::{
    collections::{HashMap, VecDeque},
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
    journal::{Event, Instead},
    oauth::{
        client::ClientMetadata,
        client_document::{self, DocumentUrl},
        error::OAuthError,
        known_clients,
    },
    ports::FetchError,
};

/// Documents remembered; the one that was not asked for longest makes room.
const MOST_COPIES: NonZeroUsize = NonZeroUsize::new(1000).expect("a constant above zero");
/// How long after it was fetched a copy may stand in for a document that does not get through.
const LAST_GOOD_COPY: Duration = Duration::from_hours(7 * 24);
/// The time that the fetches below are counted in.
const MINUTE: Duration = Duration::from_mins(1);
/// Fetches that one host gets from us in a minute at most, whoever makes us.
pub(crate) const MOST_PER_HOST: usize = 10;
/// Fetches in a minute in all.
pub(crate) const MOST_IN_ALL: usize = 60;

type Outcome = Result<Arc<ClientMetadata>, OAuthError>;
type Fetching = Pin<Box<dyn Future<Output = Outcome> + Send>>;

/// The documents that this process has seen, or is about to.
#[derive(Default)]
pub(crate) struct Documents(Mutex<Shelf>);

struct Shelf {
    copies: LruCache<DocumentUrl, Copy>,
    /// Held weakly, so that a fetch ends when nobody waits for it any more.
    in_flight: HashMap<DocumentUrl, WeakShared<Fetching>>,
    /// When which host was asked within the last minute, oldest first.
    asked: VecDeque<(Duration, String)>,
}

/// A document as it came last. Errors and documents that cannot be used are never kept.
struct Copy {
    client: Arc<ClientMetadata>,
    fetched_at: Duration,
    fresh_until: Duration,
}

/// The client that publishes the document at `url`.
///
/// Refusals tell why a document that came is no good, but of one that did not come only that: what
/// is or is not at an address is not for a stranger to learn through us.
pub(crate) async fn load(app: &App, url: &DocumentUrl) -> Outcome {
    let fetching = {
        let now = app.ports.clock.elapsed();
        let mut shelf = app.documents.shelf();
        if let Some(client) = shelf.fresh(url, now) {
            return Ok(client);
        }
        match shelf.in_flight(url) {
            Some(fetching) => fetching,
            None if shelf.may_ask(url.host(), now) => shelf.start(app, url),
            None => {
                return match shelf.instead(url, now) {
                    Some((client, _)) => Ok(client),
                    None => Err(OAuthError::invalid_request(
                        "too many client metadata documents were asked for just now, try again in \
                         a minute",
                    )),
                };
            }
        }
    };
    fetching.await
}

async fn fetch(app: App, url: DocumentUrl) -> Outcome {
    // Load.
    let fetched = app.ports.fetch.fetch(url.as_url()).await;

    // Decide.
    let now = app.ports.clock.elapsed();
    let read = match fetched {
        Ok(fetched) => client_document::parse(&url, &fetched.body)
            .map(|client| Copy {
                client: Arc::new(client),
                fetched_at: now,
                fresh_until: now + client_document::freshness(&fetched.headers),
            })
            .map_err(Unusable::Invalid),
        Err(error) => Err(Unusable::NotFetched(error)),
    };

    // Commit.
    let client_id = url.as_str();
    let mut shelf = app.documents.shelf();
    shelf.in_flight.remove(&url);
    let unusable = match read {
        Ok(copy) => {
            let client = Arc::clone(&copy.client);
            shelf.keep(url.clone(), copy);
            drop(shelf);
            app.journal.record(&Event::DocumentFetched { client_id });
            return Ok(client);
        }
        Err(unusable) => unusable,
    };
    let instead = if unusable.is_the_publishers_word() {
        shelf.copies.pop(&url);
        None
    } else {
        shelf.instead(&url, now)
    };
    drop(shelf);
    app.journal.record(&Event::DocumentFailed {
        client_id,
        cause: &unusable,
        instead: instead.as_ref().map(|(_, instead)| *instead),
    });
    match (instead, unusable) {
        (Some((client, _)), _) => Ok(client),
        (None, Unusable::Invalid(error)) => Err(error),
        (None, Unusable::NotFetched(_)) => Err(OAuthError::invalid_request(
            "the client's metadata document could not be fetched, try again in a minute",
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
    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Shelf {
    fn default() -> Self {
        Self {
            // Unbounded so that nothing is allocated before it is needed; `keep` keeps the bound.
            copies: LruCache::unbounded(),
            in_flight: HashMap::new(),
            asked: VecDeque::new(),
        }
    }
}

impl Shelf {
    fn fresh(&mut self, url: &DocumentUrl, now: Duration) -> Option<Arc<ClientMetadata>> {
        let copy = self.copies.get(url)?;
        (now < copy.fresh_until).then(|| Arc::clone(&copy.client))
    }

    fn keep(&mut self, url: DocumentUrl, copy: Copy) {
        self.copies.put(url, copy);
        if self.copies.len() > MOST_COPIES.get() {
            self.copies.pop_lru();
        }
    }

    /// What may stand in for a document that did not get through.
    fn instead(&self, url: &DocumentUrl, now: Duration) -> Option<(Arc<ClientMetadata>, Instead)> {
        let last_good = self
            .copies
            .peek(url)
            .filter(|copy| now < copy.fetched_at + LAST_GOOD_COPY)
            .map(|copy| (Arc::clone(&copy.client), Instead::LastGoodCopy));
        last_good.or_else(|| {
            let pinned = known_clients::pinned_copy(url)?;
            Some((Arc::new(pinned), Instead::PinnedCopy))
        })
    }

    fn in_flight(&self, url: &DocumentUrl) -> Option<Shared<Fetching>> {
        self.in_flight.get(url)?.upgrade()
    }

    fn start(&mut self, app: &App, url: &DocumentUrl) -> Shared<Fetching> {
        let fetching: Fetching = Box::pin(fetch(app.clone(), url.clone()));
        let fetching = fetching.shared();
        // Those that everybody stopped waiting for never came to remove themselves.
        self.in_flight
            .retain(|_, fetching| fetching.upgrade().is_some());
        self.in_flight
            .extend(fetching.downgrade().map(|weak| (url.clone(), weak)));
        fetching
    }

    /// Whether `host` may be asked once more, which then counts as done.
    fn may_ask(&mut self, host: &str, now: Duration) -> bool {
        while let Some((at, _)) = self.asked.front()
            && *at + MINUTE <= now
        {
            self.asked.pop_front();
        }
        let of_host = self.asked.iter().filter(|(_, asked)| asked == host).count();
        let may = of_host < MOST_PER_HOST && self.asked.len() < MOST_IN_ALL;
        if may {
            self.asked.push_back((now, host.to_owned()));
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oauth::client_auth::AuthMethod;

    fn url(n: usize) -> DocumentUrl {
        DocumentUrl::parse(&format!("https://client.example/{n}")).unwrap()
    }

    /// CIM-11
    #[test]
    fn ci_14_a_host_is_asked_ten_times_a_minute_and_all_hosts_sixty_times() {
        let mut shelf = Shelf::default();
        let t0 = Duration::from_secs(1000);
        let mut asked = |host: usize, now| {
            let host = format!("h{host}.example");
            (0..100).filter(|_| shelf.may_ask(&host, now)).count()
        };
        assert_eq!(asked(0, t0), MOST_PER_HOST);
        assert_eq!(asked(0, t0 + Duration::from_secs(59)), 0);
        let in_all: usize = (1..20).map(|host| asked(host, t0)).sum();
        assert_eq!(in_all, MOST_IN_ALL - MOST_PER_HOST);
        assert_eq!(asked(30, t0), 0);
        assert_eq!(asked(0, t0 + MINUTE), MOST_PER_HOST);
        assert_eq!(asked(30, t0 + MINUTE), MOST_PER_HOST);
    }

    #[test]
    fn memory_is_bounded_and_forgets_what_was_not_asked_for_longest() {
        let mut shelf = Shelf::default();
        for n in 0..=MOST_COPIES.get() {
            let copy = Copy {
                client: Arc::new(ClientMetadata {
                    client_name: String::new(),
                    redirect_uris: Vec::new(),
                    token_endpoint_auth_method: AuthMethod::None,
                }),
                fetched_at: Duration::ZERO,
                fresh_until: Duration::from_mins(1),
            };
            shelf.keep(url(n), copy);
            assert!(shelf.fresh(&url(0), Duration::ZERO).is_some());
        }
        assert_eq!(shelf.copies.len(), MOST_COPIES.get());
        assert!(shelf.fresh(&url(1), Duration::ZERO).is_none());
    }
}
