//! The accept loop: which connections are let in, and how all of them end.
//!
//! It is our own since the ready-made ones wait for ever for a request that never comes.

mod body;
mod connection;
mod deadline;

use std::{
    collections::HashMap,
    future::Future,
    io::{self, ErrorKind},
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::body::Body;
use http::{Request, Response};
use ipnet::IpNet;
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use self::body::BodyStalled;

/// Bounds on connections, and on how slow a peer may be.
#[derive(Clone, Debug)]
pub struct ConnectionLimits {
    /// Connections at one time. Further ones wait in the kernel's queue.
    pub connections: usize,
    /// Connections of one peer address at one time; an IPv6 address counts as its /64. Further
    /// ones are closed at once.
    pub per_address: usize,
    /// Peers that `per_address` does not bind, since many clients are behind each.
    pub shared_addresses: Vec<IpNet>,
    /// Bytes in the head of a request; more is answered with 431. So are more than 100 headers.
    pub head_bytes: usize,
    /// From the accepted connection, or from the first byte of a later request, to the end of
    /// the request's head.
    pub head: Duration,
    /// From the end of an answer to the first byte of the next request.
    pub idle: Duration,
    /// How long a request's body may make no progress while somebody waits for it.
    pub body_stall: Duration,
    /// How long a peer may take nothing of an answer that is ready to be sent.
    pub write_stall: Duration,
    /// How long requests in flight may take to finish once the listener stops.
    pub drain: Duration,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            connections: 10_240,
            per_address: 256,
            shared_addresses: Vec::new(),
            head_bytes: 32 * 1024,
            head: Duration::from_secs(10),
            idle: Duration::from_secs(75),
            body_stall: Duration::from_secs(30),
            write_stall: Duration::from_secs(30),
            drain: Duration::from_secs(30),
        }
    }
}

/// How long accepting rests after it failed for want of file descriptors or memory: trying again
/// at once would spin, since the connection that could not be accepted is still waiting.
const ACCEPT_PAUSE: Duration = Duration::from_millis(75);

/// Quiet time after which the kernel asks whether a peer is still there, and asks again.
const KEEPALIVE: TcpKeepalive = TcpKeepalive::new()
    .with_time(Duration::from_mins(1))
    .with_interval(Duration::from_secs(10));

/// Answers the requests that arrive on `listener` until `stop`, then drains.
///
/// `answer` gets each request with the address of the connection's peer. Its future, and the body
/// that it returns, are dropped as soon as the client is gone. When it panics, the client gets
/// 500 and nobody else notices.
///
/// On `stop`, accepting ends at once, idle connections close, and event streams that were asked for
/// by `GET` end as if the upstream had ended them, so that clients reconnect. Returns when all other
/// requests are answered, at the latest a second after [`ConnectionLimits::drain`]; event streams
/// that are left then end in that second.
pub async fn serve<H, F>(
    listener: TcpListener,
    limits: ConnectionLimits,
    stop: CancellationToken,
    answer: H,
) where
    H: Fn(Request<Body>, IpAddr) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let slots = Arc::new(Semaphore::new(limits.connections));
    let peers = Arc::new(Peers::default());
    let connections = TaskTracker::new();
    let limits = Arc::new(limits);

    while let Some((stream, peer, slot)) = stop.run_until_cancelled(accept(&listener, &slots)).await
    {
        let peer = peer.ip().to_canonical();
        let Some(admission) = peers.admit(peer, &limits) else {
            tracing::debug!(%peer, "closed a connection: the address has too many");
            continue;
        };
        if let Err(error) = configure(&stream, &limits) {
            tracing::debug!(%peer, %error, "closed a connection: it cannot be configured");
            continue;
        }
        // A child, since all connections look at it all the time and should not share a lock.
        let stop = stop.child_token();
        let limits = Arc::clone(&limits);
        let answer = answer.clone();
        connections.spawn(async move {
            connection::run(stream, peer, &limits, &stop, answer).await;
            drop((admission, slot));
        });
    }

    drop(listener);
    connections.close();
    connections.wait().await;
}

/// The next connection that arrives while there is room for one.
async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> (TcpStream, SocketAddr, OwnedSemaphorePermit) {
    let slot = Arc::clone(slots)
        .acquire_owned()
        .await
        .expect("nobody closes the semaphore");
    let mut failing = false;
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => return (stream, peer, slot),
            Err(error) if ended_before_accepted(&error) => {}
            Err(error) => {
                if !failing {
                    tracing::error!(
                        %error,
                        "new connections have to wait; if this lasts, allow more open files"
                    );
                    failing = true;
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Whether `error` is the end of one waiting connection, which says nothing about the next.
fn ended_before_accepted(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionAborted
            | ErrorKind::ConnectionReset
            | ErrorKind::ConnectionRefused
            | ErrorKind::Interrupted
    )
}

/// Makes the kernel send small writes at once and give up on peers that have vanished.
fn configure(stream: &TcpStream, limits: &ConnectionLimits) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    socket.set_tcp_keepalive(&KEEPALIVE)?;
    // Elsewhere a vanished peer is noticed by keepalive, or by `write_stall`.
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(limits.write_stall))?;
    #[cfg(not(target_os = "linux"))]
    let _ = limits;
    Ok(())
}

/// How many connections each peer address has.
#[derive(Debug, Default)]
struct Peers(Mutex<HashMap<IpAddr, usize>>);

impl Peers {
    /// Counts a connection of `peer` until the admission is dropped. `None`: it has too many.
    fn admit(self: &Arc<Self>, peer: IpAddr, limits: &ConnectionLimits) -> Option<Admission> {
        if limits
            .shared_addresses
            .iter()
            .any(|net| net.contains(&peer))
        {
            return Some(Admission(None));
        }
        let peer = network_of(peer);
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

/// The address that stands for all that one person can come from: with IPv6 that is a /64.
fn network_of(peer: IpAddr) -> IpAddr {
    match peer {
        IpAddr::V4(_) => peer,
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)).into(),
    }
}

/// One connection's place among those of its peer address.
#[derive(Debug)]
struct Admission(Option<(Arc<Peers>, IpAddr)>);

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
