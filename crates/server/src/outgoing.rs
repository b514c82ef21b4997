//! The way out: directly, or through the proxy of a company that the environment names, as nearly
//! every program understands `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`. Why which
//! request goes which way is in docs/decisions/outgoing-proxy.md.

use std::{
    error::Error,
    fmt, io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use http::{HeaderValue, Uri};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::{
    client::{
        legacy::connect::{Connected, Connection, HttpConnector, proxy::Tunnel},
        proxy::matcher::{Intercept, Matcher},
    },
    rt::TokioIo,
};
use protocol::{
    oauth::identifiers::is_loopback,
    policy::{Destination, UpstreamPolicy},
};
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tower::Service;
use url::{Host, Url};

use crate::config::Environment;

type Cause = Box<dyn Error + Send + Sync>;

/// The variables that name a proxy for each scheme, the first that is set counting.
const FOR_HTTPS: [&str; 4] = ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];
const FOR_HTTP: [&str; 4] = ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"];

/// The proxies that the environment names. `Debug` and what is shown leave out their passwords.
#[derive(Clone, Debug, Default)]
pub struct OutgoingProxies(Option<Arc<Named>>);

#[derive(Debug)]
struct Named {
    matcher: Matcher,
    https: Option<&'static str>,
    http: Option<&'static str>,
}

/// A proxy that a request goes through.
#[derive(Clone)]
pub(crate) struct Through {
    proxy: Intercept,
    /// The variable that named it.
    variable: &'static str,
}

impl OutgoingProxies {
    /// The proxies of `environment`, and warnings about variables that cannot be used.
    pub fn of(environment: &Environment) -> (Self, Vec<String>) {
        let mut warnings = Vec::new();
        let mut chosen = |variables: [&'static str; 4], scheme: &str| {
            let set = variables
                .into_iter()
                .find_map(|name| Some((name, environment.overriding(name)?)));
            let (name, value) = set?;
            match usable(value, scheme) {
                Ok(()) => Some((name, value)),
                Err(why) => {
                    let warning = format!("{name} is set and not used: {why}");
                    if !warnings.contains(&warning) {
                        warnings.push(warning);
                    }
                    None
                }
            }
        };
        let (https, http) = (chosen(FOR_HTTPS, "https"), chosen(FOR_HTTP, "http"));
        if https.is_none() && http.is_none() {
            return (Self::default(), warnings);
        }
        let no_proxy = ["NO_PROXY", "no_proxy"]
            .into_iter()
            .find_map(|name| environment.overriding(name));
        let value = |chosen: Option<(&str, &str)>| chosen.map_or("", |(_, value)| value).to_owned();
        let named = Named {
            matcher: Matcher::builder()
                .https(value(https))
                .http(value(http))
                .no(exceptions(no_proxy.unwrap_or_default()))
                .build(),
            https: https.map(|(name, _)| name),
            http: http.map(|(name, _)| name),
        };
        (Self(Some(Arc::new(named))), warnings)
    }

    /// The proxy for a request to `address`; never for this computer itself.
    pub(crate) fn on_the_way_to(&self, address: &Uri) -> Option<Through> {
        let named = self.0.as_ref()?;
        if is_this_computer(address) {
            return None;
        }
        let proxy = named.matcher.intercept(address)?;
        let variable = match address.scheme_str() {
            Some("https") => named.https,
            _ => named.http,
        };
        Some(Through {
            proxy,
            variable: variable?,
        })
    }

    /// What the proxy on the way to `address` demands of each request, where it reads them.
    pub(crate) fn authorization(&self, address: &Uri) -> Option<HeaderValue> {
        if self.0.is_none() || address.scheme_str() != Some("http") {
            return None;
        }
        let through = self.on_the_way_to(address)?;
        through.proxy.basic_auth().cloned()
    }

    /// Which requests use which proxy, for people: a line for each proxy, and for each variable
    /// without effect.
    pub(crate) fn users<'a>(
        &self,
        upstreams: impl Iterator<Item = &'a UpstreamPolicy>,
        documents: bool,
    ) -> Vec<String> {
        let Some(named) = &self.0 else {
            return Vec::new();
        };
        let mut users: Vec<(String, Vec<String>)> = Vec::new();
        let mut add = |through: Option<Through>, user: String| {
            let Some(through) = through.map(|it| it.to_string()) else {
                return;
            };
            match users.iter_mut().find(|(known, _)| *known == through) {
                Some((_, those)) => those.push(user),
                None => users.push((through, vec![user])),
            }
        };
        for upstream in upstreams {
            if let Destination::Remote { endpoint, .. } = &upstream.destination {
                let user = format!("upstream {}", upstream.name);
                add(self.on_the_way_to(endpoint), user);
            }
        }
        if documents {
            // Any host that is not named in NO_PROXY by itself.
            let somewhere = Uri::from_static("https://client.invalid/");
            add(
                self.on_the_way_to(&somewhere),
                "client documents".to_owned(),
            );
        }
        let is_used = |variable: &str| {
            let shown = format!("({variable})");
            users.iter().any(|(through, _)| through.ends_with(&shown))
        };
        let mut unused: Vec<_> = [named.https, named.http].into_iter().flatten().collect();
        unused.dedup();
        unused.retain(|variable| !is_used(variable));
        let used = users
            .iter()
            .map(|(through, those)| format!("{through} for {}", those.join(", ")));
        let unused = unused
            .iter()
            .map(|variable| format!("{variable} is set, and nothing goes through it"));
        used.chain(unused).collect()
    }
}

/// Without a password: `http://proxy.example:3128 (HTTPS_PROXY)`.
impl fmt::Display for Through {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let uri = self.proxy.uri();
        let scheme = uri.scheme_str().unwrap_or("http");
        let authority = uri.authority().map_or("", |it| it.as_str());
        write!(f, "{scheme}://{authority} ({})", self.variable)
    }
}

impl Through {
    /// A tunnel through the proxy to `address`, which names host and port.
    pub(crate) async fn tunnel(
        &self,
        address: Uri,
        connector: HttpsConnector<HttpConnector>,
    ) -> Result<MaybeHttpsStream<TokioIo<TcpStream>>, Cause> {
        let mut tunnel = Tunnel::new(self.proxy.uri().clone(), connector);
        if let Some(authorization) = self.proxy.basic_auth() {
            tunnel = tunnel.with_auth(authorization.clone());
        }
        tunnel
            .call(address)
            .await
            .map_err(|error| self.failed(error))
    }

    fn failed(&self, error: impl Into<Cause>) -> Cause {
        ProxyFailed {
            proxy: self.to_string(),
            cause: error.into(),
        }
        .into()
    }
}

/// The proxy gave no connection.
#[derive(Debug, thiserror::Error)]
#[error("the outgoing proxy {proxy} gave no connection; NO_PROXY names hosts to reach without it")]
struct ProxyFailed {
    proxy: String,
    #[source]
    cause: Cause,
}

/// Whether a value names a proxy that can be used.
fn usable(value: &str, scheme: &str) -> Result<(), &'static str> {
    let matcher = Matcher::builder().all(value).build().intercept(
        &format!("{scheme}://host.example/")
            .parse()
            .unwrap_or_default(),
    );
    match matcher.as_ref().map(|it| it.uri().scheme_str()) {
        Some(Some("http" | "https")) => Ok(()),
        Some(_) => {
            Err("SOCKS is not supported, only a proxy for HTTP, as in http://proxy.example:3128")
        }
        None => Err("it is not the address of a proxy, as in http://proxy.example:3128"),
    }
}

/// The list in `NO_PROXY` as the matcher reads it: names with all that is below them, addresses,
/// ranges, `*`. Others write `*.example.com`, blanks between names, and ports.
fn exceptions(list: &str) -> String {
    let entries = list
        .split([',', ' ', '\t', ';'])
        .filter(|it| !it.is_empty());
    let plain = entries.map(|entry| {
        let entry = match entry.strip_prefix('*') {
            Some("") | None => entry,
            Some(below) => below,
        };
        match entry.rsplit_once(':') {
            Some((host, port))
                if !port.is_empty() && port.bytes().all(|it| it.is_ascii_digit()) =>
            {
                match host.strip_prefix('[').and_then(|it| it.strip_suffix(']')) {
                    Some(address) => address,
                    // An IPv6 address ends in digits too.
                    None if host.contains(':') => entry,
                    None => host,
                }
            }
            _ => entry,
        }
    });
    plain.collect::<Vec<_>>().join(",")
}

fn is_this_computer(address: &Uri) -> bool {
    let Ok(url) = Url::parse(&address.to_string()) else {
        return false;
    };
    let is_below_localhost =
        |host: &Host<&str>| matches!(host, Host::Domain(name) if name.ends_with(".localhost"));
    is_loopback(&url) || url.host().as_ref().is_some_and(is_below_localhost)
}

/// Connects to servers and to proxies, whose own certificates are checked as `tls` says.
pub(crate) fn connector(tcp: HttpConnector, tls: ClientConfig) -> HttpsConnector<HttpConnector> {
    HttpsConnectorBuilder::new()
        .with_tls_config(tls)
        .https_or_http()
        .enable_http1()
        .wrap_connector(tcp)
}

/// Connects to a server on the way that is right for its address, up to where TLS with it begins.
#[derive(Clone)]
pub(crate) struct WayOut {
    proxies: OutgoingProxies,
    tcp: HttpConnector,
    to_proxy: HttpsConnector<HttpConnector>,
}

impl WayOut {
    pub(crate) fn new(proxies: OutgoingProxies, tcp: HttpConnector, tls: ClientConfig) -> Self {
        Self {
            proxies,
            to_proxy: connector(tcp.clone(), tls),
            tcp,
        }
    }
}

impl Service<Uri> for WayOut {
    type Response = Outbound;
    type Error = Cause;
    type Future = Pin<Box<dyn Future<Output = Result<Outbound, Cause>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Cause>> {
        self.tcp.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let Some(through) = self.proxies.on_the_way_to(&to) else {
            let connecting = self.tcp.call(to);
            return Box::pin(async move {
                Ok(Outbound {
                    stream: MaybeHttpsStream::Http(connecting.await?),
                    is_read_by_proxy: false,
                })
            });
        };
        let mut to_proxy = self.to_proxy.clone();
        Box::pin(async move {
            let is_read_by_proxy = to.scheme_str() == Some("http");
            let stream = if is_read_by_proxy {
                let connecting = to_proxy.call(through.proxy.uri().clone());
                connecting.await.map_err(|error| through.failed(error))?
            } else {
                through.tunnel(to, to_proxy).await?
            };
            Ok(Outbound {
                stream,
                is_read_by_proxy,
            })
        })
    }
}

/// A connection to a server, to a proxy that reads what it passes on, or through one that does not.
pub(crate) struct Outbound {
    stream: MaybeHttpsStream<TokioIo<TcpStream>>,
    is_read_by_proxy: bool,
}

impl Connection for Outbound {
    /// To a proxy that reads it, a request names the server in its first line (RFC 9112 §3.2.2).
    fn connected(&self) -> Connected {
        let connected = self.stream.connected();
        if self.is_read_by_proxy {
            connected.proxy(true)
        } else {
            connected
        }
    }
}

impl Read for Outbound {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl Write for Outbound {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, parts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(variables: &[(&str, &str)]) -> (OutgoingProxies, Vec<String>) {
        let environment = variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        OutgoingProxies::of(&environment)
    }

    fn way(variables: &[(&str, &str)], address: &str) -> String {
        let (proxies, warnings) = proxies(variables);
        assert_eq!(warnings, Vec::<String>::new());
        let through = proxies.on_the_way_to(&address.parse().unwrap());
        through.map_or_else(|| "direct".to_owned(), |through| through.to_string())
    }

    const HTTPS: (&str, &str) = ("HTTPS_PROXY", "http://proxy.example:3128");
    const HTTP: (&str, &str) = ("http_proxy", "proxy.example:8080");

    /// Case 30
    #[test]
    fn the_variables_of_the_environment_name_the_way_out() {
        let by_https = "http://proxy.example:3128 (HTTPS_PROXY)";
        let by_http = "http://proxy.example:8080 (http_proxy)";
        let both = [HTTPS, HTTP];
        assert_eq!(way(&both, "https://mcp.example/mcp"), by_https);
        assert_eq!(way(&both, "http://mcp:8000/mcp"), by_http);
        assert_eq!(way(&[HTTP], "https://mcp.example/mcp"), "direct");
        assert_eq!(way(&[], "https://mcp.example/mcp"), "direct");
        let all = [("ALL_PROXY", "https://me:s3cr3t@proxy.example")];
        let by_all = "https://proxy.example (ALL_PROXY)";
        assert_eq!(way(&all, "https://mcp.example/mcp"), by_all);
        assert_eq!(way(&all, "http://mcp.example/mcp"), by_all);
        // Container tools pass an unset variable so.
        let empty = [("HTTPS_PROXY", ""), ("https_proxy", "http://p.example:1")];
        assert_eq!(
            way(&empty, "https://mcp.example/mcp"),
            "http://p.example:1 (https_proxy)"
        );
    }

    #[test]
    fn this_computer_is_reached_directly_and_so_is_what_no_proxy_names() {
        let both = [HTTPS, HTTP];
        for address in [
            "https://localhost:8443/mcp",
            "http://localhost:3000/mcp",
            "http://127.0.0.1:3000/mcp",
            "http://127.8.8.8/mcp",
            "http://[::1]:3000/mcp",
            "http://mcp.localhost/mcp",
        ] {
            assert_eq!(way(&both, address), "direct", "{address}");
        }
        for (list, address, is_direct) in [
            ("mcp.example", "https://mcp.example/mcp", true),
            ("mcp.example", "https://a.mcp.example/mcp", true),
            ("mcp.example", "https://notmcp.example/mcp", false),
            (".example", "https://mcp.example/mcp", true),
            ("*.example", "https://mcp.example/mcp", true),
            ("*.mcp.example", "https://notmcp.example/mcp", false),
            ("MCP.Example", "https://mcp.example/mcp", true),
            ("a.example, mcp.example", "https://mcp.example/mcp", true),
            ("a.example mcp.example", "https://mcp.example/mcp", true),
            ("mcp.example:443", "https://mcp.example/mcp", true),
            ("10.0.0.0/8", "http://10.1.2.3:8000/mcp", true),
            ("10.0.0.0/8", "http://11.1.2.3:8000/mcp", false),
            ("10.1.2.3:8000", "http://10.1.2.3:8000/mcp", true),
            ("fd00::/8", "http://[fd00::1]:8000/mcp", true),
            ("[fd00::1]:8000", "http://[fd00::1]:8000/mcp", true),
            ("fd00::1", "http://[fd00::1]:8000/mcp", true),
            ("mcp", "http://mcp:8000/mcp", true),
            ("*", "https://mcp.example/mcp", true),
            ("", "https://mcp.example/mcp", false),
        ] {
            let variables = [HTTPS, HTTP, ("NO_PROXY", list)];
            let got = way(&variables, address);
            assert_eq!(got == "direct", is_direct, "{list:?} {address}: {got}");
        }
    }

    #[test]
    fn a_variable_that_names_no_usable_proxy_is_told_of_without_its_value() {
        for (value, says) in [
            (
                "socks5h://me:s3cr3t@proxy.example:1080",
                "SOCKS is not supported",
            ),
            ("s3cr3t nonsense", "not the address of a proxy"),
            ("ftp://s3cr3t.example", "not the address of a proxy"),
        ] {
            let (proxies, warnings) = proxies(&[("ALL_PROXY", value)]);
            let [warning] = &warnings[..] else {
                panic!("{warnings:?}")
            };
            assert!(
                warning.starts_with("ALL_PROXY is set and not used: ") && warning.contains(says),
                "{warning}"
            );
            assert!(!warning.contains("s3cr3t"), "{warning}");
            let direct = proxies.on_the_way_to(&"https://mcp.example/".parse().unwrap());
            assert!(direct.is_none());
        }
    }

    #[test]
    fn a_password_is_sent_and_not_shown() {
        let (proxies, _) = proxies(&[("HTTP_PROXY", "http://me:s3cr3t@proxy.example:3128")]);
        let plain = "http://mcp.example/mcp".parse().unwrap();
        // "me:s3cr3t"
        let expected = "Basic bWU6czNjcjN0";
        assert_eq!(proxies.authorization(&plain).unwrap(), expected);
        for elsewhere in ["https://mcp.example/mcp", "http://127.0.0.1/mcp"] {
            assert_eq!(proxies.authorization(&elsewhere.parse().unwrap()), None);
        }
        let shown = proxies.on_the_way_to(&plain).unwrap();
        let shown = format!("{proxies:?} {shown}");
        assert!(
            shown.contains("proxy.example") && !shown.contains("s3cr3t"),
            "{shown}"
        );
        assert!(!shown.contains("bWU6"), "{shown}");
    }
}
