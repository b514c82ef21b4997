//! The HTTP surface. Each endpoint loads what it needs, decides with the pure rules, and commits
//! in one atomic write.

pub mod authorize;
pub mod consent;
pub mod cookie;
pub mod cors;
pub mod extract;
pub mod health;
pub mod mcp;
pub mod metadata;
mod other_keys;
pub mod pages;
pub mod register;
pub mod respond;
pub mod revoke;
mod sign_in;
pub mod token;

use std::{net::IpAddr, ops::Deref, sync::Arc};

use axum::{
    Router,
    body::Body,
    middleware,
    routing::{any, get, post},
};
use futures_util::StreamExt;
use http::{HeaderValue, Request, Response};
use tower::ServiceExt;

use crate::{
    documents::Documents,
    forward::{headers, origin},
    grants::LiveGrants,
    identity::backoff::{Attempts, SeenAllowance},
    journal::Journal,
    oauth::{
        identifiers::ClientId,
        metadata::{AUTHORIZATION_SERVER, PROTECTED_RESOURCE},
    },
    policy::Policy,
    ports::{Clock, Entropy, Fetch, Store, Upstream},
    rates::{Bucket, Buckets},
    records::Records,
    room::Room,
    streams::Streams,
    token::Keys,
};

/// How many uses are written at the same time; SQLite writes them in one transaction.
const USES_AT_ONCE: usize = 64;

/// Everything that lives as long as the program.
#[derive(Clone)]
pub struct App(Arc<Parts>);

/// The outside world as the host provides it.
pub struct Ports {
    pub clock: Arc<dyn Clock>,
    pub entropy: Arc<dyn Entropy>,
    pub store: Arc<dyn Store>,
    pub fetch: Arc<dyn Fetch>,
    pub upstream: Arc<dyn Upstream>,
}

pub struct Parts {
    pub(crate) policy: Policy,
    pub(crate) keys: Keys,
    /// What marks the requests that go to upstreams.
    pub(crate) proxy_name: HeaderValue,
    pub(crate) ports: Ports,
    pub(crate) journal: Journal,
    pub(crate) grants: LiveGrants,
    pub(crate) documents: Documents,
    /// Event streams, which end with their grant.
    pub(crate) streams: Streams,
    /// Wrong passphrases and PINs.
    pub(crate) attempts: Attempts,
    pub(crate) shared_allowance: SeenAllowance,
    /// Denials by address.
    pub(crate) denials_of: Buckets<IpAddr>,
    pub(crate) denials: Bucket,
    /// Texts by address that are no tokens or codes of ours.
    pub(crate) wrong_tokens_of: Buckets<IpAddr>,
    /// Wrong secrets by client and address.
    pub(crate) wrong_secrets_of: Buckets<(ClientId, IpAddr)>,
    /// The last look at whether the store takes writes.
    pub(crate) readiness: health::Readiness,
    /// Keys that other processes have.
    pub(crate) other_keys: other_keys::OtherKeys,
    /// Registrations by address.
    pub(crate) registrations_of: Buckets<IpAddr>,
    pub(crate) registrations: Bucket,
    /// Refresh answers given again, counted by the rotation that they repeat.
    pub(crate) repetitions: token::Repetitions,
    /// What of requests is waited for.
    pub(crate) room: Room,
    pub(crate) routes: mcp::Routes,
    pub(crate) content_security_policy: HeaderValue,
}

impl App {
    /// `keys` are those of the same issuer.
    pub fn new(mut policy: Policy, keys: Keys, ports: Ports, journal: Journal) -> Self {
        policy.aliases.extend(policy.issuer.loopback_twins());
        let content_security_policy = HeaderValue::try_from(pages::content_security_policy())
            .expect("our own policy is visible ASCII");
        Self(Arc::new(Parts {
            proxy_name: headers::proxy_name(&keys.deployment()),
            keys,
            grants: LiveGrants::new(policy.grant_freshness),
            documents: Documents::default(),
            streams: Streams::default(),
            attempts: Attempts::default(),
            shared_allowance: SeenAllowance::default(),
            denials_of: Buckets::default(),
            denials: Bucket::default(),
            wrong_tokens_of: Buckets::default(),
            wrong_secrets_of: Buckets::default(),
            readiness: health::Readiness::default(),
            other_keys: other_keys::OtherKeys::default(),
            registrations_of: Buckets::default(),
            registrations: Bucket::default(),
            repetitions: token::Repetitions::default(),
            room: Room::new(policy.limits.waiting_requests),
            routes: mcp::Routes::new(&policy),
            content_security_policy,
            policy,
            ports,
            journal,
        }))
    }

    /// Ends the event streams whose grant has ended: by expiry, or on another process that shares
    /// the store. What ends here ends its streams by itself. The host calls this every few seconds.
    pub async fn end_streams_of_ended_grants(&self) {
        let now = self.ports.clock.now();
        for family in self.streams.families() {
            // A store in trouble is no reason to end anything.
            if let Ok(live) = extract::live_grant(self, family).await
                && !live.is_some_and(|live| live.grant.is_live(now))
            {
                self.streams.end(family);
            }
        }
    }

    /// Writes down which access tokens were used for the first time, so that a refresh with the
    /// predecessor is not taken for a lost answer. What the store does not take now is tried again
    /// the next time. The host calls this every few seconds, and before it ends.
    pub async fn write_uses(&self) {
        let uses = futures_util::stream::iter(self.grants.unwritten_uses());
        let write = |(family, generation)| async move {
            if let Ok(true) = extract::record_use(self, family, generation).await {
                self.grants.use_is_written(family, generation);
            }
        };
        uses.for_each_concurrent(USES_AT_ONCE, write).await;
    }

    /// What everything that happens is told to.
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    pub(crate) fn records(&self) -> Records<'_> {
        Records(&*self.ports.store)
    }
}

impl Deref for App {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

/// The address that a request came from, as the listener saw it.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub IpAddr);

/// The front door: every request comes in here, whatever the host.
#[derive(Clone)]
pub struct Front {
    app: App,
    router: Router,
}

impl Front {
    pub fn new(app: App) -> Self {
        Self {
            router: router(app.clone()),
            app,
        }
    }

    /// Answers one request from `peer`. A person who opens an address in a browser sees a page where
    /// programs get JSON.
    pub async fn answer(&self, request: Request<Body>, peer: IpAddr) -> Response<Body> {
        let opened = respond::opened_in_browser(&request);
        let response = self.answer_program(request, peer).await;
        match opened {
            Some(path) => respond::for_browser(&self.app, &path, response),
            None => response,
        }
    }

    /// Calls to MCP endpoints, nearly all there are, branch off before the router.
    async fn answer_program(&self, mut request: Request<Body>, peer: IpAddr) -> Response<Body> {
        if !origin::has_one_host(&request) {
            return respond::without_one_host();
        }
        if !headers::has_plain_framing(request.headers()) {
            return respond::without_plain_framing();
        }
        if headers::came_through(request.headers(), &self.app.proxy_name) {
            return respond::looped(&self.app);
        }
        let policy = &self.app.policy;
        if let Some(host) = origin::foreign_host(&request, &policy.issuer, &policy.aliases) {
            return respond::misdirected(&self.app, host);
        }
        if let Some(route) = self.app.routes.find(request.uri().path())
            && !respond::is_for_front_page(&request)
        {
            return mcp::answer_mcp_request(&self.app, route, request, peer).await;
        }
        request.extensions_mut().insert(Peer(peer));
        // Boxed, or every call would carry room for the router's state.
        let Ok(response) = Box::pin(self.router.clone().oneshot(request)).await;
        response
    }
}

/// Every route but the MCP endpoints.
fn router(app: App) -> Router {
    let for_programs = Router::new()
        .route(
            AUTHORIZATION_SERVER,
            get(metadata::describe_authorization_server),
        )
        .route(
            &format!("{AUTHORIZATION_SERVER}/{{*path}}"),
            get(metadata::describe_authorization_server_at),
        )
        .route(PROTECTED_RESOURCE, get(metadata::describe_origin))
        .route(
            &format!("{PROTECTED_RESOURCE}/{{*path}}"),
            get(metadata::describe_resource),
        )
        .route("/register", post(register::register_client))
        .route("/token", post(token::answer_token_request))
        .route("/revoke", post(revoke::revoke_token))
        .method_not_allowed_fallback(respond::method_not_allowed)
        // CORS outermost, or a browser cannot read a 405.
        .layer(middleware::from_fn(cors::for_any_origin));
    let for_people = Router::new()
        .route(
            "/authorize",
            get(authorize::show_consent).post(authorize::show_consent),
        )
        .route("/consent", post(consent::decide))
        .method_not_allowed_fallback(respond::method_not_allowed);
    Router::new()
        .merge(for_programs)
        .merge(for_people)
        .route("/health", get(health::report_alive))
        .route("/ready", get(health::report_ready))
        .method_not_allowed_fallback(respond::method_not_allowed)
        .route("/", any(respond::front_page))
        .fallback(respond::nothing_here)
        .with_state(app)
}
