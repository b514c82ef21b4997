//! JSON-RPC messages as they arrive.

use serde_json::Value;

use super::reply::{Fault, Members};

/// One message from a client.
pub(super) enum Message {
    Request(Call),
    /// Nothing here acts on a notification, so nothing else of it is kept.
    Notification {
        claims_revision: bool,
    },
    /// An answer to a request of ours; we never send one.
    Response,
}

/// A request: a method to carry out, and the id to answer to.
pub(super) struct Call {
    pub(super) id: Value,
    pub(super) method: String,
    pub(super) params: Members,
}

/// Where a request of the modern era names the revision it is written in.
pub(super) const PROTOCOL_VERSION: &str = "io.modelcontextprotocol/protocolVersion";

impl Message {
    pub(super) fn parse(message: Value) -> Result<Self, Fault> {
        let Value::Object(mut message) = message else {
            return Err(Fault::invalid_request("a message must be a JSON object"));
        };
        if message.get("jsonrpc").and_then(Value::as_str) != Some("2.0") {
            return Err(Fault::invalid_request("jsonrpc must be \"2.0\""));
        }
        let method = match message.remove("method") {
            Some(Value::String(method)) => method,
            None if message.contains_key("result") || message.contains_key("error") => {
                return Ok(Self::Response);
            }
            _ => return Err(Fault::invalid_request("method must be a string")),
        };
        let params = match message.remove("params") {
            Some(Value::Object(params)) => params,
            None | Some(Value::Null) => Members::new(),
            Some(_) => return Err(Fault::invalid_request("params must be an object")),
        };
        match message.remove("id") {
            None => Ok(Self::Notification {
                claims_revision: claim(&params).is_some(),
            }),
            Some(id @ (Value::String(_) | Value::Number(_))) => {
                Ok(Self::Request(Call { id, method, params }))
            }
            Some(_) => Err(Fault::invalid_request("id must be a string or a number")),
        }
    }
}

impl Call {
    /// The revision that the request says it is written in, as found. Its presence makes the
    /// request a modern one, whatever the headers say.
    pub(super) fn claim(&self) -> Option<&Value> {
        claim(&self.params)
    }

    /// What to name in progress notifications; without it the client wants none.
    pub(super) fn progress_token(&self) -> Option<&Value> {
        self.meta("progressToken")
            .filter(|token| token.is_string() || token.is_number())
    }

    pub(super) fn meta(&self, key: &str) -> Option<&Value> {
        self.params.get("_meta")?.get(key)
    }
}

fn claim(params: &Members) -> Option<&Value> {
    params.get("_meta")?.get(PROTOCOL_VERSION)
}
