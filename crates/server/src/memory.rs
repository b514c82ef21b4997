//! Whether memory is running out, so that requests are turned away before the operating system
//! ends the program.

use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::config::show_size;

/// Percent of the limit from which on requests are turned away, and below which they are let in
/// again.
const SHED_FROM: u64 = 85;
const ADMIT_BELOW: u64 = 80;

/// The allocator keeps much of what is free, and what it keeps cannot be told from what is in use.
/// So when memory has not grown for this long, requests are let in again too, for as long as it
/// grows by no more than this percentage of the limit.
const CALM: Duration = Duration::from_secs(5);
const GROWTH: u64 = 2;

/// Percent of the limit from which on nothing is tried for much longer.
const DANGER: u64 = 95;
const CALM_IN_DANGER: Duration = Duration::from_mins(1);

/// Percent of the machine's memory that is ours where nothing else is said.
const SHARE_OF_MACHINE: u64 = 80;

/// How often it is looked. A burst between two looks must fit into what is left.
const INTERVAL: Duration = Duration::from_millis(100);

/// Whether memory is running out, as of the last look.
#[derive(Clone, Debug, Default)]
pub struct Memory(Arc<AtomicBool>);

impl Memory {
    pub fn is_short(&self) -> bool {
        self.0.load(Relaxed)
    }

    /// Looks again and again until `stop`. `limit` is in bytes; without one, nothing is ever short.
    pub async fn watch_until(self, stop: CancellationToken, limit: Option<u64>) {
        let Some(limit) = limit else { return };
        let mut gauge = Gauge::new(limit);
        let begun = Instant::now();
        let mut interval = tokio::time::interval(INTERVAL);
        while stop.run_until_cancelled(interval.tick()).await.is_some() {
            let Some(resident) = resident() else {
                tracing::warn!(
                    "the memory in use cannot be read: no request is turned away for it"
                );
                return;
            };
            let was_short = self.is_short();
            let is_short = gauge.look(resident, begun.elapsed());
            if is_short != was_short {
                self.0.store(is_short, Relaxed);
                let (resident, limit) = (show_size(resident), show_size(limit));
                if is_short {
                    tracing::warn!(
                        resident,
                        limit,
                        "memory is running out: requests are answered with 503; if this lasts, \
                         allow more memory, or fewer connections (limits.connections)"
                    );
                } else {
                    tracing::info!(resident, limit, "there is memory again");
                }
            }
        }
    }
}

/// When memory is short, from what is looked at in turn.
#[derive(Debug)]
struct Gauge {
    limit: u64,
    /// From which on it is short.
    mark: u64,
    is_short: bool,
    /// The most of this shortage, and when that was new.
    most: u64,
    since: Duration,
}

impl Gauge {
    fn new(limit: u64) -> Self {
        Self {
            limit,
            mark: limit / 100 * SHED_FROM,
            is_short: false,
            most: 0,
            since: Duration::ZERO,
        }
    }

    fn percent(&self, percent: u64) -> u64 {
        self.limit / 100 * percent
    }

    fn look(&mut self, resident: u64, now: Duration) -> bool {
        if resident < self.percent(ADMIT_BELOW) {
            self.mark = self.percent(SHED_FROM);
            self.is_short = false;
        } else if !self.is_short {
            self.is_short = resident >= self.mark;
            (self.most, self.since) = (resident, now);
        } else if resident > self.most {
            (self.most, self.since) = (resident, now);
        } else {
            let calm = if resident < self.percent(DANGER) {
                CALM
            } else {
                CALM_IN_DANGER
            };
            if now.saturating_sub(self.since) >= calm {
                self.mark = resident + self.percent(GROWTH);
                self.is_short = false;
            }
        }
        self.is_short
    }
}

/// The bytes that this program may use: what the control group allows, else most of what the
/// machine has. `None`: neither can be read, as on systems other than Linux.
pub fn allowed() -> Option<u64> {
    let machine = field(&fs::read_to_string("/proc/meminfo").ok()?, "MemTotal:")?;
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let of_group = groups
        .lines()
        .filter_map(|line| of_control_group(line, Path::new("/sys/fs/cgroup")))
        .min();
    Some(match of_group {
        Some(limit) if limit < machine => limit,
        _ => machine / 100 * SHARE_OF_MACHINE,
    })
}

/// The least limit of the control group on this line of `/proc/self/cgroup`, and of all that it is
/// in. Inside a container the path may be the one outside, so not all of it need be there.
fn of_control_group(line: &str, mounted: &Path) -> Option<u64> {
    let mut parts = line.splitn(3, ':');
    let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
    let (root, file) = match controllers {
        "" => (mounted.to_owned(), "memory.max"),
        "memory" => (mounted.join("memory"), "memory.limit_in_bytes"),
        _ => return None,
    };
    Path::new(path.trim_start_matches('/'))
        .ancestors()
        .filter_map(|group| {
            let text = fs::read_to_string(root.join(group).join(file)).ok()?;
            text.trim().parse().ok()
        })
        .min()
}

/// The bytes of memory that this program occupies.
fn resident() -> Option<u64> {
    field(&fs::read_to_string("/proc/self/status").ok()?, "VmRSS:")
}

/// A field of a file that the kernel writes in lines of a name and a number of kibibytes.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let number: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    number.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn looks(gauge: &mut Gauge, looks: &[(u64, u64, bool)]) {
        for &(second, resident, is_short) in looks {
            let now = Duration::from_secs(second);
            assert_eq!(
                gauge.look(resident, now),
                is_short,
                "{second} s: {resident}"
            );
        }
    }

    #[test]
    fn a_shortage_begins_at_85_percent_and_ends_below_80() {
        let looked = [
            (0, 849, false),
            (1, 850, true),
            (2, 800, true),
            (3, 799, false),
            (4, 849, false),
            (5, 850, true),
        ];
        looks(&mut Gauge::new(1000), &looked);
    }

    #[test]
    fn a_shortage_that_does_not_grow_ends_until_it_does() {
        let looked = [
            (0, 870, true),
            (4, 880, true),
            (8, 880, true),
            (9, 880, false),
            (10, 899, false),
            (11, 900, true),
            // What is gone is gone, and the old mark holds again.
            (12, 700, false),
            (13, 850, true),
        ];
        looks(&mut Gauge::new(1000), &looked);
    }

    #[test]
    fn near_the_limit_a_shortage_lasts() {
        let looked = [
            (0, 960, true),
            (59, 960, true),
            (60, 960, false),
            (61, 980, true),
        ];
        looks(&mut Gauge::new(1000), &looked);
    }

    #[test]
    fn the_least_limit_on_the_way_to_the_root_holds() {
        let mounted = tempfile::tempdir().unwrap();
        let root = mounted.path();
        fs::create_dir_all(root.join("outer/inner")).unwrap();
        fs::create_dir_all(root.join("memory/docker")).unwrap();
        fs::write(root.join("outer/memory.max"), "1000\n").unwrap();
        fs::write(root.join("outer/inner/memory.max"), "max\n").unwrap();
        fs::write(root.join("memory/memory.limit_in_bytes"), "2000\n").unwrap();

        assert_eq!(of_control_group("0::/outer/inner", root), Some(1000));
        assert_eq!(of_control_group("0::/", root), None);
        assert_eq!(of_control_group("4:memory:/docker/gone", root), Some(2000));
        assert_eq!(of_control_group("3:cpuset:/docker", root), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_program_occupies_memory_and_is_allowed_some() {
        assert!(resident().unwrap() > 1024 * 1024);
        assert!(allowed().unwrap() > resident().unwrap());
    }
}
