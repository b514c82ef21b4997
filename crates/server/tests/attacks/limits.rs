//! Limits, logs and configuration (LG).

use super::case::Case;

pub fn cases() -> Vec<Case> {
    vec![]
}
