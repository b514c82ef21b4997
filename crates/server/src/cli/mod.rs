//! The command line: what can be asked, and how an outcome becomes text and an exit code.

mod check;
mod key;
pub mod serve;

use std::{
    ffi::OsString,
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use clap::{Parser, Subcommand};

use crate::{
    config::{self, Environment, Mistakes},
    key_file::KeyFileError,
    marks::ForeignKey,
    passphrase::PassphraseError,
};

/// Gives every MCP client that speaks OAuth safe access to MCP servers that do not
///
/// Without a configuration file it listens on 127.0.0.1:8080, keeps its data in ./data, makes a
/// passphrase and prints it once, and serves a built-in demo MCP server.
#[derive(Debug, Parser)]
#[command(name = "mcp-oauth-proxy", version, after_long_help = ENVIRONMENT)]
struct CommandLine {
    /// The configuration file [default: ./mcp-oauth-proxy.toml if it exists]
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Clone, Debug, Subcommand)]
enum Command {
    /// Run the proxy; this is what happens without a command
    Serve,
    /// Check the configuration and print what it comes to
    ///
    /// Prints what matters and what differs from the default, with secrets masked, and which approvals
    /// in a SQLite store it would cost. Asks each MCP server once whether it answers: one that does not
    /// is a warning, which changes no exit code. Nothing is created. With mistakes in the configuration,
    /// prints all of them and exits with 2.
    Check {
        /// Print every lifetime, limit and address, defaults too
        #[arg(long)]
        all: bool,
        /// Contact nobody
        #[arg(long)]
        offline: bool,
    },
    /// List, rotate and drop the keys that tokens are made with
    ///
    /// Works on the key file in the data directory; what it changes counts from the next start on.
    #[command(subcommand)]
    Key(key::Command),
}

const ENVIRONMENT: &str = "\
Environment:
  PUBLIC_URL      Overrides public_url: the address under which clients reach this proxy
  LISTEN          Overrides listen: the address and port to listen on
  PASSPHRASE      Overrides sign_in.passphrase: what the person who approves a client types
  UPSTREAM_URL    The MCP server to stand in front of, if the configuration file names none
  UPSTREAM_TOKEN  The bearer token that this MCP server demands
  HTTPS_PROXY, HTTP_PROXY, NO_PROXY
                  The proxy through which MCP servers and client documents are reached, and the
                  hosts that are reached without it
  SSL_CERT_FILE, SSL_CERT_DIR
                  Certificates to check servers against, in place of those of the system
  RUST_LOG        What is logged: info, or as in info,calls=off

Exit codes:
  0  done
  1  failed
  2  wrong usage or configuration";

/// Runs the program with these arguments, the first being its own name.
pub fn run(arguments: impl IntoIterator<Item = OsString>, environment: &Environment) -> ExitCode {
    let command_line = match CommandLine::try_parse_from(arguments) {
        Ok(command_line) => command_line,
        Err(answer) => {
            // Help and version are answers too, on stdout. A reader that went away is no failure.
            let _ = answer.print();
            return if answer.use_stderr() {
                ExitCode::from(2)
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    match dispatch(&command_line, environment) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = write!(io::stderr(), "{}", describe(&error));
            ExitCode::from(if error.is::<Mistakes>() { 2 } else { 1 })
        }
    }
}

fn dispatch(command_line: &CommandLine, environment: &Environment) -> anyhow::Result<()> {
    let plan = config::load(command_line.config.as_deref(), environment)?;
    match command_line.command.as_ref().unwrap_or(&Command::Serve) {
        Command::Serve => {
            for warning in &plan.warnings {
                // Whoever throws the log away may do so.
                let _ = writeln!(io::stderr(), "warning: {warning}");
            }
            serve::run(plan)
        }
        Command::Check { all, offline } => check::run(plan, *all, *offline),
        Command::Key(command) => key::run(command, &plan),
    }
}

/// The error, what led to it, and what to do about it.
fn describe(error: &anyhow::Error) -> String {
    let mut lines = vec![format!("error: {}", error.to_string().trim_end())];
    let causes = error.chain().skip(1);
    lines.extend(causes.map(|cause| format!("  because: {cause}")));
    let hint = error.chain().find_map(hint);
    lines.extend(hint.map(|hint| format!("hint: {hint}")));
    lines.join("\n") + "\n"
}

fn hint(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    let key_file = error.downcast_ref().map(KeyFileError::hint);
    let passphrase = || error.downcast_ref().map(PassphraseError::hint);
    let foreign_key = || error.downcast_ref().map(ForeignKey::hint);
    key_file.or_else(passphrase).or_else(foreign_key)
}
