//! The connections that are open, by the address of their peer: how many each has, and which of
//! them is evicted at the limit.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use protocol::rates::network;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{ConnectionLimits, deadline::Watch};

/// The open connections of each peer address.
#[derive(Default)]
pub(super) struct Peers(Mutex<State>);

#[derive(Default)]
struct State {
    admitted: u64,
    networks: HashMap<IpAddr, HashMap<u64, Open>>,
}

/// An open connection.
struct Open {
    /// Its peer is one that many clients are behind.
    is_shared: bool,
    /// What tells whether it is idle, once it has room, and ends it.
    begun: Option<(Arc<Watch>, CancellationToken)>,
    /// It was asked to close, and counts no more.
    is_leaving: bool,
}

impl Open {
    fn idle_until(&self) -> Option<Instant> {
        let (watch, _) = self.begun.as_ref().filter(|_| !self.is_leaving)?;
        watch.idle_until()
    }

    fn leave(&mut self) {
        self.is_leaving = true;
        if let Some((_, stop)) = &self.begun {
            stop.cancel();
        }
    }
}

impl Peers {
    /// Counts a connection of `peer` until the admission is dropped. If its address is at the
    /// limit, an idle one is evicted. `None`: none is idle.
    pub(super) fn admit(
        self: &Arc<Self>,
        peer: IpAddr,
        limits: &ConnectionLimits,
    ) -> Option<Admission> {
        let shared = &limits.shared_addresses;
        let is_shared = shared.iter().any(|net| net.contains(&peer));
        let peer = network(peer);
        let mut state = self.state();
        state.admitted += 1;
        let number = state.admitted;
        if !is_shared && let Some(own) = state.networks.get_mut(&peer) {
            let staying = own.values().filter(|open| !open.is_leaving).count();
            if staying >= limits.per_address && !give_way(own.values_mut()) {
                return None;
            }
        }
        let open = Open {
            is_shared,
            begun: None,
            is_leaving: false,
        };
        let own = state.networks.entry(peer).or_default();
        own.insert(number, open);
        Some(Admission {
            peers: Arc::clone(self),
            peer,
            number,
            is_shared,
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Evicts the connection that was idle longest. `false`: none is idle.
fn give_way<'a>(among: impl Iterator<Item = &'a mut Open>) -> bool {
    let idle = among.filter_map(|open| Some((open.idle_until()?, open)));
    let longest = idle.min_by_key(|(until, _)| *until);
    longest.is_some_and(|(_, open)| {
        open.leave();
        true
    })
}

/// One connection's place among those of its peer address.
pub(super) struct Admission {
    peers: Arc<Peers>,
    peer: IpAddr,
    number: u64,
    is_shared: bool,
}

impl Admission {
    /// Notes that the connection has room. `watch` tells whether it is idle, and `stop` ends it.
    pub(super) fn begins(&self, watch: &Arc<Watch>, stop: &CancellationToken) {
        let mut state = self.peers.state();
        let own = state.networks.get_mut(&self.peer);
        if let Some(open) = own.and_then(|own| own.get_mut(&self.number)) {
            open.begun = Some((Arc::clone(watch), stop.clone()));
        }
    }

    /// Evicts the connection that was idle longest, for this one. An address evicts none of an
    /// address with fewer connections, and only a trusted proxy evicts those of a trusted proxy,
    /// which serve many clients. `false`: there is none to evict.
    pub(super) fn make_room(&self) -> bool {
        let mut state = self.peers.state();
        let own = state.networks.get(&self.peer).map_or(0, HashMap::len);
        let at_least_as_many = state
            .networks
            .values_mut()
            .filter(|its| its.len() >= own || self.is_shared);
        give_way(
            at_least_as_many
                .flat_map(HashMap::values_mut)
                .filter(|open| self.is_shared || !open.is_shared),
        )
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        let mut state = self.peers.state();
        if let Some(own) = state.networks.get_mut(&self.peer) {
            own.remove(&self.number);
            if own.is_empty() {
                state.networks.remove(&self.peer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn limits(per_address: usize) -> ConnectionLimits {
        ConnectionLimits {
            per_address,
            shared_addresses: vec!["198.51.100.0/24".parse().unwrap()],
            ..Default::default()
        }
    }

    /// A connection that may be idle, and what ends it.
    struct Connection {
        admission: Admission,
        stop: CancellationToken,
    }

    fn admit(
        peers: &Arc<Peers>,
        peer: &str,
        limits: &ConnectionLimits,
        idle: bool,
    ) -> Option<Connection> {
        let watch = Arc::new(Watch::new(limits, Arc::new(|_| {})));
        if idle {
            watch.await_first_stream();
            drop(Arc::clone(&watch).open_stream());
        }
        let stop = CancellationToken::new();
        let admission = peers.admit(address(peer), limits)?;
        admission.begins(&watch, &stop);
        Some(Connection { admission, stop })
    }

    #[test]
    fn an_ipv6_network_counts_as_one_address() {
        let peers = Arc::new(Peers::default());
        let limits = limits(1);
        let admit = |peer| admit(&peers, peer, &limits, false);
        let first = admit("2001:db8::1").unwrap();
        assert!(admit("2001:db8::ffff:1").is_none());
        assert!(admit("2001:db8:0:1::1").is_some());

        drop(first);
        assert!(admit("2001:db8::2").is_some());
        assert!(
            peers.state().networks.is_empty(),
            "addresses that left are kept"
        );
    }

    #[test]
    fn ipv4_addresses_count_one_by_one() {
        let peers = Arc::new(Peers::default());
        let limits = limits(1);
        let first = admit(&peers, "192.0.2.1", &limits, false).unwrap();
        assert!(admit(&peers, "192.0.2.2", &limits, false).is_some());
        assert!(admit(&peers, "192.0.2.1", &limits, false).is_none());
        drop(first);
    }

    #[test]
    fn of_one_address_the_connection_that_was_idle_longest_gives_way() {
        let peers = Arc::new(Peers::default());
        let limits = limits(3);
        let admit = |peer, idle| {
            // Idle times differ by milliseconds.
            std::thread::sleep(std::time::Duration::from_millis(2));
            admit(&peers, peer, &limits, idle)
        };
        let busy = admit("192.0.2.1", false).unwrap();
        let longest = admit("192.0.2.1", true).unwrap();
        let shorter = admit("192.0.2.1", true).unwrap();
        let other = admit("192.0.2.2", true).unwrap();
        let third = admit("192.0.2.1", false).unwrap();
        assert!(longest.stop.is_cancelled() && !shorter.stop.is_cancelled());
        let fourth = admit("192.0.2.1", false).unwrap();
        assert!(shorter.stop.is_cancelled());
        assert!(admit("192.0.2.1", false).is_none(), "all are at work");
        for open in [busy, other, third, fourth] {
            assert!(!open.stop.is_cancelled());
        }
    }

    #[test]
    fn who_has_more_takes_from_nobody_who_has_less() {
        let peers = Arc::new(Peers::default());
        let limits = limits(9);
        let admit = |peer, idle| admit(&peers, peer, &limits, idle).unwrap();
        let (one, proxy) = (admit("192.0.2.1", true), admit("198.51.100.1", true));
        let greedy = [false, false].map(|idle| admit("192.0.2.2", idle));
        assert!(!greedy[1].admission.make_room());
        let newcomer = admit("192.0.2.3", false);
        assert!(newcomer.admission.make_room() && one.stop.is_cancelled());
        assert!(!newcomer.admission.make_room() && !proxy.stop.is_cancelled());
        let behind_proxy = admit("198.51.100.2", false);
        assert!(behind_proxy.admission.make_room() && proxy.stop.is_cancelled());
        let idle = admit("192.0.2.2", true);
        assert!(greedy[1].admission.make_room() && idle.stop.is_cancelled());
    }
}
