//! The proxied endpoint: bearer check, then the request goes to the upstream and its answer comes
//! back, both as they stream. A body is read only where the headers do not say what a request is.
//!
//! A call passes three stages, a file each: `request.rs` makes the upstream's request of the
//! client's, `answer.rs` makes the client's answer of the upstream's, and `exchange.rs` is what is
//! known of the call on the way. `failure.rs` is what is wrong with an upstream, in a call as in a
//! trial, which `trial.rs` makes.

mod answer;
mod body;
mod exchange;
mod failure;
mod request;
mod sessions;
pub mod trial;

use std::{
    net::IpAddr,
    sync::{Arc, atomic::AtomicBool},
};

use axum::body::Body;
use http::{HeaderValue, Request, Response, header};

use self::exchange::Exchange;
use super::{
    App, cors,
    extract::{self, NoPermit},
    other_keys, respond,
};
use crate::{
    forward::{
        client_address::client_address,
        origin::{self, NotAllowed},
    },
    journal::{self, CallRefused, Endpoint, Event, Limit},
    oauth::{
        bearer::{self, Refused},
        metadata::PROTECTED_RESOURCE,
    },
    policy::{Policy, UpstreamPolicy},
};

pub(super) use sessions::forget_kept_session;

/// One address of an upstream.
pub(crate) struct Route {
    upstream: Arc<UpstreamPolicy>,
    /// Without a slash at its end, so empty for the origin itself.
    path: String,
    learnt: Arc<Learnt>,
}

/// Facts about an upstream that its answers have shown.
#[derive(Default)]
struct Learnt {
    /// Whether it has taken our credential since it last refused it.
    takes_credential: AtomicBool,
    /// Whether it answered the last `initialize` without a session, so that none can be meant.
    has_no_sessions: AtomicBool,
    /// Whether the journal knows that it redirects.
    redirect_noted: AtomicBool,
}

/// The upstreams by their addresses. So few that comparing paths one by one is quicker than hashing.
pub(crate) struct Routes(Vec<Route>);

impl Routes {
    pub(super) fn new(policy: &Policy) -> Self {
        let mut routes: Vec<Route> = Vec::new();
        for (path, upstream) in policy.paths() {
            let same = routes
                .iter()
                .find(|route| Arc::ptr_eq(&route.upstream, upstream));
            routes.push(Route {
                learnt: same.map_or_else(Arc::default, |route| Arc::clone(&route.learnt)),
                upstream: Arc::clone(upstream),
                path: path.to_owned(),
            });
        }
        Self(routes)
    }

    /// The upstream at `path`, which may have a slash at its end. There is nothing below.
    pub(super) fn find(&self, path: &str) -> Option<&Route> {
        if path.is_empty() {
            // Of a CONNECT, which has no path.
            return None;
        }
        let path = path.strip_suffix('/').unwrap_or(path);
        self.0.iter().find(|route| route.path == path)
    }
}

/// Answers one request to an upstream's path, whatever its method.
pub(super) async fn answer_mcp_request(
    app: &App,
    route: &Route,
    request: Request<Body>,
    peer: IpAddr,
) -> Response<Body> {
    let exchange = Exchange::new(app, route, request.method().clone());
    // The origin first: a page that may not call learns nothing, not even how to sign in.
    let origin = match origin::allowed(request.headers(), &app.policy) {
        Ok(origin) => origin.cloned(),
        Err(NotAllowed(origin)) => return refuse_origin(&exchange, origin),
    };
    let mut response =
        if origin.is_some() && cors::is_preflight(request.method(), request.headers()) {
            cors::preflight(request.headers())
        } else {
            answer(exchange, request, peer).await
        };
    if let Some(origin) = origin {
        cors::allow(origin, response.headers_mut());
    }
    response
}

async fn answer(
    mut exchange: Exchange<'_>,
    request: Request<Body>,
    peer: IpAddr,
) -> Response<Body> {
    let (app, route) = (exchange.app, exchange.route);
    let permit = match extract::permit(app, &route.upstream, request.headers(), request.uri()).await
    {
        Ok(permit) => permit,
        Err(NoPermit::Refused(why)) => return challenge(exchange, &request, why),
        Err(NoPermit::NotOurs(text)) => {
            if let Err(error) = other_keys::refuse_if_missing(app, &text).await {
                return respond::refused(app, Endpoint::Mcp, &error, false);
            }
            let trusted = &app.policy.trusted_proxies;
            let address = client_address(peer, request.headers(), trusted);
            return match extract::admit_wrong_token(app, address) {
                Ok(()) => challenge(exchange, &request, Refused::InvalidToken),
                Err(error) => respond::refused(app, Endpoint::Mcp, &error, false),
            };
        }
        Err(NoPermit::Records(error)) => {
            return respond::refused(app, Endpoint::Mcp, &error.into(), false);
        }
    };
    exchange.caller = Some(Arc::clone(permit.live()));
    let (calls, rate) = (
        &permit.live().conversation.calls,
        app.policy.limits.calls_per_grant,
    );
    if let Err(wait) = calls.take(rate, app.ports.clock.elapsed()) {
        let (parts, body) = request.into_parts();
        request::read_subject(&mut exchange, parts, body, peer).await;
        return exchange.refuse_by_limit(Limit::CallsPerGrant, wait);
    }
    match request::prepare(&mut exchange, &permit, request, peer).await {
        Ok(call) => answer::exchange(exchange, permit, call).await,
        Err(refusal) => exchange.refuse(refusal),
    }
}

/// Tells a client without a good token how to get one. The metadata that it is led to is that of the
/// very address that it called, with a slash at the end if it has one.
fn challenge(mut exchange: Exchange<'_>, request: &Request<Body>, why: Refused) -> Response<Body> {
    let name = origin::called(request, &exchange.app.policy);
    let path = match request.uri().path() {
        "/" => "",
        path => path,
    };
    let challenge = bearer::challenge(why, &format!("{name}{PROTECTED_RESOURCE}{path}"));
    let mut response = exchange.refuse(CallRefused::Bearer(why));
    let headers = response.headers_mut();
    headers.insert(header::WWW_AUTHENTICATE, challenge);
    response
}

/// Answers a page that may not call.
fn refuse_origin(exchange: &Exchange<'_>, origin: &HeaderValue) -> Response<Body> {
    let origin = journal::told_origin(origin);
    let response = respond::foreign_origin(origin);
    exchange.app.journal.record(&Event::OriginRefused {
        call: exchange.call(response.status(), None),
        origin,
    });
    response
}
