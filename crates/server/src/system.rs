//! The operating system's clock and generator of randomness.

use std::{
    future::Future,
    pin::Pin,
    sync::atomic::{AtomicI64, Ordering},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use protocol::ports::{Clock, Entropy, Timestamp};

/// The clock of this machine, as long as it goes forward. When it is set back, time goes on from
/// where it was: what has expired stays expired.
#[derive(Debug)]
pub struct SystemClock {
    started: Instant,
    /// What the wall clock would have said at `started` had it always gone like the monotonic
    /// one, in milliseconds; the latest of all that it was found to be.
    origin: AtomicI64,
}

impl SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the implementation of Clock that everything else goes through"
    )]
    pub fn new() -> Self {
        Self {
            started: Instant::now(),
            origin: AtomicI64::new(i64::MIN),
        }
    }

    /// Goes on from `latest` if the clock of the machine is behind that.
    pub fn is_past(&self, latest: Timestamp) {
        let origin = latest.0.saturating_mul(1000) - milliseconds(self.elapsed());
        self.origin.fetch_max(origin, Ordering::Relaxed);
    }

    /// How far it is ahead of the machine's.
    pub fn ahead(&self) -> Duration {
        let now = self.milliseconds();
        let ahead = now.saturating_sub(milliseconds(wall_clock()));
        Duration::from_millis(u64::try_from(ahead).unwrap_or_default())
    }

    fn milliseconds(&self) -> i64 {
        let elapsed = milliseconds(self.elapsed());
        let origin = milliseconds(wall_clock()) - elapsed;
        let known = self.origin.load(Ordering::Relaxed);
        if origin > known {
            self.origin.fetch_max(origin, Ordering::Relaxed);
        }
        origin.max(known).saturating_add(elapsed)
    }
}

/// Time since 1970. A machine whose clock stands before that has no time worth speaking of.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the implementation of Clock that everything else goes through"
)]
fn wall_clock() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.milliseconds().div_euclid(1000))
    }

    fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(tokio::time::sleep(duration))
    }
}

/// The generator of the operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemEntropy;

impl Entropy for SystemEntropy {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the implementation of Entropy that everything else goes through"
    )]
    fn fill(&self, bytes: &mut [u8]) {
        getrandom::fill(bytes).expect(
            "the system calls that give randomness exist and do not fail once the system has started",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_tells_a_time_of_this_century_and_never_runs_backwards() {
        let clock = SystemClock::new();
        assert!(clock.now() > Timestamp(1_700_000_000));
        let first = clock.elapsed();
        assert!(clock.elapsed() >= first);
    }

    #[test]
    fn a_clock_that_is_behind_goes_on_from_the_latest_time_that_is_known() {
        let clock = SystemClock::new();
        assert!(clock.ahead() < Duration::from_secs(1));
        let latest = clock.now() + Duration::from_hours(1);
        clock.is_past(latest);
        assert!(clock.now() >= latest);
        assert!(clock.now() <= latest + Duration::from_mins(1));
        assert!(clock.ahead() > Duration::from_mins(59));

        clock.is_past(Timestamp(0));
        assert!(clock.now() >= latest);
    }

    #[test]
    fn randomness_does_not_repeat() {
        let [mut one, mut other] = [[0; 32]; 2];
        SystemEntropy.fill(&mut one);
        SystemEntropy.fill(&mut other);
        assert_ne!(one, other);
    }
}
