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

impl Issuer {
    /// Reads a public URL: an origin, `https` unless it is a loopback address, exactly as it
    /// will be compared by clients.
    pub fn parse(text: &str) -> Result<Self, NotAnIssuer> {
        let url = Url::parse(text).map_err(|_| NotAnIssuer::NotAUrl)?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(NotAnIssuer::Credentials);
        }
        match url.scheme() {
            "https" => {}
            "http" if is_loopback(&url) => {}
            _ => return Err(NotAnIssuer::NotHttps),
        }
        // Parsers let a host have characters that end a quoted string or a list elsewhere.
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte);
        if !url.authority().bytes().all(is_plain) {
            return Err(NotAnIssuer::NotAUrl);
        }
        let origin = url.origin().ascii_serialization();
        if text == origin {
            Ok(Self(origin))
        } else if text.ends_with('/') || url.path() != "/" || text.contains(['?', '#']) {
            Err(NotAnIssuer::NotAnOrigin)
        } else {
            Err(NotAnIssuer::NotCanonical)
        }
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
        self.0
            .split_once("://")
            .map_or("", |(_, authority)| authority)
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
}
