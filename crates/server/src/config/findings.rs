//! Collects what the checks find, so that the operator reads all of it at once.

use super::{
    key::Key,
    mistake::{Mistake, Mistakes},
    reader::Places,
};

/// What has been found so far.
pub(super) struct Findings<'i> {
    pub(super) places: Places<'i>,
    pub(super) mistakes: Vec<Mistake>,
    pub(super) warnings: Vec<String>,
    /// Notes of `check`, which a start does not repeat: allowed, and worth a look.
    pub(super) notes: Vec<String>,
    /// Whether the file itself contains a secret.
    pub(super) literal_secret: bool,
}

impl Findings<'_> {
    /// Notes a mistake. `reason` reads on from the key, and neither text may repeat a value.
    pub(super) fn mistake(
        &mut self,
        key: &Key,
        reason: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.mistakes.push(Mistake {
            key: key.clone(),
            place: self.places.of(key),
            reason: reason.into(),
            remedy: remedy.into(),
            meant: None,
        });
    }

    /// Notes something that works but is probably not wanted.
    pub(super) fn warn(&mut self, key: &Key, text: &str) {
        self.warnings.push(format!("{key} {text}"));
    }

    /// Notes something that is right in some places, and worth a look in others.
    pub(super) fn note(&mut self, key: &Key, text: &str) {
        self.notes.push(format!("{key} {text}"));
    }

    /// Whether a mistake has been noted at `key`, inside it, or at a misspelling of it. A check
    /// that would only report the consequence asks this first.
    pub(super) fn blames(&self, key: &Key) -> bool {
        self.mistakes.iter().any(|mistake| {
            is_within(&mistake.key, key)
                || mistake
                    .meant
                    .as_ref()
                    .is_some_and(|meant| is_within(meant, key))
        })
    }

    /// The mistakes, in the order of `file`.
    pub(super) fn into_mistakes(self, file: Option<std::path::PathBuf>) -> Mistakes {
        Mistakes::new(file, self.mistakes)
    }
}

fn is_within(inner: &Key, outer: &Key) -> bool {
    match (inner, outer) {
        (Key::File(inner), Key::File(outer)) => inner.starts_with(outer),
        _ => inner == outer,
    }
}
