//! Why serde refused a key of the configuration file. Our own error type, because the usual ones
//! quote the value they found, which may be a secret.

use std::fmt;

use serde::de::{Expected, Unexpected};

use super::{guesses, key::Key, mistake::Mistake, reader::Places, schema};

/// Why serde refused a key.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) key: Key,
    cause: Cause,
}

#[derive(Debug)]
enum Cause {
    Unknown {
        expected: &'static [&'static str],
    },
    WrongType {
        found: &'static str,
        expected: String,
    },
    OneOf {
        expected: &'static [&'static str],
    },
    /// Of the right type, and too large, or below zero.
    OutOfRange,
    Other,
}

impl Refusal {
    /// Sets the key, unless a deeper level has done so.
    pub(super) fn or_at(mut self, key: &Key) -> Self {
        if self.key == Key::root() {
            self.key = key.clone();
        }
        self
    }

    pub(super) fn into_mistake(self, places: &Places<'_>) -> Mistake {
        let place = places.of(&self.key);
        let mut meant = None;
        let (reason, remedy) = match self.cause {
            Cause::Unknown { expected } => {
                let near = nearest(self.key.name(), expected);
                let tried = guesses::pointer(&self.key);
                meant = near.and_then(|name| Some(self.key.parent()?.child(name)));
                let remedy = match tried {
                    Some(remedy) => remedy.to_owned(),
                    None => advice(&self.key, near, expected),
                };
                ("is not a known key".to_owned(), remedy)
            }
            Cause::WrongType { found, expected } => {
                let remedy = right_type(&self.key, found, &expected);
                (format!("must be {expected}, not {found}"), remedy)
            }
            Cause::OutOfRange => (
                "is below zero or far too large".to_owned(),
                "see the reference of the configuration for its bounds".to_owned(),
            ),
            Cause::OneOf { expected } => (
                "has a value that is not known".to_owned(),
                format!("use one of {}", quoted(expected)),
            ),
            Cause::Other => (
                "cannot be read".to_owned(),
                "compare it with the reference of the configuration".to_owned(),
            ),
        };
        Mistake {
            key: self.key,
            place,
            reason,
            remedy,
            meant,
        }
    }
}

/// What to do about a value of the wrong type.
fn right_type(key: &Key, found: &str, expected: &str) -> String {
    let is_plain = !["a table", "an array"].contains(&found);
    let table = key.parent().map(|parent| parent.to_string());
    if key.name() == "credential" && found == "an array" {
        return "write one credential, and the other headers as headers = { X-Tenant = \"7\", X-API-Key = { env = \"NAME\" } }".to_owned();
    }
    let address = match key.to_string().as_str() {
        "listen" => Some("127.0.0.1:8095"),
        "metrics_listen" => Some("127.0.0.1:9090"),
        _ => None,
    };
    if let Some(address) = address {
        return format!("write address and port, as in {key} = \"{address}\"");
    }
    match expected {
        "a string" if is_plain && matches!(table.as_deref(), Some("limits" | "tokens")) => {
            "put it in double quotes, with its unit, as in \"90s\", \"64KiB\" or \"300/h\""
                .to_owned()
        }
        "a string" | "a string or a table" if is_plain => {
            "put the value in double quotes".to_owned()
        }
        "a whole number" | "true or false" if found == "a string" => {
            format!("write {expected}, without quotes")
        }
        _ => format!("write {expected}, as in the reference of the configuration"),
    }
}

/// What to do about an unknown key.
fn advice(key: &Key, near: Option<&str>, expected: &[&str]) -> String {
    if let Some(near) = near {
        return format!("did you mean `{near}`?");
    }
    let inside = key.parent().filter(|parent| *parent != Key::root());
    if let Some(parent) = inside
        && schema::has_top_level_key(key.name())
    {
        return format!(
            "`{}` does not belong into [{parent}]: move it above the first line in brackets",
            key.name()
        );
    }
    format!("remove it; known here are {}", quoted(expected))
}

/// The known name that looks most like `name`, if one does.
fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    // The likeness is blind to two letters that changed places in a short word.
    let one_slip = |candidate| strsim::osa_distance(name, candidate) == 1;
    known
        .iter()
        .map(|candidate| (strsim::jaro_winkler(name, candidate), *candidate))
        .filter(|(likeness, candidate)| *likeness > 0.8 || one_slip(candidate))
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, candidate)| candidate)
}

fn quoted(names: &[&str]) -> String {
    let names: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
    names.join(", ")
}

impl serde::de::Error for Refusal {
    /// Drops the message, since it may quote a value.
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self::because(Cause::Other)
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::because(Cause::WrongType {
            found: kind(&found),
            expected: match expected.to_string().as_str() {
                "a sequence" => "an array".to_owned(),
                "a map" => "a table".to_owned(),
                "path string" => "a string".to_owned(),
                "a boolean" => "true or false".to_owned(),
                "u32" => "a whole number".to_owned(),
                other => other.to_owned(),
            },
        })
    }

    fn invalid_value(_: Unexpected<'_>, _: &dyn Expected) -> Self {
        Self::because(Cause::OutOfRange)
    }

    fn unknown_variant(_: &str, expected: &'static [&'static str]) -> Self {
        Self::because(Cause::OneOf { expected })
    }

    fn unknown_field(_: &str, expected: &'static [&'static str]) -> Self {
        Self::because(Cause::Unknown { expected })
    }
}

impl Refusal {
    fn because(cause: Cause) -> Self {
        Self {
            key: Key::root(),
            cause,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} cannot be read", self.key)
    }
}

impl std::error::Error for Refusal {}

fn kind(found: &Unexpected<'_>) -> &'static str {
    match found {
        Unexpected::Bool(_) => "a boolean",
        Unexpected::Unsigned(_) | Unexpected::Signed(_) => "an integer",
        Unexpected::Float(_) => "a number with a fraction",
        Unexpected::Char(_) | Unexpected::Str(_) => "a string",
        Unexpected::Seq => "an array",
        Unexpected::Map | Unexpected::NewtypeStruct => "a table",
        _ => "a date",
    }
}
