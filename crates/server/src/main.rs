//! The front door of MCP servers. Parses the command line and turns the outcome into an exit
//! code; everything else is in the library.

use std::process::ExitCode;

use server::{cli, config::Environment};

fn main() -> ExitCode {
    cli::run(std::env::args_os(), &Environment::of_process())
}
