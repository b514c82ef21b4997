//! Well-known documents (WK).

use super::case::Case;

pub fn cases() -> Vec<Case> {
    vec![]
}
