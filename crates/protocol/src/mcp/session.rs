//! What a handshake of the older era agreed on, as it is remembered between requests.

use http::HeaderValue;

use super::revision::Revision;

/// A session of an upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// `Mcp-Session-Id` as the upstream gave it. Some keep no sessions and give none.
    pub id: Option<HeaderValue>,
    /// The revision that its `initialize` agreed on, if that could be read. It is what the upstream
    /// expects in the version header of every request after it; many refuse any other.
    pub revision: Option<Revision>,
}

impl Session {
    /// One text of both, to be sealed.
    pub fn to_bytes(&self) -> Vec<u8> {
        let revision = self.revision.as_ref().map_or("", Revision::as_str);
        let id = self.id.as_ref().map_or(&b""[..], HeaderValue::as_bytes);
        [revision.as_bytes(), b" ", id].concat()
    }

    /// Reads what [`Self::to_bytes`] wrote.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let space = bytes.iter().position(|byte| *byte == b' ')?;
        let (revision, id) = (&bytes[..space], &bytes[space + 1..]);
        Some(Self {
            id: match id {
                [] => None,
                id => Some(HeaderValue::from_bytes(id).ok()?),
            },
            revision: Revision::parse(revision),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_read_as_it_was_written() {
        for id in [Some("s-1"), Some("a b"), Some(" "), None] {
            for revision in [None, Revision::parse(b"2025-11-25")] {
                let id = id.map(HeaderValue::from_static);
                let session = Session { id, revision };
                assert_eq!(
                    Session::from_bytes(&session.to_bytes()),
                    Some(session.clone())
                );
            }
        }
        assert_eq!(Session::from_bytes(b"no-space"), None);
    }
}
