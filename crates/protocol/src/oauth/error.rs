//! The error codes of OAuth and what stands beside them.

use std::{
    borrow::Cow,
    error::Error,
    fmt::{self, Write},
    sync::Arc,
    time::Duration,
};

use serde::Serialize;

use super::identifiers::ClientId;
use crate::ports::StoreError;

/// How many characters are told of a text that came with a request.
const TOLD: usize = 120;

/// A registered error code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    // RFC 6749 §4.1.2.1 and §5.2
    AccessDenied,
    InvalidClient,
    InvalidGrant,
    InvalidRequest,
    InvalidScope,
    ServerError,
    TemporarilyUnavailable,
    UnsupportedGrantType,
    UnsupportedResponseType,
    // RFC 6750 §3.1
    InvalidToken,
    // RFC 7591 §3.2.2
    InvalidClientMetadata,
    InvalidRedirectUri,
    // RFC 8707 §2
    InvalidTarget,
    // RFC 9101 §6.2
    RequestNotSupported,
    RequestUriNotSupported,
    // Not registered, but what clients know beside status 429.
    TooManyRequests,
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// An OAuth error response: what the client reads, and why, which only we read.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{code}: {description}")]
pub struct OAuthError {
    pub code: ErrorCode,
    /// The value that was refused, as it came. For the log alone.
    pub presented: Option<Box<str>>,
    /// For the client's developer, and for our log. Of the request it has only what [`told`] leaves,
    /// and never a secret; it keeps to the characters of RFC 6749 §5.2.
    pub description: Cow<'static, str>,
    /// What else our log is to know, such as two values that differ, as [`told`] tells them.
    pub detail: Option<Box<str>>,
    /// What a person is told who meets it on a page, if the usual words would not help.
    pub for_people: Option<Box<ForPeople>>,
    /// The client that it is about, as soon as that is known. For our log and pages alone.
    pub client: Option<Box<RefusedClient>>,
    /// How long the client is to wait before it tries again, if that is known.
    pub retry_after: Option<Duration>,
    #[source]
    cause: Option<Arc<dyn Error + Send + Sync>>,
}

/// A refusal in the words of people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForPeople {
    /// What happened, in one sentence.
    pub what: Cow<'static, str>,
    /// What to do about it.
    pub next_step: Cow<'static, str>,
}

/// A client whose request was refused. Its name is its own claim, unless the operator set it up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedClient {
    /// As [`told`] tells it, since it may be unknown and anything.
    pub client_id: String,
    /// Empty when it has none or is unknown.
    pub name: String,
}

/// What may be told of a text that came with a request, in an error description or a log line: no
/// more than shows what it is, in the characters of RFC 6749 §5.2.
pub fn told(text: &str) -> String {
    let mut told = String::new();
    for c in text.chars().take(TOLD) {
        // What a URI is written in (RFC 3986 §2), without the quotation mark among it.
        if c.is_ascii_alphanumeric() || "-._~:/?#[]@!$&()*+,;=%".contains(c) {
            told.push(c);
        } else {
            for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                write!(told, "%{byte:02X}").expect("a String takes any text");
            }
        }
    }
    if text.chars().nth(TOLD).is_some() {
        told.push_str("...");
    }
    told
}

macro_rules! constructors {
    ($($name:ident => $code:ident),* $(,)?) => {
        $(pub fn $name(description: impl Into<Cow<'static, str>>) -> Self {
            Self::new(ErrorCode::$code, description)
        })*
    };
}

impl OAuthError {
    pub fn new(code: ErrorCode, description: impl Into<Cow<'static, str>>) -> Self {
        Self {
            code,
            description: description.into(),
            presented: None,
            detail: None,
            for_people: None,
            client: None,
            retry_after: None,
            cause: None,
        }
    }

    /// The same with more of it for our log alone.
    #[must_use]
    pub fn with_detail(self, detail: String) -> Self {
        Self {
            detail: Some(detail.into()),
            ..self
        }
    }

    /// The same with words for the person who meets it on a page.
    #[must_use]
    pub fn in_words(
        mut self,
        what: impl Into<Cow<'static, str>>,
        next_step: impl Into<Cow<'static, str>>,
    ) -> Self {
        self.for_people = Some(Box::new(ForPeople {
            what: what.into(),
            next_step: next_step.into(),
        }));
        self
    }

    /// The same with what led to it, for our log alone.
    #[must_use]
    pub(crate) fn caused_by(self, cause: impl Error + Send + Sync + 'static) -> Self {
        Self {
            cause: Some(Arc::new(cause)),
            ..self
        }
    }

    /// What led to it, if that is an `E`.
    pub(crate) fn cause<E: Error + 'static>(&self) -> Option<&E> {
        self.cause.as_deref()?.downcast_ref()
    }

    /// The same as a refusal of this client.
    #[must_use]
    pub fn of_client(mut self, client_id: &ClientId, name: &str) -> Self {
        self.client = Some(Box::new(RefusedClient {
            client_id: told(client_id.as_str()),
            name: name.to_owned(),
        }));
        self
    }

    pub fn too_many_requests(description: &'static str, wait: Duration) -> Self {
        Self {
            retry_after: Some(wait),
            ..Self::new(ErrorCode::TooManyRequests, description)
        }
    }

    /// The same, with the value that was refused.
    #[must_use]
    pub fn presenting(self, value: &str) -> Self {
        Self {
            presented: Some(value.into()),
            ..self
        }
    }

    constructors! {
        access_denied => AccessDenied,
        invalid_client => InvalidClient,
        invalid_client_metadata => InvalidClientMetadata,
        invalid_grant => InvalidGrant,
        invalid_redirect_uri => InvalidRedirectUri,
        invalid_request => InvalidRequest,
        invalid_scope => InvalidScope,
        invalid_target => InvalidTarget,
        unsupported_grant_type => UnsupportedGrantType,
        unsupported_response_type => UnsupportedResponseType,
    }
}

/// A store in trouble is a transient fault: the client keeps what it has and tries again.
impl From<StoreError> for OAuthError {
    fn from(cause: StoreError) -> Self {
        Self::new(
            ErrorCode::TemporarilyUnavailable,
            "the server cannot reach its store, try again shortly",
        )
        .caused_by(cause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Case 04: escaped, so that it can be in an error description and in a line of the log.
    #[test]
    fn what_is_told_of_a_request_is_short_and_in_the_characters_of_a_description() {
        for (text, expected) in [
            (
                "https://app.example/cb?a=1&b=%20",
                "https://app.example/cb?a=1&b=%20",
            ),
            ("a b\"c\\d\n", "a%20b%22c%5Cd%0A"),
            ("<b>'{{7}}'", "%3Cb%3E%27%7B%7B7%7D%7D%27"),
            ("\u{202e}é", "%E2%80%AE%C3%A9"),
            ("", ""),
        ] {
            assert_eq!(told(text), expected);
        }
        let longest = "x".repeat(TOLD);
        assert_eq!(told(&longest), longest);
        assert_eq!(told(&format!("{longest}x")), format!("{longest}..."));
        // RFC 6749 §5.2
        let legal = |byte: u8| matches!(byte, 0x20 | 0x21 | 0x23..=0x5b | 0x5d..=0x7e);
        let all: String = (0..=0x10_ffff)
            .filter_map(char::from_u32)
            .step_by(97)
            .collect();
        assert!(told(&all).bytes().all(legal));
        for c in (0..0x3000).filter_map(char::from_u32) {
            assert!(told(&c.to_string()).bytes().all(legal), "{c:?}");
        }
    }
}
