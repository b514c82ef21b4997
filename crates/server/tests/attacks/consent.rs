//! The consent page and its form (CN).

use super::case::Case;

pub fn cases() -> Vec<Case> {
    vec![]
}
