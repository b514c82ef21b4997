//! The journal as Prometheus metrics, and the page that shows them. Labels are names from the
//! configuration and closed enums, never anything that a request brings.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
};

use axum::body::Body;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use prometheus_client::{
    encoding::text,
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::Registry,
};
use protocol::{
    forward::origin,
    journal::{CallRefused, Event, Instead, Reader},
    mcp::revision::Era,
    oauth::{grant::Revoked, refresh_token::Repeated},
    policy::Policy,
};

use crate::{listen::Limit, logs::Lines};

type Labels = Vec<(&'static str, String)>;

/// Status classes 1xx to 5xx.
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];
const ERAS: [(Era, &str); 2] = [(Era::Legacy, "legacy"), (Era::Modern, "modern")];
/// Seconds until an upstream's answer begins.
const CALL_SECONDS: [f64; 12] = [
    0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0,
];
/// Seconds between a rotation and its repetition: these tell whether the retry window is right.
const AGE_SECONDS: [f64; 9] = [1.0, 5.0, 15.0, 30.0, 60.0, 90.0, 120.0, 600.0, 3600.0];

/// Counts events. A call costs three atomic additions and one short lock.
pub struct Metrics {
    registry: Mutex<Registry>,
    upstreams: HashMap<String, Calls>,
    calls_refused: Family<Labels, Counter>,
    upstream_failures: Family<Labels, Counter>,
    requests_repeated: Counter,
    registrations: Counter,
    documents: Family<Labels, Counter>,
    consents_shown: Counter,
    approvals: Family<Labels, Counter>,
    denials: Counter,
    sign_in_failures: Counter,
    sign_ins_blocked: Counter,
    guessing_slowed: Counter,
    codes_redeemed: Counter,
    refresh_rotated: Counter,
    refresh_retry_served: Counter,
    refresh_lost_answer: Counter,
    refresh_reuse_revoked: Counter,
    refresh_predecessor_age: Histogram,
    store_regression: Counter,
    grants_revoked: Family<Labels, Counter>,
    refused: Family<Labels, Counter>,
    misdirected: Counter,
    loops: Counter,
    not_found: Counter,
    failures: Family<Labels, Counter>,
    log_lines_lost: Counter,
    lines: Lines,
    limited: Family<Labels, Counter>,
    unused_clients_removed: Counter,
}

/// What is counted of each call, ready at hand.
struct Calls {
    by_era_and_class: [[Counter; CLASSES.len()]; ERAS.len()],
    seconds: Histogram,
}

impl Metrics {
    #[expect(
        clippy::too_many_lines,
        reason = "one line for each metric, nothing else"
    )]
    pub fn new(policy: &Policy, lines: Lines) -> Arc<Self> {
        let mut registry = Registry::with_prefix("mcp_oauth_proxy");
        let calls: Family<Labels, Counter> = Family::default();
        let seconds: Family<Labels, Histogram> =
            Family::new_with_constructor(|| Histogram::new(CALL_SECONDS));
        let upstreams = policy
            .upstreams
            .iter()
            .map(|upstream| {
                let by_era_and_class = ERAS.map(|(_, era)| {
                    CLASSES.map(|status| {
                        calls.get_or_create_owned(&labels(&[
                            ("upstream", &upstream.name),
                            ("era", &era),
                            ("status", &status),
                        ]))
                    })
                });
                let seconds = seconds.get_or_create_owned(&labels(&[("upstream", &upstream.name)]));
                (
                    upstream.name.clone(),
                    Calls {
                        by_era_and_class,
                        seconds,
                    },
                )
            })
            .collect();
        registry.register(
            "calls",
            "Calls forwarded, by the class of the answer's status",
            calls,
        );
        registry.register(
            "call_seconds",
            "Time until the upstream's answer began",
            seconds,
        );
        let metrics = Self {
            upstreams,
            calls_refused: family(
                &mut registry,
                "calls_refused",
                "Calls that did not reach their upstream",
            ),
            upstream_failures: family(
                &mut registry,
                "upstream_failures",
                "Calls without an answer that could be passed on",
            ),
            requests_repeated: counter(
                &mut registry,
                "requests_repeated",
                "Requests sent to an upstream again, since it had closed the connection",
            ),
            registrations: counter(&mut registry, "registrations", "Clients that registered"),
            documents: family(
                &mut registry,
                "documents",
                "Metadata documents and key sets of clients that were asked for",
            ),
            consents_shown: counter(&mut registry, "consents_shown", "Consent pages shown"),
            approvals: family(&mut registry, "approvals", "Clients approved"),
            denials: counter(&mut registry, "denials", "Clients denied"),
            sign_in_failures: counter(
                &mut registry,
                "sign_in_failures",
                "Wrong passphrases and PINs",
            ),
            sign_ins_blocked: counter(
                &mut registry,
                "sign_ins_blocked",
                "Attempts not looked at after too many wrong ones",
            ),
            guessing_slowed: counter(
                &mut registry,
                "guessing_slowed",
                "Times that wrong attempts used up the global allowance",
            ),
            codes_redeemed: counter(
                &mut registry,
                "codes_redeemed",
                "Authorization codes redeemed",
            ),
            refresh_rotated: counter(&mut registry, "refresh_rotated", "Refresh tokens rotated"),
            refresh_retry_served: counter(
                &mut registry,
                "refresh_retry_served",
                "Refreshes repeated within the retry window",
            ),
            refresh_lost_answer: counter(
                &mut registry,
                "refresh_lost_answer",
                "Refreshes repeated after their answer was lost",
            ),
            refresh_reuse_revoked: counter(
                &mut registry,
                "refresh_reuse_revoked",
                "Grants ended because a refresh token was used again",
            ),
            refresh_predecessor_age: histogram(&mut registry),
            store_regression: counter(
                &mut registry,
                "store_regression",
                "Refreshes that showed a store that had lost writes",
            ),
            grants_revoked: family(
                &mut registry,
                "grants_revoked",
                "Grants that ended before their time",
            ),
            refused: family(
                &mut registry,
                "refused",
                "Requests refused by OAuth endpoints and pages",
            ),
            misdirected: counter(
                &mut registry,
                "misdirected",
                "Requests under a name that is not ours",
            ),
            loops: counter(
                &mut registry,
                "loops",
                "Requests that came back from an upstream's address",
            ),
            not_found: counter(
                &mut registry,
                "not_found",
                "Requests for paths with nothing at them",
            ),
            failures: family(
                &mut registry,
                "failures",
                "Requests that failed because the store or the program did",
            ),
            log_lines_lost: counter(
                &mut registry,
                "log_lines_lost",
                "Lines of the log that nobody read in time",
            ),
            lines,
            limited: family(
                &mut registry,
                "limited",
                "Limits that connections and requests met",
            ),
            unused_clients_removed: counter(
                &mut registry,
                "unused_clients_removed",
                "Clients that were never approved and made room for others",
            ),
            registry: Mutex::default(),
        };
        *metrics
            .registry
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = registry;
        Arc::new(metrics)
    }

    /// Counts a limit that a connection or a request met.
    pub fn count_limit(&self, limit: Limit) {
        count(&self.limited, &[("limit", &limit.as_str())]);
    }

    /// What counts requests that were sent to an upstream again.
    pub fn requests_repeated(&self) -> Counter {
        self.requests_repeated.clone()
    }

    /// Answers a request on the metrics listener at `address`: `GET /metrics`.
    pub fn answer(&self, request: &Request<Body>, address: SocketAddr) -> Response<Body> {
        let mut response = Response::default();
        // A page elsewhere could point a name of its own at this computer (DNS rebinding).
        if address.ip().is_loopback() && !origin::is_for_this_computer(request) {
            *response.status_mut() = StatusCode::MISDIRECTED_REQUEST;
        } else if request.uri().path() != "/metrics" {
            *response.status_mut() = StatusCode::NOT_FOUND;
        } else if request.method() != Method::GET {
            *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
        } else {
            let lost = self.log_lines_lost.inner();
            lost.store(self.lines.lost(), Ordering::Relaxed);
            let mut page = String::new();
            let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
            // Writing into a string cannot fail.
            if text::encode(&mut page, &registry).is_ok() {
                *response.body_mut() = Body::from(page);
            }
            response.headers_mut().insert(
                header::CONTENT_TYPE,
                HeaderValue::from_static(
                    "application/openmetrics-text; version=1.0.0; charset=utf-8",
                ),
            );
        }
        response
    }
}

impl Reader for Metrics {
    fn read(&self, event: &Event<'_>) {
        match *event {
            Event::CallForwarded { call, era, took } => {
                if let Some(calls) = self.upstreams.get(&call.upstream.name) {
                    let era = usize::from(era == Era::Modern);
                    let class = usize::from(call.status.as_u16() / 100).clamp(1, CLASSES.len()) - 1;
                    calls.by_era_and_class[era][class].inc();
                    calls.seconds.observe(took.as_secs_f64());
                }
            }
            Event::CallRefused { call, why } => {
                if let CallRefused::Limit(limit) = why {
                    count(&self.limited, &[("limit", &limit.as_str())]);
                }
                count(
                    &self.calls_refused,
                    &[("upstream", &call.upstream.name), ("why", &why.as_str())],
                );
            }
            Event::OriginRefused { call, .. } => count(
                &self.calls_refused,
                &[("upstream", &call.upstream.name), ("why", &"Origin")],
            ),
            Event::UpstreamFailed { call, why, .. } => {
                count(
                    &self.upstream_failures,
                    &[("upstream", &call.upstream.name), ("why", &why.as_str())],
                );
            }
            Event::ClientRegistered { .. } => drop(self.registrations.inc()),
            Event::DocumentFetched { .. } => count(&self.documents, &[("outcome", &"fetched")]),
            Event::DocumentFailed { instead, .. } => {
                let outcome = instead.map_or("failed", Instead::as_str);
                count(&self.documents, &[("outcome", &outcome)]);
            }
            Event::ConsentShown { .. } => drop(self.consents_shown.inc()),
            Event::Approved { upstream, .. } => count(&self.approvals, &[("upstream", &upstream)]),
            Event::Denied { .. } => drop(self.denials.inc()),
            Event::SignInFailed { .. } => drop(self.sign_in_failures.inc()),
            Event::SignInBlocked { .. } => drop(self.sign_ins_blocked.inc()),
            Event::GuessingSlowed => drop(self.guessing_slowed.inc()),
            Event::CodeRedeemed { .. } => drop(self.codes_redeemed.inc()),
            Event::TokenRefreshed { .. } => drop(self.refresh_rotated.inc()),
            Event::RefreshRepeated { why, age, .. } => {
                match why {
                    Repeated::WithinWindow => self.refresh_retry_served.inc(),
                    Repeated::AnswerLost => self.refresh_lost_answer.inc(),
                };
                self.refresh_predecessor_age.observe(age.as_secs_f64());
            }
            Event::StoreRegressed { .. } => drop(self.store_regression.inc()),
            Event::GrantRevoked { why, .. } => {
                if *why == Revoked::RefreshTokenReuse {
                    self.refresh_reuse_revoked.inc();
                }
                count(&self.grants_revoked, &[("why", &why.as_str())]);
            }
            Event::Refused {
                endpoint, error, ..
            } => {
                count(
                    &self.refused,
                    &[("endpoint", &endpoint.as_str()), ("error", &error)],
                );
            }
            Event::VersionMended { .. }
            | Event::RedirectFollowed { .. }
            | Event::UpstreamTried { .. } => {}
            Event::Misdirected { .. } => drop(self.misdirected.inc()),
            Event::Looped => drop(self.loops.inc()),
            Event::NotFound { .. } => drop(self.not_found.inc()),
            Event::Limited { limit, .. } => count(&self.limited, &[("limit", &limit.as_str())]),
            Event::UnusedClientsRemoved { removed } => {
                self.unused_clients_removed.inc_by(removed);
            }
            Event::RecordDamaged { endpoint, .. } | Event::Failed { endpoint, .. } => {
                count(&self.failures, &[("endpoint", &endpoint.as_str())]);
            }
        }
    }
}

fn count(family: &Family<Labels, Counter>, pairs: &[(&'static str, &dyn ToString)]) {
    family.get_or_create(&labels(pairs)).inc();
}

fn labels(pairs: &[(&'static str, &dyn ToString)]) -> Labels {
    pairs
        .iter()
        .map(|(name, value)| (*name, value.to_string()))
        .collect()
}

fn counter(registry: &mut Registry, name: &str, help: &str) -> Counter {
    let counter = Counter::default();
    registry.register(name, help, counter.clone());
    counter
}

fn family(registry: &mut Registry, name: &str, help: &str) -> Family<Labels, Counter> {
    let family = Family::default();
    registry.register(name, help, family.clone());
    family
}

fn histogram(registry: &mut Registry) -> Histogram {
    let histogram = Histogram::new(AGE_SECONDS);
    registry.register(
        "refresh_predecessor_age_seconds",
        "Time between a rotation and its repetition",
        histogram.clone(),
    );
    histogram
}
