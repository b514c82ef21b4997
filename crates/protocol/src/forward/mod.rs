//! What crosses the proxy, pure: which headers, which session, which credential, whose address.

pub mod client_address;
pub mod credential;
pub mod headers;
pub mod origin;
pub mod redirect;
