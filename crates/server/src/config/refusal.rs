//! Why serde refused a key of the configuration file. Our own error type, because the usual ones
//! quote the value they found, which may be a secret.

use std::fmt;

use serde::de::{Expected, Unexpected};

use super::{key::Key, mistake::Mistake, reader::Places, schema};

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
                meant = near.and_then(|name| Some(self.key.parent()?.child(name)));
                (
                    "is not a known key".to_owned(),
                    advice(&self.key, near, expected),
                )
            }
            Cause::WrongType { found, expected } => {
                let remedy = if found != "a table" && found != "an array" && expected == "a string"
                {
                    "put the value in double quotes".to_owned()
                } else {
                    format!("write {expected}, as in the reference of the configuration")
                };
                (format!("must be {expected}, not {found}"), remedy)
            }
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
                other => other.to_owned(),
            },
        })
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
