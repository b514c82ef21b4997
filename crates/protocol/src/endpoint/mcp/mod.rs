//! The proxied endpoint: bearer check, then the request goes to the upstream and its answer comes
//! back, both as they stream. A body is read only where the headers do not say what a request is.
//!
//! A call passes three stages, a file each: [`request`] makes the upstream's request of the
//! client's, [`answer`] makes the client's answer of the upstream's, and [`exchange`] is what is
//! known of the call on the way.

mod answer;
mod body;
mod exchange;
mod request;
mod sessions;

use std::{
    net::IpAddr,
    sync::{Arc, atomic::AtomicBool},
};

use axum::body::Body;
use http::{Request, Response, Uri, header};

use self::exchange::Exchange;
use super::{
    App, cors,
    extract::{self, NoPermit},
    respond,
};
use crate::{
    forward::{client_address::client_address, origin},
    journal::{CallRefused, Endpoint, Limit},
    oauth::{
        bearer::{Challenges, Refused},
        metadata::PROTECTED_RESOURCE,
    },
    policy::{Policy, UpstreamPolicy},
};

pub(super) use sessions::forget_kept_session;

/// One upstream, with what every refusal needs made beforehand, and what was learnt of it.
pub(crate) struct Route {
    upstream: Arc<UpstreamPolicy>,
    challenges: Challenges,
    /// For an address that was typed with a slash at its end, which is described with it.
    challenges_with_slash: Challenges,
    /// Whether the upstream has taken our credential since it last refused it.
    takes_credential: AtomicBool,
    /// Whether it answered the last `initialize` without a session, so that none can be meant.
    has_no_sessions: AtomicBool,
    /// Whether the journal knows that it redirects.
    redirect_noted: AtomicBool,
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
                takes_credential: AtomicBool::default(),
                has_no_sessions: AtomicBool::default(),
                redirect_noted: AtomicBool::default(),
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
    let mut exchange = Exchange::new(app, route, request.method().clone());
    // The origin first: a page that may not call learns nothing, not even how to sign in.
    let origin = match origin::allowed(request.headers(), &app.policy) {
        Ok(origin) => origin.cloned(),
        Err(_) => return exchange.refuse(CallRefused::Origin),
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
        Err(NoPermit::Refused(why)) => return challenge(exchange, request.uri(), why),
        Err(NoPermit::NotOurs) => {
            let trusted = &app.policy.trusted_proxies;
            let address = client_address(peer, request.headers(), trusted);
            return match extract::admit_wrong_token(app, address) {
                Ok(()) => challenge(exchange, request.uri(), Refused::InvalidToken),
                Err(error) => respond::refused(app, Endpoint::Mcp, &error, false),
            };
        }
        Err(NoPermit::Store(error)) => {
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

/// Tells a client without a good token how to get one.
fn challenge(mut exchange: Exchange<'_>, uri: &Uri, why: Refused) -> Response<Body> {
    let route = exchange.route;
    let is_with_slash = uri.path().strip_prefix(&*route.upstream.path) == Some("/");
    let challenges = if is_with_slash {
        &route.challenges_with_slash
    } else {
        &route.challenges
    };
    let mut response = exchange.refuse(CallRefused::Bearer(why));
    response
        .headers_mut()
        .insert(header::WWW_AUTHENTICATE, challenges.answering(why));
    response
}
