//! The journal as log lines: for people on a terminal, as JSON elsewhere.

mod lines;

use std::{error::Error, io::IsTerminal, panic};

use http::{Method, StatusCode};
use protocol::{
    journal::{CallRefused, Event, Instead, Reader, Trial, UpstreamFailed},
    mcp::revision::Revision,
    oauth::bearer,
};
use tracing::{debug, error, info, warn};
use tracing_subscriber::{EnvFilter, filter::LevelFilter};

use lines::{Format, PAUSE};
pub use lines::{Lines, Writer};

/// What forwarded calls are logged under, so that `RUST_LOG=info,calls=off` leaves them out.
const CALLS: &str = "calls";
/// What else comes of requests is logged under this: whatever anybody can have logged as often as
/// they like. Such lines must not be in the way of others.
const REQUESTS: &str = "requests";

/// Logs a call: who made it, what for, and what came of it.
macro_rules! log_call {
    ($level:ident in $target:expr, $call:expr, $($more:tt)+) => {
        $level!(
            target: $target,
            upstream = $call.upstream.name,
            subject = $call.caller.map(|caller| caller.subject),
            client = $call.caller.map(|caller| caller.client_id.as_str()),
            method = %format_args!("{:.16}", $call.method.as_str()),
            rpc_method = $call.rpc_method,
            tool = $call.tool,
            status = $call.status.as_u16(),
            upstream_status = $call.upstream_status.map(|status| status.as_u16()),
            $($more)+
        )
    };
}

/// Starts logging to standard error. `RUST_LOG` chooses the level, `info` by default. Lines are
/// written until the writer is dropped.
pub fn start() -> (Writer, Lines) {
    let format = if std::io::stderr().is_terminal() {
        Format::Text
    } else {
        Format::Json
    };
    let (lines, writer) = Lines::written_to(std::io::stderr(), format, PAUSE);
    let filter = EnvFilter::builder()
        .with_default_directive(LevelFilter::INFO.into())
        .from_env_lossy();
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_writer(lines.clone());
    match format {
        Format::Text => subscriber.init(),
        Format::Json => subscriber.json().flatten_event(true).init(),
    }
    // Written by the panicking thread itself, its text would wait for a reader that stalls.
    panic::set_hook(Box::new(|panicked| {
        let at = panicked
            .location()
            .map(|at| format!("{}:{}", without_build_path(at.file()), at.line()));
        error!(at, text = panicked.payload_as_str(), "the program panicked");
    }));
    (writer, lines)
}

/// A source file, of a library without the place where it was built.
fn without_build_path(file: &str) -> &str {
    let below = file.rsplit_once("/registry/src/").map(|(_, below)| below);
    let library = below.and_then(|below| below.split_once('/'));
    library.map_or(file, |(_, library)| library)
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
                left_out: [],
            } => {
                info!(target: REQUESTS, client = %client_id, name = client_name, "a client registered");
            }
            Event::ClientRegistered {
                client_id,
                client_name,
                left_out,
            } => {
                info!(
                    target: REQUESTS,
                    client = %client_id,
                    name = client_name,
                    left_out = left_out.join(", "),
                    "a client registered, without its links of an app that is not known here: to let them in, write their scheme into app_schemes under [clients]"
                );
            }
            Event::DocumentFetched { url } => {
                debug!(url, "what a client publishes was fetched");
            }
            Event::DocumentFailed {
                url,
                cause,
                instead,
            } => {
                warn!(
                    target: REQUESTS,
                    url,
                    instead = instead.map(Instead::as_str),
                    cause = chain(cause),
                    "what a client publishes could not be used"
                );
            }
            Event::ConsentShown {
                client_id,
                upstream,
            } => {
                info!(target: REQUESTS, client = %client_id, upstream, "the consent page was shown");
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
                warn!(target: REQUESTS, %address, wait_seconds = wait.as_secs(), "a sign-in was not looked at: too many wrong ones");
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
                info!(client = %client_id, grant, why = why.as_str(), age_seconds = age.as_secs(), "a refresh was answered again");
            }
            Event::StoreRegressed { client_id, grant } => {
                error!(client = %client_id, grant, "the store had lost a refresh: was a backup restored?");
            }
            Event::GrantRevoked {
                client_id,
                grant,
                why,
            } => {
                warn!(client = %client_id, grant, why = why.as_str(), "a grant ended");
            }
            Event::Refused {
                endpoint,
                error,
                description,
                presented,
                detail,
                client,
            } => {
                let name = client
                    .map(|client| &*client.name)
                    .filter(|name| !name.is_empty());
                let client = client.map(|client| &*client.client_id);
                info!(target: REQUESTS, endpoint = endpoint.as_str(), %error, client, name, description, presented, detail, "refused");
            }
            Event::RecordDamaged {
                endpoint,
                request_id,
                damaged,
            } => {
                error!(
                    endpoint = endpoint.as_str(),
                    request_id,
                    key = damaged.key,
                    cause = %damaged.why,
                    "a record cannot be read, so requests that need it are refused: {}",
                    damaged.why.remedy()
                );
            }
            Event::Failed {
                endpoint,
                request_id,
                cause,
            } => {
                error!(
                    endpoint = endpoint.as_str(),
                    request_id,
                    cause = chain(cause),
                    "failed"
                );
            }
            Event::CallForwarded { call, era, took } => {
                let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
                if call.status == StatusCode::NOT_FOUND && call.upstream_status == Some(call.status)
                {
                    log_call!(info in REQUESTS, call, era = era.as_str(), took_ms, "the upstream has nothing there: if no call succeeds, the path of its url is wrong");
                } else if call.status.is_client_error() && call.method != Method::GET {
                    log_call!(info in REQUESTS, call, era = era.as_str(), took_ms, "the upstream refused a call");
                } else {
                    log_call!(info in CALLS, call, era = era.as_str(), took_ms, "a call was forwarded");
                }
            }
            Event::CallRefused {
                call,
                why: CallRefused::Bearer(bearer::Refused::NoToken),
            } => {
                log_call!(
                    info in REQUESTS,
                    call,
                    "a client without a token was told where to sign in"
                );
            }
            Event::CallRefused { call, why } => {
                log_call!(info in REQUESTS, call, why = why.as_str(), "a call was refused");
            }
            Event::OriginRefused { call, origin } => {
                log_call!(
                    info in REQUESTS,
                    call,
                    origin,
                    "a page of a foreign origin was refused: if it may call, add the origin to allowed_origins"
                );
            }
            Event::Misdirected { host } => {
                warn!(
                    target: REQUESTS,
                    host,
                    "a request came under a name that is not ours: set PUBLIC_URL or public_url to the address that clients use, or add it to aliases"
                );
            }
            Event::Looped => warn!(
                target: REQUESTS,
                "a request came back that went to an upstream: its address leads to this proxy"
            ),
            Event::Limited {
                limit,
                address: Some(address),
            } => info!(target: REQUESTS, limit = limit.as_str(), %address, "refused by a limit"),
            Event::Limited {
                limit,
                address: None,
            } => info!(target: REQUESTS, limit = limit.as_str(), "refused by a limit"),
            Event::UnusedClientsRemoved { removed } => {
                warn!(
                    removed,
                    "too many clients are registered: the oldest that nobody approved were removed"
                );
            }
            // Mistyped addresses are worth a line, what scanners try is not.
            Event::NotFound { path, served } if looks_like_mcp(path) => {
                info!(target: REQUESTS, path, served, "there is nothing at this address");
            }
            Event::NotFound { path, served } => {
                debug!(target: REQUESTS, path, served, "there is nothing at this address");
            }
            Event::UpstreamFailed {
                call,
                why,
                detail,
                cause,
            } => {
                let cause = cause.map(chain);
                match why {
                    UpstreamFailed::CredentialRefused | UpstreamFailed::CredentialMissing => {
                        log_call!(error in REQUESTS, call, why = why.as_str(), "{}", remedy(why));
                    }
                    UpstreamFailed::SessionLost => {
                        log_call!(info in REQUESTS, call, why = why.as_str(), "{}", remedy(why));
                    }
                    _ => {
                        log_call!(warn in REQUESTS, call, why = why.as_str(), detail, cause, "{}", remedy(why));
                    }
                }
            }
            Event::VersionMended {
                client_id,
                upstream,
                said,
                spoken,
            } => info!(
                target: REQUESTS,
                client = %client_id,
                upstream,
                said,
                spoken,
                "the version header of a client differs from its body; the body's version is sent on"
            ),
            Event::RedirectFollowed { upstream, target } => warn!(
                upstream,
                target,
                "the upstream redirects each call, which costs a second request; write this address as its url"
            ),
            Event::UpstreamTried {
                upstream,
                outcome: Trial::Answered(about),
            } => info!(
                upstream,
                server = about.name.as_deref().map(brief),
                version = about.version.as_deref().map(brief),
                revision = about.revision.as_ref().map(Revision::as_str),
                "the upstream answers"
            ),
            Event::UpstreamTried {
                upstream,
                outcome:
                    Trial::Failed {
                        why,
                        detail,
                        status,
                        cause,
                    },
            } => warn!(
                upstream,
                why = why.as_str(),
                detail,
                upstream_status = status.map(|status| status.as_u16()),
                cause = cause.as_ref().map(|cause| chain(cause)),
                "{}",
                remedy(*why)
            ),
        }
    }
}

/// What happened at an upstream, and what to do about it.
pub(crate) fn remedy(why: UpstreamFailed) -> &'static str {
    match why {
        UpstreamFailed::Unreachable => {
            "the upstream cannot be reached: start it, or correct the host or port of its url"
        }
        UpstreamFailed::TimedOut => "the upstream did not answer in time",
        UpstreamFailed::Broken => "the upstream broke off the connection without an answer",
        UpstreamFailed::CredentialRefused => {
            "the upstream refuses our credential: check that it is right and still valid"
        }
        UpstreamFailed::CredentialMissing => {
            "the upstream demands a credential and none is configured: set `credential`, or UPSTREAM_TOKEN"
        }
        UpstreamFailed::SignInDemanded => {
            "the upstream requires its own OAuth sign-in, which is not supported: set a static `credential` if it takes one"
        }
        UpstreamFailed::CallForbidden => {
            "the upstream refused this call: the credential may lack a permission"
        }
        UpstreamFailed::HostRefused => {
            "the upstream does not accept the host name by which it is called: set its `host` to a name that it accepts, such as localhost"
        }
        UpstreamFailed::Page => {
            "the upstream answered with a web page, not MCP: a firewall or sign-in page is in front of it, or the path of its url is wrong"
        }
        UpstreamFailed::SessionLost => {
            "the upstream no longer knows the session; the client was made to start a new one"
        }
        UpstreamFailed::Redirected => {
            "the upstream redirects elsewhere, which is not followed: write the right address as its url"
        }
        UpstreamFailed::NothingThere => {
            "the upstream has nothing at the path of its url: correct the path; most end in /mcp. A server that has its address at /sse only needs a bridge, since it speaks the HTTP with SSE of 2024"
        }
        UpstreamFailed::OldTransport => {
            "the upstream speaks the HTTP with SSE of 2024, which is not supported: use its Streamable HTTP address (most end in /mcp), or put a bridge before it (the README has one)"
        }
        UpstreamFailed::NoTls => {
            "the upstream does not speak TLS there: try http:// in place of https:// in its url"
        }
        UpstreamFailed::Untrusted => {
            "the certificate of the upstream is not trusted, or is for another name: for an authority of your own, name its certificates in SSL_CERT_FILE"
        }
        UpstreamFailed::WantsTls => {
            "the upstream speaks TLS there: write https:// in place of http:// in its url"
        }
        UpstreamFailed::NoMcp => {
            "the upstream does not answer as an MCP server does: check its url"
        }
        UpstreamFailed::Looped => "the upstream's address leads back to this proxy",
        UpstreamFailed::ServerError => "the upstream failed",
        UpstreamFailed::Nonsense => "the upstream sent an invalid HTTP response",
    }
}

/// The beginning of what a server says of itself.
pub(crate) fn brief(text: &str) -> &str {
    const LONGEST: usize = 100;
    &text[..text.floor_char_boundary(LONGEST)]
}

/// Whether somebody may have meant the address of an MCP server.
fn looks_like_mcp(path: &str) -> bool {
    path == "/" || path.contains("mcp") || path.ends_with("/sse")
}

/// An error and what caused it, in one line.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        line.push_str(": ");
        line.push_str(&error.to_string());
        cause = error.source();
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A neighbour of case 29.
    #[test]
    fn where_the_program_was_built_is_nobodys_business() {
        for (file, shown) in [
            (
                "/home/me/.cargo/registry/src/index.crates.io-1949cf8c/hyper-1.12.0/src/lib.rs",
                "hyper-1.12.0/src/lib.rs",
            ),
            ("crates/server/src/logs.rs", "crates/server/src/logs.rs"),
        ] {
            assert_eq!(without_build_path(file), shown);
        }
    }
}
