//! Revocation, and introspection, which there is none of (RV, IN).

use super::case::Case;

pub fn cases() -> Vec<Case> {
    vec![]
}
