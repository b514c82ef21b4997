//! What is wrong with a configuration, in words for the person who wrote it. No message repeats a
//! value, because any value may be a secret that was put in the wrong place.

use std::{cmp::Ordering, fmt, path::PathBuf};

use super::key::Key;

/// One thing to correct.
#[derive(Debug)]
pub struct Mistake {
    pub key: Key,
    pub place: Place,
    /// Reads on from the key: "must not be empty".
    pub reason: String,
    /// What to do about it.
    pub remedy: String,
    /// For an unknown key, the key that was probably meant.
    pub(super) meant: Option<Key>,
}

/// Where a mistake was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// In the file as a whole: it cannot be read, or something is missing from it.
    File,
    /// At a line and column of the file, both counted from 1.
    At { line: usize, column: usize },
    /// In the environment.
    Environment,
}

/// Every mistake of one configuration, in the order of the file.
#[derive(Debug)]
pub struct Mistakes {
    file: Option<PathBuf>,
    list: Vec<Mistake>,
}

impl Mistakes {
    pub(super) fn new(file: Option<PathBuf>, mut list: Vec<Mistake>) -> Self {
        list.sort_by(|a, b| match a.place.cmp(&b.place) {
            Ordering::Equal => a.key.to_string().cmp(&b.key.to_string()),
            other => other,
        });
        Self { file, list }
    }

    pub fn list(&self) -> &[Mistake] {
        &self.list
    }

    fn name_of(&self, place: Place) -> String {
        let file = self.file.as_ref().map_or_else(
            || "built-in defaults".to_owned(),
            |path| path.display().to_string(),
        );
        match place {
            Place::File => file,
            Place::At { line, column } => format!("{file}:{line}:{column}"),
            Place::Environment => "environment".to_owned(),
        }
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.list.len() {
            1 => writeln!(f, "the configuration has a mistake")?,
            count => writeln!(f, "the configuration has {count} mistakes")?,
        }
        for mistake in &self.list {
            let place = self.name_of(mistake.place);
            let key = mistake.key.to_string();
            let space = if key.is_empty() { "" } else { " " };
            writeln!(f, "\n{place}: {key}{space}{}", mistake.reason)?;
            writeln!(f, "  hint: {}", mistake.remedy)?;
        }
        Ok(())
    }
}

impl std::error::Error for Mistakes {}
