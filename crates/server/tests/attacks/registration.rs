//! Dynamic registration (RG).

use super::case::Case;

pub fn cases() -> Vec<Case> {
    vec![]
}
