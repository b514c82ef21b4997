//! `serve`: everything between a good configuration and the first request.

use std::{cell::Cell, fmt::Write as _, io::Write as _, path::Path};

use anyhow::Context;

use protocol::policy::{Policy, UpstreamPolicy};
use secrecy::{ExposeSecret, SecretString};
use url::Url;

use crate::{
    config::{KeyPlan, Plan, Settings, SignInPlan},
    host,
    key_file::{self, KeyRing},
    logs, passphrase, private_memory,
    system::SystemEntropy,
};

/// What a server needs, complete.
#[derive(Debug)]
pub struct Prepared {
    pub policy: Policy,
    pub settings: Settings,
    /// Whether the data directory was made just now: as at a first start, or one in the wrong folder.
    pub data_dir_is_new: bool,
    /// The configuration file, for people.
    pub file: String,
    pub keys: KeyRing,
    /// Where the keys came from, for people: `in data/key`.
    pub key_place: String,
    pub passphrase: PassphraseNotice,
}

/// What the person at the terminal is told about the passphrase.
#[derive(Debug)]
pub enum PassphraseNotice {
    /// They chose it themselves.
    Chosen,
    /// It was generated at an earlier start.
    ToldBefore,
    /// It was generated just now, and this is it.
    New(SecretString),
}

/// Runs the proxy that `plan` describes.
pub fn run(plan: Plan) -> anyhow::Result<()> {
    let (_writes_the_rest, lines) = logs::start();
    private_memory::keep().context("the memory cannot be kept out of core files")?;
    let prepared = prepare(plan)?;
    let text = start_text(&prepared);
    let untold = match prepared.passphrase {
        PassphraseNotice::New(_) => Some(prepared.settings.data_dir.join(passphrase::FILE_NAME)),
        PassphraseNotice::Chosen | PassphraseNotice::ToldBefore => None,
    };
    let told = Cell::new(false);
    let outcome = host::run(prepared, lines, || {
        let written = std::io::stdout().write_all(text.as_bytes());
        told.set(written.is_ok());
        // Without news in it, a text that nobody can read is no reason not to serve.
        written.or_else(|error| untold.as_ref().map_or(Ok(()), |_| Err(error)))
    });
    // A passphrase that nobody was told is of no use: the next start makes another.
    if let (Some(file), false) = (untold, told.get()) {
        std::fs::remove_file(&file)
            .with_context(|| format!("{} cannot be removed", file.display()))?;
    }
    outcome
}

/// Takes the keys from the data directory, or makes them at the first start.
pub fn prepare(mut plan: Plan) -> anyhow::Result<Prepared> {
    let data_dir = plan.settings.data_dir.clone();
    let was_there = data_dir.exists();
    let (keys, key_place) = match std::mem::replace(&mut plan.key, KeyPlan::DataDir) {
        KeyPlan::DataDir => (
            key_file::load_or_create(&data_dir, &SystemEntropy)?,
            format!("in {}", data_dir.join(key_file::FILE_NAME).display()),
        ),
        KeyPlan::Configured { keys, source } => (keys, source.to_string()),
    };
    let sign_in = std::mem::replace(&mut plan.sign_in, SignInPlan::Generated);
    let (sign_in, notice) = match sign_in {
        SignInPlan::Configured { sign_in, source } => {
            let reminder = format!("You chose it yourself ({source}).");
            (sign_in.with_reminder(reminder), PassphraseNotice::Chosen)
        }
        SignInPlan::Generated => {
            let generated = passphrase::load_or_generate(&data_dir, &SystemEntropy)?;
            let notice = match generated.fresh {
                Some(fresh) => PassphraseNotice::New(fresh),
                None => PassphraseNotice::ToldBefore,
            };
            let reminder = format!(
                "The passphrase was printed when this proxy was first started. Lost? Delete {} and start the \
                 proxy again: it then prints a new one, and what you approved stays.",
                data_dir.join(passphrase::FILE_NAME).display()
            );
            (generated.sign_in.with_reminder(reminder), notice)
        }
    };
    let file = plan.shown_file();
    let (policy, settings) = plan.into_policy(sign_in);
    Ok(Prepared {
        policy,
        settings,
        // One that is not needed is not made.
        data_dir_is_new: !was_there && data_dir.exists(),
        file,
        keys,
        key_place,
        passphrase: notice,
    })
}

/// What a newcomer needs to know to connect a first client.
pub fn start_text(prepared: &Prepared) -> String {
    let mut text = String::new();
    write_start_text(&mut text, prepared).expect("a String takes any text");
    text
}

fn write_start_text(text: &mut String, prepared: &Prepared) -> std::fmt::Result {
    let Prepared {
        policy, settings, ..
    } = prepared;
    writeln!(
        text,
        "mcp-oauth-proxy {} listens on {}",
        env!("CARGO_PKG_VERSION"),
        settings.listen
    )?;
    writeln!(text, "  configuration  {}", prepared.file)?;
    let new = if prepared.data_dir_is_new {
        " (new)"
    } else {
        ""
    };
    writeln!(text, "  data           {}{new}", settings.shown_data_dir())?;
    let addresses = match policy.upstreams.len() {
        1 => "address",
        _ => "addresses",
    };
    writeln!(text, "\nThe {addresses} to put into your MCP client:")?;
    for upstream in &policy.upstreams {
        writeln!(text, "  {}  ({})", upstream.resource, upstream.title)?;
    }
    if let Some(upstream) = policy.upstreams.first() {
        write_examples(text, policy, upstream)?;
    }
    let upstreams = policy.upstreams.iter().map(|upstream| &**upstream);
    let proxies = settings.proxies.users(upstreams, policy.clients.documents);
    if !proxies.is_empty() {
        writeln!(text, "\nOutgoing proxy: {}", proxies.join("; "))?;
    }
    write_passphrase(text, &prepared.passphrase, &settings.data_dir)
}

/// How the address gets into a client or two.
fn write_examples(
    text: &mut String,
    policy: &Policy,
    upstream: &UpstreamPolicy,
) -> std::fmt::Result {
    writeln!(text, "\nIn Claude Code, for example:")?;
    writeln!(
        text,
        "  claude mcp add --transport http {} {}\n  then type /mcp in it to sign in",
        upstream.name, upstream.resource
    )?;
    if policy.issuer.is_loopback() {
        return Ok(());
    }
    writeln!(text, "In claude.ai or ChatGPT:")?;
    let port = Url::parse(policy.issuer.as_str())
        .ok()
        .and_then(|url| url.port());
    match port {
        None => writeln!(
            text,
            "  add a custom connector with this address, which has to be reachable from the internet"
        ),
        Some(port) => writeln!(text, "  not with port {port}: they reach port 443 only"),
    }
}

fn write_passphrase(
    text: &mut String,
    notice: &PassphraseNotice,
    data_dir: &Path,
) -> std::fmt::Result {
    let file = data_dir.join(passphrase::FILE_NAME);
    match notice {
        PassphraseNotice::Chosen => writeln!(
            text,
            "\nThe page that opens then asks for what you chose as passphrase or PIN."
        ),
        PassphraseNotice::ToldBefore => writeln!(
            text,
            "\nYour passphrase is the one shown at the first start. For a new one, remove\n{} and start again.",
            file.display()
        ),
        PassphraseNotice::New(passphrase) => writeln!(
            text,
            "\nThe page that opens then asks for this passphrase, with or without its hyphens. It is shown\nonly now, so keep it:\n  {}",
            grouped(passphrase.expose_secret())
        ),
    }
}

/// A generated passphrase in groups of four, as it is read from one screen and typed on another.
fn grouped(passphrase: &str) -> String {
    let letters: Vec<char> = passphrase.chars().collect();
    let groups: Vec<String> = letters
        .chunks(4)
        .map(|group| group.iter().collect())
        .collect();
    groups.join("-")
}
