//! The outside world, as five traits. Everything that needs an operating system or a network
//! comes in through these, so that this crate runs wherever a host implements them.

use std::{
    error::Error,
    fmt,
    ops::{Add, Sub},
    time::Duration,
};

use async_trait::async_trait;
use axum::body::Body;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderMap, Response, StatusCode, request};
use serde::{Deserialize, Serialize};
use url::Url;

use crate::endpoint::{extract::Permit, mcp::trial::Question};

/// A moment, in whole seconds since 1970-01-01T00:00:00Z, as OAuth counts time.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

impl Add<Duration> for Timestamp {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        let seconds = i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
        Self(self.0.saturating_add(seconds))
    }
}

impl Sub for Timestamp {
    type Output = Duration;

    /// The time from `earlier` to `self`, zero when `earlier` is in fact later.
    fn sub(self, earlier: Self) -> Duration {
        let seconds = self.0.saturating_sub(earlier.0);
        Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
    }
}

/// Tells the time, and waits for it.
pub trait Clock: Send + Sync {
    /// The wall clock.
    fn now(&self) -> Timestamp;

    /// Time since some fixed point of this process, which never runs backwards.
    fn elapsed(&self) -> Duration;

    /// Waits until that much of [`Self::elapsed`] has passed, or a little more.
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()>;
}

/// Supplies bytes that nobody can guess.
pub trait Entropy: Send + Sync {
    /// Fills `bytes` from the operating system's generator or its equal.
    fn fill(&self, bytes: &mut [u8]);
}

/// A stored value and the version to name when replacing it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Versioned {
    pub value: Bytes,
    pub version: u64,
}

/// Keeps records under keys, each change atomic and durable before it is answered.
///
/// Keys are ASCII. A record whose `expires_at` has passed may vanish at any time and may also
/// still be returned: whoever reads it decides by its own clock.
///
/// An error means *unknown*, not *no*: the write may have happened. Callers therefore only make
/// writes that are safe to repeat.
#[async_trait]
pub trait Store: Send + Sync {
    /// The record under `key`.
    async fn get(&self, key: &str) -> Result<Option<Versioned>, StoreError>;

    /// Writes a new record, at version 1. `false`: the key was taken, nothing changed.
    async fn insert(
        &self,
        key: &str,
        value: Bytes,
        expires_at: Timestamp,
    ) -> Result<bool, StoreError>;

    /// Overwrites the record that was read at version `seen`; its version becomes `seen + 1`.
    /// `false`: it has changed or gone since, nothing changed. The one way to spend a thing once.
    async fn replace(
        &self,
        key: &str,
        seen: u64,
        value: Bytes,
        expires_at: Timestamp,
    ) -> Result<bool, StoreError>;

    /// Removes the record. `false`: there was none.
    async fn remove(&self, key: &str) -> Result<bool, StoreError>;

    /// Up to [`KEYS_PER_PAGE`] keys that start with `prefix`, in byte order, after `after`.
    async fn keys(&self, prefix: &str, after: Option<&str>) -> Result<Vec<String>, StoreError>;
}

/// How many keys one call of [`Store::keys`] returns at most.
pub const KEYS_PER_PAGE: usize = 1000;

/// The store could not answer, or its answer was lost.
#[derive(Debug)]
pub struct StoreError(Box<dyn Error + Send + Sync>);

impl StoreError {
    pub fn new(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self(cause.into())
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the store did not answer")
    }
}

impl Error for StoreError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.0)
    }
}

/// The most bytes that the body of a fetched document may have.
pub const LONGEST_DOCUMENT: usize = 5 * 1024;

/// Gets small documents from addresses that a stranger may have named.
#[async_trait]
pub trait Fetch: Send + Sync {
    /// Sends one `GET` to an `https` URL. Only an answer with status 200 and a body of at most
    /// [`LONGEST_DOCUMENT`] bytes is a success; a redirect is none.
    ///
    /// Whoever implements this never connects to a special-use address (RFC 6890), decides that
    /// about the very address that it connects to, and gives up after a few seconds. Dropping the
    /// returned future ends the exchange.
    async fn fetch(&self, url: &Url) -> Result<Fetched, FetchError>;
}

/// A document as it came.
#[derive(Clone, Debug)]
pub struct Fetched {
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// Why a document was not fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// It is at an address that is never asked. Nothing was sent.
    #[error("the host is not at a public address")]
    Refused,
    /// No connection: name, route, port or TLS.
    #[error("the host could not be reached")]
    Unreachable(#[source] Box<dyn Error + Send + Sync>),
    #[error("the host did not answer in time")]
    TimedOut,
    /// The connection ended, or what came back was no HTTP.
    #[error("the host broke off")]
    Broken(#[source] Box<dyn Error + Send + Sync>),
    #[error("the host answered with status {0}")]
    Status(StatusCode),
    /// A page for people came instead of a document.
    #[error("the host answered with an HTML page")]
    Html,
    #[error("the document is larger than {LONGEST_DOCUMENT} bytes")]
    TooLarge,
    /// The document came compressed, though that was ruled out.
    #[error("the document came with a content encoding")]
    Encoded,
}

/// Carries one request to an MCP server and its answer back, both as streams.
#[async_trait]
pub trait Upstream: Send + Sync {
    /// Sends a request, whose head already carries the upstream's address and credential. Taking a
    /// [`Permit`] by value is the point: only the bearer check makes one. The head is borrowed, so
    /// that it is still there for a second try.
    ///
    /// Dropping the returned future or the answer's body ends the exchange with the upstream.
    async fn send(
        &self,
        permit: Permit,
        head: &request::Parts,
        body: Body,
    ) -> Result<Response<Body>, UpstreamError>;

    /// Sends a request of the proxy's own. It needs no permit, since nothing of a client's can be in
    /// it: a [`Question`] is made of the configuration alone.
    async fn ask(&self, question: Question) -> Result<Response<Body>, UpstreamError>;
}

/// Why no answer came from an upstream.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// No connection: name, route, port or TLS.
    #[error("the upstream could not be reached")]
    Unreachable(#[source] Box<dyn Error + Send + Sync>),
    /// Whoever is there answers TLS with something else.
    #[error("the upstream does not speak TLS")]
    NoTls(#[source] Box<dyn Error + Send + Sync>),
    /// TLS, with a certificate that is not trusted here, or for another name.
    #[error("the certificate of the upstream is not trusted")]
    Untrusted(#[source] Box<dyn Error + Send + Sync>),
    /// It took the request and sent no answer in time.
    #[error("the upstream did not answer in time")]
    TimedOut,
    /// The connection ended, or what came back was no HTTP.
    #[error("the upstream broke off")]
    Broken(#[source] Box<dyn Error + Send + Sync>),
    /// The client's request body could not be read to its end, or was too large.
    #[error("the request body could not be read")]
    RequestBody(#[source] Box<dyn Error + Send + Sync>),
}
