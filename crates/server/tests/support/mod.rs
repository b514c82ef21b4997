//! The program as a process of its own, between an upstream and clients that are in the test.

#![expect(unreachable_pub, reason = "a part of several test programs")]

pub mod canary;
pub mod client;
pub mod company_proxy;
pub mod fake_time;
pub mod frames;
pub mod nginx;
pub mod postgres;
pub mod proxy;
pub mod upstream;
pub mod wire;

use std::io::Write;

pub const PASSPHRASE: &str = "correct horse battery/staple";
/// The operator's key for the upstream.
pub const UPSTREAM_KEY: &str = "wsk_live_8Jq2LmZ0pTxN4uVb";

/// A line for whoever reads the output of the tests: a figure, or why something was not tested.
pub fn say(line: &str) {
    // Past the capture of the test runner, which would only show it for a failed test.
    let line = format!("{line}\n");
    std::io::stderr().write_all(line.as_bytes()).unwrap();
}

/// Whether tests must not be left out for want of something around them.
pub fn nothing_may_be_missing() -> bool {
    std::env::var_os("CI").is_some()
}
