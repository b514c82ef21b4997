//! The journal as log lines: for people on a terminal, as JSON elsewhere.

use std::{error::Error, io::IsTerminal};

use protocol::journal::{Event, Reader, UpstreamFailed};
use tracing::{debug, error, info, warn};
use tracing_subscriber::{EnvFilter, filter::LevelFilter};

/// Starts logging to standard error. `RUST_LOG` chooses the level, `info` by default.
pub fn start() {
    let filter = EnvFilter::builder()
        .with_default_directive(LevelFilter::INFO.into())
        .from_env_lossy();
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    if std::io::stderr().is_terminal() {
        lines.with_target(false).init();
    } else {
        lines.json().flatten_event(true).with_target(false).init();
    }
}

/// Writes each event as one line. What clients say of themselves is quoted and escaped.
#[derive(Debug)]
pub struct Logs;

impl Reader for Logs {
    #[expect(
        clippy::too_many_lines,
        reason = "one arm for each event, nothing else"
    )]
    fn read(&self, event: &Event<'_>) {
        match *event {
            Event::ClientRegistered {
                client_id,
                client_name,
            } => {
                info!(client = %client_id, name = ?client_name, "a client registered");
            }
            Event::DocumentFetched { client_id } => {
                debug!(
                    client = client_id,
                    "a client's metadata document was fetched"
                );
            }
            Event::DocumentFailed {
                client_id,
                cause,
                instead,
            } => {
                warn!(
                    client = client_id,
                    ?instead,
                    cause = chain(cause),
                    "a client's metadata document could not be used"
                );
            }
            Event::ConsentShown {
                client_id,
                upstream,
            } => {
                info!(client = %client_id, upstream, "the consent page was shown");
            }
            Event::Approved {
                client_id,
                upstream,
                subject,
            } => {
                info!(client = %client_id, upstream, subject, "a client was approved");
            }
            Event::Denied { client_id } => info!(client = %client_id, "a client was denied"),
            Event::SignInFailed { address, left } => {
                warn!(%address, left, "a wrong passphrase or PIN");
            }
            Event::SignInBlocked { address, wait } => {
                warn!(%address, wait_seconds = wait.as_secs(), "a sign-in was not looked at: too many wrong ones");
            }
            Event::GuessingSlowed => {
                warn!("many wrong passphrases or PINs: every further attempt is slowed down");
            }
            Event::CodeRedeemed { client_id, grant } => {
                info!(client = %client_id, grant, "a code was redeemed");
            }
            Event::TokenRefreshed { client_id, grant } => {
                debug!(client = %client_id, grant, "a token was refreshed");
            }
            Event::RefreshRepeated {
                client_id,
                grant,
                why,
                age,
            } => {
                info!(client = %client_id, grant, ?why, age_seconds = age.as_secs(), "a refresh was answered again");
            }
            Event::StoreRegressed { client_id, grant } => {
                error!(client = %client_id, grant, "the store had lost a refresh: was a backup restored?");
            }
            Event::GrantRevoked {
                client_id,
                grant,
                why,
            } => {
                warn!(client = %client_id, grant, ?why, "a grant ended");
            }
            Event::Refused {
                endpoint,
                error,
                description,
            } => {
                info!(?endpoint, %error, description, "refused");
            }
            Event::Failed {
                endpoint,
                request_id,
                cause,
            } => {
                error!(?endpoint, request_id, cause = chain(cause), "failed");
            }
            Event::CallForwarded {
                upstream,
                client_id,
                method,
                status,
                era,
                took,
            } => {
                debug!(upstream = upstream.name, client = %client_id, %method, status = status.as_u16(), ?era, took_ms = took.as_millis(), "forwarded");
            }
            Event::CallRefused { upstream, why } => {
                info!(upstream = upstream.name, ?why, "a call was refused");
            }
            Event::UpstreamFailed {
                upstream,
                why: UpstreamFailed::CredentialRefused(status),
                ..
            } => {
                error!(
                    upstream = upstream.name,
                    status = status.as_u16(),
                    "the upstream refuses our credential: renew it in the configuration"
                );
            }
            Event::UpstreamFailed {
                upstream,
                why,
                cause,
            } => {
                warn!(
                    upstream = upstream.name,
                    ?why,
                    cause = cause.map(chain),
                    "the upstream failed"
                );
            }
        }
    }
}

/// An error and what caused it, in one line.
fn chain(error: &(dyn Error + 'static)) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        line.push_str(": ");
        line.push_str(&error.to_string());
        cause = error.source();
    }
    line
}
