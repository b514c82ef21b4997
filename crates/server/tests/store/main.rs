//! The stores, as a program uses them: the contract of [`protocol::ports::Store`] for each, and
//! what happens to a file or a server that does not behave.

#![expect(
    clippy::unwrap_used,
    reason = "all of this is tests, and a failure should say where"
)]

mod contract;
mod damage;
mod postgres;
mod quiet;
mod sql;
mod sqlite;

use std::io::Write;

use protocol::ports::Timestamp;

/// Later than anything here lasts.
const LATER: Timestamp = Timestamp(4_000_000_000);

/// A line for whoever reads the output of the tests: a figure, or why something was not tested.
fn say(line: &str) {
    // Past the capture of the test runner, which would only show it for a failed test.
    let line = format!("{line}\n");
    std::io::stderr().write_all(line.as_bytes()).unwrap();
}

/// Whether tests must not be left out for want of something around them.
fn nothing_may_be_missing() -> bool {
    std::env::var_os("CI").is_some()
}
