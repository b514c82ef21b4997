//! What is wrong with an upstream's answer, or with the lack of one, in a call as in a trial.

use http::{HeaderMap, StatusCode, Uri, response::Parts, uri::Scheme};

use crate::{
    forward::{headers, redirect, shown_address::shown_authority},
    journal::UpstreamFailed,
    mcp::{answer, message::Message},
    policy::{Destination, UpstreamPolicy},
    ports::UpstreamError,
};

/// What it means that no answer came. `None`: that was the client's doing.
pub(super) fn of_error(error: &UpstreamError) -> Option<UpstreamFailed> {
    match error {
        UpstreamError::Unreachable(_) => Some(UpstreamFailed::Unreachable),
        UpstreamError::NoTls(_) => Some(UpstreamFailed::NoTls),
        UpstreamError::Untrusted(_) => Some(UpstreamFailed::Untrusted),
        UpstreamError::TimedOut => Some(UpstreamFailed::TimedOut),
        UpstreamError::Broken(_) => Some(UpstreamFailed::Broken),
        UpstreamError::RequestBody(_) => None,
    }
}

/// What is wrong with an answer whose body is `text`, as far as that was read. `None`: it can reach a
/// client as it is. `is_opening` is whether it answers `initialize`, which every server knows.
pub(super) fn of_answer(
    upstream: &UpstreamPolicy,
    theirs: &Parts,
    text: &[u8],
    is_opening: bool,
) -> Option<UpstreamFailed> {
    let status = theirs.status;
    if answer::is_about_host(status, text) {
        return Some(UpstreamFailed::HostRefused);
    }
    if answer::wants_tls(status, text) && is_called_without_tls(upstream) {
        return Some(UpstreamFailed::WantsTls);
    }
    let is_page = headers::is_page(&theirs.headers);
    Some(match status.as_u16() {
        401 => refused_credential(upstream, &theirs.headers, is_page),
        403 | 407 if is_page => UpstreamFailed::Page,
        403 | 407 => UpstreamFailed::CallForbidden,
        429 => return None,
        502 | 503 => UpstreamFailed::ServerError,
        504 => UpstreamFailed::TimedOut,
        508 => UpstreamFailed::Looped,
        300..=399 if status != StatusCode::NOT_MODIFIED => UpstreamFailed::Redirected,
        // Many frameworks have a page for that.
        404 | 405 if is_opening && !is_rpc_error(text) => UpstreamFailed::NothingThere,
        _ if is_page => UpstreamFailed::Page,
        500..=599 => UpstreamFailed::ServerError,
        _ if is_passed_on(status) => return None,
        _ => UpstreamFailed::Nonsense,
    })
}

/// What a 401 means.
fn refused_credential(
    upstream: &UpstreamPolicy,
    theirs: &HeaderMap,
    is_page: bool,
) -> UpstreamFailed {
    if upstream.destination.has_credential() {
        if answer::wants_more_scope(theirs) {
            UpstreamFailed::CallForbidden
        } else {
            UpstreamFailed::CredentialRefused
        }
    } else if answer::signs_people_in(theirs) {
        UpstreamFailed::SignInDemanded
    } else if is_page {
        UpstreamFailed::Page
    } else {
        UpstreamFailed::CredentialMissing
    }
}

/// Whether a text is an error of JSON-RPC, whatever it answers.
pub(super) fn is_rpc_error(text: &[u8]) -> bool {
    Message::read(text).is_ok_and(|message| message.error.is_some())
}

/// Whether an answer of this status may reach the client as it is. Others would send it away to
/// sign in elsewhere, to another place, or into a wrong conclusion.
pub(super) fn is_passed_on(status: StatusCode) -> bool {
    matches!(
        status.as_u16(),
        200..=299 | 304 | 400 | 402 | 404..=406 | 408..=420 | 422..=499
    )
}

pub(super) fn is_called_without_tls(upstream: &UpstreamPolicy) -> bool {
    endpoint(upstream).and_then(Uri::scheme) == Some(&Scheme::HTTP)
}

pub(super) fn endpoint(upstream: &UpstreamPolicy) -> Option<&Uri> {
    match &upstream.destination {
        Destination::Remote { endpoint, .. } => Some(endpoint),
        Destination::Demo => None,
    }
}

/// What the operator needs to know of a failure.
pub(super) fn detail(
    why: UpstreamFailed,
    upstream: &UpstreamPolicy,
    theirs: &Parts,
) -> Option<String> {
    let endpoint = endpoint(upstream)?;
    match why {
        UpstreamFailed::HostRefused => Some(upstream.headers.host().map_or_else(
            || shown_authority(endpoint),
            |host| host.to_str().unwrap_or_default().to_owned(),
        )),
        UpstreamFailed::Redirected => redirect::leads_to(&theirs.headers, endpoint),
        UpstreamFailed::Page => answer::front(&theirs.headers).map(str::to_owned),
        _ => None,
    }
}
