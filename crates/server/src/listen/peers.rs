//! How many connections each peer address has.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use protocol::rates::network;

use super::ConnectionLimits;

/// How many connections each peer address has.
#[derive(Debug, Default)]
pub(super) struct Peers(Mutex<HashMap<IpAddr, usize>>);

impl Peers {
    /// Counts a connection of `peer` until the admission is dropped. `None`: it has too many.
    pub(super) fn admit(
        self: &Arc<Self>,
        peer: IpAddr,
        limits: &ConnectionLimits,
    ) -> Option<Admission> {
        if limits
            .shared_addresses
            .iter()
            .any(|net| net.contains(&peer))
        {
            return Some(Admission(None));
        }
        let peer = network(peer);
        let mut counts = self.counts();
        let count = counts.entry(peer).or_default();
        if *count >= limits.per_address {
            return None;
        }
        *count += 1;
        Some(Admission(Some((Arc::clone(self), peer))))
    }

    fn counts(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One connection's place among those of its peer address.
#[derive(Debug)]
pub(super) struct Admission(Option<(Arc<Peers>, IpAddr)>);

impl Drop for Admission {
    fn drop(&mut self) {
        if let Some((peers, peer)) = &self.0 {
            let mut counts = peers.counts();
            if let Some(count) = counts.get_mut(peer) {
                *count -= 1;
                if *count == 0 {
                    counts.remove(peer);
                }
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

    #[test]
    fn an_ipv6_network_counts_as_one_address() {
        let peers = Arc::new(Peers::default());
        let limits = ConnectionLimits {
            per_address: 1,
            ..Default::default()
        };
        let first = peers.admit(address("2001:db8::1"), &limits).unwrap();
        assert!(peers.admit(address("2001:db8::ffff:1"), &limits).is_none());
        assert!(peers.admit(address("2001:db8:0:1::1"), &limits).is_some());

        drop(first);
        assert!(peers.admit(address("2001:db8::2"), &limits).is_some());
        assert!(peers.counts().is_empty(), "addresses that left are kept");
    }

    #[test]
    fn ipv4_addresses_count_one_by_one() {
        let peers = Arc::new(Peers::default());
        let limits = ConnectionLimits {
            per_address: 1,
            ..Default::default()
        };
        let first = peers.admit(address("192.0.2.1"), &limits).unwrap();
        assert!(peers.admit(address("192.0.2.2"), &limits).is_some());
        assert!(peers.admit(address("192.0.2.1"), &limits).is_none());
        drop(first);
    }
}
