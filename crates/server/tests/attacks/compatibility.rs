//! What real clients do, which must go on working (C).

use super::case::Case;

pub fn cases() -> Vec<Case> {
    vec![]
}
