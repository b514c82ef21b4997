//! JSON-RPC answers as HTTP responses; the one file of this server that knows status codes.

use std::borrow::Cow;

use axum::body::Body;
use http::{
    HeaderValue, Response, StatusCode,
    header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE},
};
use serde_json::{Map, Value, json};

use super::revision::Revision;

/// The members of a result.
pub(super) type Members = Map<String, Value>;

/// What this program calls itself towards clients.
pub(super) fn server_info(revision: Revision) -> Value {
    let mut info = json!({ "name": "mcp-oauth-proxy-demo", "version": env!("CARGO_PKG_VERSION") });
    if revision.has_structured_content() {
        info["title"] = "mcp-oauth-proxy demonstration".into();
    }
    info
}

/// Takes the members out of an object written with `json!`.
pub(super) fn members(object: Value) -> Members {
    match object {
        Value::Object(members) => members,
        _ => Members::new(),
    }
}

/// The response message to a request that succeeded, with what its revision wants in each result.
pub(super) fn success(revision: Revision, id: &Value, mut result: Members) -> Value {
    if revision.is_modern() {
        result.insert("resultType".to_owned(), "complete".into());
        result.insert(
            "_meta".to_owned(),
            json!({ "io.modelcontextprotocol/serverInfo": server_info(revision) }),
        );
    }
    json!({ "jsonrpc": "2.0", "id": id, "result": result })
}

/// A JSON-RPC error: what went wrong with one message.
#[derive(Debug)]
pub(super) struct Fault {
    code: i32,
    message: Cow<'static, str>,
    data: Option<Value>,
}

impl Fault {
    const METHOD_NOT_FOUND: i32 = -32601;

    fn new(code: i32, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            code,
            message: message.into(),
            data: None,
        }
    }

    pub(super) fn invalid_request(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(-32600, message)
    }

    pub(super) fn method_not_found() -> Self {
        Self::new(Self::METHOD_NOT_FOUND, "this server has no such method")
    }

    pub(super) fn invalid_params(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(-32602, message)
    }

    /// The headers of a request disagree with its body (2026-07-28 only).
    pub(super) fn header_mismatch(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(-32020, message)
    }

    /// Lists only the revision that a request can name for itself: offering one that needs
    /// `initialize` would send the client round in circles.
    pub(super) fn unsupported_version(requested: &str) -> Self {
        let supported = Revision::MODERN.as_str();
        let newest = Revision::NEWEST_HANDSHAKE.as_str();
        Self {
            data: Some(json!({ "supported": [supported], "requested": requested })),
            ..Self::new(
                -32022,
                format!(
                    "this protocol version is not supported; \
                     use {supported}, or begin with initialize for {newest} and earlier"
                ),
            )
        }
    }

    /// The response message to a request that failed, or to a message whose id nobody can read.
    pub(super) fn message(self, id: Option<&Value>) -> Value {
        let mut error = json!({ "code": self.code, "message": self.message });
        if let Some(data) = self.data {
            error["data"] = data;
        }
        let mut message = json!({ "jsonrpc": "2.0", "error": error });
        if let Some(id) = id {
            message["id"] = id.clone();
        }
        message
    }

    /// Answers a request whose method was looked up. In the modern era an unknown method is 404;
    /// before it, 404 means that the session is gone, so every error travels in a 200.
    pub(super) fn respond(self, revision: Revision, id: &Value) -> Response<Body> {
        let status = match self.code {
            Self::METHOD_NOT_FOUND if revision.is_modern() => StatusCode::NOT_FOUND,
            _ => StatusCode::OK,
        };
        json_body(status, &self.message(Some(id)))
    }
}

/// An HTTP request that is refused before any method is looked up.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    fault: Fault,
    id: Option<Value>,
}

impl Refusal {
    fn new(status: StatusCode, fault: Fault) -> Self {
        Self {
            status,
            fault,
            id: None,
        }
    }

    pub(super) fn bad_request(fault: Fault) -> Self {
        Self::new(StatusCode::BAD_REQUEST, fault)
    }

    pub(super) fn not_json() -> Self {
        Self::bad_request(Fault::new(-32700, "the body is not valid JSON"))
    }

    pub(super) fn too_large() -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            Fault::invalid_request("the body is larger than 1 MiB"),
        )
    }

    pub(super) fn unsupported_media_type() -> Self {
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Fault::invalid_request("Content-Type must be application/json"),
        )
    }

    pub(super) fn not_acceptable() -> Self {
        Self::new(
            StatusCode::NOT_ACCEPTABLE,
            Fault::invalid_request("Accept must list both application/json and text/event-stream"),
        )
    }

    pub(super) fn session_unknown() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            Fault::invalid_request("the session is unknown or has ended; send initialize again"),
        )
    }

    /// GET is refused, as the protocol allows: nothing would ever be sent on such a stream, and a
    /// client of the two-endpoint transport of 2024-11-05 would wait on it for ever.
    pub(super) fn method_not_allowed() -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            Fault::invalid_request("this endpoint takes POST, and DELETE to end a session"),
        )
    }

    /// The same, said about the request with this id.
    pub(super) fn about(self, id: &Value) -> Self {
        Self {
            id: Some(id.clone()),
            ..self
        }
    }

    pub(super) fn respond(self) -> Response<Body> {
        let mut response = json_body(self.status, &self.fault.message(self.id.as_ref()));
        if self.status == StatusCode::METHOD_NOT_ALLOWED {
            let methods = HeaderValue::from_static("POST, DELETE");
            response.headers_mut().insert(ALLOW, methods);
        }
        response
    }
}

/// 200 with `message`: one JSON-RPC message, or the array that answers an array.
pub(super) fn json_answer(message: &Value) -> Response<Body> {
    json_body(StatusCode::OK, message)
}

/// The answer to `initialize`, with the id of the session that begins with it.
pub(super) fn with_session(mut answer: Response<Body>, id: &str) -> Response<Body> {
    let id = HeaderValue::from_str(id).expect("session ids are base64url");
    answer.headers_mut().insert("mcp-session-id", id);
    answer
}

/// 202: a notification was taken.
pub(super) fn accepted() -> Response<Body> {
    empty(StatusCode::ACCEPTED)
}

/// 204: the session has ended.
pub(super) fn session_ended() -> Response<Body> {
    empty(StatusCode::NO_CONTENT)
}

/// 200 with a stream of events, which nothing on the way may hold back.
pub(super) fn event_stream(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(
        CACHE_CONTROL,
        HeaderValue::from_static("no-cache, no-transform"),
    );
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

fn json_body(status: StatusCode, message: &Value) -> Response<Body> {
    let mut response = Response::new(Body::from(message.to_string()));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}
