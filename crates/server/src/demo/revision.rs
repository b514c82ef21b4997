//! The protocol revisions this server speaks, and what each of them has.

/// A dated revision of the protocol; a later one is greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Revision {
    V2024_11_05,
    V2025_03_26,
    V2025_06_18,
    V2025_11_25,
    V2026_07_28,
}

use Revision::{V2024_11_05, V2025_03_26, V2025_06_18, V2025_11_25, V2026_07_28};

impl Revision {
    /// The newest that begins with `initialize`; offered when the client names one that we lack.
    pub(super) const NEWEST_HANDSHAKE: Self = V2025_11_25;

    /// The one in which every request stands for itself.
    pub(super) const MODERN: Self = V2026_07_28;

    /// Assumed of a client that sends neither `MCP-Protocol-Version` nor a session.
    pub(super) const UNSAID: Self = V2025_03_26;

    pub(super) fn parse(text: &str) -> Option<Self> {
        [
            V2024_11_05,
            V2025_03_26,
            V2025_06_18,
            V2025_11_25,
            V2026_07_28,
        ]
        .into_iter()
        .find(|revision| revision.as_str() == text)
    }

    pub(super) fn as_str(self) -> &'static str {
        match self {
            V2024_11_05 => "2024-11-05",
            V2025_03_26 => "2025-03-26",
            V2025_06_18 => "2025-06-18",
            V2025_11_25 => "2025-11-25",
            V2026_07_28 => "2026-07-28",
        }
    }

    pub(super) fn is_modern(self) -> bool {
        self >= Self::MODERN
    }

    /// Whether a body may be an array of messages: one revision had that.
    pub(super) fn has_batches(self) -> bool {
        self == V2025_03_26
    }

    /// Whether tools carry annotations, and progress a message.
    pub(super) fn has_annotations(self) -> bool {
        self >= V2025_03_26
    }

    /// Whether tools and servers have titles, and results a declared structure.
    pub(super) fn has_structured_content(self) -> bool {
        self >= V2025_06_18
    }
}
