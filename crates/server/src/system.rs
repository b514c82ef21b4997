//! The operating system's clock and generator of randomness.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use protocol::ports::{Clock, Entropy, Timestamp};

/// The clock of this machine.
#[derive(Debug)]
pub struct SystemClock {
    started: Instant,
}

impl SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the implementation of Clock that everything else goes through"
    )]
    pub fn new() -> Self {
        Self {
            started: Instant::now(),
        }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the implementation of Clock that everything else goes through"
    )]
    fn now(&self) -> Timestamp {
        // A machine whose clock stands before 1970 has no time worth speaking of.
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Timestamp::default() + since
    }

    fn elapsed(&self) -> Duration {
        self.started.elapsed()
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
    fn randomness_does_not_repeat() {
        let [mut one, mut other] = [[0; 32]; 2];
        SystemEntropy.fill(&mut one);
        SystemEntropy.fill(&mut other);
        assert_ne!(one, other);
    }
}
