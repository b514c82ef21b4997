//! Presenting a bearer token, and asking for one (RFC 6750 §2, §3; RFC 9728 §5.1).

use http::{HeaderMap, HeaderValue, header};
use url::form_urlencoded;

use super::scope;

/// Why a request did not open the door.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refused {
    /// No token was presented.
    NoToken,
    /// One was presented that is malformed, unknown, expired, revoked or for another resource.
    InvalidToken,
    /// The request is not one that RFC 6750 allows: two tokens, or two ways at once.
    Malformed,
}

/// The token that a request presents in its `Authorization` header, the one way that is read.
pub fn presented<'a>(headers: &'a HeaderMap, query: Option<&str>) -> Result<&'a str, Refused> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = values.next() else {
        return Err(Refused::NoToken);
    };
    if values.next().is_some() || query.is_some_and(has_token) {
        return Err(Refused::Malformed);
    }
    let (scheme, token) = value
        .to_str()
        .ok()
        .and_then(|value| value.split_once(' '))
        .ok_or(Refused::InvalidToken)?;
    if !scheme.eq_ignore_ascii_case("Bearer") {
        return Err(Refused::InvalidToken);
    }
    Ok(token)
}

/// Whether a query carries a token (RFC 6750 §2.3, which is never honoured).
fn has_token(query: &str) -> bool {
    form_urlencoded::parse(query.as_bytes()).any(|(name, _)| name == "access_token")
}

/// The `WWW-Authenticate` value that goes with a refusal. It points to the metadata at
/// `resource_metadata`, a URL of ours.
pub fn challenge(refused: Refused, resource_metadata: &str) -> HeaderValue {
    let error = match refused {
        Refused::NoToken => "",
        Refused::InvalidToken => {
            "error=\"invalid_token\", error_description=\"the access token is unknown, expired, revoked \
             or for another resource\", "
        }
        Refused::Malformed => {
            "error=\"invalid_request\", error_description=\"present one access token, in one \
             Authorization header\", "
        }
    };
    let value = format!(
        "Bearer {error}resource_metadata=\"{resource_metadata}\", scope=\"{}\"",
        scope::MCP
    );
    HeaderValue::try_from(value).expect("a public URL of ours is visible ASCII")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(values: &[&str], query: Option<&str>) -> Result<String, Refused> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(
                header::AUTHORIZATION,
                HeaderValue::from_bytes(value.as_bytes()).unwrap(),
            );
        }
        presented(&headers, query).map(str::to_owned)
    }

    #[test]
    fn one_bearer_token_in_one_header_is_read() {
        assert_eq!(read(&["Bearer abc"], None), Ok("abc".into()));
        assert_eq!(read(&["bearer abc"], Some("a=b")), Ok("abc".into()));
    }

    #[test]
    fn anything_else_is_refused_by_kind() {
        assert_eq!(read(&[], None), Err(Refused::NoToken));
        assert_eq!(read(&[], Some("access_token=abc")), Err(Refused::NoToken));
        assert_eq!(read(&["Basic abc"], None), Err(Refused::InvalidToken));
        assert_eq!(read(&["Bearer"], None), Err(Refused::InvalidToken));
        assert_eq!(read(&[""], None), Err(Refused::InvalidToken));
        assert_eq!(read(&["Bearer é"], None), Err(Refused::InvalidToken));
        assert_eq!(
            read(&["Bearer a", "Bearer a"], None),
            Err(Refused::Malformed)
        );
        assert_eq!(
            read(&["Bearer a"], Some("x&access%5ftoken=b")),
            Err(Refused::Malformed)
        );
    }
}
