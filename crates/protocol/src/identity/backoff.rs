//! Slowing down who guesses a passphrase or PIN: per guesser, per page, and all strangers together.
//!
//! The first two are counted in this process. What all strangers together have used up is a record
//! in the store, so that neither a restart nor a second process gives them more.

use std::{
    hash::Hash,
    net::IpAddr,
    num::NonZeroUsize,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use lru::LruCache;
use serde::{Deserialize, Serialize};

use super::password::Kind;
use crate::{ports::Timestamp, rates::Rate};

/// Wrong attempts that one guesser may make before it has to wait.
pub const PER_GUESSER: u32 = 5;
/// How long it then has to wait, counted from the last of them.
pub const WAIT: Duration = Duration::from_mins(15);
/// Wrong attempts that end one page, whoever made them.
pub const PER_PAGE: u32 = 20;
/// Guessers and pages remembered; the one that failed longest ago makes room.
const MOST_REMEMBERED: NonZeroUsize = NonZeroUsize::new(10_000).expect("a constant above zero");

/// Who tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Guesser {
    /// Whoever commands this address.
    Stranger(IpAddr),
    /// A browser in which the right secret was typed before. Strangers cannot use up its attempts.
    KnownBrowser([u8; 16]),
}

/// Counts failed attempts. Every attempt counts as failed from the start, and is taken back when
/// it turns out right: so a thousand at once are no better than one after another.
///
/// Times are those of a monotonic clock.
#[derive(Debug)]
pub struct Attempts(Mutex<Counts>);

/// Known browsers are kept apart, so that no number of strangers pushes one out.
#[derive(Debug)]
struct Counts {
    strangers: LruCache<Guesser, Failures>,
    known_browsers: LruCache<Guesser, Failures>,
    pages: LruCache<[u8; 16], u32>,
}

#[derive(Clone, Copy, Debug)]
struct Failures {
    count: u32,
    last: Duration,
}

/// An attempt that may be looked at.
#[derive(Debug)]
pub struct Attempt {
    guesser: Guesser,
    page: [u8; 16],
    /// Further attempts of this guesser before it has to wait.
    pub left: u32,
}

/// Why an attempt is not looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blocked {
    /// For so long.
    For(Duration),
    /// The page has seen too many.
    PageSpent,
}

impl Default for Attempts {
    fn default() -> Self {
        // Unbounded so that nothing is allocated before it is needed; `put` keeps the bound.
        Self(Mutex::new(Counts {
            strangers: LruCache::unbounded(),
            known_browsers: LruCache::unbounded(),
            pages: LruCache::unbounded(),
        }))
    }
}

impl Attempts {
    /// Whether an attempt would be looked at. Nothing is counted.
    pub fn check(&self, guesser: Guesser, page: [u8; 16], now: Duration) -> Result<(), Blocked> {
        self.counts().check(guesser, page, now).map(drop)
    }

    /// Starts an attempt on one page, or says why it is not looked at.
    pub fn begin(
        &self,
        guesser: Guesser,
        page: [u8; 16],
        now: Duration,
    ) -> Result<Attempt, Blocked> {
        let mut counts = self.counts();
        let (failures, on_page) = counts.check(guesser, page, now)?;
        let count = failures + 1;
        put(counts.of(guesser), guesser, Failures { count, last: now });
        put(&mut counts.pages, page, on_page + 1);
        Ok(Attempt {
            guesser,
            page,
            left: PER_GUESSER - count,
        })
    }

    /// Takes back an attempt that was right, and all earlier ones of its guesser.
    pub fn succeeded(&self, attempt: &Attempt) {
        let mut counts = self.counts();
        counts.of(attempt.guesser).pop(&attempt.guesser);
        if let Some(on_page) = counts.pages.peek_mut(&attempt.page) {
            *on_page = on_page.saturating_sub(1);
        }
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counts {
    /// How often the guesser failed, and how many failed on the page, if neither is too much.
    fn check(
        &mut self,
        guesser: Guesser,
        page: [u8; 16],
        now: Duration,
    ) -> Result<(u32, u32), Blocked> {
        let on_page = self.pages.peek(&page).copied().unwrap_or_default();
        if on_page >= PER_PAGE {
            return Err(Blocked::PageSpent);
        }
        let failures = self.of(guesser).peek(&guesser);
        let Some(failures) = failures.filter(|failures| now < failures.last + WAIT) else {
            return Ok((0, on_page));
        };
        if failures.count >= PER_GUESSER {
            return Err(Blocked::For((failures.last + WAIT).saturating_sub(now)));
        }
        Ok((failures.count, on_page))
    }

    fn of(&mut self, guesser: Guesser) -> &mut LruCache<Guesser, Failures> {
        match guesser {
            Guesser::Stranger(_) => &mut self.strangers,
            Guesser::KnownBrowser(_) => &mut self.known_browsers,
        }
    }
}

fn put<K: Hash + Eq, V>(cache: &mut LruCache<K, V>, key: K, value: V) {
    cache.put(key, value);
    if cache.len() > MOST_REMEMBERED.get() {
        cache.pop_lru();
    }
}

/// What strangers have used up of the attempts that all of them share.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedAllowance {
    /// When the allowance would be whole again.
    pub whole_at: Timestamp,
}

impl SharedAllowance {
    /// How often all strangers together may try a secret that a person chose. A passphrase leaves
    /// them no chance at one attempt in ten seconds; of the million PINs of six digits, one in an
    /// hour finds half in 57 years.
    pub fn allowance(kind: Kind) -> Rate {
        let interval = match kind {
            Kind::Passphrase => Duration::from_secs(10),
            Kind::Pin => Duration::from_hours(1),
        };
        Rate {
            most: 10,
            per: interval * 10,
        }
    }

    /// One more attempt counted as wrong, or how long to wait for it.
    pub fn with_one_more(self, kind: Kind, now: Timestamp) -> Result<Self, Duration> {
        let rate = Self::allowance(kind);
        // A clock that was set back must not lock anybody out for longer than the rate does.
        let whole_at = self.whole_at.min(now + rate.per);
        let since_1970 = |time: Timestamp| time - Timestamp(0);
        let whole_at = rate.take(since_1970(whole_at), since_1970(now))?;
        Ok(Self {
            whole_at: Timestamp(0) + whole_at,
        })
    }

    /// Whether nothing is left at `now`.
    pub fn is_used_up(self, kind: Kind, now: Timestamp) -> bool {
        self.with_one_more(kind, now).is_err()
    }
}

/// What this process knows of that. The store may be behind it by what is just being written, so
/// guesses at once cannot all be made on what one of them read.
#[derive(Debug, Default)]
pub struct SeenAllowance(Mutex<SharedAllowance>);

impl SeenAllowance {
    /// Runs `try_it`, which says whether a stranger's attempt is right, unless all strangers have
    /// to wait. `read` is what the store has. A wrong one is counted here at once; the answer is
    /// what there is to write then.
    pub fn attempt<T>(
        &self,
        read: SharedAllowance,
        kind: Kind,
        now: Timestamp,
        try_it: impl FnOnce() -> Tried<T>,
    ) -> Result<(T, Option<SharedAllowance>), Duration> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.whole_at = known.whole_at.max(read.whole_at);
        let more = known.with_one_more(kind, now)?;
        Ok(match try_it() {
            Tried::Wrong(left) => {
                *known = more;
                (left, Some(more))
            }
            Tried::Otherwise(other) => (other, None),
        })
    }
}

/// What came of an attempt.
#[derive(Debug)]
pub enum Tried<T> {
    Wrong(T),
    /// It was right, or not looked at.
    Otherwise(T),
}

#[cfg(test)]
mod tests {
    use super::*;

    const T0: Duration = Duration::from_hours(1);
    const NOW: Timestamp = Timestamp(1_790_000_000);

    fn stranger(last: u8) -> Guesser {
        Guesser::Stranger(IpAddr::from([192, 0, 2, last]))
    }

    fn page(n: u32) -> [u8; 16] {
        u128::from(n).to_be_bytes()
    }

    #[test]
    fn s1_08_five_wrong_attempts_make_one_address_wait_and_no_other() {
        let attempts = Attempts::default();
        for left in [4, 3, 2, 1, 0] {
            let attempt = attempts.begin(stranger(1), page(1), T0).unwrap();
            assert_eq!(attempt.left, left);
        }
        let blocked = attempts.begin(stranger(1), page(2), T0).unwrap_err();
        assert_eq!(blocked, Blocked::For(WAIT));
        assert!(attempts.begin(stranger(2), page(1), T0).is_ok());
        let almost = T0 + WAIT.saturating_sub(Duration::from_secs(1));
        let blocked = attempts.begin(stranger(1), page(1), almost).unwrap_err();
        assert_eq!(blocked, Blocked::For(Duration::from_secs(1)));
        let attempt = attempts.begin(stranger(1), page(1), T0 + WAIT).unwrap();
        assert_eq!(attempt.left, 4);
    }

    #[test]
    fn the_wait_counts_from_the_last_wrong_attempt() {
        let attempts = Attempts::default();
        let minute = |n| T0 + n * Duration::from_mins(1);
        for n in 0..5 {
            assert!(attempts.begin(stranger(1), page(n), minute(n)).is_ok());
        }
        let blocked = attempts
            .begin(stranger(1), page(9), minute(18))
            .unwrap_err();
        assert_eq!(blocked, Blocked::For(Duration::from_mins(1)));
        assert!(attempts.begin(stranger(1), page(9), minute(19)).is_ok());
    }

    #[test]
    fn a_right_attempt_clears_its_guesser() {
        let attempts = Attempts::default();
        for _ in 0..100 {
            let attempt = attempts.begin(stranger(1), page(1), T0).unwrap();
            attempts.succeeded(&attempt);
        }
    }

    #[test]
    fn a_question_counts_nothing() {
        let attempts = Attempts::default();
        for _ in 0..100 {
            assert_eq!(attempts.check(stranger(1), page(1), T0), Ok(()));
        }
        assert_eq!(attempts.begin(stranger(1), page(1), T0).unwrap().left, 4);
    }

    /// N-CN-09
    #[test]
    fn twenty_wrong_attempts_end_a_page_whoever_made_them() {
        let attempts = Attempts::default();
        for n in 0..20 {
            assert!(attempts.begin(stranger(n), page(1), T0).is_ok());
        }
        let blocked = attempts.begin(stranger(99), page(1), T0).unwrap_err();
        assert_eq!(blocked, Blocked::PageSpent);
        assert!(attempts.begin(stranger(99), page(2), T0).is_ok());
    }

    #[test]
    fn a_known_browser_has_attempts_of_its_own_that_strangers_cannot_make_it_lose() {
        let attempts = Attempts::default();
        let known = Guesser::KnownBrowser([7; 16]);
        for n in 0..5 {
            assert!(attempts.begin(known, page(n), T0).is_ok());
        }
        for n in 0..20_000_u32 {
            let stranger = Guesser::Stranger(IpAddr::from(n.to_be_bytes()));
            let _ = attempts.begin(stranger, page(n), T0);
            let counts = attempts.counts();
            assert!(counts.strangers.len() <= MOST_REMEMBERED.get());
            assert!(counts.pages.len() <= MOST_REMEMBERED.get());
        }
        let blocked = attempts.begin(known, page(99_999), T0).unwrap_err();
        assert_eq!(blocked, Blocked::For(WAIT));
    }

    /// How many of `often` attempts at once are looked at.
    fn passed(strangers: &mut SharedAllowance, kind: Kind, now: Timestamp, often: u32) -> usize {
        let once = |_: &u32| match strangers.with_one_more(kind, now) {
            Ok(more) => {
                *strangers = more;
                true
            }
            Err(_) => false,
        };
        (0..often).filter(once).count()
    }

    #[test]
    fn s2_08_ten_wrong_attempts_in_all_slow_every_stranger_down() {
        for (kind, seconds) in [(Kind::Passphrase, 10), (Kind::Pin, 3600)] {
            let mut strangers = SharedAllowance::default();
            assert!(!strangers.is_used_up(kind, NOW));
            assert_eq!(passed(&mut strangers, kind, NOW, 1000), 10);
            assert!(strangers.is_used_up(kind, NOW));
            let interval = Duration::from_secs(seconds);
            assert_eq!(strangers.with_one_more(kind, NOW), Err(interval));
            assert_eq!(passed(&mut strangers, kind, NOW + interval, 1000), 1);
        }
    }

    #[test]
    fn strangers_at_once_make_no_more_attempts_on_what_one_of_them_read() {
        let known = SeenAllowance::default();
        let kind = Kind::Passphrase;
        let attempt =
            |read, tried: fn(()) -> Tried<()>| known.attempt(read, kind, NOW, || tried(()));
        for _ in 0..100 {
            let right = attempt(SharedAllowance::default(), Tried::Otherwise);
            assert_eq!(right, Ok(((), None)));
        }
        let wrong = (0..100).filter(|_| attempt(SharedAllowance::default(), Tried::Wrong).is_ok());
        assert_eq!(wrong.count(), 10);
        assert!(attempt(SharedAllowance::default(), Tried::Otherwise).is_err());

        // And what another process wrote counts here.
        let known = SeenAllowance::default();
        let mut read = SharedAllowance::default();
        passed(&mut read, kind, NOW, 10);
        let right = known.attempt(read, kind, NOW, || Tried::Otherwise(()));
        assert_eq!(right, Err(Duration::from_secs(10)));
    }

    #[test]
    fn a_clock_that_is_set_back_locks_nobody_out_for_longer() {
        let mut strangers = SharedAllowance::default();
        passed(&mut strangers, Kind::Pin, NOW, 10);
        let back = Timestamp(NOW.0 - 365 * 24 * 3600);
        let wait = strangers.with_one_more(Kind::Pin, back).unwrap_err();
        assert_eq!(wait, Duration::from_hours(1));
    }

    /// Of six digits, the weakest that is taken.
    #[test]
    fn s2_08_a_pin_is_out_of_reach_in_a_year() {
        let rate = SharedAllowance::allowance(Kind::Pin);
        let year = Duration::from_hours(365 * 24);
        let attempts = f64::from(rate.most) + year.as_secs_f64() / rate.interval().as_secs_f64();
        let found = attempts / 10_f64.powi(6);
        assert!(found < 0.01, "a year of guessing finds {found}");
    }
}
