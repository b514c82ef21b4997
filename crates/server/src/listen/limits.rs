//! The bounds on connections, and what meets them.

use std::{sync::Arc, time::Duration};

use ipnet::IpNet;

/// Bounds on connections, and on how slow a peer may be.
#[derive(Clone, Debug)]
pub struct ConnectionLimits {
    /// Connections at one time. Further ones wait in the kernel's queue, unless an idle one can be
    /// evicted.
    pub connections: usize,
    /// Connections of one peer address at one time; an IPv6 address counts as its /64. Further ones
    /// are closed at once, unless an idle one of the same address can be evicted.
    pub per_address: usize,
    /// Peers that `per_address` does not bind, since many clients are behind each.
    pub shared_addresses: Vec<IpNet>,
    /// Headers of a request; more are answered with 431.
    pub headers: usize,
    /// Bytes in the head of a request; more are answered with 431.
    pub head_bytes: usize,
    /// From the accepted connection, or from the first byte of a later request, to the end of
    /// the request's head.
    pub head: Duration,
    /// From the end of an answer to the first byte of the next request.
    pub idle: Duration,
    /// How long a request's body may be waited for until another `least` of it is there.
    pub body_stall: Duration,
    /// How long a peer may take until it has taken another `least` of what is ready to be
    /// sent.
    pub write_stall: Duration,
    /// Bytes per second below which a peer is too slow, while somebody waits for it.
    pub min_rate: u64,
    /// How long requests in flight may take to finish once the listener stops.
    pub drain: Duration,
    pub http2: Http2Limits,
}

/// Bounds on what one HTTP/2 connection may hold.
#[derive(Clone, Debug)]
pub struct Http2Limits {
    /// Requests at one time.
    pub streams: usize,
    /// Bytes of a request's body that may be on their way, and of all bodies together.
    pub stream_window: u64,
    pub connection_window: u64,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            connections: 10_240,
            per_address: 256,
            shared_addresses: Vec::new(),
            headers: 100,
            head_bytes: 32 * 1024,
            head: Duration::from_secs(10),
            // Longer than any common reverse proxy keeps them: Cloudflare's edge keeps 15 minutes.
            idle: Duration::from_mins(16),
            body_stall: Duration::from_secs(30),
            write_stall: Duration::from_secs(30),
            min_rate: 512,
            drain: Duration::from_secs(30),
            http2: Http2Limits::default(),
        }
    }
}

impl Default for Http2Limits {
    fn default() -> Self {
        Self {
            streams: 100,
            stream_window: 64 * 1024,
            connection_window: 1024 * 1024,
        }
    }
}

impl ConnectionLimits {
    /// The bytes that have to move within `time`. At least one, so that standing still is too slow
    /// whatever the rate.
    pub(super) fn least(&self, time: Duration) -> u64 {
        let milliseconds = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        (self.min_rate.saturating_mul(milliseconds) / 1000).max(1)
    }
}

/// A limit that a connection or a request met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Limit {
    /// All connections are taken: the next one waits.
    Connections,
    /// The peer's address has as many as one may have: closed.
    PerAddress,
    /// The operating system gives no more open files: new connections wait.
    OpenFiles,
    /// The program is short of memory: the request is answered with 503.
    Memory,
    /// Too many headers, or too long: answered with 431.
    Head,
    /// The head did not arrive in time: closed.
    SlowHead,
    /// A used connection was of no use any more: closed.
    Idle,
    /// An idle connection was closed earlier than that, for one that had no room.
    GaveWay,
    /// The body arrived too slowly: the request failed.
    SlowBody,
    /// The answer was taken too slowly: closed.
    SlowReader,
    /// HTTP/2 frames that carry nothing: closed.
    EmptyFrames,
    /// The stop could not wait any longer for an answer: broken off.
    Drain,
}

impl Limit {
    /// Its name in the metrics, which stays when a variant is renamed.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::PerAddress => "connections_per_address",
            Self::OpenFiles => "open_files",
            Self::Memory => "memory",
            Self::Head => "headers",
            Self::SlowHead => "slow_head",
            Self::Idle => "idle",
            Self::GaveWay => "gave_way",
            Self::SlowBody => "slow_body",
            Self::SlowReader => "slow_reader",
            Self::EmptyFrames => "empty_frames",
            Self::Drain => "drain",
        }
    }
}

/// Whoever counts the limits that were met.
pub type Meter = Arc<dyn Fn(Limit) + Send + Sync>;
