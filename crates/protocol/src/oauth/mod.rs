//! The rules of OAuth, pure: no `async fn`, no trait object, no logging. Each file is named
//! with the specification's word.

pub mod identifiers;
