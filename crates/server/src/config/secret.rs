//! Takes secrets from where the configuration says they are.

use std::{
    collections::HashMap,
    fmt,
    path::{Path, PathBuf},
};

use secrecy::{ExposeSecret, SecretString};

use super::{
    findings::Findings,
    key::Key,
    written::{Reference, Secret},
};

/// The environment variables of this process.
#[derive(Default)]
pub struct Environment(HashMap<String, String>);

impl Environment {
    /// The variables that this process was started with. Those that are not UTF-8 are left out.
    pub fn of_process() -> Self {
        std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect()
    }

    /// Whether a variable is set to nothing.
    pub(super) fn is_empty(&self, name: &str) -> bool {
        self.0.get(name).is_some_and(String::is_empty)
    }

    /// A variable that overrides the file. An empty one counts as absent, since that is what
    /// container tools pass for a variable nobody set.
    pub(crate) fn overriding(&self, name: &str) -> Option<&str> {
        self.0
            .get(name)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    }
}

impl FromIterator<(String, String)> for Environment {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(variables: I) -> Self {
        Self(variables.into_iter().collect())
    }
}

/// Where a secret came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Written out in the configuration file.
    Literal,
    Environment(String),
    File(PathBuf),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Literal => f.write_str("written in the configuration file"),
            Self::Environment(name) => write!(f, "from the environment variable {name}"),
            Self::File(path) => write!(f, "from the file {}", path.display()),
        }
    }
}

/// A secret and where it came from.
#[derive(Debug)]
pub(super) struct Resolved {
    pub(super) text: SecretString,
    pub(super) source: Source,
}

/// Longer than any key; a file beyond it is the wrong file.
const MAX_SECRET_FILE: u64 = 64 * 1024;

/// Takes the secret at `key` from where it is. `None`: a mistake was noted.
pub(super) fn resolve(
    secret: &Secret,
    key: &Key,
    environment: &Environment,
    findings: &mut Findings<'_>,
) -> Option<Resolved> {
    let found = match secret {
        Secret::Literal(text) => Ok((text.clone(), Source::Literal)),
        Secret::Reference(Reference {
            env: Some(name),
            file: None,
        }) => from_environment(name, environment),
        Secret::Reference(Reference {
            env: None,
            file: Some(path),
        }) => from_file(path),
        Secret::Reference(Reference { env, .. }) => {
            // What is missing may be here under a misspelt or mistyped name.
            if !findings.blames(key) {
                let (reason, remedy) = if env.is_some() {
                    ("has both `env` and `file`", "keep one of them")
                } else {
                    ("has neither `env` nor `file`", "add one of them")
                };
                findings.mistake(key, reason, remedy);
            }
            return None;
        }
    };
    match found {
        Ok((text, _)) if text.expose_secret().is_empty() => {
            findings.mistake(
                key,
                "must not be empty",
                "write the secret between the quotes",
            );
            None
        }
        Ok((text, source)) => Some(Resolved { text, source }),
        Err((reason, remedy)) => {
            findings.mistake(key, reason, remedy);
            None
        }
    }
}

type Found = Result<(SecretString, Source), (String, String)>;

fn from_environment(name: &str, environment: &Environment) -> Found {
    if !is_variable_name(name) {
        // Not repeated: it may be the secret itself.
        return Err((
            "names no environment variable: only letters, digits and _ make a name".to_owned(),
            "write { env = \"NAME\" }; a secret that is written out stands in plain quotes, without env".to_owned(),
        ));
    }
    match environment.0.get(name) {
        Some(value) if !value.is_empty() => {
            Ok((value.as_str().into(), Source::Environment(name.to_owned())))
        }
        Some(_) => Err((
            format!("refers to the environment variable {name}, which is empty"),
            format!("give {name} a value before the start"),
        )),
        None => Err((
            format!("refers to the environment variable {name}, which is not set"),
            format!("set {name} before the start"),
        )),
    }
}

/// What to do about a path for which [`is_for_a_shell`].
pub(super) const IN_FULL: &str = "write the path in full, as in \"/home/me/mcp\"";

/// Whether a path begins with `~` or a variable. Taken as it is, it would be a new directory of that
/// very name in the present one, and to remove that takes care.
pub(super) fn is_for_a_shell(path: &Path) -> bool {
    let first = path.components().next();
    let first = first.map_or("".into(), |first| first.as_os_str().to_string_lossy());
    first.starts_with(['~', '$', '%'])
}

fn from_file(path: &Path) -> Found {
    let shown = path.display();
    if is_for_a_shell(path) {
        return Err((
            format!(
                "refers to the file {shown}, which begins with ~ or a variable, which only a shell expands"
            ),
            IN_FULL.to_owned(),
        ));
    }
    let too_long = std::fs::metadata(path).is_ok_and(|file| file.len() > MAX_SECRET_FILE);
    if too_long {
        return Err((
            format!("refers to the file {shown}, which is longer than any secret"),
            "name the file that holds the secret and nothing else".to_owned(),
        ));
    }
    let text = std::fs::read_to_string(path).map_err(|error| {
        (
            format!("refers to the file {shown}, which cannot be read: {error}"),
            "create the file, or let the user that runs this program read it".to_owned(),
        )
    })?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    if text.is_empty() {
        return Err((
            format!("refers to the file {shown}, which is empty"),
            "put the secret into the file".to_owned(),
        ));
    }
    Ok((text.into(), Source::File(path.to_owned())))
}

fn is_variable_name(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|first: char| first.is_ascii_digit())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}
