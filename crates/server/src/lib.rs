//! What `mcp-oauth-proxy` needs of an operating system, around the portable `protocol` crate.

pub mod demo;
pub mod logs;
pub mod metrics;
