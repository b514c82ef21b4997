//! The facts of one call, for the journal and for errors, which carry the id of the request.

use std::{sync::Arc, time::Duration};

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};

use super::{
    super::{App, respond},
    Route,
    body::Overheard,
};
use crate::{
    grants::LiveGrant,
    journal::{self, CallRefused, Caller, Event, Limit, UpstreamFailed},
    mcp::message::Message,
    ports::UpstreamError,
};

/// One call, from its arrival to its answer.
pub(super) struct Exchange<'a> {
    pub(super) app: &'a App,
    pub(super) route: &'a Route,
    method: Method,
    /// Known once the token has proved it.
    pub(super) caller: Option<Arc<LiveGrant>>,
    asked: Asked,
}

/// The subject of a call, as far as its body was read.
enum Asked {
    Unread,
    Read(Subject),
    /// It is read when the journal or an error needs it.
    Passing(Overheard),
}

/// The subject of a call.
#[derive(Default)]
pub(super) struct Subject {
    /// The id of the request, as it was written.
    pub(super) id: Option<String>,
    pub(super) rpc_method: Option<String>,
    /// The tool that is called. What other methods are asked of, such as the address of a resource,
    /// is as good as an argument and goes into no log.
    tool: Option<String>,
}

const UNREAD: &Subject = &Subject {
    id: None,
    rpc_method: None,
    tool: None,
};

impl Subject {
    fn of(message: &Message<'_>) -> Self {
        let tool = message.target.as_ref();
        Self {
            id: message.id.map(str::to_owned),
            tool: tool.filter(|_| message.is_for("tools/call")).cloned(),
            rpc_method: message.method.clone(),
        }
    }
}

impl<'a> Exchange<'a> {
    pub(super) fn new(app: &'a App, route: &'a Route, method: Method) -> Self {
        Self {
            app,
            route,
            method,
            caller: None,
            asked: Asked::Unread,
        }
    }

    /// Notes what a body that was read asks for.
    pub(super) fn has_read(&mut self, message: &Message<'_>) {
        self.asked = Asked::Read(Subject::of(message));
    }

    /// Streams a body that need not be read, and keeps a copy for the journal and errors.
    pub(super) fn overhears(&mut self, body: Body) -> Body {
        let overheard = Overheard::default();
        let body = overheard.body(body);
        self.asked = Asked::Passing(overheard);
        body
    }

    /// The subject of the call, read now if the body has passed.
    pub(super) fn subject(&mut self) -> &Subject {
        if let Asked::Passing(overheard) = &self.asked {
            let bytes = overheard.bytes().unwrap_or_default();
            self.has_read(&Message::read(&bytes).unwrap_or_default());
        }
        self.subject_so_far()
    }

    /// The body that has passed, whole, if it was short.
    pub(super) fn overheard(&self) -> Option<Bytes> {
        match &self.asked {
            Asked::Unread => Some(Bytes::new()),
            Asked::Passing(overheard) => overheard.bytes(),
            Asked::Read(_) => None,
        }
    }

    fn subject_so_far(&self) -> &Subject {
        match &self.asked {
            Asked::Read(subject) => subject,
            Asked::Unread | Asked::Passing(_) => UNREAD,
        }
    }

    /// The call as the journal has it.
    pub(super) fn call(
        &self,
        status: StatusCode,
        upstream_status: Option<StatusCode>,
    ) -> journal::Call<'_> {
        let subject = self.subject_so_far();
        journal::Call {
            upstream: &self.route.upstream,
            caller: self.caller.as_ref().map(|live| Caller {
                subject: &live.grant.subject,
                client_id: &live.grant.client_id,
            }),
            method: &self.method,
            rpc_method: subject.rpc_method.as_deref().map(brief),
            tool: subject.tool.as_deref().map(brief),
            status,
            upstream_status,
        }
    }

    /// Answers a call that does not reach the upstream.
    pub(super) fn refuse(&mut self, refusal: impl Into<Refusal>) -> Response<Body> {
        let Refusal { why, detail } = refusal.into();
        let id = self.subject().id.as_deref();
        let response = respond::call_refused(why, detail.as_deref(), id);
        self.app.journal.record(&Event::CallRefused {
            call: self.call(response.status(), None),
            why,
        });
        response
    }

    /// Answers a call that a limit keeps from the upstream.
    pub(super) fn refuse_by_limit(&mut self, limit: Limit, wait: Duration) -> Response<Body> {
        let mut response = self.refuse(CallRefused::Limit(limit));
        respond::come_back_after(&mut response, wait);
        response
    }

    /// Answers a call that has no answer of the upstream, because of `why`.
    pub(super) fn unanswered(
        &mut self,
        why: UpstreamFailed,
        error: &UpstreamError,
    ) -> Response<Body> {
        let answer = respond::upstream_failed(why, None, self.subject().id.as_deref());
        self.app.journal.record(&Event::UpstreamFailed {
            call: self.call(answer.status(), None),
            why,
            detail: None,
            cause: Some(error),
        });
        answer
    }

    /// Answers a call whose answer by the upstream is not passed on.
    pub(super) fn failed(
        &mut self,
        why: UpstreamFailed,
        detail: Option<&str>,
        theirs: &http::response::Parts,
    ) -> Response<Body> {
        let mut answer = respond::upstream_failed(why, detail, self.subject().id.as_deref());
        if let Some(retry_after) = theirs.headers.get(http::header::RETRY_AFTER) {
            let headers: &mut HeaderMap<HeaderValue> = answer.headers_mut();
            headers.insert(http::header::RETRY_AFTER, retry_after.clone());
        }
        self.app.journal.record(&Event::UpstreamFailed {
            call: self.call(answer.status(), Some(theirs.status)),
            why,
            detail,
            cause: None,
        });
        answer
    }
}

/// Why a call does not reach the upstream, with a detail for the client.
pub(super) struct Refusal {
    pub(super) why: CallRefused,
    pub(super) detail: Option<String>,
}

impl From<CallRefused> for Refusal {
    fn from(why: CallRefused) -> Self {
        Self { why, detail: None }
    }
}

/// The beginning of a text; no method or tool is called anything longer.
fn brief(text: &str) -> &str {
    const LONGEST: usize = 128;
    &text[..text.floor_char_boundary(LONGEST)]
}
