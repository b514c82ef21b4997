//! From the configuration file and the environment to what they come to.
//!
//! [`Config`] is what the operator wrote; a [`Plan`] is what it means. Between the two every
//! mistake is found, so that one start shows all of them, each with its line and its remedy.

mod bounds;
mod clients;
mod credential;
mod findings;
mod guessable;
mod guesses;
mod key;
mod limits;
mod mistake;
mod plan;
mod quantity;
mod reader;
mod refusal;
mod schema;
mod secret;
mod sign_in;
mod upstream;
mod upstream_headers;
mod written;

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

pub(crate) use self::upstream::{DEMO, UNNAMED};
pub use self::{
    clients::PlannedClient,
    key::{Key, Segment},
    limits::{LimitsPlan, describe as describe_limits},
    mistake::{Mistake, Mistakes, Place},
    plan::{KeyPlan, Plan, Settings, StoreKind},
    quantity::{show_duration, show_size},
    schema::schema,
    secret::{Environment, Source},
    sign_in::SignInPlan,
    upstream::PlannedUpstream,
    written::Config,
};
use self::{findings::Findings, reader::Places};

/// The configuration file that is read when none is named, if it exists.
pub const DEFAULT_FILE: &str = "mcp-oauth-proxy.toml";

/// Reads the configuration from `named`, or else from [`DEFAULT_FILE`], or else takes the
/// built-in defaults.
pub fn load(named: Option<&Path>, environment: &Environment) -> Result<Plan, Mistakes> {
    let file = named.map_or_else(|| PathBuf::from(DEFAULT_FILE), Path::to_owned);
    let text = match fs::read(&file) {
        Ok(bytes) => String::from_utf8(bytes)
            .map_err(|_| "is not text in UTF-8".to_owned())
            .map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound && named.is_none() => Ok(None),
        Err(error) => Err(format!("cannot be read: {error}")),
    };
    match text {
        Ok(Some(text)) => from_text(&text, Some(file), environment),
        Ok(None) => from_text("", None, environment),
        Err(reason) => Err(unreadable(file, reason)),
    }
}

/// Reads the configuration from the text of `file`, or, there being none, what stands in for one.
pub fn from_text(
    text: &str,
    file: Option<PathBuf>,
    environment: &Environment,
) -> Result<Plan, Mistakes> {
    let read = reader::read(text);
    let understood = read.is_toml;
    let mut findings = Findings {
        places: read.places,
        mistakes: read.mistakes,
        warnings: Vec::new(),
        notes: Vec::new(),
        literal_secret: false,
    };
    // What a file that is not TOML would come to is anyone's guess.
    let plan = if understood {
        plan::plan(&read.config, file.clone(), environment, &mut findings)
    } else {
        None
    };
    let Some(mut plan) = plan else {
        return Err(findings.into_mistakes(file));
    };
    if let Some(file) = file.as_deref().filter(|_| findings.literal_secret)
        && fs::metadata(file).is_ok_and(|file| file.permissions().mode() & 0o077 != 0)
    {
        let file = file.display();
        plan.warnings.push(format!(
            "{file} holds a secret and other users of this machine can read it: chmod 600 {file}"
        ));
    }
    Ok(plan)
}

fn unreadable(file: PathBuf, reason: String) -> Mistakes {
    let mut findings = Findings {
        places: Places::nowhere(),
        mistakes: Vec::new(),
        warnings: Vec::new(),
        notes: Vec::new(),
        literal_secret: false,
    };
    findings.mistake(
        &Key::root(),
        reason,
        "name the configuration file with --config, and let the user that runs this program read it",
    );
    findings.into_mistakes(Some(file))
}
