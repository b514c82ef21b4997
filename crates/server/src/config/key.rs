//! Names a setting: where it stands in the file, or which environment variable it came from.

use std::fmt;

/// The name of one setting, as mistakes and warnings call it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Key {
    /// A dotted path in the configuration file.
    File(Vec<Segment>),
    /// An environment variable that overrides the file.
    Variable(&'static str),
}

/// One step of a dotted path.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Segment {
    Name(String),
    /// An element of an array, the first being 0.
    Index(usize),
}

impl Key {
    /// The whole file.
    pub(super) fn root() -> Self {
        Self::File(Vec::new())
    }

    /// The setting at `path`, which is written with dots.
    pub(super) fn of(path: &str) -> Self {
        path.split('.')
            .fold(Self::root(), |key, name| key.child(name))
    }

    /// The setting called `name` inside this one. An environment variable has no inside.
    pub(super) fn child(&self, name: &str) -> Self {
        self.deeper(Segment::Name(name.to_owned()))
    }

    /// An element of this array.
    pub(super) fn element(&self, index: usize) -> Self {
        self.deeper(Segment::Index(index))
    }

    fn deeper(&self, segment: Segment) -> Self {
        match self {
            Self::File(path) => {
                let mut path = path.clone();
                path.push(segment);
                Self::File(path)
            }
            Self::Variable(_) => self.clone(),
        }
    }

    /// The setting that this one stands in.
    pub(super) fn parent(&self) -> Option<Self> {
        match self {
            Self::File(path) => path
                .split_last()
                .map(|(_, parent)| Self::File(parent.to_vec())),
            Self::Variable(_) => None,
        }
    }

    /// The last name of the path.
    pub(super) fn name(&self) -> &str {
        match self {
            Self::File(path) => match path.last() {
                Some(Segment::Name(name)) => name,
                Some(Segment::Index(_)) | None => "",
            },
            Self::Variable(name) => name,
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = match self {
            Self::File(path) => path,
            Self::Variable(name) => return f.write_str(name),
        };
        for (position, segment) in path.iter().enumerate() {
            match segment {
                Segment::Index(index) => write!(f, "[{index}]")?,
                Segment::Name(name) => {
                    if position > 0 {
                        f.write_str(".")?;
                    }
                    if is_bare(name) {
                        f.write_str(name)?;
                    } else {
                        write!(f, "{name:?}")?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// Whether TOML allows `name` as a key without quotes.
fn is_bare(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_shown_as_toml_writes_it() {
        let key = Key::of("upstream").child("a b").child("url");
        assert_eq!(key.to_string(), r#"upstream."a b".url"#);
        let element = Key::of("trusted_proxies.ranges").element(2);
        assert_eq!(element.to_string(), "trusted_proxies.ranges[2]");
    }
}
