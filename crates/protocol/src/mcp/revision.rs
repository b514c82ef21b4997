//! Dated revisions of the protocol, and the two eras that they fall into.

use std::fmt;

use http::HeaderValue;

/// A dated revision, such as `2025-11-25`, known to this program or not. A later one is greater.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Revision([u8; 10]);

/// Which kind of MCP a request speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Era {
    /// Up to 2025-11-25: a handshake, and sessions.
    Legacy,
    /// From 2026-07-28 on: every request stands alone.
    Modern,
}

impl Revision {
    /// The first in which every request stands alone.
    const FIRST_MODERN: Self = Self(*b"2026-07-28");

    /// Reads `YYYY-MM-DD`, and nothing else.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let bytes: [u8; 10] = text.try_into().ok()?;
        let is_date = bytes.iter().enumerate().all(|(at, byte)| match at {
            4 | 7 => *byte == b'-',
            _ => byte.is_ascii_digit(),
        });
        is_date.then_some(Self(bytes))
    }

    pub fn era(self) -> Era {
        if self < Self::FIRST_MODERN {
            Era::Legacy
        } else {
            Era::Modern
        }
    }

    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("digits and hyphens")
    }

    /// As a value of `MCP-Protocol-Version`.
    pub fn to_header(self) -> HeaderValue {
        HeaderValue::from_bytes(&self.0).expect("digits and hyphens")
    }
}

impl fmt::Debug for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revision_is_a_date_and_its_era_follows_from_it() {
        let era = |text: &str| Revision::parse(text.as_bytes()).map(Revision::era);
        for (text, expected) in [
            ("2024-11-05", Some(Era::Legacy)),
            ("2025-11-25", Some(Era::Legacy)),
            ("2026-07-27", Some(Era::Legacy)),
            ("2026-07-28", Some(Era::Modern)),
            ("2027-01-01", Some(Era::Modern)),
            ("", None),
            ("zzzzzzzzzz", None),
            ("DRAFT-2026", None),
            ("2026-7-28", None),
            ("2026-07-28 ", None),
            ("2026-07-28, 2026-07-28", None),
        ] {
            assert_eq!(era(text), expected, "{text}");
        }
    }
}
