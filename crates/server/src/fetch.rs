//! Small documents from addresses that strangers name: the guard against being sent elsewhere.
//!
//! A name is resolved once, every address that it has is judged, and the connection goes to one of
//! those very addresses, through the proxy of the environment if there is one. There is no other
//! way out: no redirect is followed, and no connection is used twice.
//!
//! One exception: hosts that the operator named are asked for by name where there is a proxy. The
//! operator answers for the internal hosts that it reaches so (docs/decisions/outgoing-proxy.md).

pub mod special_use;

use std::{
    error::Error,
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::{body::Incoming, client::conn::http1};
use hyper_rustls::HttpsConnector;
use hyper_util::{client::legacy::connect::HttpConnector, rt::TokioIo};
use protocol::{
    oauth::client_document::HostPattern,
    ports::{Fetch, FetchError, Fetched, LONGEST_DOCUMENT},
};
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use url::{Host, Position, Url};

use self::special_use::is_public;
use crate::{
    certificates::NoCertificates,
    outgoing::{self, OutgoingProxies, Through},
};

/// For a usable connection: addresses one after another, and TLS.
const CONNECT: Duration = Duration::from_secs(3);
/// For everything, from the name to the last byte.
const IN_ALL: Duration = Duration::from_secs(5);
/// Addresses of one name that are tried.
const MOST_ATTEMPTS: usize = 3;
/// Bytes in the head of an answer; its headers are at most 100, hyper's own limit.
const HEAD_BYTES: usize = 16 * 1024;
const PORT: u16 = 443;

/// How names become addresses, and addresses connections.
#[async_trait]
pub trait Network: Send + Sync {
    /// Every address of `host`.
    async fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>>;

    async fn connect(&self, address: SocketAddr) -> io::Result<TcpStream>;
}

/// The network as the operating system sees it.
#[derive(Clone, Copy, Debug)]
pub struct SystemNetwork;

#[async_trait]
impl Network for SystemNetwork {
    async fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        let addresses = tokio::net::lookup_host((host, PORT)).await?;
        Ok(addresses.map(|address| address.ip()).collect())
    }

    async fn connect(&self, address: SocketAddr) -> io::Result<TcpStream> {
        TcpStream::connect(address).await
    }
}

/// Fetches over TLS, and only from public addresses.
pub struct GuardedFetch {
    network: Box<dyn Network>,
    tls: Result<Tls, NoCertificates>,
    proxies: OutgoingProxies,
    /// Hosts that the operator named.
    named: Vec<HostPattern>,
}

struct Tls {
    connector: TlsConnector,
    /// Towards proxies, which may speak TLS themselves.
    to_proxy: HttpsConnector<HttpConnector>,
}

/// A connection before there is TLS on it.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

type Connection = TlsStream<Box<dyn Stream>>;

impl GuardedFetch {
    /// Certificates are checked as `tls` says.
    pub fn new(tls: ClientConfig, network: impl Network + 'static) -> Self {
        Self::perhaps(Ok(tls), network)
    }

    /// Without certificates, every fetch fails for that reason.
    pub fn perhaps(
        tls: Result<ClientConfig, NoCertificates>,
        network: impl Network + 'static,
    ) -> Self {
        let tls = tls.map(|mut tls| {
            let mut tcp = HttpConnector::new();
            tcp.enforce_http(false);
            let to_proxy = outgoing::connector(tcp, tls.clone());
            tls.alpn_protocols = vec![b"http/1.1".to_vec()];
            Tls {
                connector: TlsConnector::from(Arc::new(tls)),
                to_proxy,
            }
        });
        Self {
            network: Box::new(network),
            tls,
            proxies: OutgoingProxies::default(),
            named: Vec::new(),
        }
    }

    /// The same through `proxies`, which get the names of hosts that the operator `named`, and the
    /// addresses of others.
    #[must_use]
    pub fn through(mut self, proxies: OutgoingProxies, named: Vec<HostPattern>) -> Self {
        self.proxies = proxies;
        self.named = named;
        self
    }

    async fn get(&self, url: &Url) -> Result<Fetched, FetchError> {
        let (Some(Host::Domain(host)), "https", Some(PORT)) =
            (url.host(), url.scheme(), url.port_or_known_default())
        else {
            return Err(FetchError::Refused);
        };
        let tls = self
            .tls
            .as_ref()
            .map_err(|none| unreachable(none.clone()))?;
        let through = url.as_str().parse().ok();
        let through = through.and_then(|uri| self.proxies.on_the_way_to(&uri));
        let is_named = self.named.iter().any(|it| it.matches(host));
        let connection = match through {
            Some(through) if is_named => {
                let authority = format!("{host}:{PORT}");
                let connecting = tls.tunnel(&through, &authority);
                timeout(CONNECT, tls.connect(host, connecting)).await
            }
            through => {
                let addresses = self.judged_addresses(host, through.as_ref()).await?;
                let connecting = self.connect(&addresses, through.as_ref(), tls);
                timeout(CONNECT, tls.connect(host, connecting)).await
            }
        };
        let connection = connection.map_err(|_| FetchError::TimedOut)??;
        let request = Request::get(&url[Position::BeforePath..Position::AfterQuery])
            .header(header::HOST, host)
            .header(header::ACCEPT, "application/json")
            .header(header::ACCEPT_ENCODING, "identity")
            .header(
                header::USER_AGENT,
                concat!("mcp-oauth-proxy/", env!("CARGO_PKG_VERSION")),
            )
            .header(header::CONNECTION, "close")
            .body(Empty::new())
            .map_err(broken)?;
        exchange(connection, request).await
    }

    /// The addresses of `host`, all of which are public.
    async fn judged_addresses(
        &self,
        host: &str,
        through: Option<&Through>,
    ) -> Result<Vec<IpAddr>, FetchError> {
        let addresses = match (self.network.resolve(host).await, through) {
            (Ok(addresses), _) => addresses,
            (Err(error), None) => return Err(unreachable(error)),
            (Err(error), Some(through)) => {
                return Err(unreachable(format!(
                    "the name does not resolve here ({error}), so it cannot be checked for a public \
                     address; {through} gets only the names of hosts in clients.document_hosts"
                )));
            }
        };
        // One that is special among public ones is a mistake or an attempt: no honest publisher
        // needs it, so the others are not tried either.
        if addresses.iter().copied().all(is_public) {
            Ok(addresses)
        } else {
            Err(FetchError::Refused)
        }
    }

    /// Connects to the first of `addresses` that answers; all were judged.
    async fn connect(
        &self,
        addresses: &[IpAddr],
        through: Option<&Through>,
        tls: &Tls,
    ) -> Result<Box<dyn Stream>, FetchError> {
        let tried = &addresses[..addresses.len().min(MOST_ATTEMPTS)];
        let mut failed = unreachable("the name has no address");
        for (attempt, address) in tried.iter().enumerate() {
            // One that swallows packets leaves time for the others.
            let share = if attempt + 1 == tried.len() {
                CONNECT
            } else {
                CONNECT / 3
            };
            let address = SocketAddr::new(*address, PORT);
            let connecting = async {
                Ok::<Box<dyn Stream>, FetchError>(match through {
                    Some(through) => tls.tunnel(through, &address.to_string()).await?,
                    None => Box::new(self.network.connect(address).await.map_err(unreachable)?),
                })
            };
            match timeout(share, connecting).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => failed = error,
                Err(_) => failed = FetchError::TimedOut,
            }
        }
        Err(failed)
    }
}

impl Tls {
    /// Speaks TLS with `host` on what `connecting` comes to.
    async fn connect(
        &self,
        host: &str,
        connecting: impl Future<Output = Result<Box<dyn Stream>, FetchError>>,
    ) -> Result<Connection, FetchError> {
        let name = ServerName::try_from(host.to_owned()).map_err(unreachable)?;
        let stream = connecting.await?;
        let connecting = self.connector.connect(name, stream);
        connecting.await.map_err(unreachable)
    }

    /// A tunnel to a host, by its name or an address, and a port.
    async fn tunnel(
        &self,
        through: &Through,
        authority: &str,
    ) -> Result<Box<dyn Stream>, FetchError> {
        let address = format!("https://{authority}")
            .parse()
            .map_err(unreachable)?;
        let tunnel = through.tunnel(address, self.to_proxy.clone()).await;
        Ok(Box::new(TokioIo::new(
            tunnel.map_err(FetchError::Unreachable)?,
        )))
    }
}

#[async_trait]
impl Fetch for GuardedFetch {
    async fn fetch(&self, url: &Url) -> Result<Fetched, FetchError> {
        timeout(IN_ALL, self.get(url))
            .await
            .unwrap_or(Err(FetchError::TimedOut))
    }
}

/// One request, and its answer to the end.
async fn exchange(
    connection: Connection,
    request: Request<Empty<Bytes>>,
) -> Result<Fetched, FetchError> {
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(HEAD_BYTES)
        .handshake(TokioIo::new(connection))
        .await
        .map_err(broken)?;
    let answer = async move {
        let response = sender.send_request(request).await.map_err(broken)?;
        let (head, body) = response.into_parts();
        is_a_document(head.status, &head.headers)?;
        let body = whole(body).await?;
        Ok(Fetched {
            headers: head.headers,
            body,
        })
    };
    // The connection moves the bytes of the answer along, and may end before they are read.
    tokio::pin!(answer);
    tokio::select! {
        biased;
        fetched = &mut answer => fetched,
        _ = connection => answer.await,
    }
}

/// Judges an answer before anything of its body is read.
fn is_a_document(status: StatusCode, headers: &HeaderMap) -> Result<(), FetchError> {
    if status != StatusCode::OK {
        return Err(FetchError::Status(status));
    }
    let is_html = |value: &http::HeaderValue| {
        let value = value.to_str().unwrap_or_default().to_ascii_lowercase();
        value.starts_with("text/html")
    };
    if headers.get(header::CONTENT_TYPE).is_some_and(is_html) {
        return Err(FetchError::Html);
    }
    if headers
        .get_all(header::CONTENT_ENCODING)
        .iter()
        .any(|encoding| encoding != "identity")
    {
        return Err(FetchError::Encoded);
    }
    Ok(())
}

async fn whole(body: Incoming) -> Result<Bytes, FetchError> {
    let announced = http_body::Body::size_hint(&body).lower();
    if usize::try_from(announced).is_ok_and(|announced| announced <= LONGEST_DOCUMENT) {
        match Limited::new(body, LONGEST_DOCUMENT).collect().await {
            Ok(collected) => Ok(collected.to_bytes()),
            Err(error) if error.is::<LengthLimitError>() => Err(FetchError::TooLarge),
            Err(error) => Err(FetchError::Broken(error)),
        }
    } else {
        Err(FetchError::TooLarge)
    }
}

fn unreachable(cause: impl Into<Box<dyn Error + Send + Sync>>) -> FetchError {
    FetchError::Unreachable(cause.into())
}

fn broken(cause: impl Into<Box<dyn Error + Send + Sync>>) -> FetchError {
    FetchError::Broken(cause.into())
}
