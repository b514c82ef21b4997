//! Which requests are idempotent, and may be retried when it is not known whether the first try
//! arrived.

use std::borrow::Cow;

use http::Method;
use serde::{Deserialize, de::IgnoredAny};

/// Whether `request` is idempotent. Its `body` is whole.
///
/// HTTP promises that of some methods (RFC 9110 §9.2.2). For the rest the body decides, since the
/// server goes by it; one that is not plainly a single request or notification is not repeated.
pub fn may_be_repeated(request: &Method, body: &[u8]) -> bool {
    match *request {
        Method::GET | Method::HEAD | Method::OPTIONS | Method::DELETE => true,
        Method::POST => {
            serde_json::from_slice(body).is_ok_and(|call: Call<'_>| is_repeatable(&call.method))
        }
        _ => false,
    }
}

/// Whether a method is idempotent: it reads, sets a state, or begins something that stays unused if
/// the answer is lost. An unknown method may do anything, and so may a tool.
pub fn is_repeatable(method: &str) -> bool {
    matches!(
        method,
        "initialize"
            | "server/discover"
            | "ping"
            | "tools/list"
            | "resources/list"
            | "resources/templates/list"
            | "resources/read"
            | "prompts/list"
            | "prompts/get"
            | "completion/complete"
            | "tasks/list"
            | "tasks/get"
            | "tasks/result"
            | "logging/setLevel"
            | "resources/subscribe"
            | "resources/unsubscribe"
            | "subscriptions/listen"
            | "notifications/initialized"
            | "notifications/cancelled"
            | "notifications/progress"
            | "notifications/roots/list_changed"
    )
}

/// A request or notification. No member may be there twice, and none beside these, or the server
/// could go by another method than the one that is read here. [`Message`](super::message::Message)
/// skips unknown members; a server that ignores the case of names would read `Method`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "they are allowed to be there")]
struct Call<'a> {
    jsonrpc: IgnoredAny,
    #[serde(borrow)]
    method: Cow<'a, str>,
    id: Option<IgnoredAny>,
    params: Option<IgnoredAny>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn posted(body: &str) -> bool {
        may_be_repeated(&Method::POST, body.as_bytes())
    }

    /// Case 16: a tool call is never run twice.
    #[test]
    fn what_reads_may_be_repeated_and_what_acts_may_not() {
        for method in ["initialize", "ping", "tools/list", "resources/read"] {
            let call = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{{}}}}"#);
            assert!(posted(&call), "{call}");
        }
        assert!(posted(
            r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#
        ));
        assert!(posted(
            r#"{"params":{"name":"tools/call"},"method":"prompts\/get","id":"1","jsonrpc":"2.0"}"#
        ));
        for method in [
            "tools/call",
            "tasks/cancel",
            "tasks/update",
            "Ping",
            "ping ",
            "x/list",
            "",
        ] {
            let call = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{{}}}}"#);
            assert!(!posted(&call), "{call}");
        }
    }

    #[test]
    fn a_body_that_can_be_read_in_two_ways_is_not_repeated() {
        for body in [
            "",
            "ping",
            r#"{"jsonrpc":"2.0","id":1}"#,
            r#"{"jsonrpc":"2.0","id":1,"result":{}}"#,
            r#"[{"jsonrpc":"2.0","id":1,"method":"ping"}]"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"ping"} {}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"ping""#,
            r#"{"jsonrpc":"2.0","id":1,"method":"ping","method":"tools/call"}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"ping","m\u0065thod":"tools/call"}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"ping","Method":"tools/call"}"#,
        ] {
            assert!(!posted(body), "{body}");
        }
    }

    #[test]
    fn the_methods_of_http_that_promise_it_may_be_repeated_whatever_they_carry() {
        for method in [Method::GET, Method::DELETE, Method::HEAD, Method::OPTIONS] {
            assert!(may_be_repeated(&method, b"x"));
        }
        let ping = br#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
        for method in [Method::PUT, Method::PATCH] {
            assert!(!may_be_repeated(&method, ping));
        }
    }
}
