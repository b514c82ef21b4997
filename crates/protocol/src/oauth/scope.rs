//! What a token may be used for (RFC 6749 §3.3).

use std::fmt;

use serde::{Deserialize, Serialize};

use super::error::OAuthError;

/// Every call of the upstream's MCP endpoint.
pub const MCP: &str = "mcp";
/// A request for refresh tokens. We issue them anyway; some clients only ask when it is listed.
pub const OFFLINE_ACCESS: &str = "offline_access";
/// What the authorization server lists as `scopes_supported`.
pub const SUPPORTED: [&str; 2] = [MCP, OFFLINE_ACCESS];

/// The longest `scope` parameter that is read, in bytes.
const LONGEST: usize = 2048;

/// A granted scope, as the space-separated text that is sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Scope(String);

impl Scope {
    /// What is granted when `requested` is asked for: `mcp` always, `offline_access` when asked,
    /// anything unknown is dropped.
    pub fn granted(requested: Option<&str>) -> Result<Self, OAuthError> {
        let requested = requested.unwrap_or_default();
        if requested.len() > LONGEST || !requested.bytes().all(is_scope_byte) {
            return Err(OAuthError::invalid_scope(
                "scope has characters that no scope may have",
            ));
        }
        let granted = if requested.split(' ').any(|token| token == OFFLINE_ACCESS) {
            format!("{MCP} {OFFLINE_ACCESS}")
        } else {
            MCP.to_owned()
        };
        Ok(Self(granted))
    }

    /// The scopes in `requested` that exist, each once, in our order.
    pub fn known(requested: &str) -> String {
        let mut known = SUPPORTED.to_vec();
        known.retain(|token| requested.split(' ').any(|asked| asked == *token));
        known.join(" ")
    }

    /// Whether `requested` asks for nothing that we know and did not grant. What we never knew was
    /// dropped at the first request and is dropped again.
    pub fn covers(&self, requested: &str) -> bool {
        requested
            .split(' ')
            .filter(|token| SUPPORTED.contains(token))
            .all(|token| self.0.split(' ').any(|granted| granted == token))
    }
}

/// `scope-token` and the space between (RFC 6749 §3.3).
fn is_scope_byte(byte: u8) -> bool {
    matches!(byte, b' ' | 0x21 | 0x23..=0x5b | 0x5d..=0x7e)
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn az_12_unknown_scopes_are_dropped_and_none_means_the_default() {
        for (requested, granted) in [
            (None, "mcp"),
            (Some("claudeai"), "mcp"),
            (Some("openid email profile"), "mcp"),
            (Some("mcp offline_access"), "mcp offline_access"),
            (Some("offline_access"), "mcp offline_access"),
        ] {
            assert_eq!(Scope::granted(requested).unwrap().to_string(), granted);
        }
    }

    #[test]
    fn a_scope_with_illegal_characters_is_refused() {
        for bad in [
            "mcp\0",
            "\"mcp\"",
            "mc\\p",
            "mcp\n",
            "é",
            &"a ".repeat(1025),
        ] {
            assert!(Scope::granted(Some(bad)).is_err(), "{bad:?}");
        }
        assert!(Scope::granted(Some(&"a".repeat(2048))).is_ok());
        assert!(Scope::granted(Some(&"a".repeat(2049))).is_err());
    }

    #[test]
    fn tk_19_a_refresh_cannot_widen_the_scope() {
        let narrow = Scope::granted(Some("mcp")).unwrap();
        assert!(narrow.covers("mcp"));
        assert!(narrow.covers("openid email profile mcp"));
        assert!(!narrow.covers("mcp offline_access"));
    }
}
