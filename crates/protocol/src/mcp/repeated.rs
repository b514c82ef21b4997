//! The headers in which a request of the newer era repeats what its body says, so that
//! intermediaries can go by them (MCP 2026-07-28, Streamable HTTP, "Standard headers").

use base64::{Engine, prelude::BASE64_STANDARD};
use http::{HeaderMap, HeaderValue};

use super::{
    message::Message,
    revision::{Era, Revision},
};
use crate::forward::headers::{MCP_METHOD, MCP_NAME, MCP_PROTOCOL_VERSION};

const ENCODED: &str = "=?base64?";
const END: &str = "?=";

/// A header that says something else than the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Contradiction {
    Method,
    Name,
}

/// Compares the headers with the body, of either era: the one in front goes by the headers, and
/// the one behind by the body. A header that is missing contradicts nothing. So does a name of a
/// method that has none; such headers are sent by clients that name whatever they like.
pub fn check(headers: &HeaderMap, message: &Message<'_>) -> Result<(), Contradiction> {
    let says = |header: Option<&HeaderValue>, said: Option<&str>| match (header, said) {
        (Some(header), Some(said)) => decoded(header).is_some_and(|text| text == said),
        _ => true,
    };
    let method = headers.get(MCP_METHOD);
    if !says(method, Some(message.method.as_deref().unwrap_or_default())) {
        return Err(Contradiction::Method);
    }
    if !says(headers.get(MCP_NAME), message.target.as_deref()) {
        return Err(Contradiction::Name);
    }
    Ok(())
}

/// Writes the version header and those of the two others that are missing from a body of the newer
/// era, where the version header does not name that era's revision. A client whose header does so
/// knows what else belongs there, and what it leaves out is for its server to refuse. Whether the
/// version header said something else.
pub fn complete(headers: &mut HeaderMap, message: &Message<'_>) -> bool {
    let said = headers.get(MCP_PROTOCOL_VERSION);
    let said = said.and_then(|said| Revision::parse(said.as_bytes()));
    if said.is_some_and(|said| match message.revision {
        Some(revision) => said == revision,
        None => said.era() == Era::Modern,
    }) {
        return false;
    }
    if let Some(revision) = message.revision {
        headers.insert(MCP_PROTOCOL_VERSION, revision.to_header());
    }
    for (name, value) in [(MCP_METHOD, &message.method), (MCP_NAME, &message.target)] {
        if let Some(value) = value
            && !headers.contains_key(&name)
        {
            headers.insert(name, encoded(value));
        }
    }
    message.revision.is_some()
}

/// The text that a header stands for. `None` if it is not what anything is encoded to.
fn decoded(header: &HeaderValue) -> Option<String> {
    let text = header.to_str().ok()?;
    match text
        .strip_prefix(ENCODED)
        .and_then(|rest| rest.strip_suffix(END))
    {
        Some(encoded) => String::from_utf8(BASE64_STANDARD.decode(encoded).ok()?).ok(),
        None => Some(text.to_owned()),
    }
}

/// A text as a header: as it is where a header can carry it, else in Base64.
fn encoded(text: &str) -> HeaderValue {
    let is_plain = text.trim() == text
        && !text.starts_with(ENCODED)
        && text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    let text = if is_plain {
        text.to_owned()
    } else {
        format!("{ENCODED}{}{END}", BASE64_STANDARD.encode(text))
    };
    HeaderValue::try_from(text).expect("visible ASCII and spaces between")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pairs = pairs.iter();
        pairs
            .map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)))
            .collect()
    }

    fn message(text: &str) -> Message<'_> {
        Message::read(text.as_bytes()).unwrap()
    }

    /// TM-03, TM-04
    #[test]
    fn a_header_says_what_the_body_says() {
        let body = message(r#"{"id":1,"method":"tools/call","params":{"name":"✓"}}"#);
        for (pairs, expected) in [
            (&[][..], Ok(())),
            (&[("mcp-method", "tools/call")], Ok(())),
            (&[("mcp-name", "=?base64?4pyT?=")], Ok(())),
            (&[("mcp-method", "tools/list")], Err(Contradiction::Method)),
            (&[("mcp-method", "Tools/call")], Err(Contradiction::Method)),
            (&[("mcp-method", "")], Err(Contradiction::Method)),
            (&[("mcp-name", "other")], Err(Contradiction::Name)),
            (&[("mcp-name", "=?Base64?4pyT?=")], Err(Contradiction::Name)),
            (&[("mcp-name", "=?base64?4pyT")], Err(Contradiction::Name)),
            (&[("mcp-name", "=?base64?!?=")], Err(Contradiction::Name)),
        ] {
            assert_eq!(check(&headers(pairs), &body), expected, "{pairs:?}");
        }
        let list = message(r#"{"id":1,"method":"tools/list"}"#);
        let named = headers(&[("mcp-method", "tools/list"), ("mcp-name", "anything")]);
        assert_eq!(check(&named, &list), Ok(()));
        let answer = message(r#"{"id":1,"result":{}}"#);
        assert_eq!(check(&named, &answer), Err(Contradiction::Method));
    }

    #[test]
    fn what_is_missing_is_written_from_the_body() {
        let body = message(
            r#"{"id":1,"method":"tools/call","params":{"name":"✓","_meta":
            {"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}"#,
        );
        for pairs in [&[][..], &[("mcp-protocol-version", "2025-11-25")]] {
            let mut headers = headers(pairs);
            assert!(complete(&mut headers, &body), "{pairs:?}");
            assert_eq!(headers["mcp-protocol-version"], "2026-07-28");
            assert_eq!(headers["mcp-method"], "tools/call");
            assert_eq!(headers["mcp-name"], "=?base64?4pyT?=");
            assert_eq!(check(&headers, &body), Ok(()));
        }
        // Who names the revision knows the headers that go with it.
        let pairs = [("mcp-protocol-version", "2026-07-28")];
        let mut named = headers(&pairs);
        assert!(!complete(&mut named, &body));
        assert_eq!(named, headers(&pairs));
        // The revision is never made up.
        let mut none = HeaderMap::new();
        let bare = message(r#"{"id":1,"method":"server/discover"}"#);
        assert!(!complete(&mut none, &bare));
        assert!(!none.contains_key("mcp-protocol-version"));
    }

    proptest::proptest! {
        #[test]
        fn what_is_encoded_is_decoded_to_the_same(text in "\\PC{0,20}| ?[ -~]{0,20} ?") {
            proptest::prop_assert_eq!(decoded(&encoded(&text)), Some(text));
        }
    }
}
