//! A JSON-RPC message, read as far as a proxy has to know it: what it is, what it asks for, and
//! which revision it is written in. Everything else is skipped.

use serde::{Deserialize, de::IgnoredAny};
use serde_json::{Value, error::Category, value::RawValue};

use super::revision::Revision;

/// The members of a message that matter to a proxy.
#[derive(Clone, Debug, Default)]
pub struct Message<'a> {
    /// The text of the id, a string or a number, as it was written.
    pub id: Option<&'a str>,
    pub method: Option<String>,
    /// What the method is asked of: the tool or prompt, the address of the resource, the task.
    pub target: Option<String>,
    /// The revision that `_meta` names, if it is one.
    pub revision: Option<Revision>,
    pub has_result: bool,
    pub error: Option<RpcError>,
}

/// The `error` of an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct RpcError {
    pub code: i64,
    pub message: String,
}

/// Why a text was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotRead {
    /// It is not one JSON object.
    NoMessage,
    /// It is a list of messages, as 2025-03-26 had them.
    Batch,
    /// A member that decides something is there twice, and the server behind may go by the other
    /// one (RFC 8259 §4).
    Twice,
}

#[derive(Deserialize)]
struct Members<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    method: Option<&'a RawValue>,
    #[serde(borrow)]
    params: Option<&'a RawValue>,
    result: Option<IgnoredAny>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

#[derive(Default, Deserialize)]
struct Params<'a> {
    #[serde(borrow)]
    name: Option<&'a RawValue>,
    #[serde(borrow)]
    uri: Option<&'a RawValue>,
    #[serde(borrow, rename = "taskId")]
    task: Option<&'a RawValue>,
    #[serde(borrow, rename = "_meta")]
    meta: Option<&'a RawValue>,
}

#[derive(Default, Deserialize)]
struct Meta<'a> {
    #[serde(borrow, rename = "io.modelcontextprotocol/protocolVersion")]
    revision: Option<&'a RawValue>,
}

impl<'a> Message<'a> {
    pub fn read(text: &'a [u8]) -> Result<Self, NotRead> {
        match text.iter().find(|byte| !byte.is_ascii_whitespace()) {
            Some(b'{') => {}
            Some(b'[') => return Err(NotRead::Batch),
            _ => return Err(NotRead::NoMessage),
        }
        let members: Members<'_> = serde_json::from_slice(text).map_err(not_read)?;
        let params: Params<'_> = object(members.params)?;
        let meta: Meta<'_> = object(params.meta)?;
        let method = members.method.and_then(string);
        let target = match method.as_deref() {
            Some("tools/call" | "prompts/get") => params.name,
            Some("resources/read") => params.uri,
            Some("tasks/get" | "tasks/update" | "tasks/cancel") => params.task,
            _ => None,
        };
        Ok(Self {
            id: members.id.map(RawValue::get).filter(|id| is_id(id)),
            target: target.and_then(string),
            method,
            revision: meta
                .revision
                .and_then(string)
                .and_then(|text| Revision::parse(text.as_bytes())),
            has_result: members.result.is_some(),
            error: members
                .error
                .map(|error| serde_json::from_str(error.get()).unwrap_or_default()),
        })
    }

    /// Whether it asks for this method.
    pub fn is_for(&self, method: &str) -> bool {
        self.method.as_deref() == Some(method)
    }

    /// Whether it is the answer to the request with that id. Ids are compared by value: `"a"` may
    /// come back as `"\u0061"`.
    pub fn answers(&self, id: &str) -> bool {
        let value = |id| serde_json::from_str::<Value>(id).ok();
        self.method.is_none()
            && (self.has_result || self.error.is_some())
            && self
                .id
                .is_some_and(|own| own == id || value(own) == value(id))
    }
}

/// The members of an object that decide something; none of what is no object.
fn object<'a, T: Default + Deserialize<'a>>(value: Option<&'a RawValue>) -> Result<T, NotRead> {
    match value.map(RawValue::get) {
        Some(text) if text.starts_with('{') => serde_json::from_str(text).map_err(not_read),
        _ => Ok(T::default()),
    }
}

/// All members are taken as they are, so the only thing that can be wrong with them beside the
/// syntax is that one of them is there twice.
#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn not_read(error: serde_json::Error) -> NotRead {
    match error.classify() {
        Category::Data => NotRead::Twice,
        Category::Io | Category::Syntax | Category::Eof => NotRead::NoMessage,
    }
}

fn string(value: &RawValue) -> Option<String> {
    serde_json::from_str(value.get()).ok()
}

fn is_id(text: &str) -> bool {
    text.starts_with(|first: char| first == '"' || first == '-' || first.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Message<'_> {
        Message::read(text.as_bytes()).unwrap()
    }

    #[test]
    fn what_decides_is_read_wherever_it_stands() {
        let request = read(
            r#" {"method":"tools\/call","params":{"arguments":{"name":"x","_meta":{}},"name":"dr\u00f6p",
            "_meta":{"a":[],"io.modelcontextprotocol/protocolVersion":"2026-07-28"}},"jsonrpc":"2.0","id":-7.0}"#,
        );
        assert_eq!(request.id, Some("-7.0"));
        assert_eq!(request.method.as_deref(), Some("tools/call"));
        assert_eq!(request.target.as_deref(), Some("dröp"));
        assert_eq!(request.revision, Revision::parse(b"2026-07-28"));
        assert!(!request.has_result && request.error.is_none());

        let answer = read(r#"{"id":"a","error":{"code":-32601,"message":"no"}}"#);
        let error = RpcError {
            code: -32601,
            message: "no".into(),
        };
        assert_eq!(answer.error, Some(error));
        assert!(answer.answers(r#""\u0061""#) && !answer.answers("1"));
    }

    #[test]
    fn each_method_is_asked_of_its_own_kind_of_thing() {
        let target = |method: &str| {
            let text = format!(
                r#"{{"method":"{method}","params":{{"name":"n","uri":"u","taskId":"t"}}}}"#
            );
            read(&text).target
        };
        assert_eq!(target("tools/call").as_deref(), Some("n"));
        assert_eq!(target("prompts/get").as_deref(), Some("n"));
        assert_eq!(target("resources/read").as_deref(), Some("u"));
        assert_eq!(target("tasks/get").as_deref(), Some("t"));
        assert_eq!(target("tools/list"), None);
    }

    #[test]
    fn what_is_of_another_kind_is_as_good_as_missing() {
        for text in [
            r#"{"id":null,"method":5,"params":[1,2]}"#,
            r#"{"id":{},"params":{"_meta":[],"name":{}}}"#,
            r#"{"id":[1],"params":{"_meta":{"io.modelcontextprotocol/protocolVersion":7}}}"#,
            "{}",
        ] {
            let message = read(text);
            assert!(message.id.is_none() && message.method.is_none(), "{text}");
            assert!(message.target.is_none() && message.revision.is_none());
        }
        assert_eq!(read(r#"{"error":"x"}"#).error, Some(RpcError::default()));
    }

    #[test]
    fn a_member_that_decides_is_there_once() {
        const VERSION: &str = "io.modelcontextprotocol/protocolVersion";
        for text in [
            r#"{"method":"a","method":"a"}"#,
            r#"{"method":"a","\u006dethod":"b"}"#,
            r#"{"id":1,"id":2}"#,
            r#"{"params":{},"params":{}}"#,
            r#"{"params":{"name":"a","name":"b"}}"#,
            r#"{"params":{"_meta":{},"_meta":{}}}"#,
            &format!(r#"{{"params":{{"_meta":{{"{VERSION}":"a","{VERSION}":"b"}}}}}}"#),
        ] {
            let read = Message::read(text.as_bytes());
            assert_eq!(read.unwrap_err(), NotRead::Twice, "{text}");
        }
        let _ = read(r#"{"a":1,"a":2,"params":{"x":1,"x":2,"arguments":{"name":1,"name":2}}}"#);
    }

    #[test]
    fn what_is_no_message_is_not_read() {
        let deep = "[".repeat(10_000);
        for (text, why) in [
            ("", NotRead::NoMessage),
            ("null", NotRead::NoMessage),
            ("{", NotRead::NoMessage),
            ("{}{}", NotRead::NoMessage),
            ("{\"method\":\"a\"", NotRead::NoMessage),
            ("\u{feff}{}", NotRead::NoMessage),
            ("{'a':1}", NotRead::NoMessage),
            (" [{\"id\":1}]", NotRead::Batch),
            (&deep, NotRead::Batch),
        ] {
            assert_eq!(Message::read(text.as_bytes()).unwrap_err(), why, "{text}");
        }
        let nested = format!("{{\"x\":{deep}");
        assert!(Message::read(nested.as_bytes()).is_err());
    }

    proptest::proptest! {
        #[test]
        fn whatever_comes_is_read_or_refused(text in "\\PC{0,60}") {
            drop(Message::read(text.as_bytes()));
            drop(Message::read(format!("{{\"id\":{text}}}").as_bytes()));
        }
    }
}
