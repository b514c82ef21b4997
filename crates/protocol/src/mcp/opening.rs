//! The answer to `initialize`, in which both sides agree on a revision.

use serde::Deserialize;

use super::revision::Revision;

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
    let lines = text.split(|byte| *byte == b'\n' || *byte == b'\r');
    // Data may come in several lines; those of one event stand together.
    let mut data = Vec::new();
    for line in lines.filter_map(|line| line.strip_prefix(b"data:")) {
        let line = line.strip_prefix(b" ").unwrap_or(line);
        data.extend_from_slice(line);
        if let Some(revision) = in_json(line).or_else(|| in_json(&data)) {
            return Some(revision);
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
}
