//! The proxied endpoint: bearer check, then the request goes to the upstream and its answer comes
//! back, both as they stream. Nothing in here reads a body.

use std::{net::IpAddr, sync::Arc, time::Duration};

use axum::body::Body;
use http::{
    Extensions, HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, header,
};
use http_body_util::Limited;

use super::{
    App, cors,
    extract::{self, NoPermit, Permit},
    respond,
};
use crate::{
    forward::{
        client_address::client_address,
        headers::{self, CDN_LOOP, LAST_EVENT_ID, MCP_METHOD, MCP_NAME, MCP_SESSION_ID},
        origin,
    },
    journal::{self, CallRefused, Caller, Endpoint, Era, Event, Limit, UpstreamFailed},
    oauth::{
        bearer::{Challenges, Refused},
        grant::Grant,
        metadata::PROTECTED_RESOURCE,
    },
    policy::{Destination, Policy, UpstreamPolicy},
    ports::UpstreamError,
    token::Purpose,
};

/// After how long a grant with too many streams may ask for one again. The end of a stream whose
/// client has vanished is seen within half a minute.
const PLACE_SOON: Duration = Duration::from_secs(10);

/// One upstream, with what every refusal needs made beforehand.
pub(crate) struct Route {
    upstream: Arc<UpstreamPolicy>,
    challenges: Challenges,
    /// For an address that was typed with a slash at its end, which is described with it.
    challenges_with_slash: Challenges,
}

/// The upstreams. So few that comparing paths one by one is quicker than hashing.
pub(crate) struct Routes(Vec<Route>);

impl Routes {
    pub(super) fn new(policy: &Policy) -> Self {
        let route = |upstream: &Arc<UpstreamPolicy>| {
            let metadata = policy
                .issuer
                .url(&format!("{PROTECTED_RESOURCE}{}", upstream.path));
            Route {
                upstream: Arc::clone(upstream),
                challenges: Challenges::new(&metadata),
                challenges_with_slash: Challenges::new(&format!("{metadata}/")),
            }
        };
        Self(policy.upstreams.iter().map(route).collect())
    }

    /// The upstream at `path` or above it. Everything below an upstream's path is guarded like the
    /// path itself.
    pub(super) fn find(&self, path: &str) -> Option<&Route> {
        self.0.iter().find(|route| {
            let below = path.strip_prefix(&*route.upstream.path);
            below.is_some_and(|below| below.is_empty() || below.starts_with('/'))
        })
    }
}

/// Answers one request to an upstream's path, whatever its method.
pub(super) async fn answer_mcp_request(
    app: &App,
    route: &Route,
    request: Request<Body>,
    peer: IpAddr,
) -> Response<Body> {
    let noted = Noted::of(&request);
    // The origin first: a page that may not call learns nothing, not even how to sign in.
    let origin = match origin::allowed(request.headers(), &app.policy) {
        Ok(origin) => origin.cloned(),
        Err(_) => return refuse(app, &route.upstream, &noted, None, CallRefused::Origin),
    };
    let mut response =
        if origin.is_some() && cors::is_preflight(request.method(), request.headers()) {
            cors::preflight(request.headers())
        } else {
            answer(app, route, noted, request, peer).await
        };
    if let Some(origin) = origin {
        cors::allow(origin, response.headers_mut());
    }
    response
}

async fn answer(
    app: &App,
    route: &Route,
    noted: Noted,
    request: Request<Body>,
    peer: IpAddr,
) -> Response<Body> {
    let permit = match extract::permit(app, &route.upstream, request.headers(), request.uri()).await
    {
        Ok(permit) => permit,
        Err(NoPermit::Refused(why)) => {
            return challenge(app, route, &noted, request.uri(), why);
        }
        Err(NoPermit::NotOurs) => {
            let trusted = &app.policy.trusted_proxies;
            let address = client_address(peer, request.headers(), trusted);
            return match extract::admit_wrong_token(app, address) {
                Ok(()) => challenge(app, route, &noted, request.uri(), Refused::InvalidToken),
                Err(error) => respond::refused(app, Endpoint::Mcp, &error, false),
            };
        }
        Err(NoPermit::Store(error)) => {
            return respond::refused(app, Endpoint::Mcp, &error.into(), false);
        }
    };
    let (calls, rate) = (&permit.live().calls, app.policy.limits.calls_per_grant);
    if let Err(wait) = calls.take(rate, app.ports.clock.elapsed()) {
        let grant = &permit.live().grant;
        return refuse_by_limit(
            app,
            &route.upstream,
            &noted,
            grant,
            Limit::CallsPerGrant,
            wait,
        );
    }
    match Call::new(app, route, request, &permit) {
        Ok(call) => call.forward(permit, noted).await,
        Err(why) => {
            let grant = Some(&permit.live().grant);
            refuse(app, &route.upstream, &noted, grant, why)
        }
    }
}

/// Tells a client without a good token how to get one.
fn challenge(app: &App, route: &Route, noted: &Noted, uri: &Uri, why: Refused) -> Response<Body> {
    let is_with_slash = uri.path().strip_prefix(&*route.upstream.path) == Some("/");
    let challenges = if is_with_slash {
        &route.challenges_with_slash
    } else {
        &route.challenges
    };
    let mut response = refuse(app, &route.upstream, noted, None, CallRefused::Bearer(why));
    response
        .headers_mut()
        .insert(header::WWW_AUTHENTICATE, challenges.answering(why));
    response
}

/// Answers a call that a limit of its grant keeps from the upstream.
fn refuse_by_limit(
    app: &App,
    upstream: &UpstreamPolicy,
    noted: &Noted,
    grant: &Grant,
    limit: Limit,
    wait: Duration,
) -> Response<Body> {
    let mut response = refuse(app, upstream, noted, Some(grant), CallRefused::Limit(limit));
    respond::come_back_after(&mut response, wait);
    response
}

/// Answers a call that does not reach the upstream.
fn refuse(
    app: &App,
    upstream: &UpstreamPolicy,
    noted: &Noted,
    grant: Option<&Grant>,
    why: CallRefused,
) -> Response<Body> {
    let response = respond::call_refused(why);
    app.journal.record(&Event::CallRefused {
        call: noted.call(upstream, grant, response.status()),
        why,
    });
    response
}

/// What the journal tells of a request after it is gone.
struct Noted {
    method: Method,
    claimed_method: Option<HeaderValue>,
    claimed_tool: Option<HeaderValue>,
}

impl Noted {
    fn of(request: &Request<Body>) -> Self {
        let headers = request.headers();
        let claimed_method = headers.get(MCP_METHOD).cloned();
        // What other methods name, such as the address of a resource, is as good as an argument.
        let calls_tool = claimed_method.as_ref().is_some_and(|it| it == "tools/call");
        Self {
            method: request.method().clone(),
            claimed_tool: headers.get(MCP_NAME).filter(|_| calls_tool).cloned(),
            claimed_method,
        }
    }

    fn call<'a>(
        &'a self,
        upstream: &'a UpstreamPolicy,
        grant: Option<&'a Grant>,
        status: StatusCode,
    ) -> journal::Call<'a> {
        /// No method or tool is called anything longer.
        const LONGEST: usize = 128;
        let text = |value: &'a Option<HeaderValue>| {
            let text = value.as_ref()?.to_str().ok()?;
            Some(&text[..text.len().min(LONGEST)])
        };
        journal::Call {
            upstream,
            caller: grant.map(|grant| Caller {
                subject: &grant.subject,
                client_id: &grant.client_id,
            }),
            method: &self.method,
            claimed_method: text(&self.claimed_method),
            claimed_tool: text(&self.claimed_tool),
            status,
        }
    }
}

/// A call that may go to its upstream.
struct Call<'a> {
    app: &'a App,
    upstream: &'a UpstreamPolicy,
    era: Era,
    request: Request<Body>,
}

impl<'a> Call<'a> {
    /// Makes the upstream's request of the client's: its own address, the headers that cross, the
    /// session as the upstream knows it, and last the credential, over whatever is there.
    fn new(
        app: &'a App,
        route: &'a Route,
        request: Request<Body>,
        permit: &Permit,
    ) -> Result<Self, CallRefused> {
        let (mut parts, body) = request.into_parts();
        let upstream = &*route.upstream;
        let below = parts.uri.path().strip_prefix(&*upstream.path);
        if !matches!(below, Some("" | "/")) {
            return Err(CallRefused::Path);
        }
        if !is_passed_on(&parts.method) {
            return Err(CallRefused::Method);
        }
        if headers::has_repeated(&parts.headers) {
            return Err(CallRefused::Repeated);
        }
        let body = limited(app, &parts.headers, body)?;
        let is_modern = headers::is_modern(&parts.headers);
        let session = parts.headers.remove(MCP_SESSION_ID);
        let proxies = headers::proxies_before_upstream(&parts.headers, &app.proxy_name);
        headers::keep_for_upstream(&mut parts.headers, |name| upstream.headers.passes(name));
        parts.headers.insert(CDN_LOOP, proxies);
        if !is_modern && let Some(session) = session {
            let session = open_session(app, permit, &session)?;
            parts.headers.insert(MCP_SESSION_ID, session);
        } else {
            // Outside a session nothing says whose events these are, and the upstream takes
            // everybody for one.
            parts.headers.remove(LAST_EVENT_ID);
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
        Ok(Self {
            app,
            upstream,
            era: if is_modern { Era::Modern } else { Era::Legacy },
            request: Request::from_parts(parts, body),
        })
    }

    /// Sends the call, and passes on the answer or says why there is none.
    async fn forward(self, permit: Permit, noted: Noted) -> Response<Body> {
        let Self {
            app,
            upstream,
            era,
            request,
        } = self;
        let (family, live) = (permit.family(), Arc::clone(permit.live()));
        let place = if headers::asks_for_stream(request.method(), request.headers()) {
            let most = app.policy.limits.streams_per_grant;
            let Some(place) = app.streams.reserve(family, most) else {
                return refuse_by_limit(
                    app,
                    upstream,
                    &noted,
                    &live.grant,
                    Limit::StreamsPerGrant,
                    PLACE_SOON,
                );
            };
            Some(place)
        } else {
            None
        };
        let started = app.ports.clock.elapsed();
        let response = match app.ports.upstream.send(permit, request).await {
            Ok(response) => response,
            Err(error) => return failed(app, upstream, &noted, &live.grant, &error),
        };
        let took: Duration = app.ports.clock.elapsed().saturating_sub(started);
        let status = response.status();
        if let Some(why) = not_passed_on(status) {
            let retry_after = response.headers().get(header::RETRY_AFTER);
            let answer = respond::upstream_failed(why, retry_after);
            app.journal.record(&Event::UpstreamFailed {
                call: noted.call(upstream, Some(&live.grant), answer.status()),
                why,
                cause: None,
            });
            return answer;
        }
        app.journal.record(&Event::CallForwarded {
            call: noted.call(upstream, Some(&live.grant), status),
            era,
            took,
        });
        let (mut parts, body) = response.into_parts();
        let session = parts.headers.remove(MCP_SESSION_ID);
        headers::keep_for_client(&mut parts.headers);
        if era == Era::Legacy
            && let Some(session) = session
            && let Ok(sealed) = HeaderValue::try_from(app.keys.seal(
                Purpose::McpSession,
                session.as_bytes(),
                &session_context(upstream, &live.grant),
            ))
        {
            parts.headers.insert(MCP_SESSION_ID, sealed);
        }
        parts.extensions = Extensions::new();
        let body = if headers::is_event_stream(&parts.headers) {
            app.streams.until_end_of(family, place, body)
        } else {
            body
        };
        Response::from_parts(parts, body)
    }
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

/// The body, which may not be longer than the limit. A length that is declared is believed here,
/// since HTTP lets no more through.
fn limited(app: &App, headers: &HeaderMap, body: Body) -> Result<Body, CallRefused> {
    let limit = app.policy.limits.mcp_body;
    let declared = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    match declared {
        Some(length) if length > limit => Err(CallRefused::TooLarge),
        Some(_) => Ok(body),
        None if http_body::Body::is_end_stream(&body) => Ok(body),
        None => {
            let limit = usize::try_from(limit).unwrap_or(usize::MAX);
            Ok(Body::new(Limited::new(body, limit)))
        }
    }
}

/// Who a session belongs to. An upstream that sees one key for everybody cannot keep people apart,
/// so the id that a client holds opens only for the same person, client and upstream.
fn session_context(upstream: &UpstreamPolicy, grant: &Grant) -> Vec<u8> {
    let parts = [
        upstream.name.as_str(),
        &grant.subject,
        grant.client_id.as_str(),
    ];
    parts.join("\0").into_bytes()
}

fn open_session(
    app: &App,
    permit: &Permit,
    session: &HeaderValue,
) -> Result<HeaderValue, CallRefused> {
    session
        .to_str()
        .ok()
        .and_then(|sealed| {
            app.keys.open(
                Purpose::McpSession,
                sealed,
                &session_context(permit.upstream(), &permit.live().grant),
            )
        })
        .and_then(|id| HeaderValue::from_bytes(&id).ok())
        .ok_or(CallRefused::Session)
}

/// Why an answer of this status is not passed on: it would send the client away to sign in
/// elsewhere, to another place, or into a wrong conclusion about its session.
fn not_passed_on(status: StatusCode) -> Option<UpstreamFailed> {
    match status.as_u16() {
        200..=299 | 304 | 400 | 402 | 404..=406 | 408..=499 => None,
        401 | 403 | 407 => Some(UpstreamFailed::CredentialRefused(status)),
        300..=399 => Some(UpstreamFailed::Redirected(status)),
        500..=599 => Some(UpstreamFailed::ServerError(status)),
        _ => Some(UpstreamFailed::Nonsense(status)),
    }
}

fn failed(
    app: &App,
    upstream: &UpstreamPolicy,
    noted: &Noted,
    grant: &Grant,
    error: &UpstreamError,
) -> Response<Body> {
    let why = match error {
        UpstreamError::Unreachable(_) => UpstreamFailed::Unreachable,
        UpstreamError::TimedOut => UpstreamFailed::TimedOut,
        UpstreamError::Broken(_) => UpstreamFailed::Broken,
        UpstreamError::RequestBody(cause) => {
            let why = if respond::is_length_limit(&**cause) {
                CallRefused::TooLarge
            } else {
                CallRefused::Body
            };
            return refuse(app, upstream, noted, Some(grant), why);
        }
    };
    let answer = respond::upstream_failed(why, None);
    app.journal.record(&Event::UpstreamFailed {
        call: noted.call(upstream, Some(grant), answer.status()),
        why,
        cause: Some(error),
    });
    answer
}
