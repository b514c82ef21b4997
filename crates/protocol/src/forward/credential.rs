//! What an upstream demands of us, and putting it on a request.

use std::fmt;

use base64::{Engine, prelude::BASE64_STANDARD};
use http::{HeaderMap, HeaderName, HeaderValue, Uri, header, uri::PathAndQuery};
use url::form_urlencoded;

use super::headers::is_controlled;

/// The operator's key for one upstream. It is set on every forwarded request after the client's
/// own headers were filtered, so that nothing of the client's can stand beside it.
///
/// `Debug` names the kind only.
#[derive(Clone)]
pub enum Credential {
    /// The upstream asks for nothing.
    None,
    /// One header, complete.
    Header {
        name: HeaderName,
        value: HeaderValue,
    },
    /// One query parameter, percent-encoded as `name=value`.
    Query { name: String, pair: String },
}

/// Why a credential, or another header of the operator's, cannot be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotACredential {
    #[error("is not a header name")]
    HeaderName,
    #[error("names a header that the proxy itself controls")]
    ReservedHeader,
    #[error("has characters that no header may carry")]
    HeaderValue,
    #[error("must not contain a colon")]
    UserName,
    #[error("must not be empty")]
    Empty,
    #[error("is there twice, in upper and lower case")]
    Repeated,
    #[error("is not a host name")]
    Host,
}

impl Credential {
    /// `Authorization: Bearer <token>` (RFC 6750 §2.1).
    pub fn bearer(token: &str) -> Result<Self, NotACredential> {
        if token.is_empty() {
            return Err(NotACredential::Empty);
        }
        Ok(Self::Header {
            name: header::AUTHORIZATION,
            value: sensitive(&format!("Bearer {token}"))?,
        })
    }

    /// `Authorization: Basic …` (RFC 7617 §2).
    pub fn basic(username: &str, password: &str) -> Result<Self, NotACredential> {
        if username.contains(':') {
            return Err(NotACredential::UserName);
        }
        let pair = BASE64_STANDARD.encode(format!("{username}:{password}"));
        Ok(Self::Header {
            name: header::AUTHORIZATION,
            value: sensitive(&format!("Basic {pair}"))?,
        })
    }

    /// Any header.
    pub fn header(name: &str, value: &str) -> Result<Self, NotACredential> {
        let name =
            HeaderName::from_bytes(name.as_bytes()).map_err(|_| NotACredential::HeaderName)?;
        if is_controlled(&name) {
            return Err(NotACredential::ReservedHeader);
        }
        if value.is_empty() {
            return Err(NotACredential::Empty);
        }
        Ok(Self::Header {
            name,
            value: sensitive(value)?,
        })
    }

    /// A query parameter.
    pub fn query(name: &str, value: &str) -> Result<Self, NotACredential> {
        if name.is_empty() || value.is_empty() {
            return Err(NotACredential::Empty);
        }
        let pair = form_urlencoded::Serializer::new(String::new())
            .append_pair(name, value)
            .finish();
        Ok(Self::Query {
            name: name.to_owned(),
            pair,
        })
    }

    /// The header that carries it, if one does.
    pub fn header_name(&self) -> Option<&HeaderName> {
        match self {
            Self::Header { name, .. } => Some(name),
            Self::None | Self::Query { .. } => None,
        }
    }

    /// Puts the credential on a request that already has its filtered headers.
    pub fn set_on(&self, headers: &mut HeaderMap) {
        if let Self::Header { name, value } = self {
            headers.insert(name.clone(), value.clone());
        }
    }

    /// The upstream's address for a request that came with `client_query`: the endpoint's own
    /// query first, the client's next without any parameter of a name that the operator wrote, the
    /// credential last. What the operator pinned, such as `read_only=true`, no client takes back.
    pub fn address(&self, endpoint: &Uri, client_query: Option<&str>) -> Uri {
        let client_query = client_query.filter(|query| !query.is_empty());
        let credential = match self {
            Self::Query { name, pair } => Some((name, pair)),
            Self::None | Self::Header { .. } => None,
        };
        if client_query.is_none() && credential.is_none() {
            return endpoint.clone();
        }
        let own_query = endpoint.query().unwrap_or_default();
        let own_names = form_urlencoded::parse(own_query.as_bytes()).map(|(name, _)| name);
        let pinned: Vec<String> = own_names
            .chain(credential.map(|(name, _)| name.into()))
            .map(|name| loose(&name))
            .collect();
        let mut parts: Vec<&str> = endpoint.query().into_iter().collect();
        let of_client = client_query.into_iter().flat_map(|query| query.split('&'));
        parts.extend(of_client.filter(|part| !names_any(part, &pinned)));
        parts.extend(credential.map(|(_, pair)| &**pair));
        let path_and_query = format!("{}?{}", endpoint.path(), parts.join("&"));
        let mut address = endpoint.clone().into_parts();
        // A query that came in over HTTP and one that we encoded are both fit to go out again.
        address.path_and_query = PathAndQuery::try_from(path_and_query).ok();
        Uri::from_parts(address).unwrap_or_else(|_| endpoint.clone())
    }
}

/// Whether some server would find one of the `pinned` names in `part`, one piece of a query between
/// ampersands. Some take a semicolon for another ampersand.
fn names_any(part: &str, pinned: &[String]) -> bool {
    part.split(';').any(|piece| {
        form_urlencoded::parse(piece.as_bytes()).any(|(name, _)| pinned.contains(&loose(&name)))
    })
}

/// A parameter's name as the most forgiving server reads it: in any case, without blanks around it,
/// `a.b` and `a b` as `a_b`, and `a[]` or `a[x]` as `a`.
fn loose(name: &str) -> String {
    let name = name.split('[').next().unwrap_or_default();
    name.trim().to_lowercase().replace([' ', '.'], "_")
}

pub(super) fn sensitive(text: &str) -> Result<HeaderValue, NotACredential> {
    let mut value = HeaderValue::from_str(text).map_err(|_| NotACredential::HeaderValue)?;
    value.set_sensitive(true);
    Ok(value)
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("Credential::None"),
            Self::Header { name, .. } => write!(f, "Credential::Header({name})"),
            Self::Query { name, .. } => write!(f, "Credential::Query({name})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "k-4711-secret";

    #[test]
    fn a_header_credential_replaces_what_the_client_sent() {
        let mut headers = HeaderMap::new();
        headers.append("x-api-key", HeaderValue::from_static("the client's"));
        headers.append("x-api-key", HeaderValue::from_static("and another"));

        Credential::header("X-API-Key", KEY)
            .unwrap()
            .set_on(&mut headers);

        assert_eq!(
            headers.get_all("x-api-key").iter().collect::<Vec<_>>(),
            [KEY]
        );
    }

    #[test]
    fn a_query_credential_replaces_what_the_client_sent() {
        let endpoint: Uri = "https://up.example/mcp?v=1".parse().unwrap();
        let credential = Credential::query("api key", "a&b").unwrap();

        let address = credential.address(&endpoint, Some("api+key=mine&x=%20y&api%20key=mine&z"));

        assert_eq!(address, "https://up.example/mcp?v=1&x=%20y&z&api+key=a%26b");
    }

    #[test]
    fn what_the_operator_pinned_no_client_takes_back() {
        let endpoint: Uri = "https://up.example/mcp?read_only=true&a%5Bb%5D=1"
            .parse()
            .unwrap();
        let credential = Credential::query("api_key", KEY).unwrap();
        let address = |query| credential.address(&endpoint, Some(query)).to_string();
        for query in [
            "read_only=false",
            "Read_Only=false",
            "read%5Fonly=false",
            "read.only=false",
            "read+only=false",
            "+read_only=false",
            "read_only[]=false",
            "read_only%5Bx%5D=false",
            "x=1;read_only=false",
            "read_only",
            "a=2",
            "API_KEY=mine",
            "api_key[]=mine",
        ] {
            assert_eq!(
                address(query),
                format!("{endpoint}&api_key={KEY}"),
                "{query}"
            );
        }
        let other = "x=read_only&read_only_too=1&x=1;y=2";
        assert_eq!(address(other), format!("{endpoint}&{other}&api_key={KEY}"));
    }

    #[test]
    fn the_clients_query_is_passed_untouched() {
        let endpoint: Uri = "https://up.example/mcp".parse().unwrap();
        let credential = Credential::bearer(KEY).unwrap();
        assert_eq!(credential.address(&endpoint, None), endpoint);
        assert_eq!(
            credential.address(&endpoint, Some("a=b&c=%2F&&")),
            "https://up.example/mcp?a=b&c=%2F&&"
        );
    }

    #[test]
    fn a_credential_that_cannot_be_sent_is_refused() {
        assert_eq!(
            Credential::bearer("a\nb").unwrap_err(),
            NotACredential::HeaderValue
        );
        assert_eq!(Credential::bearer("").unwrap_err(), NotACredential::Empty);
        assert_eq!(
            Credential::basic("a:b", "c").unwrap_err(),
            NotACredential::UserName
        );
        assert_eq!(
            Credential::header("a b", KEY).unwrap_err(),
            NotACredential::HeaderName
        );
        assert_eq!(
            Credential::header("Host", KEY).unwrap_err(),
            NotACredential::ReservedHeader
        );
        assert_eq!(
            Credential::header("Mcp-Session-Id", KEY).unwrap_err(),
            NotACredential::ReservedHeader
        );
    }

    #[test]
    fn no_credential_stands_where_a_message_is_framed_or_routed() {
        for name in [
            "host",
            "content-length",
            "content-type",
            "transfer-encoding",
            "connection",
            "upgrade",
            "te",
            "trailer",
            "accept",
            "cdn-loop",
            "mcp-protocol-version",
            "Mcp-Param-Key",
        ] {
            let refused = Credential::header(name, KEY).unwrap_err();
            assert_eq!(refused, NotACredential::ReservedHeader, "{name}");
        }
        assert!(Credential::header("x-host", KEY).is_ok());
    }

    #[test]
    fn what_logs_a_request_sees_no_credential() {
        for credential in [
            Credential::bearer(KEY),
            Credential::basic("me", KEY),
            Credential::header("x-api-key", KEY),
        ] {
            let mut headers = HeaderMap::new();
            credential.unwrap().set_on(&mut headers);
            assert!(headers.values().all(HeaderValue::is_sensitive));
        }
    }

    #[test]
    fn debug_shows_no_secret() {
        let all = [
            Credential::bearer(KEY).unwrap(),
            Credential::basic("me", KEY).unwrap(),
            Credential::header("X-API-Key", KEY).unwrap(),
            Credential::query("key", KEY).unwrap(),
        ];
        assert!(!format!("{all:?}").contains(KEY));
    }
}
