//! From the client's request to the upstream's: which era it speaks, which session it means, which
//! headers cross, and last the credential, over whatever is there.

use std::{net::IpAddr, sync::atomic::Ordering};

use axum::body::Body;
use bytes::Bytes;
use http::{Extensions, HeaderMap, HeaderValue, Method, Request, header, request::Parts};
use http_body::Body as _;
use http_body_util::{BodyExt as _, Limited};

use super::{
    super::{
        App,
        extract::{self, NoBody, Permit},
    },
    body::{Ahead, LONGEST},
    exchange::{Exchange, Refusal},
    sessions,
};
use crate::{
    forward::{
        client_address::client_address,
        headers::{
            self, CDN_LOOP, LAST_EVENT_ID, MCP_METHOD, MCP_NAME, MCP_PROTOCOL_VERSION,
            MCP_SESSION_ID, SaysTwo,
        },
    },
    journal::{CallRefused, Event},
    mcp::{
        era::{self, LISTEN, Signs},
        message::{Message, NotRead},
        repeated::{self, Contradiction},
        revision::{Era, Revision},
        session::Session,
    },
    policy::Destination,
};

/// A request that may go to its upstream.
#[expect(
    clippy::struct_excessive_bools,
    reason = "facts of a request that have nothing to do with each other"
)]
pub(super) struct Call {
    pub(super) request: Request<Body>,
    /// The whole body, if it was read and is short. A long one is let go as the upstream takes it.
    pub(super) read: Option<Bytes>,
    pub(super) era: Era,
    /// The session that the request is in.
    pub(super) session: Option<Session>,
    /// That session as the client named it.
    pub(super) named: Option<HeaderValue>,
    /// Whether it is `initialize`.
    pub(super) is_opening: bool,
    /// Whether only the version header says that it is of the newer era.
    pub(super) is_newer_by_header: bool,
    /// Whether the answer is one of the streams whose number is limited.
    pub(super) is_listening: bool,
    /// Whether the client asks for a stream and takes nothing else.
    pub(super) wants_stream: bool,
}

/// Makes the upstream's request of the client's.
pub(super) async fn prepare(
    exchange: &mut Exchange<'_>,
    permit: &Permit,
    request: Request<Body>,
    peer: IpAddr,
) -> Result<Call, Refusal> {
    let (app, route) = (exchange.app, exchange.route);
    let upstream = &*route.upstream;
    let (mut parts, body) = request.into_parts();
    if !is_passed_on(&parts.method) {
        return Err(CallRefused::Method.into());
    }
    if let Err(said) = headers::settle_repeated(&mut parts.headers) {
        let refusal = says_two(&parts.headers, &said);
        read_subject(exchange, parts, body, peer).await;
        return Err(refusal);
    }
    let named = parts.headers.remove(MCP_SESSION_ID);
    let session = named
        .as_ref()
        .and_then(|named| sessions::open(app, permit, named.to_str().ok()?));
    let (read, body) = if is_open_question(&parts, session.as_ref()) {
        let read = read(app, &parts, body, peer).await?;
        (Some(read.clone()), Body::from(read))
    } else {
        let body = limited(app, &parts.headers, body)?;
        let is_empty = body.is_end_stream();
        (
            None,
            if is_empty {
                body
            } else {
                exchange.overhears(body)
            },
        )
    };
    let message = message(&parts.headers, read.as_deref())?;
    if let Some(message) = &message {
        exchange.has_read(message);
        repeated::check(&parts.headers, message).map_err(CallRefused::Contradiction)?;
    }
    let version = parts.headers.get(MCP_PROTOCOL_VERSION);
    let header = version.and_then(|version| Revision::parse(version.as_bytes()));
    let speaks_newer = header.map(Revision::era) == Some(Era::Modern);
    let is_opening = message.as_ref().is_some_and(era::opens);
    let is_modern = session.is_none() && message.as_ref().is_some_and(era::is_modern);
    let session = match session {
        Some(session) => Some(session),
        // The newer era has no sessions, so an id there has no meaning.
        None if is_modern => None,
        None if named.is_some() => return Err(CallRefused::Session.into()),
        None if is_opening || !has_sessions(&parts.method) => None,
        None => sessions::kept(app, route, permit, speaks_newer).await,
    };
    let era = if session.is_some() {
        Era::Legacy
    } else {
        let signs = Signs {
            method: &parts.method,
            header,
            message: message.as_ref(),
        };
        signs.era()
    };
    let is_listening = headers::asks_for_stream(&parts.method, &parts.headers)
        || message.as_ref().is_some_and(|it| it.is_for(LISTEN));
    let wants_stream = parts.method == Method::GET && headers::takes_event_stream(&parts.headers);
    let proxies = headers::proxies_before_upstream(&parts.headers, &app.proxy_name);
    headers::keep_for_upstream(&mut parts.headers, |name| upstream.headers.passes(name));
    parts.headers.insert(CDN_LOOP, proxies);
    if let Some(id) = session.as_ref().and_then(|session| session.id.clone()) {
        parts.headers.insert(MCP_SESSION_ID, id);
    } else {
        // Outside a session the upstream cannot tell whose events these are, since all clients
        // share one credential.
        parts.headers.remove(LAST_EVENT_ID);
    }
    if let Some(session) = &session {
        speak(&mut parts.headers, session.revision);
    } else if is_opening {
        speak(&mut parts.headers, None);
    } else if let (Era::Modern, Some(message)) = (era, &message) {
        mend(app, permit, &mut parts.headers, message);
    }
    if let Destination::Remote {
        endpoint,
        credential,
    } = &upstream.destination
    {
        parts.uri = credential.address(endpoint, parts.uri.query());
        upstream.headers.set_on(&mut parts.headers);
        credential.set_on(&mut parts.headers);
    }
    parts.extensions = Extensions::new();
    Ok(Call {
        request: Request::from_parts(parts, body),
        read: read.filter(|body| body.len() <= LONGEST),
        era,
        session,
        named,
        is_opening,
        is_newer_by_header: era == Era::Modern && !is_modern,
        is_listening,
        wants_stream,
    })
}

/// Whether requests of this method go to the upstream. The refusal lists them in `Allow`.
fn is_passed_on(method: &Method) -> bool {
    matches!(
        *method,
        Method::DELETE
            | Method::GET
            | Method::HEAD
            | Method::OPTIONS
            | Method::PATCH
            | Method::POST
            | Method::PUT
    )
}

/// Whether requests of this method belong to a session, where there is one.
fn has_sessions(method: &Method) -> bool {
    matches!(*method, Method::DELETE | Method::GET | Method::POST)
}

/// Whether only the body says what a request is. Within a session that is known, unless headers
/// repeat the body and so have to be compared with it. What is compressed is not read.
fn is_open_question(parts: &Parts, session: Option<&Session>) -> bool {
    let headers = &parts.headers;
    parts.method == Method::POST
        && !is_encoded(headers)
        && (session.is_none() || names_a_message(headers))
}

/// What a body says, if it was read and is one message.
fn message<'a>(
    headers: &HeaderMap,
    read: Option<&'a [u8]>,
) -> Result<Option<Message<'a>>, CallRefused> {
    match read.map(Message::read) {
        Some(Ok(message)) => Ok(Some(message)),
        Some(Err(NotRead::Twice)) => Err(CallRefused::MemberTwice),
        Some(Err(NotRead::NoMessage | NotRead::Batch)) if names_a_message(headers) => {
            Err(CallRefused::Contradiction(Contradiction::Method))
        }
        Some(Err(NotRead::NoMessage | NotRead::Batch)) | None => Ok(None),
    }
}

/// Whether headers say which message the body is.
fn names_a_message(headers: &HeaderMap) -> bool {
    headers.contains_key(MCP_METHOD) || headers.contains_key(MCP_NAME)
}

/// Whether a body is compressed, or encoded otherwise. `identity` is no encoding (RFC 9110 §12.5.3).
fn is_encoded(headers: &HeaderMap) -> bool {
    let encodings = headers.get_all(header::CONTENT_ENCODING).iter();
    let mut members = encodings.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    members.any(|member| {
        let member = member.trim_ascii();
        !member.is_empty() && !member.eq_ignore_ascii_case(b"identity")
    })
}

/// Reads the subject of a request that will be refused, so that the error carries its id.
pub(super) async fn read_subject(
    exchange: &mut Exchange<'_>,
    parts: Parts,
    body: Body,
    peer: IpAddr,
) {
    let is_short = declared_length(&parts.headers).is_some_and(|length| length <= LONGEST as u64);
    if parts.method == Method::POST
        && is_short
        && let Ok(read) = read(exchange.app, &parts, body, peer).await
        && let Ok(message) = Message::read(&read)
    {
        exchange.has_read(&message);
    }
}

/// Reads a body. Nearly all come in one piece; others take their share of the memory budget for
/// pending requests.
async fn read(
    app: &App,
    parts: &Parts,
    mut body: Body,
    peer: IpAddr,
) -> Result<Bytes, CallRefused> {
    let limit = usize::try_from(app.policy.limits.mcp_body).unwrap_or(usize::MAX);
    if declared_length(&parts.headers).is_some_and(|length| length > app.policy.limits.mcp_body) {
        return Err(CallRefused::TooLarge);
    }
    let first = match body.frame().await {
        None => return Ok(Bytes::new()),
        Some(Err(_)) => return Err(CallRefused::Body),
        Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
    };
    if body.is_end_stream() && first.len() <= limit {
        return Ok(first);
    }
    let address = client_address(peer, &parts.headers, &app.policy.trusted_proxies);
    let body = Ahead::body([first], Some(body));
    let content = extract::body(app, parts, address, body, limit).await;
    match content {
        Ok(content) => Ok(content.bytes.into()),
        Err(NoBody::TooLarge) => Err(CallRefused::TooLarge),
        Err(NoBody::NoRoom) => Err(CallRefused::NoRoom),
        Err(NoBody::Broken | NoBody::Type(_)) => Err(CallRefused::Body),
    }
}

/// The body, which may not be longer than the limit. A length that is declared is believed here,
/// since HTTP lets no more through.
fn limited(app: &App, headers: &HeaderMap, body: Body) -> Result<Body, CallRefused> {
    let limit = app.policy.limits.mcp_body;
    match declared_length(headers) {
        Some(length) if length > limit => Err(CallRefused::TooLarge),
        Some(_) => Ok(body),
        None if body.is_end_stream() => Ok(body),
        None => {
            let limit = usize::try_from(limit).unwrap_or(usize::MAX);
            Ok(Body::new(Limited::new(body, limit)))
        }
    }
}

fn declared_length(headers: &HeaderMap) -> Option<u64> {
    let length = headers.get(header::CONTENT_LENGTH)?;
    length.to_str().ok()?.parse().ok()
}

/// A header with two different values, and the values unless they are secret.
fn says_two(headers: &HeaderMap, SaysTwo(name): &SaysTwo) -> Refusal {
    let values = headers.get_all(name).iter().map(HeaderValue::to_str);
    let values: Vec<_> = values.map(Result::unwrap_or_default).collect();
    let detail = if *name == MCP_SESSION_ID {
        name.to_string()
    } else {
        let values = values.join(", ");
        let shown = &values[..values.floor_char_boundary(100)];
        format!("{name} ({shown})")
    };
    Refusal {
        why: CallRefused::Repeated,
        detail: Some(detail),
    }
}

/// Writes the revision that a session speaks, which is all that many servers take. Where that is
/// not known, a header of the newer era is taken away, since no session speaks one.
fn speak(headers: &mut HeaderMap, revision: Option<Revision>) {
    if let Some(revision) = revision {
        headers.insert(MCP_PROTOCOL_VERSION, revision.to_header());
        return;
    }
    let said = headers.get(MCP_PROTOCOL_VERSION);
    let said = said.and_then(|said| Revision::parse(said.as_bytes()));
    if said.map(Revision::era) == Some(Era::Modern) {
        headers.remove(MCP_PROTOCOL_VERSION);
    }
}

/// Completes the headers of the newer era from the body, and notes once for each grant that a
/// client needs it.
fn mend(app: &App, permit: &Permit, headers: &mut HeaderMap, message: &Message<'_>) {
    let said = headers.get(MCP_PROTOCOL_VERSION).cloned();
    let is_mended = repeated::complete(headers, message);
    let noted = &permit.live().conversation.mending_noted;
    if is_mended
        && let Some(spoken) = &message.revision
        && !noted.swap(true, Ordering::Relaxed)
    {
        app.journal.record(&Event::VersionMended {
            client_id: permit.client_id(),
            upstream: &permit.upstream().name,
            said: said.as_ref().and_then(|said| said.to_str().ok()),
            spoken: spoken.as_str(),
        });
    }
}
