//! Clients known by a metadata document (CI).

use super::case::Case;

pub fn cases() -> Vec<Case> {
    vec![]
}
