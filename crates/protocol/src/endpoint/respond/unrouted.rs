//! Requests that reach no endpoint: nothing is at their path, or no endpoint may answer them.

use axum::{body::Body, extract::State};
use http::{HeaderValue, Response, StatusCode, Uri, header};

use super::{super::App, RETRY_SOON, come_back_after, refusal};
use crate::journal::{self, Event};

/// There is nothing at this path. JSON, since discovery stumbles over pages. Where there is one MCP
/// server, the answer says where; of several it names none, since their names are for their clients
/// alone. The log always does.
pub(crate) fn not_found(app: &App, uri: &Uri) -> Response<Body> {
    let policy = &app.policy;
    app.journal.record(&Event::NotFound {
        path: &journal::told_path(uri.path()),
        served: &policy.listed_resources(),
    });
    let instead = match &policy.upstreams[..] {
        [_] => format!("the MCP server is at {}", policy.issuer.url("/mcp")),
        _ => "ask the operator for the address of the MCP server".to_owned(),
    };
    let description = format!("there is nothing at this address; {instead}");
    refusal(StatusCode::NOT_FOUND, "not_found", &description)
}

/// The fallback of the router.
pub(crate) async fn nothing_here(State(app): State<App>, uri: Uri) -> Response<Body> {
    not_found(&app, &uri)
}

/// There is something at this path, but not for this method. The router adds `Allow`.
pub(crate) async fn method_not_allowed() -> Response<Body> {
    refusal(
        StatusCode::METHOD_NOT_ALLOWED,
        "invalid_request",
        "this address does not support this method",
    )
}

/// The request has no `Host` header, or several.
pub(crate) fn without_one_host() -> Response<Body> {
    refusal(
        StatusCode::BAD_REQUEST,
        "invalid_request",
        "the request needs exactly one Host header",
    )
}

/// The request came under a name that is not ours.
pub(crate) fn misdirected(app: &App, host: &str) -> Response<Body> {
    let host = journal::told_host(host);
    app.journal.record(&Event::Misdirected { host });
    let description = format!(
        "the request is for a host that is not this server, whose public_url is {}; its operator can \
         add other names as aliases",
        app.policy.issuer,
    );
    refusal(
        StatusCode::MISDIRECTED_REQUEST,
        "invalid_request",
        &description,
    )
}

/// The end of the content is ambiguous (request smuggling), so nothing more is read.
pub(crate) fn without_plain_framing() -> Response<Body> {
    let mut response = refusal(
        StatusCode::BAD_REQUEST,
        "invalid_request",
        "Transfer-Encoding must be chunked, once, or missing",
    );
    response
        .headers_mut()
        .insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

/// The request is one that we sent to an upstream.
pub(crate) fn looped(app: &App) -> Response<Body> {
    app.journal.record(&Event::Looped);
    refusal(
        StatusCode::LOOP_DETECTED,
        "invalid_request",
        "the request came through this proxy before: the address of an MCP server leads back to it",
    )
}

/// The host is out of resources. The connection closes, since it is one of them.
pub fn overloaded() -> Response<Body> {
    let mut response = refusal(
        StatusCode::SERVICE_UNAVAILABLE,
        "temporarily_unavailable",
        "the server is overloaded; try again in a few seconds",
    );
    come_back_after(&mut response, RETRY_SOON);
    response
        .headers_mut()
        .insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}
