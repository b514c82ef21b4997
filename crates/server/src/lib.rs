//! The binary's own part: what needs an operating system.

pub mod cli;
pub mod config;
pub mod key_file;
pub mod passphrase;
mod private_file;
pub mod system;
