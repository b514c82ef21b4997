//! The accept loop: which connections are let in, and how all of them end.
//!
//! It is our own since the ready-made ones wait for ever for a request that never comes.

mod body;
mod connection;
mod deadline;
mod frames;
mod http2;
mod limits;
mod peers;

use std::{
    future::Future,
    io::{self, ErrorKind},
    net::{IpAddr, SocketAddr},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use axum::body::Body;
use http::{Request, Response};
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use self::{
    body::BodyStalled,
    limits::{ConnectionLimits, Http2Limits, Limit, Meter},
};
use self::{
    connection::Connection,
    deadline::Watch,
    peers::{Admission, Peers},
};

/// How long accepting rests after it failed for want of file descriptors or memory: trying again
/// at once would spin, since the connection that could not be accepted is still waiting.
const ACCEPT_PAUSE: Duration = Duration::from_millis(75);

/// Timeout for the end of an evicted connection, before the next one is evicted.
const ROOM_PAUSE: Duration = Duration::from_millis(100);

/// Bytes that the kernel takes of an answer beyond what the peer has room for. What it holds no
/// deadline of ours can see, and it tells of progress in steps of a part of it.
#[cfg(target_os = "linux")]
const UNSENT_BYTES: u32 = 64 * 1024;

/// Quiet time after which the kernel asks whether a peer is still there, and asks again. With the
/// time that it may leave anything unanswered, 30 s by default, one that vanished is given up then.
const KEEPALIVE: TcpKeepalive = TcpKeepalive::new()
    .with_time(Duration::from_secs(15))
    .with_interval(Duration::from_secs(5));

/// Answers the requests that arrive on `listener` until `stop`, then drains. `meter` is told of
/// every limit that is met.
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
    meter: Meter,
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
    let mut has_warned = false;

    while let Some((stream, peer)) = stop.run_until_cancelled(accept(&listener, &meter)).await {
        let peer = peer.ip().to_canonical();
        let Some(admission) = peers.admit(peer, &limits) else {
            meter(Limit::PerAddress);
            if !has_warned {
                tracing::warn!(
                    %peer,
                    "an address has as many connections as one may have; if that is a reverse \
                     proxy, write it into trusted_proxies.ranges (told once)"
                );
                has_warned = true;
            }
            continue;
        };
        if let Err(error) = configure(&stream, &limits) {
            tracing::debug!(%peer, %error, "closed a connection: it cannot be configured");
            continue;
        }
        let Some(slot) = stop
            .run_until_cancelled(slot(&slots, &admission, &meter))
            .await
        else {
            break;
        };
        // A child, since all connections look at it all the time and should not share a lock, and
        // one of them may have to make room.
        let stop = stop.child_token();
        let watch = Arc::new(Watch::new(&limits, Arc::clone(&meter)));
        admission.begins(&watch, &stop);
        let connection = Connection {
            peer,
            limits: Arc::clone(&limits),
            watch,
            stop,
            tasks: connections.clone(),
        };
        let answer = answer.clone();
        connections.spawn(async move {
            connection.run(stream, answer).await;
            drop((admission, slot));
        });
    }

    drop(listener);
    connections.close();
    connections.wait().await;
}

/// A place for one more connection: a free one, or that of an evicted idle one.
async fn slot(slots: &Arc<Semaphore>, newcomer: &Admission, meter: &Meter) -> OwnedSemaphorePermit {
    let mut slot = pin!(Arc::clone(slots).acquire_owned());
    if slots.available_permits() == 0 {
        meter(Limit::Connections);
    }
    loop {
        if slots.available_permits() == 0 && newcomer.make_room() {
            meter(Limit::GaveWay);
        }
        if let Ok(slot) = tokio::time::timeout(ROOM_PAUSE, &mut slot).await {
            return slot.expect("nobody closes the semaphore");
        }
    }
}

/// The next connection that arrives.
async fn accept(listener: &TcpListener, meter: &Meter) -> (TcpStream, SocketAddr) {
    let mut failing = false;
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) if ended_before_accepted(&error) => {}
            Err(error) => {
                if !failing {
                    meter(Limit::OpenFiles);
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
    #[cfg(target_os = "linux")]
    socket.set_tcp_notsent_lowat(UNSENT_BYTES)?;
    #[cfg(not(target_os = "linux"))]
    let _ = limits;
    Ok(())
}
