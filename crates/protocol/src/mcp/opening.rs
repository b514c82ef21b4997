//! The answer to `initialize`, in which both sides agree on a revision, and what else a server says
//! of itself when it is asked.

use serde::Deserialize;
use serde_json::Value;

use super::{
    event_boundary::BOM,
    message::{Message, RpcError},
    revision::Revision,
};

#[derive(Deserialize)]
struct Opening {
    result: Agreed,
}

#[derive(Deserialize)]
struct Agreed {
    #[serde(rename = "protocolVersion")]
    revision: String,
}

/// The revision in an answer that came as JSON.
pub fn in_json(text: &[u8]) -> Option<Revision> {
    let opening: Opening = serde_json::from_slice(text).ok()?;
    Revision::parse(opening.result.revision.as_bytes())
}

/// The revision in the beginning of an event stream: the data of one event is the answer.
pub fn in_events(text: &[u8]) -> Option<Revision> {
    first_in_events(text, in_json)
}

/// What a server says of itself, as far as it does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct About {
    pub name: Option<String>,
    pub version: Option<String>,
    /// The revision that it agrees to; of those that it offers, the latest.
    pub revision: Option<Revision>,
}

/// The answer to the request of that id, which was `initialize` or `server/discover`.
pub fn answer_in_json(text: &[u8], id: &str) -> Option<Result<About, RpcError>> {
    let message = Message::read(text).ok().filter(|it| it.answers(id))?;
    if let Some(error) = message.error {
        return Some(Err(error));
    }
    let answer: Value = serde_json::from_slice(text).ok()?;
    let result = &answer["result"];
    let server = match &result["serverInfo"] {
        Value::Null => &result["_meta"]["io.modelcontextprotocol/serverInfo"],
        server => server,
    };
    let said = |member: &str| server[member].as_str().map(str::to_owned);
    let offered = result["supportedVersions"].as_array();
    let revisions = offered.into_iter().flatten();
    Some(Ok(About {
        name: said("name"),
        version: said("version"),
        revision: revisions
            .chain([&result["protocolVersion"]])
            .filter_map(|revision| Revision::parse(revision.as_str()?.as_bytes()))
            .max(),
    }))
}

/// The same in the beginning of an event stream.
pub fn answer_in_events(text: &[u8], id: &str) -> Option<Result<About, RpcError>> {
    first_in_events(text, |data| answer_in_json(data, id))
}

/// Whether an event stream begins as the HTTP with SSE of 2024-11-05 does, with an `endpoint` to send
/// messages to.
pub fn is_of_2024(text: &[u8]) -> bool {
    let text = text.strip_prefix(BOM).unwrap_or(text);
    let mut lines = text.split(|byte| *byte == b'\n' || *byte == b'\r');
    // The last one may go on.
    lines.next_back();
    let mut has_data = false;
    for line in lines {
        if let Some(event) = line.strip_prefix(b"event:") {
            return event.trim_ascii() == b"endpoint";
        }
        if line.is_empty() && has_data {
            return false;
        }
        has_data |= line.starts_with(b"data");
    }
    false
}

/// What is found first in the data of an event.
fn first_in_events<T>(text: &[u8], find: impl Fn(&[u8]) -> Option<T>) -> Option<T> {
    let lines = text.split(|byte| *byte == b'\n' || *byte == b'\r');
    // Data may come in several lines; those of one event stand together.
    let mut data = Vec::new();
    for line in lines.filter_map(|line| line.strip_prefix(b"data:")) {
        let line = line.strip_prefix(b" ").unwrap_or(line);
        data.extend_from_slice(line);
        if let Some(found) = find(line).or_else(|| find(&data)) {
            return Some(found);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &str = r#"{"jsonrpc":"2.0","id":0,"result":{"protocolVersion":"2025-11-25"}}"#;

    #[test]
    fn the_revision_is_read_from_either_form() {
        let agreed = Revision::parse(b"2025-11-25");
        assert_eq!(in_json(ANSWER.as_bytes()), agreed);
        for stream in [
            format!("event: message\ndata: {ANSWER}\n\n"),
            format!("id: 1\r\ndata:\r\n\r\nid: 2\r\ndata:{ANSWER}\r\n\r\n"),
            format!(": hello\n\ndata: {{\"method\":\"x\"}}\n\nevent: message\ndata: {ANSWER}\n\n"),
            format!("data: {}\ndata: {}\n\n", &ANSWER[..30], &ANSWER[30..]),
        ] {
            assert_eq!(in_events(stream.as_bytes()), agreed, "{stream}");
        }
        for other in ["", "{}", r#"{"result":{"protocolVersion":7}}"#, "data: x"] {
            assert_eq!(in_json(other.as_bytes()), None);
            assert_eq!(in_events(other.as_bytes()), None);
        }
    }

    #[test]
    fn what_a_server_says_of_itself_is_read_in_both_eras() {
        let about = |name: &str, revision: &str| About {
            name: Some(name.to_owned()),
            version: Some("1.2".to_owned()),
            revision: Revision::parse(revision.as_bytes()),
        };
        let legacy = r#"{"jsonrpc":"2.0","id":1,"result":{"protocolVersion":"2025-06-18","serverInfo":{"name":"Old","version":"1.2"}}}"#;
        let modern = r#"{"id":1,"result":{"supportedVersions":["2026-07-28","2025-11-25"],"_meta":{"io.modelcontextprotocol/serverInfo":{"name":"New","version":"1.2"}}}}"#;
        let old = Some(Ok(about("Old", "2025-06-18")));
        assert_eq!(answer_in_json(legacy.as_bytes(), "1"), old);
        let new = Some(Ok(about("New", "2026-07-28")));
        assert_eq!(answer_in_json(modern.as_bytes(), "1"), new);
        let stream = format!("event: message\ndata: {legacy}\n\n");
        assert_eq!(answer_in_events(stream.as_bytes(), "1"), old);
        let nothing_of_itself = answer_in_json(br#"{"id":1,"result":{"serverInfo":7}}"#, "1");
        assert_eq!(nothing_of_itself, Some(Ok(About::default())));
        let refused = answer_in_json(br#"{"id":1,"error":{"code":-32601,"message":"no"}}"#, "1");
        assert_eq!(refused.unwrap().unwrap_err().code, -32601);
        for other in [
            "",
            "{}",
            r#"{"id":2,"result":{}}"#,
            r#"{"id":1,"method":"x"}"#,
        ] {
            assert_eq!(answer_in_json(other.as_bytes(), "1"), None, "{other}");
        }
    }

    #[test]
    fn a_stream_of_2024_is_known_by_its_first_event() {
        for stream in [
            "event: endpoint\ndata: /messages?id=1\n\n",
            "event:endpoint\r\n",
            "\u{feff}: hello\n\nevent: endpoint\n",
            "id: 1\ndata: /messages\nevent: endpoint\n\n",
        ] {
            assert!(is_of_2024(stream.as_bytes()), "{stream}");
        }
        for stream in [
            "",
            "event: endpoint",
            "event: endpoints\n",
            "event: message\ndata: {}\n\nevent: endpoint\n",
            "data: {}\n\nevent: endpoint\n",
        ] {
            assert!(!is_of_2024(stream.as_bytes()), "{stream}");
        }
    }
}
