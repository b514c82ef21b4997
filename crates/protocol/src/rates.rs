//! How often something may happen, and the one limiter that everything counted by somebody's
//! address, grant or host goes through.
//!
//! A bucket holds as many tokens as the rate allows at once and is refilled evenly; it is kept as
//! the one moment at which it would be full again (the generic cell rate algorithm). Times are
//! those of a monotonic clock.

use std::{
    hash::Hash,
    net::{IpAddr, Ipv6Addr},
    num::NonZeroUsize,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use lru::LruCache;

/// Buckets that one limiter remembers; the one that was used longest ago makes room.
const MOST_BUCKETS: NonZeroUsize = NonZeroUsize::new(10_000).expect("a constant above zero");

/// `most` at once, and as many again within each `per`, spread evenly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    pub most: u32,
    pub per: Duration,
}

impl Rate {
    /// Takes one of what is left at `now`. The answer is when the whole allowance would be there
    /// again, or how long to wait for one.
    pub(crate) fn take(self, whole_at: Duration, now: Duration) -> Result<Duration, Duration> {
        let whole_at = whole_at.max(now) + self.interval();
        let latest = now + self.per;
        if whole_at > latest {
            return Err(whole_at.saturating_sub(latest));
        }
        Ok(whole_at)
    }

    /// Until one of what was taken is there again.
    pub(crate) fn interval(self) -> Duration {
        self.per / self.most.max(1)
    }
}

/// One allowance. Taking from it costs one atomic exchange and no lock.
#[derive(Debug, Default)]
pub(crate) struct Bucket {
    /// In nanoseconds.
    whole_at: AtomicU64,
}

impl Bucket {
    /// Takes one, or says how long to wait for it. No rate allows everything.
    pub(crate) fn take(&self, rate: Option<Rate>, now: Duration) -> Result<(), Duration> {
        let Some(rate) = rate else { return Ok(()) };
        let mut seen = self.whole_at.load(Ordering::Relaxed);
        loop {
            let whole_at = rate.take(Duration::from_nanos(seen), now)?;
            let whole_at = u64::try_from(whole_at.as_nanos()).unwrap_or(u64::MAX);
            let exchanged = self.whole_at.compare_exchange_weak(
                seen,
                whole_at,
                Ordering::Relaxed,
                Ordering::Relaxed,
            );
            match exchanged {
                Ok(_) => return Ok(()),
                Err(found) => seen = found,
            }
        }
    }

    /// How long to wait before one could be taken; zero when it could be now.
    pub(crate) fn wait(&self, rate: Option<Rate>, now: Duration) -> Duration {
        let whole_at = Duration::from_nanos(self.whole_at.load(Ordering::Relaxed));
        rate.and_then(|rate| rate.take(whole_at, now).err())
            .unwrap_or_default()
    }
}

/// A bucket for each key, in bounded memory.
#[derive(Debug)]
pub(crate) struct Buckets<K: Hash + Eq>(Mutex<LruCache<K, Bucket>>);

impl<K: Hash + Eq> Default for Buckets<K> {
    fn default() -> Self {
        // Unbounded so that nothing is allocated before it is needed; `with` keeps the bound.
        Self(Mutex::new(LruCache::unbounded()))
    }
}

impl<K: Hash + Eq> Buckets<K> {
    /// Takes one from the bucket of `key`, or says how long to wait for it.
    pub(crate) fn take(&self, key: K, rate: Option<Rate>, now: Duration) -> Result<(), Duration> {
        self.with(key, |bucket| bucket.take(rate, now))
    }

    /// How long to wait before one could be taken from the bucket of `key`.
    pub(crate) fn wait(&self, key: &K, rate: Option<Rate>, now: Duration) -> Duration {
        let buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let bucket = buckets.peek(key);
        bucket.map_or(Duration::ZERO, |bucket| bucket.wait(rate, now))
    }

    fn with<T>(&self, key: K, work: impl FnOnce(&Bucket) -> T) -> T {
        let mut buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let outcome = work(buckets.get_or_insert_mut(key, Bucket::default));
        if buckets.len() > MOST_BUCKETS.get() {
            buckets.pop_lru();
        }
        outcome
    }
}

/// What one person commands: an IPv4 address, or an IPv6 network of 64 bits.
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(
            address.to_bits() & !u128::from(u64::MAX),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T0: Duration = Duration::from_hours(1);
    const RATE: Option<Rate> = Some(Rate {
        most: 4,
        per: Duration::from_secs(8),
    });

    #[test]
    fn as_many_as_the_rate_says_at_once_and_then_one_each_interval() {
        let bucket = Bucket::default();
        for _ in 0..4 {
            assert_eq!(bucket.take(RATE, T0), Ok(()));
        }
        assert_eq!(bucket.take(RATE, T0), Err(Duration::from_secs(2)));
        let later = T0 + Duration::from_millis(500);
        assert_eq!(bucket.wait(RATE, later), Duration::from_millis(1500));
        assert_eq!(bucket.take(RATE, T0 + Duration::from_secs(2)), Ok(()));
        assert!(bucket.take(RATE, T0 + Duration::from_secs(2)).is_err());
        let whole = T0 + Duration::from_secs(100);
        assert_eq!(
            (0..9).filter(|_| bucket.take(RATE, whole).is_ok()).count(),
            4
        );
    }

    #[test]
    fn a_refusal_takes_nothing_and_so_does_a_question() {
        let bucket = Bucket::default();
        for _ in 0..100 {
            assert_eq!(bucket.wait(RATE, T0), Duration::ZERO);
        }
        for _ in 0..100 {
            let _ = bucket.take(RATE, T0);
        }
        assert_eq!(bucket.wait(RATE, T0), Duration::from_secs(2));
    }

    #[test]
    fn without_a_rate_everything_may_happen() {
        let bucket = Bucket::default();
        assert!((0..10_000).all(|_| bucket.take(None, T0).is_ok()));
        assert_eq!(bucket.wait(None, T0), Duration::ZERO);
    }

    #[test]
    fn takers_at_once_get_no_more_than_takers_one_after_another() {
        let bucket = Bucket::default();
        let taken: usize = std::thread::scope(|scope| {
            let takers: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| (0..1000).filter(|_| bucket.take(RATE, T0).is_ok()).count())
                })
                .collect();
            takers.into_iter().map(|taker| taker.join().unwrap()).sum()
        });
        assert_eq!(taken, 4);
    }

    #[test]
    fn each_key_has_a_bucket_of_its_own() {
        let buckets = Buckets::default();
        for key in ["a", "b"] {
            assert_eq!(
                (0..9)
                    .filter(|_| buckets.take(key, RATE, T0).is_ok())
                    .count(),
                4
            );
        }
        assert_eq!(buckets.wait(&"a", RATE, T0), Duration::from_secs(2));
        assert_eq!(buckets.wait(&"c", RATE, T0), Duration::ZERO);
    }

    #[test]
    fn memory_is_bounded_and_forgets_what_was_not_used_longest() {
        let buckets = Buckets::default();
        for n in 0..=u32::try_from(MOST_BUCKETS.get()).unwrap() {
            assert_eq!(buckets.take(n, RATE, T0), Ok(()));
            let _ = buckets.take(0, RATE, T0);
        }
        let kept = buckets.0.lock().unwrap();
        assert_eq!(kept.len(), MOST_BUCKETS.get());
        assert!(kept.contains(&0) && !kept.contains(&1));
    }

    #[test]
    fn one_ipv6_network_is_one_address() {
        let network = |text: &str| network(text.parse().unwrap());
        assert_eq!(network("2001:db8::1"), network("2001:db8::ffff:0:0:2"));
        assert_ne!(network("2001:db8::1"), network("2001:db8:0:1::1"));
        assert_eq!(network("::ffff:192.0.2.1"), network("192.0.2.1"));
        assert_ne!(network("192.0.2.1"), network("192.0.2.2"));
    }
}
