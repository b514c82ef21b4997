//! Calls that were refused, or that got no answer that a client could use.

use std::{borrow::Cow, error::Error};

use axum::body::Body;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::LengthLimitError;
use serde::Serialize;
use serde_json::value::RawValue;

use super::{RETRY_SOON, come_back_after, json, refusal};
use crate::{
    journal::{CallRefused, Limit, UpstreamFailed},
    mcp::{answer, repeated::Contradiction},
    oauth::bearer,
};

/// The methods that are forwarded to upstreams.
const PASSED_ON: HeaderValue =
    HeaderValue::from_static("DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT");

/// Errors of JSON-RPC (2.0 §5.1), of MCP 2026-07-28, and from the range that is left to servers;
/// -32001 is what the SDKs say of a session that they do not know.
const INVALID_REQUEST: i64 = -32600;
const HEADER_MISMATCH: i64 = -32020;
const SESSION_NOT_FOUND: i64 = -32001;
const SERVER_ERROR: i64 = -32000;

/// The page may not call: its `origin` is neither ours, nor on this computer, nor allowed.
pub(crate) fn foreign_origin(origin: &str) -> Response<Body> {
    let description = format!(
        "pages of {origin} may not call this server; its operator can allow them with allowed_origins"
    );
    refusal(StatusCode::FORBIDDEN, "forbidden", &description)
}

/// A call that did not reach its upstream. Before the token is proved good the answer is one of
/// OAuth, after it one of JSON-RPC, with the id of the request.
pub(crate) fn call_refused(
    why: CallRefused,
    detail: Option<&str>,
    id: Option<&str>,
) -> Response<Body> {
    let (status, error, description) = match why {
        CallRefused::Bearer(bearer::Refused::NoToken) => (
            StatusCode::UNAUTHORIZED,
            "unauthorized",
            "this server needs an access token",
        ),
        CallRefused::Bearer(bearer::Refused::InvalidToken) => (
            StatusCode::UNAUTHORIZED,
            "invalid_token",
            "the access token is unknown, expired, revoked or for another resource",
        ),
        CallRefused::Bearer(bearer::Refused::Malformed) => (
            StatusCode::BAD_REQUEST,
            "invalid_request",
            "present one access token, in one Authorization header",
        ),
        _ => return request_refused(why, detail, id),
    };
    refusal(status, error, description)
}

/// A request with a good token that did not reach its upstream.
fn request_refused(why: CallRefused, detail: Option<&str>, id: Option<&str>) -> Response<Body> {
    let bad_request = StatusCode::BAD_REQUEST;
    let (status, code, message) = match why {
        CallRefused::Method => (
            StatusCode::METHOD_NOT_ALLOWED,
            SERVER_ERROR,
            "this HTTP method is not forwarded",
        ),
        CallRefused::Repeated => (
            bad_request,
            INVALID_REQUEST,
            "MCP-Protocol-Version, Mcp-Method, Mcp-Name, Mcp-Session-Id, Last-Event-ID, Content-Type, \
             Content-Encoding and Content-Length may each say one thing; this one says several",
        ),
        CallRefused::Contradiction(Contradiction::Method) => (
            bad_request,
            HEADER_MISMATCH,
            "the header Mcp-Method differs from the method in the body; send the same in both",
        ),
        CallRefused::Contradiction(Contradiction::Name) => (
            bad_request,
            HEADER_MISMATCH,
            "the header Mcp-Name differs from the name in the body; send the same in both",
        ),
        CallRefused::MemberTwice => (
            bad_request,
            INVALID_REQUEST,
            "the body has id, method, params, name, uri, taskId, _meta or the protocol version twice",
        ),
        CallRefused::TooLarge => (
            StatusCode::PAYLOAD_TOO_LARGE,
            INVALID_REQUEST,
            "the request body is too large",
        ),
        CallRefused::Session => (
            StatusCode::NOT_FOUND,
            SESSION_NOT_FOUND,
            "this MCP session does not exist, start a new one",
        ),
        CallRefused::Limit(Limit::StreamsPerGrant) => (
            StatusCode::TOO_MANY_REQUESTS,
            SERVER_ERROR,
            "too many event streams of this connection are open, end one first",
        ),
        CallRefused::Limit(Limit::BriefStreamsPerGrant) => (
            StatusCode::TOO_MANY_REQUESTS,
            SERVER_ERROR,
            "the MCP server behind this proxy keeps ending its event stream at once; ask for it less often",
        ),
        CallRefused::Limit(_) => (
            StatusCode::TOO_MANY_REQUESTS,
            SERVER_ERROR,
            "too many calls came over this connection just now, try again shortly",
        ),
        CallRefused::NoRoom => (
            StatusCode::SERVICE_UNAVAILABLE,
            SERVER_ERROR,
            "too many requests are pending, try again in a few seconds",
        ),
        CallRefused::Body | CallRefused::Bearer(_) => (
            bad_request,
            INVALID_REQUEST,
            "the request body could not be read to its end",
        ),
    };
    let message = match detail {
        Some(detail) => format!("{message}: {detail}"),
        None => message.to_owned(),
    };
    let mut response = rpc_error(status, code, &message, id);
    if why == CallRefused::Method {
        response.headers_mut().insert(header::ALLOW, PASSED_ON);
    }
    if why == CallRefused::NoRoom {
        come_back_after(&mut response, RETRY_SOON);
    }
    response
}

/// The upstream has no stream of messages that a client could listen to.
pub(crate) fn no_stream() -> Response<Body> {
    let message = "the MCP server behind this proxy has no event stream to listen to";
    let mut response = rpc_error(StatusCode::METHOD_NOT_ALLOWED, SERVER_ERROR, message, None);
    response
        .headers_mut()
        .insert(header::ALLOW, HeaderValue::from_static("POST"));
    response
}

/// The upstream failed at a method that it does not know.
pub(crate) fn unknown_method(id: Option<&str>) -> Response<Body> {
    let message = "the MCP server behind this proxy does not know this method";
    rpc_error(StatusCode::NOT_FOUND, answer::METHOD_NOT_FOUND, message, id)
}

/// The upstream failed. Never 401, which would send the client to sign in again; a 404 only where
/// its session has ended. Nothing of the upstream's own answer is shown.
pub(crate) fn upstream_failed(
    why: UpstreamFailed,
    detail: Option<&str>,
    id: Option<&str>,
) -> Response<Body> {
    let detail = detail.unwrap_or_default();
    let bad_gateway = StatusCode::BAD_GATEWAY;
    let (status, message): (_, Cow<'_, str>) = match why {
        UpstreamFailed::SessionLost => {
            let message = "the MCP server behind this proxy no longer knows this session; start a \
                           new one";
            return rpc_error(StatusCode::NOT_FOUND, SESSION_NOT_FOUND, message, id);
        }
        UpstreamFailed::Unreachable => (bad_gateway, "cannot be reached".into()),
        UpstreamFailed::TimedOut => (StatusCode::GATEWAY_TIMEOUT, "did not answer in time".into()),
        UpstreamFailed::Broken => (bad_gateway, "broke off the connection".into()),
        UpstreamFailed::CredentialRefused => (
            bad_gateway,
            "does not accept the proxy's credential; the operator of the proxy has to renew it".into(),
        ),
        UpstreamFailed::CredentialMissing => (
            bad_gateway,
            "demands a credential, and the proxy has none for it; the operator of the proxy has to \
             configure one (`credential`, or UPSTREAM_TOKEN)"
                .into(),
        ),
        UpstreamFailed::SignInDemanded => (
            bad_gateway,
            "requires its own OAuth sign-in, which the proxy does not support; the operator of the \
             proxy has to configure a static `credential`, if the server takes one"
                .into(),
        ),
        UpstreamFailed::CallForbidden => (
            bad_gateway,
            "refused this call; the proxy's credential may lack the permission".into(),
        ),
        UpstreamFailed::HostRefused => (
            bad_gateway,
            format!(
                "does not accept the host name {detail}, by which the proxy calls it; the operator \
                 of the proxy has to set its `host` to a name that it accepts, such as localhost"
            )
            .into(),
        ),
        UpstreamFailed::Page => (
            bad_gateway,
            format!(
                "answered with a web page, which is not MCP: a firewall or a sign-in page{detail} \
                 is in front of it, or its address is wrong",
                detail = match detail {
                    "" => String::new(),
                    front => format!(" (probably of {front})"),
                }
            )
            .into(),
        ),
        UpstreamFailed::Redirected => (
            bad_gateway,
            "redirects elsewhere; the operator of the proxy has to correct its address".into(),
        ),
        UpstreamFailed::NothingThere => (
            bad_gateway,
            "has nothing at the path where the proxy looks for it; the address in this client is \
             right, and the operator of the proxy has to correct the `url` of the server"
                .into(),
        ),
        UpstreamFailed::OldTransport => (
            bad_gateway,
            "speaks the HTTP with SSE of 2024, which the proxy does not; the operator of the proxy has \
             to use its Streamable HTTP address, or put a bridge before it"
                .into(),
        ),
        UpstreamFailed::NoTls => (
            bad_gateway,
            "does not speak TLS; the operator of the proxy has to try http:// in the `url` of the server"
                .into(),
        ),
        UpstreamFailed::Untrusted => (
            bad_gateway,
            "has a certificate that the proxy does not trust; the operator of the proxy finds the reason in \
             its log"
                .into(),
        ),
        UpstreamFailed::WantsTls => (
            bad_gateway,
            "speaks TLS; the operator of the proxy has to write https:// in the `url` of the server"
                .into(),
        ),
        UpstreamFailed::NoMcp => (bad_gateway, "does not answer as an MCP server does".into()),
        UpstreamFailed::Looped => (
            StatusCode::LOOP_DETECTED,
            "is configured with an address that leads back to the proxy; the operator of the proxy has to correct \
             it"
                .into(),
        ),
        UpstreamFailed::ServerError => (bad_gateway, "failed".into()),
        UpstreamFailed::Nonsense => (bad_gateway, "sent an invalid HTTP response".into()),
    };
    // A server error of the proxy, from the range that JSON-RPC leaves to implementations.
    let message = format!("the MCP server behind this proxy {message}");
    rpc_error(status, SERVER_ERROR, &message, id)
}

/// An error of JSON-RPC 2.0 for the request whose id was written so, or for one that is not known.
fn rpc_error(status: StatusCode, code: i64, message: &str, id: Option<&str>) -> Response<Body> {
    let id = id.and_then(|id| serde_json::from_str::<&RawValue>(id).ok());
    json(
        status,
        &RpcAnswer {
            jsonrpc: "2.0",
            id,
            error: serde_json::json!({ "code": code, "message": message }),
        },
    )
}

#[derive(Serialize)]
struct RpcAnswer<'a> {
    jsonrpc: &'static str,
    id: Option<&'a RawValue>,
    error: serde_json::Value,
}

/// Whether a failed request body failed by being too long.
pub(crate) fn is_length_limit(error: &(dyn Error + 'static)) -> bool {
    let mut error = Some(error);
    while let Some(cause) = error {
        if cause.is::<LengthLimitError>() {
            return true;
        }
        error = cause.source();
    }
    false
}
