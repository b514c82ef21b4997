//! The request headers this server reads: content negotiation, and the fields that a modern
//! request repeats from its body.

use base64::{Engine, engine::general_purpose::STANDARD};
use http::{
    HeaderMap,
    header::{ACCEPT, CONTENT_TYPE},
};
use serde_json::Value;

use super::{
    message::{Call, PROTOCOL_VERSION},
    reply::{Fault, Refusal},
    revision::Revision,
};

/// Refuses a POST whose answer could not be sent, or whose body is not said to be JSON.
pub(super) fn check_content(headers: &HeaderMap) -> Result<(), Refusal> {
    if !(accepts(headers, "application", "json") && accepts(headers, "text", "event-stream")) {
        return Err(Refusal::not_acceptable());
    }
    let content_type = headers.get(CONTENT_TYPE).and_then(|it| it.to_str().ok());
    if !content_type.is_some_and(|it| essence(it).eq_ignore_ascii_case("application/json")) {
        return Err(Refusal::unsupported_media_type());
    }
    Ok(())
}

/// Without an `Accept` header anything is acceptable (RFC 9110 §12.5.1).
fn accepts(headers: &HeaderMap, kind: &str, subtype: &str) -> bool {
    if !headers.contains_key(ACCEPT) {
        return true;
    }
    headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|range| essence(range).split_once('/'))
        .any(|(range_kind, range_subtype)| {
            range_kind == "*"
                || range_kind.eq_ignore_ascii_case(kind)
                    && (range_subtype == "*" || range_subtype.eq_ignore_ascii_case(subtype))
        })
}

/// A media type or range without its parameters.
fn essence(media_type: &str) -> &str {
    media_type.split(';').next().unwrap_or_default().trim()
}

/// The protocol version that the headers name.
pub(super) fn protocol_version(headers: &HeaderMap) -> Result<Option<&str>, Refusal> {
    single(headers, "mcp-protocol-version")
}

/// The session that the headers name.
pub(super) fn session(headers: &HeaderMap) -> Result<Option<&str>, Refusal> {
    single(headers, "mcp-session-id")
}

/// Checks that a modern request is complete and that its headers repeat its body (2026-07-28,
/// Streamable HTTP, "Server Validation"). The version comes first, since another one may have
/// other rules for the rest.
pub(super) fn check_modern(headers: &HeaderMap, call: &Call) -> Result<(), Refusal> {
    let version = protocol_version(headers)?;
    match (call.claim(), version) {
        (Some(Value::String(claim)), Some(version)) if claim == version => {
            if Revision::parse(claim) != Some(Revision::MODERN) {
                return Err(Refusal::bad_request(Fault::unsupported_version(claim)));
            }
        }
        (Some(Value::String(_)), _) => return Err(mismatch("MCP-Protocol-Version")),
        _ => {
            return Err(Refusal::bad_request(Fault::invalid_params(format!(
                "params._meta must have the string {PROTOCOL_VERSION}"
            ))));
        }
    }
    if !call
        .meta("io.modelcontextprotocol/clientCapabilities")
        .is_some_and(Value::is_object)
    {
        return Err(Refusal::bad_request(Fault::invalid_params(
            "params._meta must have the object io.modelcontextprotocol/clientCapabilities",
        )));
    }
    if single(headers, "mcp-method")? != Some(&call.method) {
        return Err(mismatch("Mcp-Method"));
    }
    let named = match call.method.as_str() {
        "tools/call" | "prompts/get" => call.params.get("name"),
        "resources/read" => call.params.get("uri"),
        _ => return Ok(()),
    };
    let header = single(headers, "mcp-name")?;
    match (header.map(decode), named) {
        (Some(Some(header)), Some(Value::String(named))) if header == *named => Ok(()),
        // A name that is missing on both sides is left to the method, which can say what it wants.
        (None, None | Some(Value::Null)) => Ok(()),
        _ => Err(mismatch("Mcp-Name")),
    }
}

fn mismatch(header: &str) -> Refusal {
    Refusal::bad_request(Fault::header_mismatch(format!(
        "the header {header} is missing or does not match the body"
    )))
}

/// The value of a header that may be sent once. Two would let what stands before us act on one
/// value and us on the other.
fn single<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, Refusal> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    match (value.to_str(), values.next()) {
        (Ok(value), None) => Ok(Some(value.trim_matches([' ', '\t']))),
        _ => Err(Refusal::bad_request(Fault::header_mismatch(format!(
            "the header {name} must be sent once, in visible ASCII"
        )))),
    }
}

/// Undoes the encoding of names that a header cannot carry as they are. `None`: it claims to be
/// encoded and is not.
fn decode(value: &str) -> Option<String> {
    match value
        .strip_prefix("=?base64?")
        .and_then(|rest| rest.strip_suffix("?="))
    {
        None => Some(value.to_owned()),
        Some(encoded) => String::from_utf8(STANDARD.decode(encoded).ok()?).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_encoded_name_is_decoded_and_any_other_is_left_alone() {
        assert_eq!(decode("calculate").as_deref(), Some("calculate"));
        assert_eq!(
            decode("=?base64?Y2FsY3VsYXRl?=").as_deref(),
            Some("calculate")
        );
        // The markers are case-sensitive.
        assert_eq!(
            decode("=?BASE64?Y2FsY3VsYXRl?=").as_deref(),
            Some("=?BASE64?Y2FsY3VsYXRl?=")
        );
        assert_eq!(decode("=?base64?not base64?="), None);
        assert_eq!(decode("=?base64?/w==?="), None, "not UTF-8");
    }

    #[test]
    fn both_kinds_of_answer_must_be_acceptable() {
        let with = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(ACCEPT, http::HeaderValue::from_static(value));
            }
            accepts(&headers, "application", "json") && accepts(&headers, "text", "event-stream")
        };
        assert!(with(&[]));
        assert!(with(&["*/*"]));
        assert!(with(&["application/json, text/event-stream"]));
        assert!(with(&["Text/Event-Stream; q=0.5", "application/JSON"]));
        assert!(with(&["text/*,application/*"]));
        assert!(!with(&["application/json"]));
        assert!(!with(&["text/event-stream"]));
        assert!(!with(&["text/html"]));
        assert!(!with(&[""]));
    }
}
