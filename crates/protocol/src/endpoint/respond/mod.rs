//! Refusals and failures become responses here: status, headers and words. Endpoints make their
//! successful answers themselves, and show the consent page again after a wrong passphrase.
//!
//! | File | Answers |
//! | --- | --- |
//! | `unrouted.rs` | requests that reach no endpoint: unknown path, wrong method, host or framing, overload |
//! | `oauth.rs` | programs at the OAuth endpoints, in JSON |
//! | `mcp.rs` | MCP clients, whose call was refused or got no usable answer |
//! | `authorization.rs` | authorization requests, at the redirect URI or on a page |
//! | `notice.rs` | people whose consent form approves nothing |
//! | `browser.rs` | people who open an address that is for programs |
//! | `page.rs` | with any page: the headers that keep it from being framed, cached or read along |

mod authorization;
mod browser;
mod mcp;
mod notice;
mod oauth;
mod page;
mod unrouted;

use std::time::Duration;

use axum::body::Body;
use http::{HeaderValue, Response, StatusCode, header};
use serde::Serialize;
use serde_json::json;

pub use self::unrouted::overloaded;
pub(super) use self::{
    authorization::{
        Decided, back_to_client, no_body_page, refused_page, refused_to_client, refused_to_stranger,
    },
    browser::{for_browser, front_page, is_for_front_page, opened_in_browser},
    mcp::{
        call_refused, foreign_origin, is_length_limit, no_stream, unknown_method, upstream_failed,
    },
    notice::{Notice, notice, time_of_day},
    oauth::{no_body, refused},
    page::page,
    unrouted::{
        looped, method_not_allowed, misdirected, not_found, nothing_here, without_one_host,
        without_plain_framing,
    },
};
use super::App;
use crate::{
    journal::{self, Endpoint, Event},
    oauth::error::{ErrorCode, OAuthError},
    token,
};

const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// After how long a client may try again when the store is in trouble.
const RETRY_SOON: Duration = Duration::from_secs(5);

/// A JSON answer that must not be cached.
pub(super) fn json<T: Serialize + ?Sized>(status: StatusCode, document: &T) -> Response<Body> {
    let text = serde_json::to_vec(document).expect("our documents are strings, numbers and lists");
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, JSON);
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, NO_STORE);
    response
}

/// An answer without content.
pub(super) fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, NO_STORE);
    response
}

/// A refusal as OAuth writes it (RFC 6749 §5.2).
fn refusal(status: StatusCode, error: impl Serialize, description: &str) -> Response<Body> {
    json(
        status,
        &json!({ "error": error, "error_description": description }),
    )
}

/// The status that goes with an error code at an endpoint for programs (RFC 6749 §5.2).
fn status_of(code: ErrorCode) -> StatusCode {
    match code {
        ErrorCode::InvalidClient | ErrorCode::InvalidToken => StatusCode::UNAUTHORIZED,
        ErrorCode::AccessDenied => StatusCode::FORBIDDEN,
        ErrorCode::ServerError => StatusCode::INTERNAL_SERVER_ERROR,
        ErrorCode::TemporarilyUnavailable => StatusCode::SERVICE_UNAVAILABLE,
        ErrorCode::TooManyRequests => StatusCode::TOO_MANY_REQUESTS,
        _ => StatusCode::BAD_REQUEST,
    }
}

/// Says when a request may be tried again, if its error goes away by waiting.
fn tell_when_to_retry(response: &mut Response<Body>, error: &OAuthError) {
    let soon = (error.code == ErrorCode::TemporarilyUnavailable).then_some(RETRY_SOON);
    if let Some(wait) = error.retry_after.or(soon) {
        come_back_after(response, wait);
    }
}

/// Says in `Retry-After` when a request may be tried again.
pub(super) fn come_back_after(response: &mut Response<Body>, wait: Duration) {
    response
        .headers_mut()
        .insert(header::RETRY_AFTER, seconds(wait).into());
}

/// Whole seconds, rounded up.
fn seconds(wait: Duration) -> u64 {
    let begun = u64::from(wait.subsec_nanos() > 0);
    (wait.as_secs() + begun).max(1)
}

/// Writes a refusal into the journal, once; a failure with its cause, and an id that names it.
fn note(app: &App, endpoint: Endpoint, error: &OAuthError) -> Option<String> {
    if error.code == ErrorCode::TooManyRequests {
        // The limit has said so.
        return None;
    }
    if !matches!(
        error.code,
        ErrorCode::ServerError | ErrorCode::TemporarilyUnavailable
    ) {
        let presented = error.presented.as_deref().map(journal::told_url);
        app.journal.record(&Event::Refused {
            endpoint,
            error: error.code,
            description: &error.description,
            presented: presented.as_deref(),
            detail: error.detail.as_deref(),
            client: error.client.as_deref(),
        });
        return None;
    }
    let request_id = token::random_name(&*app.ports.entropy);
    app.journal.record(&match error.cause() {
        Some(damaged) => Event::RecordDamaged {
            endpoint,
            request_id: &request_id,
            damaged,
        },
        None => Event::Failed {
            endpoint,
            request_id: &request_id,
            cause: error,
        },
    });
    Some(request_id)
}
