//! Proving who approves: the passphrase or PIN against who guesses it, and the cookie of a browser
//! in which it was right before.

use std::{net::IpAddr, time::Duration};

use http::{HeaderMap, HeaderValue};

use super::{
    App,
    cookie::{self, SameSite},
};
use crate::{
    identity::backoff::{Blocked, Guesser, Tried},
    journal::{Event, Limit},
    ports::StoreError,
    rates,
    records::ReadError,
    token,
};

/// The cookie of a known browser.
const NAME: &str = "mcp-known-browser";
/// How long a browser stays known after the right secret was typed in it.
const KNOWN_FOR: Duration = Duration::from_hours(90 * 24);
/// How often a write that lost a race is tried again.
const MOST_TRIES: usize = 64;

/// Why nobody signed in.
pub(super) enum NotSignedIn {
    /// The secret was wrong; so many more attempts are looked at.
    Wrong {
        left: u32,
    },
    /// The attempt was not looked at: too many wrong ones came before it.
    Blocked {
        wait: Duration,
    },
    /// Too many wrong attempts came from this page; it can approve nothing any more.
    PageSpent,
    Records(ReadError),
}

impl<E: Into<ReadError>> From<E> for NotSignedIn {
    fn from(error: E) -> Self {
        Self::Records(error.into())
    }
}

/// One attempt to sign in, on the page of one transaction.
pub(super) struct SignIn<'a> {
    pub(super) app: &'a App,
    pub(super) headers: &'a HeaderMap,
    pub(super) address: IpAddr,
    pub(super) transaction: [u8; 16],
}

impl SignIn<'_> {
    /// Compares `secret`, if this guesser may try at all. A success gives the cookie by which the
    /// browser is known from now on.
    pub(super) async fn with(&self, secret: &str) -> Result<HeaderValue, NotSignedIn> {
        let app = self.app;
        let policy = &app.policy.sign_in;
        let known = self.known_browser();
        let guesser = match known {
            Some(browser) => Guesser::KnownBrowser(browser),
            None => Guesser::Stranger(rates::network(self.address)),
        };
        // What nobody can guess needs no limit on all callers together, and so nobody can use it
        // up; and a known browser does not share theirs.
        let left = if policy.is_guessable() && known.is_none() {
            self.within_shared_allowance(guesser, secret).await?
        } else {
            let (Tried::Wrong(left) | Tried::Otherwise(left)) = self.try_it(guesser, secret);
            left
        };
        match left.map_err(|blocked| self.blocked(blocked))? {
            Some(left) => {
                app.journal.record(&Event::SignInFailed {
                    address: self.address,
                    left,
                });
                Err(NotSignedIn::Wrong { left })
            }
            None => Ok(self.cookie()),
        }
    }

    /// The same for one of many who share what they may try.
    async fn within_shared_allowance(
        &self,
        guesser: Guesser,
        secret: &str,
    ) -> Result<Result<Option<u32>, Blocked>, NotSignedIn> {
        let app = self.app;
        let kind = app.policy.sign_in.kind;
        // Whoever is blocked anyway makes the store no work.
        let elapsed = app.ports.clock.elapsed();
        if let Err(blocked) = app.attempts.check(guesser, self.transaction, elapsed) {
            return Ok(Err(blocked));
        }
        let read = app.records().shared_allowance().await?;
        let read = read.map(|read| read.record).unwrap_or_default();
        let now = app.ports.clock.now();
        let (left, counted) = app
            .shared_allowance
            .attempt(read, kind, now, || self.try_it(guesser, secret))
            .map_err(|wait| self.blocked(Blocked::For(wait)))?;
        if let Some(counted) = counted {
            if counted.is_used_up(kind, now) {
                app.journal.record(&Event::GuessingSlowed);
            }
            self.write_one_more().await?;
        }
        Ok(left)
    }

    /// Compares the secret: how many attempts are left after a wrong one, none after the right
    /// one, or that it was not looked at.
    fn try_it(&self, guesser: Guesser, secret: &str) -> Tried<Result<Option<u32>, Blocked>> {
        let app = self.app;
        let now = app.ports.clock.elapsed();
        // Every attempt counts as wrong until it is found right.
        let attempt = match app.attempts.begin(guesser, self.transaction, now) {
            Ok(attempt) => attempt,
            Err(blocked) => return Tried::Otherwise(Err(blocked)),
        };
        if !app.policy.sign_in.is_proved_by(secret) {
            return Tried::Wrong(Ok(Some(attempt.left)));
        }
        app.attempts.succeeded(&attempt);
        Tried::Otherwise(Ok(None))
    }

    /// Writes down one more wrong attempt of a stranger.
    async fn write_one_more(&self) -> Result<(), ReadError> {
        let app = self.app;
        let (kind, now) = (app.policy.sign_in.kind, app.ports.clock.now());
        for _ in 0..MOST_TRIES {
            let read = app.records().shared_allowance().await?;
            let allowance = read.as_ref().map(|read| read.record).unwrap_or_default();
            let Ok(more) = allowance.with_one_more(kind, now) else {
                // Others have used up everything meanwhile.
                return Ok(());
            };
            let seen = read.map(|read| read.seen);
            if app
                .records()
                .write_shared_allowance(seen.as_ref(), more)
                .await?
            {
                return Ok(());
            }
        }
        Err(StoreError::new("the record changed at every try").into())
    }

    fn blocked(&self, blocked: Blocked) -> NotSignedIn {
        let (app, address) = (self.app, self.address);
        match blocked {
            Blocked::For(wait) => {
                app.journal.record(&Event::SignInBlocked { address, wait });
                NotSignedIn::Blocked { wait }
            }
            Blocked::PageSpent => {
                app.journal.record(&Event::Limited {
                    limit: Limit::AttemptsPerPage,
                    address: Some(address),
                });
                NotSignedIn::PageSpent
            }
        }
    }

    /// The name of this browser, if the right secret was typed in it before. It is worth attempts
    /// of its own and nothing else.
    fn known_browser(&self) -> Option<[u8; 16]> {
        let app = self.app;
        let cookie = cookie::value(self.headers, &cookie::name(app, NAME))?;
        let secret = app.policy.sign_in.fingerprint();
        app.keys
            .recognise_known_browser(cookie, &secret, app.ports.clock.now())
    }

    /// A new name each time, so that who stole an older one cannot use up the attempts of this.
    fn cookie(&self) -> HeaderValue {
        let app = self.app;
        let browser = token::random(&*app.ports.entropy);
        let expires_at = app.ports.clock.now() + KNOWN_FOR;
        let secret = app.policy.sign_in.fingerprint();
        let value = app.keys.known_browser(&browser, &secret, expires_at);
        cookie::set(app, NAME, &value, KNOWN_FOR.as_secs(), SameSite::Strict)
    }
}
