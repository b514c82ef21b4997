//! What crosses the proxy, pure: which upstream, which headers, which credential.

pub mod credential;
