//! Codes at the token endpoint (TK).

use super::case::Case;

pub fn cases() -> Vec<Case> {
    vec![]
}
