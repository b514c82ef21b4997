//! Slowing down who guesses a passphrase or PIN: per address, and all together.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// Wrong attempts that one address may make before it has to wait.
pub const PER_ADDRESS: u32 = 5;
/// How long it then has to wait, counted from the last of them.
pub const WAIT: Duration = Duration::from_mins(15);
/// Wrong attempts that all addresses together may make before every further one is slowed down.
pub const GLOBAL_BURST: u32 = 10;
/// How often, from then on, one attempt is let through.
pub const GLOBAL_INTERVAL: Duration = Duration::from_secs(10);
/// Addresses remembered; the one that failed longest ago makes room.
const MOST_ADDRESSES: usize = 10_000;

/// Counts failed attempts. Every attempt counts as failed from the start, and is taken back when
/// it turns out right: so a thousand at once are no better than one after another.
///
/// Times are those of a monotonic clock.
#[derive(Debug, Default)]
pub struct Attempts(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    by_address: HashMap<IpAddr, Failures>,
    /// When the global allowance would be whole again.
    whole_at: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Failures {
    count: u32,
    last: Duration,
}

/// An attempt that may be looked at.
#[derive(Debug)]
pub struct Attempt {
    block: IpAddr,
    /// Further attempts of this address before it has to wait.
    pub left: u32,
    counts_for_all: bool,
    /// Whether this one used up the global allowance.
    pub slows_all: bool,
}

impl Attempts {
    /// Starts an attempt from `address`, or says how long it has to wait first. What nobody can
    /// guess, `is_guessable` being false, needs no limit on all addresses together, and so nobody
    /// can use it up.
    pub fn begin(
        &self,
        address: IpAddr,
        is_guessable: bool,
        now: Duration,
    ) -> Result<Attempt, Duration> {
        let block = block(address);
        let mut counts = self.counts();
        let failures = counts
            .by_address
            .get(&block)
            .copied()
            .filter(|failures| now < failures.last + WAIT)
            .unwrap_or(Failures {
                count: 0,
                last: now,
            });
        if failures.count >= PER_ADDRESS {
            return Err((failures.last + WAIT).saturating_sub(now));
        }
        let whole_at = counts.whole_at.max(now) + GLOBAL_INTERVAL;
        let allowance = now + GLOBAL_INTERVAL * GLOBAL_BURST;
        if is_guessable {
            if whole_at > allowance {
                return Err(whole_at.saturating_sub(allowance));
            }
            counts.whole_at = whole_at;
        }
        if counts.by_address.len() >= MOST_ADDRESSES && !counts.by_address.contains_key(&block) {
            counts.forget_oldest(now);
        }
        let count = failures.count + 1;
        counts
            .by_address
            .insert(block, Failures { count, last: now });
        Ok(Attempt {
            block,
            left: PER_ADDRESS - count,
            counts_for_all: is_guessable,
            slows_all: is_guessable && whole_at + GLOBAL_INTERVAL > allowance,
        })
    }

    /// Takes back an attempt that was right, and all earlier ones of its address.
    pub fn succeeded(&self, attempt: &Attempt) {
        let mut counts = self.counts();
        counts.by_address.remove(&attempt.block);
        if attempt.counts_for_all {
            counts.whole_at = counts.whole_at.saturating_sub(GLOBAL_INTERVAL);
        }
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counts {
    fn forget_oldest(&mut self, now: Duration) {
        self.by_address
            .retain(|_, failures| now < failures.last + WAIT);
        if self.by_address.len() >= MOST_ADDRESSES {
            let oldest = self
                .by_address
                .iter()
                .min_by_key(|(_, failures)| failures.last);
            if let Some(block) = oldest.map(|(block, _)| *block) {
                self.by_address.remove(&block);
            }
        }
    }
}

/// What one person commands: an IPv4 address, or an IPv6 network of 64 bits.
fn block(address: IpAddr) -> IpAddr {
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

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    const T0: Duration = Duration::from_hours(1);

    #[test]
    fn s1_08_five_wrong_attempts_make_one_address_wait_and_no_other() {
        let attempts = Attempts::default();
        for left in [4, 3, 2, 1, 0] {
            assert_eq!(attempts.begin(address(1), true, T0).unwrap().left, left);
        }
        assert_eq!(attempts.begin(address(1), true, T0).unwrap_err(), WAIT);
        assert!(attempts.begin(address(2), true, T0).is_ok());
        let almost = T0 + WAIT.saturating_sub(Duration::from_secs(1));
        assert_eq!(
            attempts.begin(address(1), true, almost).unwrap_err(),
            Duration::from_secs(1)
        );
        assert_eq!(attempts.begin(address(1), true, T0 + WAIT).unwrap().left, 4);
    }

    #[test]
    fn a_right_attempt_clears_its_address() {
        let attempts = Attempts::default();
        for _ in 0..100 {
            let attempt = attempts.begin(address(1), true, T0).unwrap();
            attempts.succeeded(&attempt);
        }
    }

    #[test]
    fn s2_08_ten_wrong_attempts_in_all_slow_everyone_down() {
        let attempts = Attempts::default();
        for last in 0..10 {
            let attempt = attempts.begin(address(last), true, T0).unwrap();
            assert_eq!(attempt.slows_all, last == 9);
        }
        assert_eq!(
            attempts.begin(address(99), true, T0).unwrap_err(),
            GLOBAL_INTERVAL
        );
        assert!(
            attempts
                .begin(address(99), true, T0 + GLOBAL_INTERVAL)
                .is_ok()
        );
        assert!(
            attempts
                .begin(address(98), true, T0 + GLOBAL_INTERVAL)
                .is_err()
        );
    }

    #[test]
    fn what_nobody_can_guess_is_limited_by_address_alone() {
        let attempts = Attempts::default();
        for last in 0..100 {
            assert!(!attempts.begin(address(last), false, T0).unwrap().slows_all);
        }
        assert!(attempts.begin(address(100), true, T0).is_ok());
    }

    #[test]
    fn s2_08_a_six_character_pin_is_out_of_reach_in_a_year() {
        let per_year =
            f64::from(365 * 24 * 60 * 60) / GLOBAL_INTERVAL.as_secs_f64() + f64::from(GLOBAL_BURST);
        let pins = 36_f64.powi(6);
        assert!(
            per_year / pins < 0.002,
            "a year of guessing finds {}",
            per_year / pins
        );
    }

    #[test]
    fn one_ipv6_network_is_one_address() {
        let attempts = Attempts::default();
        for host in 1..=5_u128 {
            let address = Ipv6Addr::from_bits((0x2001_0db8 << 96) | host);
            assert!(attempts.begin(address.into(), true, T0).is_ok());
        }
        let sixth = Ipv6Addr::from_bits((0x2001_0db8 << 96) | 6);
        assert!(attempts.begin(sixth.into(), true, T0).is_err());
        assert_eq!(block("::ffff:192.0.2.1".parse().unwrap()), address(1));
    }

    #[test]
    fn memory_is_bounded() {
        let attempts = Attempts::default();
        for n in 0..20_000_u32 {
            let now = T0 + GLOBAL_INTERVAL * n;
            let _ = attempts.begin(IpAddr::from(n.to_be_bytes()), true, now);
            assert!(attempts.counts().by_address.len() <= MOST_ADDRESSES);
        }
    }
}
