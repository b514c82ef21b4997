//! The error codes of OAuth and what stands beside them.

use std::{borrow::Cow, error::Error, fmt, sync::Arc, time::Duration};

use serde::Serialize;

use crate::ports::StoreError;

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
    /// For the client's developer. Nothing of the request is copied into it, and it keeps to the
    /// characters of RFC 6749 §5.2.
    pub description: Cow<'static, str>,
    /// The value that was refused, as it came. For the log alone.
    pub presented: Option<String>,
    /// How long the client is to wait before it tries again, if that is known.
    pub retry_after: Option<Duration>,
    #[source]
    cause: Option<Arc<dyn Error + Send + Sync>>,
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
            retry_after: None,
            cause: None,
        }
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
            presented: Some(value.to_owned()),
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
        Self {
            code: ErrorCode::TemporarilyUnavailable,
            description: Cow::Borrowed("the server cannot reach its store, try again shortly"),
            presented: None,
            retry_after: None,
            cause: Some(Arc::new(cause)),
        }
    }
}
