//! From the upstream's answer to the client's: bytes and status as they came, but for what would
//! mislead the client, and for what is not MCP at all.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use axum::body::Body;
use bytes::Bytes;
use http::{
    Extensions, HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header,
    response::Parts,
};

use super::{
    super::{extract::Permit, respond},
    body::{self, Begun},
    exchange::Exchange,
    failure,
    request::Call,
    sessions, trial,
};
use crate::{
    forward::{
        headers::{self, LAST_EVENT_ID, MCP_SESSION_ID},
        redirect,
    },
    journal::{CallRefused, Event, Limit, UpstreamFailed},
    keep_alive::KeptAlive,
    mcp::{
        answer,
        era::DISCOVER,
        message::Message,
        revision::{Era, Revision},
        session::Session,
    },
    oauth::access_token::Family,
    ports::UpstreamError,
    streams::{Opening, Place},
};

/// After how long a grant with too many streams may ask for one again. The end of a stream whose
/// client has vanished is seen within half a minute.
const PLACE_SOON: Duration = Duration::from_secs(10);

/// A call that was sent to its upstream, with the facts that its answer depends on.
#[expect(
    clippy::struct_excessive_bools,
    reason = "facts of a request that have nothing to do with each other"
)]
struct Sent<'a> {
    exchange: Exchange<'a>,
    family: Family,
    era: Era,
    session: Option<Session>,
    named: Option<HeaderValue>,
    is_opening: bool,
    is_newer_by_header: bool,
    wants_stream: bool,
    /// What the operator has to know of an answer that reaches the client.
    alert: Option<UpstreamFailed>,
    method: Method,
    place: Option<Place>,
    is_resumed: bool,
    took: Duration,
}

/// Sends the call, and returns the answer or an error.
pub(super) async fn exchange(
    mut exchange: Exchange<'_>,
    permit: Permit,
    call: Call,
) -> Response<Body> {
    let app = exchange.app;
    let family = permit.family();
    let Call {
        request,
        read,
        era,
        session,
        named,
        is_opening,
        is_newer_by_header,
        is_listening,
        wants_stream,
    } = call;
    // A client that resumes a stream does what its server asked for.
    let is_resumed = request.headers().contains_key(LAST_EVENT_ID);
    let place = if is_listening {
        let rate = app.policy.limits.brief_streams_per_grant;
        let conversation = &permit.live().conversation;
        let wait = conversation
            .brief_streams
            .wait(rate, app.ports.clock.elapsed());
        if !wait.is_zero() && request.method() == Method::GET && !is_resumed {
            return exchange.refuse_by_limit(Limit::BriefStreamsPerGrant, wait);
        }
        let Some(place) = app
            .streams
            .reserve(family, app.policy.limits.streams_per_grant)
        else {
            return exchange.refuse_by_limit(Limit::StreamsPerGrant, PLACE_SOON);
        };
        Some(place)
    } else {
        None
    };
    let method = request.method().clone();
    let started = app.ports.clock.elapsed();
    let response = match send(&mut exchange, permit, request, read).await {
        Ok(response) => response,
        Err(error) => return unanswered(exchange, &error, is_opening).await,
    };
    let sent = Sent {
        took: app.ports.clock.elapsed().saturating_sub(started),
        exchange,
        family,
        era,
        session,
        named,
        is_opening,
        is_newer_by_header,
        wants_stream,
        alert: None,
        method,
        place,
        is_resumed,
    };
    sent.answer(response).await
}

/// Says why there is no answer.
async fn unanswered(
    mut exchange: Exchange<'_>,
    error: &UpstreamError,
    is_opening: bool,
) -> Response<Body> {
    let Some(mut why) = failure::of_error(error) else {
        return exchange.refuse(if respond::is_length_limit(error) {
            CallRefused::TooLarge
        } else {
            CallRefused::Body
        });
    };
    let Exchange { app, route, .. } = exchange;
    if is_opening {
        why = trial::look_closer(app, &route.upstream, why, None).await;
    }
    exchange.unanswered(why, error)
}

/// Sends the request, and once more where the upstream moved it to within its own origin, with
/// method and body (RFC 9110 §15.4.8): frameworks do that for a slash at the end.
async fn send(
    exchange: &mut Exchange<'_>,
    permit: Permit,
    request: Request<Body>,
    read: Option<Bytes>,
) -> Result<Response<Body>, UpstreamError> {
    let app = exchange.app;
    let (mut head, body) = request.into_parts();
    let upstream = &app.ports.upstream;
    let response = upstream.send(permit.clone(), &head, body).await?;
    let Some(target) = redirect::within_origin(
        response.status(),
        response.headers(),
        &head.uri,
        head.headers.get(header::HOST),
    ) else {
        return Ok(response);
    };
    let Some(body) = read.or_else(|| exchange.overheard()) else {
        return Ok(response);
    };
    if !exchange
        .route
        .learnt
        .redirect_noted
        .swap(true, Ordering::Relaxed)
    {
        app.journal.record(&Event::RedirectFollowed {
            upstream: &permit.upstream().name,
            target: &redirect::leads_to(response.headers(), &head.uri).unwrap_or_default(),
        });
    }
    head.uri = target;
    upstream.send(permit, &head, Body::from(body)).await
}

impl Sent<'_> {
    async fn answer(mut self, response: Response<Body>) -> Response<Body> {
        let (parts, body) = response.into_parts();
        let is_page = headers::is_page(&parts.headers) && self.method == Method::POST;
        let is_no_stream = self.wants_stream && !headers::is_event_stream(&parts.headers);
        if parts.status.is_success() && !is_page && !is_no_stream {
            return self.succeed(parts, body).await;
        }
        let (text, body) = body::text(&*self.exchange.app.ports.clock, &parts.headers, body).await;
        let text = text.unwrap_or_default();
        match self.judge(&parts, &text) {
            Verdict::Pass(status) => self.pass(status, parts, body, None).await,
            Verdict::NoStream => self.instead(respond::no_stream(), &parts),
            Verdict::UnknownMethod => {
                let answer = respond::unknown_method(self.exchange.subject().id.as_deref());
                self.instead(answer, &parts)
            }
            Verdict::Failed(why) => {
                if why == UpstreamFailed::SessionLost {
                    self.forget_session().await;
                }
                let Exchange { app, route, .. } = self.exchange;
                let why = if self.is_opening {
                    trial::look_closer(app, &route.upstream, why, Some(parts.status)).await
                } else {
                    why
                };
                let detail = failure::detail(why, &route.upstream, &parts);
                self.exchange.failed(why, detail.as_deref(), &parts)
            }
        }
    }

    /// Passes on what was done, unless what begins is the stream of another transport.
    async fn succeed(mut self, parts: Parts, body: Body) -> Response<Body> {
        if !self.is_opening {
            return self.pass(parts.status, parts, body, None).await;
        }
        let (begun, body) =
            body::opening(&*self.exchange.app.ports.clock, &parts.headers, body).await;
        match begun {
            Begun::OldTransport => self
                .exchange
                .failed(UpstreamFailed::OldTransport, None, &parts),
            Begun::Agreed(revision) => self.pass(parts.status, parts, body, Some(revision)).await,
            Begun::Unknown => self.pass(parts.status, parts, body, None).await,
        }
    }

    /// Answers in place of the upstream, in a form that clients understand.
    fn instead(&self, answer: Response<Body>, theirs: &Parts) -> Response<Body> {
        self.exchange.app.journal.record(&Event::CallForwarded {
            call: self.exchange.call(answer.status(), Some(theirs.status)),
            era: self.era,
            took: self.took,
        });
        answer
    }

    /// Decides about an answer that is no plain success. `text` is its body, if that is short.
    fn judge(&mut self, theirs: &Parts, text: &[u8]) -> Verdict {
        let status = theirs.status;
        if self.has_lost_session(status, text) {
            return Verdict::Failed(UpstreamFailed::SessionLost);
        }
        let route = self.exchange.route;
        let failed = failure::of_answer(&route.upstream, theirs, text, self.is_opening);
        let misleads = !failure::is_passed_on(status) || status == StatusCode::NOT_FOUND;
        let subject = self.exchange.subject();
        let asked = subject.rpc_method.clone();
        if misleads
            && let Some(id) = &subject.id
            && let Ok(message) = Message::read(text)
            && message.answers(id)
        {
            if status == StatusCode::UNAUTHORIZED {
                self.alert = failed.map(|why| self.refused_credential(why));
            }
            return Verdict::Pass(answer::status(
                self.era,
                asked.as_deref(),
                message.error.as_ref(),
            ));
        }
        let is_about_way = matches!(status.as_u16(), 401 | 403 | 407 | 429 | 502..=504 | 508)
            || matches!(
                failed,
                Some(UpstreamFailed::HostRefused | UpstreamFailed::WantsTls)
            );
        let is_probe = asked.as_deref() == Some(DISCOVER);
        match failed {
            // Nothing but a stream is a stream, whatever the server has at its address for others.
            _ if self.wants_stream && !is_about_way => Verdict::NoStream,
            // A client that asks what the server is goes on to the older era when it hears this.
            Some(UpstreamFailed::ServerError) if is_probe && is_unknown_to(status) => {
                Verdict::UnknownMethod
            }
            Some(UpstreamFailed::Page) if is_probe && !is_about_way => Verdict::UnknownMethod,
            Some(why) if status == StatusCode::UNAUTHORIZED => {
                Verdict::Failed(self.refused_credential(why))
            }
            Some(why) => Verdict::Failed(why),
            None => Verdict::Pass(status),
        }
    }

    /// Whether the upstream has lost the session of the request, or demands one of a request of the
    /// older era that has none. In both cases the client begins a new session.
    fn has_lost_session(&mut self, status: StatusCode, text: &[u8]) -> bool {
        if self.is_opening || self.era == Era::Modern && !self.is_newer_by_header {
            return false;
        }
        let is_in_one = self.session.as_ref().is_some_and(|it| it.id.is_some());
        let id = self.exchange.subject().id.as_deref();
        let is_about_it = answer::is_about_session(status, text, id)
            || self.is_newer_by_header && answer::is_about_version(status, text);
        match status {
            StatusCode::NOT_FOUND if is_in_one => {
                is_about_it || !Message::read(text).is_ok_and(|message| message.error.is_some())
            }
            StatusCode::BAD_REQUEST => is_about_it && (is_in_one || self.method == Method::POST),
            _ => is_in_one && is_about_it,
        }
    }

    /// What a 401 means. A credential that was taken a moment ago is not bad because one call is
    /// refused; the next refusal without a success between shows it.
    fn refused_credential(&self, why: UpstreamFailed) -> UpstreamFailed {
        let learnt = &self.exchange.route.learnt;
        let was_taken = learnt.takes_credential.swap(false, Ordering::Relaxed);
        if was_taken && why == UpstreamFailed::CredentialRefused {
            UpstreamFailed::CallForbidden
        } else {
            why
        }
    }

    /// Passes an answer on, with a status that does not mislead. `agreed` is the revision that it
    /// agrees on, if it is the answer to `initialize`.
    async fn pass(
        mut self,
        status: StatusCode,
        mut theirs: Parts,
        body: Body,
        agreed: Option<Revision>,
    ) -> Response<Body> {
        let Exchange { app, route, .. } = self.exchange;
        let upstream_status = theirs.status;
        if upstream_status.is_success() && !route.learnt.takes_credential.load(Ordering::Relaxed) {
            route.learnt.takes_credential.store(true, Ordering::Relaxed);
        }
        let call = self.exchange.call(status, Some(upstream_status));
        app.journal.record(&match self.alert {
            Some(why) => Event::UpstreamFailed {
                call,
                why,
                detail: None,
                cause: None,
            },
            None => Event::CallForwarded {
                call,
                era: self.era,
                took: self.took,
            },
        });
        theirs.status = status;
        let named = theirs.headers.remove(MCP_SESSION_ID);
        headers::keep_for_client(&mut theirs.headers);
        if self.era == Era::Legacy {
            self.hand_out_session(named, &mut theirs, agreed).await;
        }
        if self.method == Method::DELETE {
            self.forget_session().await;
        }
        theirs.extensions = Extensions::new();
        let body = if headers::is_event_stream(&theirs.headers) {
            self.stream(&theirs.headers, body)
        } else {
            body
        };
        Response::from_parts(theirs, body)
    }

    /// An event stream, which ends with its grant, is never silent for long, and is counted if it
    /// ends at once.
    fn stream(mut self, theirs: &HeaderMap, body: Body) -> Body {
        let (app, limits) = (self.exchange.app, &self.exchange.app.policy.limits);
        // What ends at once after a POST was its answer.
        let is_counted = self.method == Method::GET && !self.is_resumed;
        let opening = self.exchange.caller.take().filter(|_| is_counted);
        let opening = opening.map(|live| Opening {
            clock: Arc::clone(&app.ports.clock),
            at: app.ports.clock.elapsed(),
            brief_streams: Arc::clone(&live.conversation.brief_streams),
            rate: limits.brief_streams_per_grant,
        });
        let every = limits.stream_keep_alive;
        let body = KeptAlive::new(body, theirs, every, &app.ports.clock);
        app.streams
            .until_end_of(self.family, self.place, body, opening)
    }

    /// Gives the client its own name for the session that the upstream named, if it did. One that
    /// was just opened is kept for requests that will not name it.
    async fn hand_out_session(
        &mut self,
        named: Option<HeaderValue>,
        theirs: &mut Parts,
        agreed: Option<Revision>,
    ) {
        let Exchange { app, route, .. } = self.exchange;
        // A refusal opens no session, even if it names one, as some servers do.
        if !theirs.status.is_success() || named.is_none() && !self.is_opening {
            return;
        }
        // Some servers name the session in every answer. The client has a name for it already.
        let is_same = !self.is_opening && self.session.as_ref().is_some_and(|it| it.id == named);
        if is_same {
            if let Some(named) = self.named.take() {
                theirs.headers.insert(MCP_SESSION_ID, named);
            }
            return;
        }
        let has_id = named.is_some();
        let session = Session {
            id: named,
            revision: agreed,
        };
        let Some(live) = &self.exchange.caller else {
            return;
        };
        let sealed = sessions::seal(app, &route.upstream, &live.grant, &session);
        if self.is_opening {
            route
                .learnt
                .has_no_sessions
                .store(!has_id, Ordering::Relaxed);
            sessions::keep(app, self.family, live, session, &sealed).await;
        }
        if has_id && let Ok(sealed) = HeaderValue::try_from(sealed) {
            theirs.headers.insert(MCP_SESSION_ID, sealed);
        }
    }

    async fn forget_session(&self) {
        let Exchange { app, route, .. } = self.exchange;
        if let (Some(session), Some(live)) = (&self.session, &self.exchange.caller) {
            sessions::forget(app, route, self.family, live, session).await;
        }
    }
}

/// The decision about an answer.
enum Verdict {
    /// It reaches the client, with this status.
    Pass(StatusCode),
    /// The upstream has no stream to listen to, which is no fault (MCP 2025-11-25, "Listening for
    /// Messages from the Server").
    NoStream,
    /// The upstream does not know the method.
    UnknownMethod,
    Failed(UpstreamFailed),
}

/// Whether a server that fails so may not know the method.
fn is_unknown_to(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::INTERNAL_SERVER_ERROR | StatusCode::NOT_IMPLEMENTED
    )
}
