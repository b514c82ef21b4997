//! Connections to remote MCP servers.
//!
//! Plain HTTP/1.1 with one connection for each exchange in progress, so that no stream waits for
//! another. Redirects are answers like any.

mod pool;
mod request_body;

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
use http::{
    HeaderMap, HeaderValue, Request, Response, StatusCode, Uri, Version, header, request::Parts,
    uri::Scheme,
};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy::connect::HttpConnector;
use prometheus_client::metrics::counter::Counter;
use protocol::{
    endpoint::{extract::Permit, mcp::trial::Question},
    mcp::methods,
    ports::{Upstream, UpstreamError},
};
use rustls::{ClientConfig, InvalidMessage, RootCertStore, crypto::aws_lc_rs};
use tower::Service;

use self::{
    pool::{AnswerBody, Host, Pool, Unanswered},
    request_body::{RequestBody, RequestBodyError},
};
use crate::{
    certificates::{self, NoCertificates},
    outgoing::{Outbound, OutgoingProxies, WayOut},
};

type Cause = Box<dyn Error + Send + Sync>;

/// How long an upstream may take.
#[derive(Clone, Debug)]
pub struct UpstreamTimeouts {
    /// To a usable connection: name, route, TLS.
    pub connect: Duration,
    /// From the request to the head of its answer. A tool may work for minutes before it says
    /// anything. Nothing limits what follows the head, since a stream may be silent for days.
    pub head: Duration,
    /// How long an unused connection is kept for the next request, unless the upstream says.
    pub idle: Duration,
}

impl Default for UpstreamTimeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            head: Duration::from_secs(310),
            // Node, Bun and uvicorn close after 5 s.
            idle: Duration::from_secs(4),
        }
    }
}

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
pub fn system_tls() -> Result<ClientConfig, NoCertificates> {
    certificates::load().map(tls_trusting)
}

/// TLS that trusts these alone.
pub(crate) fn tls_trusting(roots: RootCertStore) -> ClientConfig {
    ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the provider has the default protocol versions")
        .with_root_certificates(roots)
        .with_no_client_auth()
}

/// All MCP servers that are reached over HTTP.
#[derive(Debug)]
pub struct RemoteUpstream {
    pool: Pool<Connector>,
    head: Duration,
    /// Requests that were retried.
    pub repeated: Counter,
    proxies: OutgoingProxies,
}

impl RemoteUpstream {
    /// `tls` is [`system_tls`] outside tests.
    pub fn new(tls: ClientConfig, timeouts: &UpstreamTimeouts) -> Self {
        Self::through(OutgoingProxies::default(), tls, timeouts)
    }

    /// The same by way of `proxies`.
    pub fn through(
        proxies: OutgoingProxies,
        tls: ClientConfig,
        timeouts: &UpstreamTimeouts,
    ) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(KEEPALIVE));
        tcp.set_keepalive_interval(Some(KEEPALIVE_INTERVAL));
        #[cfg(target_os = "linux")]
        tcp.set_tcp_user_timeout(Some(UNACKNOWLEDGED));
        let way_out = WayOut::new(proxies.clone(), tcp, tls.clone());
        let connector = Connector {
            connect: HttpsConnectorBuilder::new()
                .with_tls_config(tls)
                .https_or_http()
                .enable_http1()
                .wrap_connector(way_out),
            within: timeouts.connect,
        };
        Self {
            pool: Pool::new(connector, timeouts.idle),
            head: timeouts.head,
            repeated: Counter::default(),
            proxies,
        }
    }

    /// Sends a request, whose URI is absolute, and returns the answer as soon as its head is there.
    ///
    /// A kept connection may turn out to be closed. If nothing of the request was written, it goes
    /// on another one. If nothing came back and the request is idempotent, it is retried once, on a
    /// fresh one. Otherwise the error is [`UpstreamError::Broken`], since the upstream may have
    /// acted.
    pub async fn exchange(
        &self,
        head: &Parts,
        body: Body,
    ) -> Result<Response<Body>, UpstreamError> {
        let answer = tokio::time::timeout(self.head, self.answer(head, body))
            .await
            .map_err(|_| UpstreamError::TimedOut)??;
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

    async fn answer(
        &self,
        head: &Parts,
        body: Body,
    ) -> Result<Response<AnswerBody>, UpstreamError> {
        let host = host(&head.uri).map_err(UpstreamError::Unreachable)?;
        let host_header = match head.headers.get(header::HOST) {
            Some(_) => None,
            None => Some(host_header(&host).map_err(UpstreamError::Unreachable)?),
        };
        // Each connection takes a copy of the head with it, which speaks HTTP/1.1 whatever the
        // client speaks to us.
        let request = |body| {
            let mut request = Request::new(body);
            *request.method_mut() = head.method.clone();
            *request.uri_mut() = head.uri.clone();
            let headers = request.headers_mut();
            headers.clone_from(&head.headers);
            if let Some(name) = &host_header {
                headers.insert(header::HOST, name.clone());
            }
            if let Some(authorization) = self.proxies.authorization(&head.uri) {
                headers.insert(header::PROXY_AUTHORIZATION, authorization);
            }
            request
        };
        let mut body = RequestBody::new(body);
        while let Some(line) = self.pool.kept(&host) {
            let copy = body.copy();
            match line.send(request(body)).await {
                Ok(answer) => return Ok(answer),
                Err(Unanswered::Unsent(unsent, _)) => body = unsent,
                Err(Unanswered::Sent { error, heard }) => {
                    let copy = copy.and_then(|copy| copy.whole());
                    let Some(copy) = copy.filter(|copy| {
                        let is_lost = !heard && !is_of_client(&error);
                        is_lost && methods::may_be_repeated(&head.method, copy)
                    }) else {
                        return Err(why_broken(error));
                    };
                    tracing::debug!(%error, "sent a request again: a kept connection was closed");
                    self.repeated.inc();
                    body = RequestBody::new(Body::from(copy));
                    break;
                }
            }
        }
        let line = self.pool.connect(&host).await;
        let line = line.map_err(why_unreachable)?;
        let sent = line.send(request(body)).await;
        sent.map_err(|unanswered| match unanswered {
            Unanswered::Unsent(_, error) | Unanswered::Sent { error, .. } => why_broken(error),
        })
    }
}

#[async_trait]
impl Upstream for RemoteUpstream {
    async fn send(
        &self,
        permit: Permit,
        head: &Parts,
        body: Body,
    ) -> Result<Response<Body>, UpstreamError> {
        drop(permit);
        self.exchange(head, body).await
    }

    async fn ask(&self, question: Question) -> Result<Response<Body>, UpstreamError> {
        let (head, body) = question.into_request().into_parts();
        self.exchange(&head, body).await
    }
}

/// Why there is no connection.
fn why_unreachable(cause: Cause) -> UpstreamError {
    match tls_error(&*cause) {
        // Servers without TLS answer the first bytes of a handshake with an error of HTTP.
        Some(rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType)) => {
            UpstreamError::NoTls(cause)
        }
        Some(rustls::Error::InvalidCertificate(_)) => UpstreamError::Untrusted(cause),
        _ => UpstreamError::Unreachable(cause),
    }
}

/// The error of TLS among the causes of an error.
fn tls_error<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e rustls::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(of_tls) = error.downcast_ref() {
            return Some(of_tls);
        }
        // What an I/O error wraps is not its source.
        let io = error.downcast_ref().and_then(io::Error::get_ref);
        next = match io {
            Some(wrapped) => Some(wrapped),
            None => error.source(),
        };
    }
    None
}

/// How long `headers` are as they are sent.
fn header_bytes(headers: &HeaderMap) -> usize {
    headers
        .iter()
        .map(|(name, value)| name.as_str().len() + ": \r\n".len() + value.len())
        .sum()
}

/// Where `uri` leads.
fn host(uri: &Uri) -> Result<Host, Cause> {
    let (Some(scheme), Some(authority)) = (uri.scheme(), uri.authority()) else {
        return Err("the address is not absolute".into());
    };
    Ok((scheme.clone(), authority.clone()))
}

/// The name in `Host` (RFC 9110 §7.2). A port that goes without saying is left out.
fn host_header((scheme, authority): &Host) -> Result<HeaderValue, Cause> {
    let name = authority.host();
    let usual = if *scheme == Scheme::HTTPS { 443 } else { 80 };
    let name = match authority.port_u16() {
        Some(port) if port != usual => format!("{name}:{port}"),
        _ => name.to_owned(),
    };
    Ok(HeaderValue::try_from(name)?)
}

/// Whether the client's body failed.
fn is_of_client(error: &hyper::Error) -> bool {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(found) = cause {
        if found.is::<RequestBodyError>() {
            return true;
        }
        cause = found.source();
    }
    false
}

/// Whether the client's body or the upstream failed.
fn why_broken(error: hyper::Error) -> UpstreamError {
    if is_of_client(&error) {
        UpstreamError::RequestBody(error.into())
    } else {
        UpstreamError::Broken(error.into())
    }
}

/// Connects with TCP, by way of a proxy perhaps, and for `https` with TLS, within a time for all of
/// it.
#[derive(Clone)]
struct Connector {
    connect: HttpsConnector<WayOut>,
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
    type Response = MaybeHttpsStream<Outbound>;
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
