//! Refresh tokens (RF).

use super::case::Case;

pub fn cases() -> Vec<Case> {
    vec![]
}
