//! Connections to remote MCP servers.
//!
//! Plain HTTP/1.1 with one connection for each exchange in progress, so that no stream waits for
//! another. Proxy variables of the environment have no say, and redirects are answers like any.

use std::{
    error::Error,
    fmt,
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use async_trait::async_trait;
use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, Uri, Version};
use http_body::{Frame, SizeHint};
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::{
    client::legacy::{self, Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo, TokioTimer},
};
use protocol::{
    endpoint::extract::Permit,
    ports::{Upstream, UpstreamError},
};
use rustls::{ClientConfig, crypto::aws_lc_rs};
use tokio::net::TcpStream;
use tower::Service;

type Cause = Box<dyn Error + Send + Sync>;

/// How long an upstream may take.
#[derive(Clone, Debug)]
pub struct UpstreamTimeouts {
    /// To a usable connection: name, route, TLS.
    pub connect: Duration,
    /// From the request to the head of its answer. A tool may work for minutes before it says
    /// anything. Nothing limits what follows the head, since a stream may be silent for days.
    pub head: Duration,
    /// How long an unused connection is kept for the next request.
    pub idle: Duration,
}

impl Default for UpstreamTimeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            head: Duration::from_secs(310),
            idle: Duration::from_mins(1),
        }
    }
}

/// Unused connections kept for each upstream. After a burst of streams the rest would only be
/// memory.
const IDLE_CONNECTIONS: usize = 64;

/// Bytes in the headers of an answer; more than 100 of them are hyper's own limit. To let hyper
/// have this one too, by a smaller buffer, would make large bodies twice as dear.
const HEADER_BYTES: usize = 64 * 1024;

/// Quiet time after which the kernel asks whether the upstream is still there, and asks again.
const KEEPALIVE: Duration = Duration::from_mins(1);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// How long the kernel waits for the upstream to acknowledge what was sent.
#[cfg(target_os = "linux")]
const UNACKNOWLEDGED: Duration = Duration::from_secs(30);

/// TLS as upstreams are to speak it: certificates are checked against those that the operating
/// system trusts.
pub fn system_tls() -> io::Result<ClientConfig> {
    Ok(
        ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_native_roots()?
            .with_no_client_auth(),
    )
}

/// All MCP servers that are reached over HTTP.
#[derive(Debug)]
pub struct RemoteUpstream {
    client: Client<Connector, RequestBody>,
    head: Duration,
}

impl RemoteUpstream {
    /// `tls` is [`system_tls`] outside tests.
    pub fn new(tls: ClientConfig, timeouts: &UpstreamTimeouts) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(KEEPALIVE));
        tcp.set_keepalive_interval(Some(KEEPALIVE_INTERVAL));
        #[cfg(target_os = "linux")]
        tcp.set_tcp_user_timeout(Some(UNACKNOWLEDGED));
        let connector = Connector {
            connect: HttpsConnectorBuilder::new()
                .with_tls_config(tls)
                .https_or_http()
                .enable_http1()
                .wrap_connector(tcp),
            within: timeouts.connect,
        };
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(timeouts.idle)
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .build(connector);
        Self {
            client,
            head: timeouts.head,
        }
    }

    /// Sends `request`, whose URI is absolute, and returns the answer as soon as its head is
    /// there.
    ///
    /// A request is repeated only when the kept connection chosen for it turns out closed before
    /// anything of it was written; a body of which nothing was read moves along. An upstream that
    /// closes while the request is on its way is [`UpstreamError::Broken`]: it may have acted.
    pub async fn exchange(&self, request: Request<Body>) -> Result<Response<Body>, UpstreamError> {
        let mut request = request.map(RequestBody);
        // The client may speak HTTP/1.0 to us. What we speak to the upstream is our own affair.
        *request.version_mut() = Version::HTTP_11;
        let answer = tokio::time::timeout(self.head, self.client.request(request))
            .await
            .map_err(|_| UpstreamError::TimedOut)?
            .map_err(why_failed)?;
        let (mut head, body) = answer.into_parts();
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            let cause = "the upstream switched protocols without being asked";
            return Err(UpstreamError::Broken(cause.into()));
        }
        if header_bytes(&head.headers) > HEADER_BYTES {
            let cause = format!("the upstream sent more than {HEADER_BYTES} bytes of headers");
            return Err(UpstreamError::Broken(cause.into()));
        }
        head.version = Version::HTTP_11;
        // The addresses of the connection and the upstream's own words for the status.
        head.extensions.clear();
        Ok(Response::from_parts(head, Body::new(body)))
    }
}

#[async_trait]
impl Upstream for RemoteUpstream {
    async fn send(
        &self,
        permit: Permit,
        request: Request<Body>,
    ) -> Result<Response<Body>, UpstreamError> {
        drop(permit);
        self.exchange(request).await
    }
}

/// How long `headers` are as they are sent.
fn header_bytes(headers: &HeaderMap) -> usize {
    headers
        .iter()
        .map(|(name, value)| name.as_str().len() + ": \r\n".len() + value.len())
        .sum()
}

/// Whose fault it is that there is no answer.
fn why_failed(error: legacy::Error) -> UpstreamError {
    let mut cause: Option<&(dyn Error + 'static)> = Some(&error);
    while let Some(found) = cause {
        if found.is::<RequestBodyError>() {
            return UpstreamError::RequestBody(error.into());
        }
        cause = found.source();
    }
    if error.is_connect() {
        UpstreamError::Unreachable(error.into())
    } else {
        UpstreamError::Broken(error.into())
    }
}

/// The client's request body, whose errors can be told from those of the upstream.
struct RequestBody(Body);

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = RequestBodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, RequestBodyError>>> {
        Pin::new(&mut self.0)
            .poll_frame(cx)
            .map_err(RequestBodyError)
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the request body failed")]
struct RequestBodyError(#[source] axum::Error);

/// Connects with TCP and, for `https`, TLS, within a time for all of it.
#[derive(Clone)]
struct Connector {
    connect: HttpsConnector<HttpConnector>,
    within: Duration,
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector")
            .field("within", &self.within)
            .finish_non_exhaustive()
    }
}

impl Service<Uri> for Connector {
    type Response = MaybeHttpsStream<TokioIo<TcpStream>>;
    type Error = Cause;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Cause>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Cause>> {
        self.connect.poll_ready(cx)
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let connecting = self.connect.call(to);
        let within = self.within;
        Box::pin(async move {
            match tokio::time::timeout(within, connecting).await {
                Ok(connected) => connected,
                Err(_) => Err(format!("no connection within {within:?}").into()),
            }
        })
    }
}
