//! Whether an upstream answers at all, asked before anybody calls it, and in words that a call which
//! fails would get. One `initialize`; a server of the newer era only is asked what it is instead.

use std::{pin::pin, time::Duration};

use axum::body::Body;
use futures_util::future::{Either, join_all, select};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, header,
    response::Parts, uri::Scheme,
};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};

use super::{super::App, body::LONGEST, failure};
use crate::{
    forward::{
        credential::Credential,
        headers::{self, CDN_LOOP, MCP_METHOD, MCP_PROTOCOL_VERSION, MCP_SESSION_ID},
        redirect,
    },
    journal::{Event, Trial, UpstreamFailed},
    mcp::{
        era::{DISCOVER, INITIALIZE},
        message::RpcError,
        opening::{self, About},
        revision::Revision,
    },
    policy::{Destination, UpstreamPolicy},
    ports::{Clock, Upstream, UpstreamError},
};

/// How long an upstream may take to answer a trial.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a closer look at a failure may take, and the end of the session that a trial began.
/// Clients wait for the answer to `initialize` for as little as ten seconds.
const LOOK: Duration = Duration::from_secs(3);

/// The revisions that are asked for: the last one with a handshake, and the first without.
const LEGACY: &str = "2025-11-25";
const MODERN: &str = "2026-07-28";

/// The id of each request, as it is written.
const ID: &str = "1";

/// A request of the proxy's own to an upstream. Nothing of a client's is in it: it is made of the
/// configuration alone, in this file and nowhere else, so it may go out without a permit.
pub struct Question(Request<Body>);

impl Question {
    pub fn into_request(self) -> Request<Body> {
        self.0
    }
}

/// Tries an upstream, unless it is part of this program. `proxy` is what marks requests of this proxy
/// (RFC 8586).
async fn of(
    way: &dyn Upstream,
    clock: &dyn Clock,
    proxy: &HeaderValue,
    upstream: &UpstreamPolicy,
) -> Option<Trial> {
    let asker = Asker::new(way, clock, proxy, upstream)?;
    Some(asker.tries().await)
}

/// Tries upstreams, all at the same time.
pub async fn of_each(
    way: &dyn Upstream,
    clock: &dyn Clock,
    proxy: &HeaderValue,
    upstreams: impl IntoIterator<Item = &UpstreamPolicy>,
) -> Vec<Option<Trial>> {
    let upstreams = upstreams.into_iter();
    join_all(upstreams.map(|upstream| of(way, clock, proxy, upstream))).await
}

impl App {
    /// Tries each upstream once, all at the same time, and tells the journal. The host calls this
    /// when it serves already.
    pub async fn try_upstreams(&self) {
        let trials = self.policy.upstreams.iter().map(|upstream| async {
            let (way, clock) = (&*self.ports.upstream, &*self.ports.clock);
            if let Some(outcome) = of(way, clock, &self.proxy_name, upstream).await {
                self.journal.record(&Event::UpstreamTried {
                    upstream: &upstream.name,
                    outcome: &outcome,
                });
            }
        });
        join_all(trials).await;
    }
}

/// Finds out more about an `initialize` that failed, where the failure alone does not tell what is to
/// be corrected.
pub(super) async fn look_closer(
    app: &App,
    upstream: &UpstreamPolicy,
    why: UpstreamFailed,
    status: Option<StatusCode>,
) -> UpstreamFailed {
    let (way, clock) = (&*app.ports.upstream, &*app.ports.clock);
    match Asker::new(way, clock, &app.proxy_name, upstream) {
        Some(asker) => asker.looks_closer(why, status).await,
        None => why,
    }
}

/// What asks one upstream.
struct Asker<'a> {
    way: &'a dyn Upstream,
    clock: &'a dyn Clock,
    proxy: &'a HeaderValue,
    upstream: &'a UpstreamPolicy,
    endpoint: &'a Uri,
    credential: &'a Credential,
}

/// The answer to a question, and as much of its body as says what it is.
struct Answer {
    head: Parts,
    text: Vec<u8>,
}

impl<'a> Asker<'a> {
    fn new(
        way: &'a dyn Upstream,
        clock: &'a dyn Clock,
        proxy: &'a HeaderValue,
        upstream: &'a UpstreamPolicy,
    ) -> Option<Self> {
        let Destination::Remote {
            endpoint,
            credential,
        } = &upstream.destination
        else {
            return None;
        };
        Some(Self {
            way,
            clock,
            proxy,
            upstream,
            endpoint,
            credential,
        })
    }

    async fn tries(&self) -> Trial {
        let Some(opened) = within(self.clock, PATIENCE, self.opens()).await else {
            return Trial::failed(UpstreamFailed::TimedOut);
        };
        let opened = match opened {
            Ok(opened) => opened,
            Err(error) => {
                let why = failure::of_error(&error).unwrap_or(UpstreamFailed::Broken);
                return Trial::Failed {
                    why: self.looks_closer(why, None).await,
                    detail: None,
                    status: None,
                    cause: Some(error),
                };
            }
        };
        if let Some(Ok(about)) = opened.said() {
            if let Some(session) = opened.head.headers.get(MCP_SESSION_ID) {
                let ending = self.ends(session.clone(), about.revision);
                within(self.clock, LOOK, ending).await;
            }
            return Trial::Answered(about);
        }
        let head = &opened.head;
        let status = Some(head.status);
        if let Some(why) = self.judges(&opened) {
            return Trial::Failed {
                detail: failure::detail(why, self.upstream, head),
                why: self.looks_closer(why, status).await,
                status,
                cause: None,
            };
        }
        if let Some(Some(about)) = within(self.clock, PATIENCE, self.discovers()).await {
            return Trial::Answered(about);
        }
        let refusal = opened.said().and_then(Result::err);
        Trial::Failed {
            why: UpstreamFailed::NoMcp,
            detail: refusal.map(|error| format!("JSON-RPC error {}", error.code)),
            status,
            cause: None,
        }
    }

    /// What is wrong with an answer that has no result. `None`: it may be a server of the newer era.
    fn judges(&self, answer: &Answer) -> Option<UpstreamFailed> {
        let Answer { head, text } = answer;
        if headers::is_event_stream(&head.headers) && opening::is_of_2024(text) {
            return Some(UpstreamFailed::OldTransport);
        }
        if let Some(why) = failure::of_answer(self.upstream, head, text, true) {
            return Some(why);
        }
        match head.status {
            StatusCode::TOO_MANY_REQUESTS => Some(UpstreamFailed::ServerError),
            StatusCode::BAD_REQUEST => None,
            _ if failure::is_rpc_error(text) || answer.said().is_some() => None,
            _ => Some(UpstreamFailed::NoMcp),
        }
    }

    async fn opens(&self) -> Result<Answer, UpstreamError> {
        let params = json!({
            "protocolVersion": LEGACY,
            "capabilities": {},
            "clientInfo": own_name(),
        });
        self.posts(INITIALIZE, &params, &[]).await
    }

    async fn discovers(&self) -> Option<About> {
        let params = json!({ "_meta": {
            "io.modelcontextprotocol/protocolVersion": MODERN,
            "io.modelcontextprotocol/clientCapabilities": {},
            "io.modelcontextprotocol/clientInfo": own_name(),
        }});
        let headers = [(MCP_PROTOCOL_VERSION, MODERN), (MCP_METHOD, DISCOVER)];
        let answer = self.posts(DISCOVER, &params, &headers).await.ok()?;
        answer.said()?.ok()
    }

    /// Ends the session that a trial began.
    async fn ends(&self, session: HeaderValue, revision: Option<Revision>) {
        let mut headers = HeaderMap::new();
        headers.insert(MCP_SESSION_ID, session);
        if let Some(revision) = revision {
            headers.insert(MCP_PROTOCOL_VERSION, revision.to_header());
        }
        let question = self.question(Method::DELETE, self.address(), headers, Body::empty());
        // Servers may refuse that, and forget the session by themselves.
        drop(self.way.ask(question).await);
    }

    async fn looks_closer(
        &self,
        why: UpstreamFailed,
        status: Option<StatusCode>,
    ) -> UpstreamFailed {
        let is_missing = matches!(
            status,
            Some(StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED)
        );
        let found = match why {
            UpstreamFailed::Broken if failure::is_called_without_tls(self.upstream) => {
                let speaks_tls = within(self.clock, LOOK, self.finds_tls()).await;
                speaks_tls
                    .unwrap_or_default()
                    .then_some(UpstreamFailed::WantsTls)
            }
            UpstreamFailed::NothingThere if is_missing => {
                let is_old = within(self.clock, LOOK, self.finds_transport_of_2024()).await;
                is_old
                    .unwrap_or_default()
                    .then_some(UpstreamFailed::OldTransport)
            }
            _ => None,
        };
        found.unwrap_or(why)
    }

    /// Whether a `GET` brings the stream that the HTTP with SSE of 2024 begins with.
    async fn finds_transport_of_2024(&self) -> bool {
        let mut headers = HeaderMap::new();
        let stream = HeaderValue::from_static("text/event-stream");
        headers.insert(header::ACCEPT, stream);
        let question = self.question(Method::GET, self.address(), headers, Body::empty());
        let Ok(answer) = self.way.ask(question).await else {
            return false;
        };
        headers::is_event_stream(answer.headers())
            && opening::is_of_2024(&Answer::read(answer).await.text)
    }

    /// Whether an address that begins with `http` leads to a port that speaks TLS. Whoever is there gets
    /// nothing of ours to know.
    async fn finds_tls(&self) -> bool {
        let mut parts = self.endpoint.clone().into_parts();
        parts.scheme = Some(Scheme::HTTPS);
        parts.path_and_query = Some(http::uri::PathAndQuery::from_static("/"));
        let Ok(address) = Uri::from_parts(parts) else {
            return false;
        };
        let mut request = Request::new(Body::empty());
        *request.uri_mut() = address;
        let answer = self.way.ask(Question(request)).await;
        matches!(answer, Ok(_) | Err(UpstreamError::Untrusted(_)))
    }

    /// Calls a method. A redirect is followed as one of a call is.
    async fn posts(
        &self,
        method: &str,
        params: &Value,
        more: &[(HeaderName, &'static str)],
    ) -> Result<Answer, UpstreamError> {
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let body = body.to_string();
        let mut headers = HeaderMap::new();
        for (name, value) in [
            (header::CONTENT_TYPE, "application/json"),
            (header::ACCEPT, "application/json, text/event-stream"),
        ]
        .iter()
        .chain(more)
        {
            headers.insert(name, HeaderValue::from_static(value));
        }
        let address = self.address();
        let ask = |to| {
            let body = Body::from(body.clone());
            let question = self.question(Method::POST, to, headers.clone(), body);
            self.way.ask(question)
        };
        let mut response = ask(address.clone()).await?;
        let target = redirect::within_origin(
            response.status(),
            response.headers(),
            &address,
            self.upstream.headers.host(),
        );
        if let Some(target) = target {
            response = ask(target).await?;
        }
        Ok(Answer::read(response).await)
    }

    fn address(&self) -> Uri {
        self.credential.address(self.endpoint, None)
    }

    /// A request with all that a call would carry of the operator's.
    fn question(&self, method: Method, to: Uri, mut headers: HeaderMap, body: Body) -> Question {
        headers.insert(CDN_LOOP, self.proxy.clone());
        self.upstream.headers.set_on(&mut headers);
        self.credential.set_on(&mut headers);
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() = to;
        *request.headers_mut() = headers;
        Question(request)
    }
}

impl Answer {
    /// Reads a body until it is known what it is. A stream may go on for ever.
    async fn read(response: Response<Body>) -> Self {
        let (head, mut body) = response.into_parts();
        let mut answer = Self {
            head,
            text: Vec::new(),
        };
        let is_stream = headers::is_event_stream(&answer.head.headers);
        while answer.text.len() <= LONGEST
            && let Some(Ok(frame)) = body.frame().await
        {
            answer.text.extend(frame.into_data().unwrap_or_default());
            if is_stream && (answer.said().is_some() || opening::is_of_2024(&answer.text)) {
                break;
            }
        }
        answer
    }

    /// What the upstream says to the question.
    fn said(&self) -> Option<Result<About, RpcError>> {
        if headers::is_event_stream(&self.head.headers) {
            opening::answer_in_events(&self.text, ID)
        } else {
            opening::answer_in_json(&self.text, ID)
        }
    }
}

fn own_name() -> Value {
    json!({ "name": "mcp-oauth-proxy", "version": env!("CARGO_PKG_VERSION") })
}

/// What `asking` comes to, if it comes to anything in time.
async fn within<T>(
    clock: &dyn Clock,
    patience: Duration,
    asking: impl Future<Output = T>,
) -> Option<T> {
    match select(pin!(asking), clock.sleep(patience)).await {
        Either::Left((outcome, _)) => Some(outcome),
        Either::Right(_) => None,
    }
}
