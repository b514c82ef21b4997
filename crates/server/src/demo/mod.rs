//! The demonstration MCP server inside this program, so that a first run needs nothing else.
//!
//! It speaks both eras of Streamable HTTP at one endpoint: revisions up to 2025-11-25, which begin
//! with `initialize`, and 2026-07-28, in which every request stands for itself. A request that
//! names its revision in its own `_meta` is a modern one; `initialize`, and whatever carries no
//! such claim under an older `MCP-Protocol-Version` or none, is not.
//!
//! Nothing runs on its own here: whatever takes time is a future or a body, and ends when the
//! connection that wants it does.

mod calculate;
mod count_down;
mod headers;
mod message;
mod reply;
mod revision;
mod session;
mod tools;

use std::{fmt, sync::Arc};

use axum::body::{Body, Bytes};
use http::{HeaderMap, Method, Request, Response};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use protocol::ports::Entropy;
use serde_json::{Value, json};

use message::{Call, Message};
use reply::{Fault, Members, Refusal, members};
use revision::Revision;
use session::Sessions;
use tools::Called;

/// Bytes in a request body at most; there is no use for more here.
const MAX_BODY: usize = 1024 * 1024;

/// Messages in one body at most, in the one revision that allows several.
const MAX_BATCH: usize = 16;

/// How long a client may keep the list of tools and the answer to `server/discover`. They change
/// only with this program.
const CACHE_MILLISECONDS: u32 = 300_000;

/// On whose behalf a request is made, as established before it gets here.
#[derive(Clone, Copy, Debug)]
pub struct Person<'a> {
    /// The person who approved the client.
    pub subject: &'a str,
    /// How they proved who they are, in a word: `passphrase`.
    pub sign_in: &'a str,
    /// The client that asks.
    pub client: &'a str,
}

/// The demonstration server.
pub struct Demo {
    sessions: Sessions,
}

impl fmt::Debug for Demo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Demo")
    }
}

impl Demo {
    /// `entropy` makes the session ids.
    pub fn new(entropy: Arc<dyn Entropy>) -> Self {
        Self {
            sessions: Sessions::new(entropy),
        }
    }

    /// Answers one request to the MCP endpoint, made on behalf of `person`.
    pub async fn answer(&self, person: &Person<'_>, request: Request<Body>) -> Response<Body> {
        let answer = match *request.method() {
            Method::POST => self.answer_post(person, request).await,
            Method::DELETE => self.end_session(person, request.headers()),
            _ => Err(Refusal::method_not_allowed()),
        };
        answer.unwrap_or_else(Refusal::respond)
    }

    async fn answer_post(
        &self,
        person: &Person<'_>,
        request: Request<Body>,
    ) -> Result<Response<Body>, Refusal> {
        let (parts, body) = request.into_parts();
        headers::check_content(&parts.headers)?;
        let body = collect(body).await?;
        let body = serde_json::from_slice(&body).map_err(|_| Refusal::not_json())?;
        if let Value::Array(messages) = body {
            return self.answer_batch(person, &parts.headers, messages).await;
        }
        match Message::parse(body).map_err(Refusal::bad_request)? {
            Message::Request(call) => {
                let id = call.id.clone();
                self.answer_request(person, &parts.headers, call)
                    .await
                    .map_err(|refusal| refusal.about(&id))
            }
            Message::Notification { claims_revision } => {
                // Nothing here acts on one, and the headers of a modern one are not laid down.
                if !claims_revision {
                    self.revision(person, &parts.headers)?;
                }
                Ok(reply::accepted())
            }
            Message::Response => {
                // Nobody has a request of ours to answer; only older clients may still try.
                if self.revision(person, &parts.headers)?.is_modern() {
                    return Err(Refusal::bad_request(Fault::invalid_request(
                        "the body must be a request or a notification",
                    )));
                }
                Ok(reply::accepted())
            }
        }
    }

    async fn answer_request(
        &self,
        person: &Person<'_>,
        headers: &HeaderMap,
        call: Call,
    ) -> Result<Response<Body>, Refusal> {
        let claims_revision = call.claim().is_some();
        if call.method == "initialize" && !claims_revision {
            return self.initialize(person, headers, &call);
        }
        let revision = if claims_revision {
            Revision::MODERN
        } else {
            self.revision(person, headers)?
        };
        if revision.is_modern() {
            headers::check_modern(headers, &call)?;
        }
        let result = match carry_out(person, revision, &call) {
            Ok(Called::Result(result)) => result,
            Ok(Called::CountDown(count_down)) => match call.progress_token() {
                Some(token) => {
                    let events = count_down.stream(revision, call.id.clone(), token.clone());
                    return Ok(reply::event_stream(events));
                }
                None => count_down.count(revision).await,
            },
            Err(fault) => return Ok(fault.respond(revision, &call.id)),
        };
        Ok(reply::json_answer(&reply::success(
            revision, &call.id, result,
        )))
    }

    /// Answers an array of messages with the array of their responses. Progress is not reported.
    async fn answer_batch(
        &self,
        person: &Person<'_>,
        headers: &HeaderMap,
        messages: Vec<Value>,
    ) -> Result<Response<Body>, Refusal> {
        let refusal = |why| Err(Refusal::bad_request(Fault::invalid_request(why)));
        let revision = self.revision(person, headers)?;
        if !revision.has_batches() {
            return refusal("only 2025-03-26 has arrays of messages; send one message at a time");
        }
        if messages.is_empty() || messages.len() > MAX_BATCH {
            return refusal("an array must have 1 to 16 messages");
        }
        let mut responses = Vec::new();
        for message in messages {
            let call = match Message::parse(message) {
                Ok(Message::Request(call)) => call,
                Ok(Message::Notification { .. } | Message::Response) => continue,
                Err(fault) => {
                    responses.push(fault.message(None));
                    continue;
                }
            };
            if call.claim().is_some() || call.method == "initialize" {
                let fault = Fault::invalid_request("this request must be sent on its own");
                responses.push(fault.message(Some(&call.id)));
                continue;
            }
            let result = match carry_out(person, revision, &call) {
                Ok(Called::Result(result)) => result,
                Ok(Called::CountDown(count_down)) => count_down.count(revision).await,
                Err(fault) => {
                    responses.push(fault.message(Some(&call.id)));
                    continue;
                }
            };
            responses.push(reply::success(revision, &call.id, result));
        }
        Ok(if responses.is_empty() {
            reply::accepted()
        } else {
            reply::json_answer(&Value::Array(responses))
        })
    }

    fn initialize(
        &self,
        person: &Person<'_>,
        headers: &HeaderMap,
        call: &Call,
    ) -> Result<Response<Body>, Refusal> {
        if headers::protocol_version(headers)? == Some(Revision::MODERN.as_str()) {
            return Err(Refusal::bad_request(Fault::header_mismatch(
                "the header MCP-Protocol-Version names a version that has no initialize",
            )));
        }
        let Some(Value::String(asked)) = call.params.get("protocolVersion") else {
            let fault = Fault::invalid_params("params.protocolVersion must be a string");
            return Ok(fault.respond(Revision::NEWEST_HANDSHAKE, &call.id));
        };
        let revision = Revision::parse(asked)
            .filter(|revision| !revision.is_modern())
            .unwrap_or(Revision::NEWEST_HANDSHAKE);
        let result = members(json!({
            "protocolVersion": revision.as_str(),
            "capabilities": capabilities(),
            "serverInfo": reply::server_info(revision),
            "instructions": INSTRUCTIONS,
        }));
        let answer = reply::json_answer(&reply::success(revision, &call.id, result));
        let id = self.sessions.begin(person.subject, revision);
        Ok(reply::with_session(answer, &id))
    }

    /// The revision of a message that does not claim one itself: by its header, else its session,
    /// else the default. A session is not demanded, since some clients lose its id on some of
    /// their calls; one that is named must be live.
    fn revision(&self, person: &Person<'_>, headers: &HeaderMap) -> Result<Revision, Refusal> {
        let named = headers::protocol_version(headers)?
            .map(|version| {
                Revision::parse(version)
                    .ok_or_else(|| Refusal::bad_request(Fault::unsupported_version(version)))
            })
            .transpose()?;
        // The modern era has no sessions, so an id left over from an older one says nothing.
        if let Some(modern) = named.filter(|revision| revision.is_modern()) {
            return Ok(modern);
        }
        let agreed = headers::session(headers)?
            .map(|id| {
                self.sessions
                    .revision(id, person.subject)
                    .ok_or_else(Refusal::session_unknown)
            })
            .transpose()?;
        Ok(named.or(agreed).unwrap_or(Revision::UNSAID))
    }

    fn end_session(
        &self,
        person: &Person<'_>,
        headers: &HeaderMap,
    ) -> Result<Response<Body>, Refusal> {
        let Some(id) = headers::session(headers)? else {
            return Err(Refusal::bad_request(Fault::invalid_request(
                "DELETE needs the header Mcp-Session-Id",
            )));
        };
        if self.sessions.end(id, person.subject) {
            Ok(reply::session_ended())
        } else {
            Err(Refusal::session_unknown())
        }
    }
}

const INSTRUCTIONS: &str = "The demonstration server inside mcp-oauth-proxy. Its tools tell who is \
    signed in, calculate, and count down. Your own MCP server takes its place when the proxy is \
    configured with one.";

fn capabilities() -> Value {
    json!({ "tools": {} })
}

/// Carries out what a request asks for. What takes time is handed back.
fn carry_out(person: &Person<'_>, revision: Revision, call: &Call) -> Result<Called, Fault> {
    match (call.method.as_str(), revision.is_modern()) {
        ("server/discover", true) => Ok(Called::Result(cacheable(members(json!({
            "supportedVersions": [Revision::MODERN.as_str()],
            "capabilities": capabilities(),
            "instructions": INSTRUCTIONS,
        }))))),
        ("ping", false) => Ok(Called::Result(Members::new())),
        ("tools/list", true) => {
            tools::list(revision, &call.params).map(|list| Called::Result(cacheable(list)))
        }
        ("tools/list", false) => tools::list(revision, &call.params).map(Called::Result),
        ("tools/call", _) => tools::call(person, revision, &call.params),
        _ => Err(Fault::method_not_found()),
    }
}

/// Says how long a result may be kept, and by whom: it is the same for everybody.
fn cacheable(mut result: Members) -> Members {
    result.insert("ttlMs".to_owned(), CACHE_MILLISECONDS.into());
    result.insert("cacheScope".to_owned(), "public".into());
    result
}

async fn collect(body: Body) -> Result<Bytes, Refusal> {
    match Limited::new(body, MAX_BODY).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(why) if why.is::<LengthLimitError>() => Err(Refusal::too_large()),
        Err(_) => Err(Refusal::bad_request(Fault::invalid_request(
            "the body did not arrive whole",
        ))),
    }
}
