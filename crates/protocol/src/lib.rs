//! Everything of the proxy that can run anywhere.

pub mod endpoint;
pub mod forward;
pub mod grants;
pub mod identity;
pub mod journal;
pub mod memory;
pub mod oauth;
pub mod policy;
pub mod ports;
pub mod records;
pub mod token;
