//! Identifiers are exact strings. The text as received is what is compared and sent; a parsed
//! view is made where needed and thrown away, since parsing changes the text.

use std::fmt;

use serde::{Deserialize, Serialize};
use url::Url;

macro_rules! exact_string {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

exact_string! {
    /// Who issues our tokens: the public URL, without a trailing slash (RFC 8414 §2).
    Issuer
}

exact_string! {
    /// A further public name of this proxy: an origin under which its resources are the same as
    /// under the issuer. It may be `http` anywhere, as between containers.
    Alias
}

exact_string! {
    /// The name of a client: given by us at registration (RFC 6749 §2.2), or the URL of the
    /// document in which it describes itself.
    ClientId
}

exact_string! {
    /// Where one upstream is reached by clients, and the audience of its tokens (RFC 8707 §2).
    Resource
}

/// Why a text is not an origin that this program can be reached at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAnIssuer {
    #[error("is not an absolute URL")]
    NotAUrl,
    #[error("must start with https:// (http:// is for loopback addresses only)")]
    NotHttps,
    #[error("must not have a path, a trailing slash, a query or a fragment")]
    NotAnOrigin,
    #[error("must not contain a user name or password")]
    Credentials,
    #[error("must be written in lower case, without a default port")]
    NotCanonical,
}

/// Reads an origin, exactly as clients will compare it. `allows_http` says of which addresses it may
/// be without TLS.
fn parse_origin(text: &str, allows_http: impl Fn(&Url) -> bool) -> Result<String, NotAnIssuer> {
    let url = Url::parse(text).map_err(|_| NotAnIssuer::NotAUrl)?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(NotAnIssuer::Credentials);
    }
    match url.scheme() {
        "https" => {}
        "http" if allows_http(&url) => {}
        _ => return Err(NotAnIssuer::NotHttps),
    }
    // Parsers let a host have characters that end a quoted string or a list elsewhere.
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte);
    if !url.authority().bytes().all(is_plain) {
        return Err(NotAnIssuer::NotAUrl);
    }
    let origin = url.origin().ascii_serialization();
    if text == origin {
        Ok(origin)
    } else if text.ends_with('/') || url.path() != "/" || text.contains(['?', '#']) {
        Err(NotAnIssuer::NotAnOrigin)
    } else {
        Err(NotAnIssuer::NotCanonical)
    }
}

/// Host and port of an origin, as a client's `Host` header has them.
fn authority(origin: &str) -> &str {
    origin
        .split_once("://")
        .map_or("", |(_, authority)| authority)
}

impl Alias {
    /// Reads a further public name: an origin.
    pub fn parse(text: &str) -> Result<Self, NotAnIssuer> {
        parse_origin(text, |_| true).map(Self)
    }

    /// Whether a `Host` header with this value calls us by this name.
    pub fn is_called(&self, host: &str) -> bool {
        authority(&self.0).eq_ignore_ascii_case(host)
    }
}

impl Issuer {
    /// Reads a public URL: an origin, `https` unless it is a loopback address, exactly as it
    /// will be compared by clients.
    pub fn parse(text: &str) -> Result<Self, NotAnIssuer> {
        parse_origin(text, is_loopback).map(Self)
    }

    /// The other names that this computer has for a loopback address: whoever types one of them
    /// means the same program.
    pub fn loopback_twins(&self) -> Vec<Alias> {
        let Ok(mut url) = Url::parse(&self.0) else {
            return Vec::new();
        };
        if !is_loopback(&url) {
            return Vec::new();
        }
        let mut twins = Vec::new();
        for host in ["localhost", "127.0.0.1", "[::1]"] {
            if url.set_host(Some(host)).is_ok() {
                twins.push(Alias(url.origin().ascii_serialization()));
            }
        }
        twins.retain(|twin| twin.0 != self.0);
        twins
    }

    /// Whether this address is reached from the same machine only.
    pub fn is_loopback(&self) -> bool {
        Url::parse(&self.0).is_ok_and(|url| is_loopback(&url))
    }

    /// Whether browsers reach this address over TLS.
    pub fn is_https(&self) -> bool {
        self.0.starts_with("https:")
    }

    /// Host and port, as a client's `Host` header has them.
    pub fn authority(&self) -> &str {
        authority(&self.0)
    }

    /// The absolute URL of `path`, which starts with a slash.
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.0)
    }
}

impl ClientId {
    /// A client id as a request presents it; whether it names a client is for the records.
    pub fn presented(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl Resource {
    /// The resource at `path` of `issuer`.
    pub fn at(issuer: &Issuer, path: &str) -> Self {
        Self(issuer.url(path))
    }
}

/// Whether a URL's host is `localhost` or a loopback address (RFC 8252 §7.3, §8.3).
pub fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_issuer_is_an_exact_origin() {
        for good in [
            "https://mcp.example.com",
            "https://mcp.example.com:8443",
            "http://127.0.0.1:8080",
            "http://localhost",
            "http://[::1]:8080",
            "https://my-mcp_1.xn--bcher-kva.example",
        ] {
            assert_eq!(Issuer::parse(good).unwrap().as_str(), good);
        }
        for (bad, why) in [
            ("mcp.example.com", NotAnIssuer::NotAUrl),
            ("https://mcp\".example.com", NotAnIssuer::NotAUrl),
            ("https://mcp,example.com", NotAnIssuer::NotAUrl),
            ("https://mcp'example.com", NotAnIssuer::NotAUrl),
            ("http://mcp.example.com", NotAnIssuer::NotHttps),
            ("ftp://mcp.example.com", NotAnIssuer::NotHttps),
            ("https://mcp.example.com/", NotAnIssuer::NotAnOrigin),
            ("https://mcp.example.com/mcp", NotAnIssuer::NotAnOrigin),
            ("https://mcp.example.com?x", NotAnIssuer::NotAnOrigin),
            ("https://u:p@mcp.example.com", NotAnIssuer::Credentials),
            ("https://MCP.example.com", NotAnIssuer::NotCanonical),
            ("https://mcp.example.com:443", NotAnIssuer::NotCanonical),
        ] {
            assert_eq!(Issuer::parse(bad), Err(why), "{bad}");
        }
    }

    #[test]
    fn an_alias_is_an_exact_origin_too_and_may_be_without_tls() {
        for good in [
            "http://proxy:8080",
            "https://mcp.example.com",
            "http://192.168.1.10",
        ] {
            let alias = Alias::parse(good).unwrap();
            assert_eq!(alias.as_str(), good);
            let (_, host) = good.split_once("://").unwrap();
            assert!(alias.is_called(host) && !alias.is_called("other.example"));
        }
        for (bad, why) in [
            ("proxy:8080", NotAnIssuer::NotHttps),
            ("ftp://proxy", NotAnIssuer::NotHttps),
            ("http://proxy:8080/mcp", NotAnIssuer::NotAnOrigin),
            ("http://proxy:80", NotAnIssuer::NotCanonical),
            ("http://u@proxy", NotAnIssuer::Credentials),
            ("http://*.example.com", NotAnIssuer::NotAUrl),
        ] {
            assert_eq!(Alias::parse(bad), Err(why), "{bad}");
        }
    }

    #[test]
    fn only_a_loopback_address_has_twins_and_they_have_its_port() {
        let twins = |issuer: &str| {
            let issuer = Issuer::parse(issuer).unwrap();
            let twins = issuer.loopback_twins().into_iter();
            twins.map(|twin| twin.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(
            twins("http://127.0.0.1:8080"),
            ["http://localhost:8080", "http://[::1]:8080"]
        );
        assert_eq!(
            twins("https://localhost"),
            ["https://127.0.0.1", "https://[::1]"]
        );
        assert!(twins("https://mcp.example.com").is_empty());
    }
}
