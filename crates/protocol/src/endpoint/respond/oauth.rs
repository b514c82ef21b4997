//! Refusals to programs at the endpoints of OAuth, and bodies that no endpoint can read.

use std::borrow::Cow;

use axum::body::Body;
use http::{HeaderValue, Response, StatusCode, header};

use super::{
    super::{App, extract::NoBody},
    note, refusal, status_of, tell_when_to_retry,
};
use crate::{
    journal::Endpoint,
    oauth::error::{ErrorCode, OAuthError},
};

/// A refusal to a program. `by_header`: it authenticated with the `Authorization` header, so the
/// answer must name that scheme.
pub(crate) fn refused(
    app: &App,
    endpoint: Endpoint,
    error: &OAuthError,
    by_header: bool,
) -> Response<Body> {
    let status = status_of(error.code);
    note(app, endpoint, error);
    let mut response = refusal(status, error.code, &error.description);
    if status == StatusCode::UNAUTHORIZED && by_header {
        response.headers_mut().insert(
            header::WWW_AUTHENTICATE,
            HeaderValue::from_static("Basic realm=\"mcp-oauth-proxy\""),
        );
    }
    tell_when_to_retry(&mut response, error);
    response
}

/// A request body that was not taken, to a program.
pub(crate) fn no_body(app: &App, endpoint: Endpoint, why: &NoBody) -> Response<Body> {
    let (status, error) = unreadable(endpoint, why);
    note(app, endpoint, &error);
    let mut response = refusal(status, error.code, &error.description);
    tell_when_to_retry(&mut response, &error);
    response
}

/// The status and error of a request body that was not taken.
pub(super) fn unreadable(endpoint: Endpoint, why: &NoBody) -> (StatusCode, OAuthError) {
    let (status, description) = match why {
        NoBody::TooLarge => (
            StatusCode::PAYLOAD_TOO_LARGE,
            "the request body is too large".into(),
        ),
        NoBody::Broken => (
            StatusCode::BAD_REQUEST,
            "the request body could not be read to its end".into(),
        ),
        NoBody::Type(came) => {
            let expected = match endpoint {
                Endpoint::Register => "application/json",
                _ => "application/x-www-form-urlencoded",
            };
            let came = if came.is_empty() { "missing" } else { came };
            let description = format!("the Content-Type must be {expected}, but it is {came}");
            (StatusCode::BAD_REQUEST, Cow::Owned(description))
        }
        NoBody::NoRoom => {
            let error = OAuthError::new(
                ErrorCode::TemporarilyUnavailable,
                "too many requests are pending, try again in a few seconds",
            );
            return (status_of(error.code), error);
        }
    };
    let error = match endpoint {
        Endpoint::Register => OAuthError::invalid_client_metadata(description),
        _ => OAuthError::invalid_request(description),
    };
    (status, error)
}
