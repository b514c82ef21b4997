//! The MCP endpoint (RS).

use super::case::Case;

pub fn cases() -> Vec<Case> {
    vec![]
}
