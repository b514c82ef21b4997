//! What `mcp-oauth-proxy` needs of an operating system, around the portable `protocol` crate.

mod addresses;
pub mod certificates;
pub mod cli;
pub mod config;
pub mod demo;
pub mod fetch;
pub mod host;
pub mod key_file;
pub mod listen;
pub mod logs;
mod marks;
pub mod memory;
pub mod metrics;
pub mod outgoing;
pub mod passphrase;
mod private_file;
pub mod private_memory;
pub mod store;
pub mod system;
pub mod upstream;
