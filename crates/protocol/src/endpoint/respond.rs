//! Refusals and faults become responses here, and only here: the one file that knows status codes.

use std::{borrow::Cow, error::Error, time::Duration};

use axum::{body::Body, extract::State};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::LengthLimitError;
use serde::Serialize;
use serde_json::{json, value::RawValue};

use super::{
    App,
    authorize::reminder,
    extract::NoBody,
    pages::{AddressPage, Link, MessagePage},
};
use crate::{
    journal::{self, CallRefused, Endpoint, Event, Limit, UpstreamFailed},
    mcp::{answer, repeated::Contradiction},
    oauth::{
        authorization::{Refusal, ReturnAddress},
        bearer,
        error::{ErrorCode, ForPeople, OAuthError},
    },
    token,
};

const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// After how long a client may try again when the store is in trouble.
const RETRY_SOON: Duration = Duration::from_secs(5);
/// The methods that are passed on to upstreams.
const PASSED_ON: HeaderValue =
    HeaderValue::from_static("DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT");

/// Errors of JSON-RPC (2.0 §5.1), of MCP 2026-07-28, and from the range that is left to servers;
/// -32001 is what the SDKs say of a session that they do not know.
const INVALID_REQUEST: i64 = -32600;
const HEADER_MISMATCH: i64 = -32020;
const SESSION_NOT_FOUND: i64 = -32001;
const SERVER_ERROR: i64 = -32000;

/// A JSON answer that nobody keeps.
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

/// There is nothing at this path. JSON, since discovery stumbles over pages. Where there is one MCP
/// server, the answer says where; of several it names none, since their names are for their clients
/// alone. The log always does.
pub(super) fn not_found(app: &App, uri: &Uri) -> Response<Body> {
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
    json(
        StatusCode::NOT_FOUND,
        &json!({ "error": "not_found", "error_description": description }),
    )
}

/// What every path but ours is answered with.
pub(super) async fn nothing_here(State(app): State<App>, uri: Uri) -> Response<Body> {
    not_found(&app, &uri)
}

/// Whether a request is a browser's that opens the public address, and not an MCP client's.
pub(super) fn is_for_front_page<B>(request: &Request<B>) -> bool {
    request.uri().path() == "/" && opened_in_browser(request).is_some()
}

/// What a person sees who opens the public address in a browser. Programs find nothing there unless
/// it is the address of an MCP server, and unauthenticated callers learn nothing of what is behind it.
pub(super) async fn front_page(State(app): State<App>, request: Request<Body>) -> Response<Body> {
    if !is_for_front_page(&request) {
        return nothing_here(State(app), request.uri().clone()).await;
    }
    let next_step = full_addresses(&app);
    let message = MessagePage {
        title: "This address is for MCP clients",
        explanation: "Programs such as an assistant or an editor come through here to MCP servers, after \
                      a person has approved them.",
        next_step: &next_step,
        ..MessagePage::default()
    };
    page(&app, StatusCode::OK, message.render())
}

/// Which address goes into a client. Only a proxy for this computer alone names them on a page.
fn full_addresses(app: &App) -> String {
    let policy = &app.policy;
    if policy.issuer.is_https() {
        return format!(
            "Ask the operator of this proxy for the full address of the server that you want. It begins \
             with {}/ and goes into your MCP client, not into a browser. If you run this proxy, its \
             start printed the addresses, and the command check prints them again.",
            policy.issuer
        );
    }
    let addresses = policy.upstreams.iter().map(|it| it.resource.as_str());
    let addresses: Vec<&str> = addresses.collect();
    format!("Put this into your MCP client: {}", addresses.join(" or "))
}

/// The path that a person opened in a browser, which says that it wants a page. MCP clients, which
/// have a token or ask for other types, do not say so; and where they look for documents there is
/// never a page, since discovery stumbles over one.
pub(super) fn opened_in_browser<B>(request: &Request<B>) -> Option<String> {
    let headers = request.headers();
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    if !is_read || headers.contains_key(header::AUTHORIZATION) {
        return None;
    }
    let accepts = |essence: &[u8]| {
        headers.get_all(header::ACCEPT).iter().any(|it| {
            let accepted = it.as_bytes().split(|byte| *byte == b',');
            accepted.map(<[u8]>::trim_ascii).any(|range| {
                let range = range.split(|byte| *byte == b';').next();
                range.is_some_and(|it| it.trim_ascii().eq_ignore_ascii_case(essence))
            })
        })
    };
    let path = request.uri().path();
    let wants_page = accepts(b"text/html")
        && !accepts(b"text/event-stream")
        && !path.starts_with("/.well-known/");
    wants_page.then(|| path.to_owned())
}

/// The same refusal as a page, for a person who opened `path` in a browser. Status, challenge and
/// `Allow` stay; what is no refusal in JSON is left as it is.
pub(super) fn for_browser(app: &App, path: &str, response: Response<Body>) -> Response<Body> {
    if response.headers().get(header::CONTENT_TYPE) != Some(&JSON) {
        return response;
    }
    let next_step = full_addresses(app);
    let message = match response.status() {
        StatusCode::UNAUTHORIZED => {
            let policy = &app.policy;
            let plain = path.strip_suffix('/').unwrap_or(path);
            let at_path = policy.upstreams.iter().find(|it| it.path == plain);
            let (upstream, address) = match (at_path, policy.upstreams.first()) {
                (Some(upstream), _) => (upstream, policy.issuer.url(path)),
                (None, Some(upstream)) => (upstream, upstream.resource.to_string()),
                (None, None) => return response,
            };
            AddressPage::new(&upstream.title, &upstream.name, &address).html()
        }
        StatusCode::NOT_FOUND => MessagePage {
            title: "There is nothing at this address",
            explanation: "The address may be mistyped, or of a server that is not here any more.",
            next_step: &next_step,
            ..MessagePage::default()
        }
        .render(),
        StatusCode::METHOD_NOT_ALLOWED => MessagePage {
            title: "There is no page at this address",
            explanation: "It is for programs, or for a form that was sent before. Nothing was approved or \
                          changed by opening it.",
            next_step: "If you came from an approval page, go back to your app and connect again.",
            ..MessagePage::default()
        }
        .render(),
        _ => return response,
    };
    let mut page = page(app, response.status(), message);
    for name in [header::WWW_AUTHENTICATE, header::ALLOW] {
        if let Some(value) = response.headers().get(&name) {
            page.headers_mut().insert(name, value.clone());
        }
    }
    page
}

/// There is something at this path, but not for this method. The router adds `Allow`.
pub(super) async fn method_not_allowed() -> Response<Body> {
    json(
        StatusCode::METHOD_NOT_ALLOWED,
        &json!({ "error": "invalid_request", "error_description": "this address does not take this method" }),
    )
}

/// The request came under a name that is not ours.
pub(super) fn misdirected(app: &App, host: &str) -> Response<Body> {
    let host = journal::told_host(host);
    app.journal.record(&Event::Misdirected { host });
    json(
        StatusCode::MISDIRECTED_REQUEST,
        &json!({
            "error": "invalid_request",
            "error_description": format!(
                "the request is for a host that is not this server, whose public_url is {}; its \
                 operator can add other names as aliases",
                app.policy.issuer,
            ),
        }),
    )
}

/// Where the content ends is a matter of opinion, and so is what begins there: nothing more is read.
pub(super) fn without_plain_framing() -> Response<Body> {
    let mut response = json(
        StatusCode::BAD_REQUEST,
        &json!({ "error": "invalid_request", "error_description": "the only Transfer-Encoding is chunked, once" }),
    );
    response
        .headers_mut()
        .insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

/// The request is one that we sent to an upstream.
pub(super) fn looped(app: &App) -> Response<Body> {
    app.journal.record(&Event::Looped);
    json(
        StatusCode::LOOP_DETECTED,
        &json!({
            "error": "invalid_request",
            "error_description": "the request came through this proxy before: the address of an MCP server leads back to it",
        }),
    )
}

/// The request does not say where it goes, or says it twice.
pub(super) fn without_one_host() -> Response<Body> {
    json(
        StatusCode::BAD_REQUEST,
        &json!({ "error": "invalid_request", "error_description": "the request needs exactly one Host header" }),
    )
}

/// The host cannot take on more than it has. The connection closes, since it is a part of that.
pub fn overloaded() -> Response<Body> {
    let mut response = json(
        StatusCode::SERVICE_UNAVAILABLE,
        &json!({ "error": "temporarily_unavailable", "error_description": "the server is overloaded; try again in a few seconds" }),
    );
    let headers = response.headers_mut();
    headers.insert(header::RETRY_AFTER, seconds(RETRY_SOON).into());
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
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

/// A refusal to a program. `by_header`: it authenticated with the `Authorization` header, so the
/// answer must name that scheme.
pub(super) fn refused(
    app: &App,
    endpoint: Endpoint,
    error: &OAuthError,
    by_header: bool,
) -> Response<Body> {
    let status = status_of(error.code);
    note(app, endpoint, error);
    let mut response = json(
        status,
        &json!({ "error": error.code, "error_description": error.description }),
    );
    let headers = response.headers_mut();
    if status == StatusCode::UNAUTHORIZED && by_header {
        headers.insert(
            header::WWW_AUTHENTICATE,
            HeaderValue::from_static("Basic realm=\"mcp-oauth-proxy\""),
        );
    }
    tell_when_to_retry(headers, error);
    response
}

/// Says in `Retry-After` when to come back, in whole seconds.
fn tell_when_to_retry(headers: &mut HeaderMap, error: &OAuthError) {
    let soon = (error.code == ErrorCode::TemporarilyUnavailable).then_some(RETRY_SOON);
    if let Some(wait) = error.retry_after.or(soon) {
        headers.insert(header::RETRY_AFTER, seconds(wait).into());
    }
}

/// Says when a refused call may be tried again.
pub(super) fn come_back_after(response: &mut Response<Body>, wait: Duration) {
    response
        .headers_mut()
        .insert(header::RETRY_AFTER, seconds(wait).into());
}

/// Whole seconds that are not too few.
fn seconds(wait: Duration) -> u64 {
    let begun = u64::from(wait.subsec_nanos() > 0);
    (wait.as_secs() + begun).max(1)
}

/// A request body that was not taken, to a program.
pub(super) fn no_body(app: &App, endpoint: Endpoint, why: &NoBody) -> Response<Body> {
    let (status, error) = unreadable(endpoint, why);
    note(app, endpoint, &error);
    let mut response = json(
        status,
        &json!({ "error": error.code, "error_description": error.description }),
    );
    tell_when_to_retry(response.headers_mut(), &error);
    response
}

/// A request body that was not taken, to a person.
pub(super) fn no_body_page(app: &App, endpoint: Endpoint, why: &NoBody) -> Response<Body> {
    let (status, error) = unreadable(endpoint, why);
    note(app, endpoint, &error);
    error_page(app, status, &error, None)
}

fn unreadable(endpoint: Endpoint, why: &NoBody) -> (StatusCode, OAuthError) {
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
                "too many requests are waited for, try again in a few seconds",
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

/// A refusal at the authorization endpoint that must not travel: the redirect URI is not proved.
pub(super) fn refused_page(app: &App, endpoint: Endpoint, error: &OAuthError) -> Response<Body> {
    let request_id = note(app, endpoint, error);
    error_page(app, status_of(error.code), error, request_id.as_deref())
}

fn error_page(
    app: &App,
    status: StatusCode,
    error: &OAuthError,
    request_id: Option<&str>,
) -> Response<Body> {
    let (title, usual) = if status.is_server_error() {
        let usual = ForPeople {
            what: "Something that this proxy needs is not there just now.".into(),
            next_step: "Wait a moment, then start again from your app.".into(),
        };
        ("This does not work right now", usual)
    } else {
        let usual = ForPeople {
            what: "The app that sent you here made a request that this proxy cannot accept.".into(),
            next_step: "Close this page and connect again from your app. If it happens again, remove \
                        the connection there and add it anew. If that does not help, show this page \
                        to the operator of this proxy: the same words are in its log."
                .into(),
        };
        ("This request cannot be approved", usual)
    };
    let words = error.for_people.as_deref().unwrap_or(&usual);
    let client = client_of(error);
    let page = MessagePage {
        title,
        explanation: &words.what,
        next_step: &words.next_step,
        details: details(error, client.as_deref(), request_id),
        ..MessagePage::default()
    };
    let mut response = self::page(app, status, page.render());
    tell_when_to_retry(response.headers_mut(), error);
    response
}

/// The client that was refused, in one line. Of one that has no name here, or is unknown, the page
/// tells nothing: it is the same for every caller.
fn client_of(error: &OAuthError) -> Option<String> {
    let client = error.client.as_deref()?;
    match client.name.trim() {
        "" => None,
        name => Some(format!("{name} ({})", client.client_id)),
    }
}

/// The small print of a refusal.
fn details<'a>(
    error: &'a OAuthError,
    client: Option<&'a str>,
    request_id: Option<&'a str>,
) -> Vec<(&'a str, &'a str)> {
    let app = client.map(|client| ("App", client));
    let reference = request_id.map(|id| ("Reference", id));
    let reason = ("The reason", &*error.description);
    app.into_iter().chain([reason]).chain(reference).collect()
}

/// A refusal that the client is told about at its own, proved, redirect URI.
pub(super) fn refused_to_client(app: &App, refusal: &Refusal) -> Response<Body> {
    note(app, Endpoint::Authorize, &refusal.error);
    see_other(&refusal.to.with_error(&refusal.error, &app.policy.issuer))
}

/// The same when nobody here knows who is at that URI: a person decides whether to go there.
/// Otherwise a link that starts with our name would lead wherever a stranger wants (RFC 9700
/// §4.11.2).
pub(super) fn refused_to_stranger(app: &App, refusal: &Refusal) -> Response<Body> {
    note(app, Endpoint::Authorize, &refusal.error);
    let error = &refusal.error;
    let href = refusal.to.with_error(error, &app.policy.issuer);
    let place = refusal.to.redirect_uri.place();
    let words = error.for_people.as_deref();
    let client = client_of(error);
    let message = MessagePage {
        title: "This request cannot be approved",
        explanation: words.map_or(
            "The app that sent you here made a request that this proxy cannot accept.",
            |words| &words.what,
        ),
        next_step: "If you have just started this in an app that you trust, go back and tell it. \
                    If not, close this page.",
        link: Some(Link {
            href: &href,
            words: "Go to",
            place: &place,
        }),
        details: details(error, client.as_deref(), None),
        ..MessagePage::default()
    };
    page(app, status_of(error.code), message.render())
}

/// What a person decided.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Decided {
    Approved,
    Denied,
}

/// Takes the answer of a person back to the client at `location`, which is made from `to`. Websites
/// and programs that listen on this computer show a page of their own. A link of an app the browser
/// hands to the system and stays where it is, so there it gets a page that says what happened.
pub(super) fn back_to_client(
    app: &App,
    to: &ReturnAddress,
    location: &str,
    decided: Decided,
) -> Response<Body> {
    if !to.redirect_uri.is_app_link() {
        return see_other(location);
    }
    let (title, explanation) = match decided {
        Decided::Approved => (
            "Done. You can close this page.",
            "You approved the connection, and the app has been given the answer.",
        ),
        Decided::Denied => (
            "Denied. You can close this page.",
            "The app gets no access, and has been told so.",
        ),
    };
    let message = MessagePage {
        title,
        explanation,
        next_step: "Go back to the app. If your browser asks whether to open it, allow that. If the \
                    app did not open, use this link.",
        link: Some(Link {
            href: location,
            words: "Open the app:",
            place: &to.redirect_uri.place(),
        }),
        goes_to: Some(location),
        ..MessagePage::default()
    };
    page(app, StatusCode::OK, message.render())
}

/// Takes the browser somewhere with a GET, whatever it sent (RFC 9700 §4.12).
pub(super) fn see_other(location: &str) -> Response<Body> {
    let mut response = empty(StatusCode::SEE_OTHER);
    let location =
        HeaderValue::try_from(location).expect("redirect URIs are ASCII, parameters are encoded");
    let headers = response.headers_mut();
    headers.insert(header::LOCATION, location);
    headers.insert(
        header::REFERRER_POLICY,
        HeaderValue::from_static("no-referrer"),
    );
    response
}

/// A page for a person, with everything that keeps it from being framed, cached or read along.
/// No `form-action`: browsers hold it against the whole way back to the client.
pub(super) fn page(app: &App, status: StatusCode, html: String) -> Response<Body> {
    let mut response = Response::new(Body::from(html));
    *response.status_mut() = status;
    let headers: &mut HeaderMap = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/html; charset=utf-8"),
    );
    headers.insert(header::CACHE_CONTROL, NO_STORE);
    headers.insert(
        header::CONTENT_SECURITY_POLICY,
        app.content_security_policy.clone(),
    );
    for (name, value) in [
        ("cross-origin-opener-policy", "same-origin"),
        ("referrer-policy", "no-referrer"),
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// What a person is told when there is nothing to approve.
pub(super) enum Notice {
    /// The form was not sent from the browser that it was shown in.
    ForeignForm,
    Expired,
    AlreadyApproved,
    AlreadyDenied,
    TooManyAttempts {
        wait: Duration,
    },
    /// So many wrong attempts came from the page that it is worth nothing any more.
    PageSpent,
    TooManyDenials {
        wait: Duration,
    },
}

/// The page that says so.
pub(super) fn notice(app: &App, notice: &Notice) -> Response<Body> {
    let start_again = "Go back to your app and connect again.";
    let waiting;
    let (status, title, explanation, next_step) = match notice {
        Notice::ForeignForm => (
            StatusCode::FORBIDDEN,
            "This page was not opened here",
            "The form did not come from the browser window that it was shown in, or cookies are \
             blocked, or it was open for too long.",
            start_again,
        ),
        Notice::Expired => (
            StatusCode::BAD_REQUEST,
            "This page has expired",
            "It was open for too long, so nothing was approved.",
            start_again,
        ),
        Notice::AlreadyApproved => (
            StatusCode::CONFLICT,
            "This was approved already",
            "The app was approved from this page before, so it cannot be denied here any more.",
            "To take the approval back, disconnect the app.",
        ),
        Notice::AlreadyDenied => (
            StatusCode::CONFLICT,
            "This was denied already",
            "The app was denied from this page before, so it cannot be approved here any more.",
            start_again,
        ),
        Notice::TooManyAttempts { wait } => {
            let time = match seconds(*wait) {
                few @ 0..90 => format!("{few} seconds"),
                many => format!("{} minutes", many.div_ceil(60)),
            };
            let reminder = reminder(app).unwrap_or_default();
            waiting = format!(
                "Wait {time}, then go back to your app and connect again; this page may have expired \
                 by then. {reminder}"
            );
            (
                StatusCode::TOO_MANY_REQUESTS,
                "Too many wrong attempts",
                "To keep others from guessing, no further attempt is accepted for now.",
                waiting.trim_end(),
            )
        }
        Notice::PageSpent => (
            StatusCode::FORBIDDEN,
            "Too many wrong attempts",
            "So many wrong attempts were made from this page that nothing can be approved from it \
             any more.",
            start_again,
        ),
        Notice::TooManyDenials { .. } => (
            StatusCode::TOO_MANY_REQUESTS,
            "Nothing was approved",
            "So many requests were denied just now that this one is not written down.",
            "Close this page: without an approval the app gets nothing.",
        ),
    };
    let message = MessagePage {
        title,
        explanation,
        next_step,
        ..MessagePage::default()
    };
    let mut response = page(app, status, message.render());
    if let Notice::TooManyAttempts { wait } | Notice::TooManyDenials { wait } = notice {
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, seconds(*wait).into());
    }
    response
}

/// The page that calls may not, as `origin` is not ours, nor of this computer, nor allowed.
pub(super) fn foreign_origin(origin: &str) -> Response<Body> {
    let description = format!(
        "pages of {origin} may not call this server; its operator can allow them with allowed_origins"
    );
    json(
        StatusCode::FORBIDDEN,
        &json!({ "error": "forbidden", "error_description": description }),
    )
}

/// A call that did not reach its upstream. Before the token is proved good the answer is one of
/// OAuth, after it one of JSON-RPC, with the id of the request.
pub(super) fn call_refused(
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
    json(
        status,
        &json!({ "error": error, "error_description": description }),
    )
}

/// A request with a good token that did not reach its upstream.
fn request_refused(why: CallRefused, detail: Option<&str>, id: Option<&str>) -> Response<Body> {
    let bad_request = StatusCode::BAD_REQUEST;
    let (status, code, message) = match why {
        CallRefused::Method => (
            StatusCode::METHOD_NOT_ALLOWED,
            SERVER_ERROR,
            "this HTTP method is not passed on",
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
            "the MCP server behind this proxy ends its event stream at once, again and again; ask for it less often",
        ),
        CallRefused::Limit(_) => (
            StatusCode::TOO_MANY_REQUESTS,
            SERVER_ERROR,
            "too many calls came over this connection just now, try again shortly",
        ),
        CallRefused::NoRoom => (
            StatusCode::SERVICE_UNAVAILABLE,
            SERVER_ERROR,
            "too many requests are waited for, try again in a few seconds",
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

/// An error of JSON-RPC 2.0 for the request whose id was written so, or for one that is not known.
fn rpc_error(status: StatusCode, code: i64, message: &str, id: Option<&str>) -> Response<Body> {
    let id = id.and_then(|id| serde_json::from_str::<&RawValue>(id).ok());
    json(
        status,
        &RpcAnswer {
            jsonrpc: "2.0",
            id,
            error: json!({ "code": code, "message": message }),
        },
    )
}

#[derive(Serialize)]
struct RpcAnswer<'a> {
    jsonrpc: &'static str,
    id: Option<&'a RawValue>,
    error: serde_json::Value,
}

/// The upstream has no stream of messages that a client could listen to.
pub(super) fn no_stream() -> Response<Body> {
    let message = "the MCP server behind this proxy has no event stream to listen to";
    let mut response = rpc_error(StatusCode::METHOD_NOT_ALLOWED, SERVER_ERROR, message, None);
    response
        .headers_mut()
        .insert(header::ALLOW, HeaderValue::from_static("POST"));
    response
}

/// The upstream failed at a method that it does not know.
pub(super) fn unknown_method(id: Option<&str>) -> Response<Body> {
    let message = "the MCP server behind this proxy does not know this method";
    rpc_error(StatusCode::NOT_FOUND, answer::METHOD_NOT_FOUND, message, id)
}

/// The upstream's part failed. Never 401, which would send the client to sign in again; a 404 only
/// where its session has ended. Nothing of the upstream's own answer is shown.
pub(super) fn upstream_failed(
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
            "signs people in itself (OAuth), which the proxy does not support; the operator of the \
             proxy has to configure a static `credential`, if the server takes one"
                .into(),
        ),
        UpstreamFailed::CallForbidden => (
            bad_gateway,
            "refused this call; the proxy's credential may not have the right to make it".into(),
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
                 stands before it, or its address is wrong",
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
        UpstreamFailed::Looped => (
            StatusCode::LOOP_DETECTED,
            "has an address that leads back to the proxy; the operator of the proxy has to correct \
             it"
                .into(),
        ),
        UpstreamFailed::ServerError => (bad_gateway, "failed".into()),
        UpstreamFailed::Nonsense => (bad_gateway, "gave an answer that is no HTTP answer".into()),
    };
    // A server error of the proxy, from the range that JSON-RPC leaves to implementations.
    let message = format!("the MCP server behind this proxy {message}");
    rpc_error(status, SERVER_ERROR, &message, id)
}

/// Whether a failed request body failed by being too long.
pub(super) fn is_length_limit(error: &(dyn Error + 'static)) -> bool {
    let mut error = Some(error);
    while let Some(cause) = error {
        if cause.is::<LengthLimitError>() {
            return true;
        }
        error = cause.source();
    }
    false
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
    let request_id = &*request_id;
    app.journal.record(&match error.cause() {
        Some(damaged) => Event::RecordDamaged {
            endpoint,
            request_id,
            damaged,
        },
        None => Event::Failed {
            endpoint,
            request_id,
            cause: error,
        },
    });
    Some(request_id.to_owned())
}
