//! The rules for a passphrase or PIN that the operator chose.

use std::collections::BTreeSet;

use protocol::identity::password::SignIn;
use secrecy::ExposeSecret;

use super::{
    findings::Findings,
    key::Key,
    secret::{Environment, Resolved, Source, resolve},
    written::{Secret, SignInConfig},
};

/// How the person who approves a client will prove who they are.
#[derive(Debug)]
pub enum SignInPlan {
    /// With a secret that the operator chose.
    Configured { sign_in: SignIn, source: Source },
    /// With a passphrase that this program generates at the first start.
    Generated,
}

const MIN_PASSPHRASE: usize = 12;

/// What the configuration says about signing in. `None`: a mistake was noted.
pub(super) fn plan(
    written: &SignInConfig,
    environment: &Environment,
    findings: &mut Findings<'_>,
) -> Option<SignInPlan> {
    let passphrase_key = Key::of("sign_in.passphrase");
    let pin_key = Key::of("sign_in.pin");
    findings.literal_secret |= [&written.passphrase, &written.pin]
        .into_iter()
        .any(|secret| matches!(secret, Some(Secret::Literal(_))));
    if written.passphrase.is_some() && written.pin.is_some() {
        findings.mistake(
            &pin_key,
            "stands beside sign_in.passphrase",
            "keep the passphrase or the PIN, not both",
        );
        return None;
    }
    if let Some(text) = environment.overriding("PASSPHRASE") {
        if written.pin.is_some() {
            findings.warn(
                &pin_key,
                "is not used, because PASSPHRASE is set in the environment",
            );
        }
        let secret = Resolved {
            text: text.into(),
            source: Source::Environment("PASSPHRASE".to_owned()),
        };
        return passphrase(&secret, &Key::Variable("PASSPHRASE"), findings);
    }
    let (secret, key) = match (&written.passphrase, &written.pin) {
        (Some(secret), _) => (secret, &passphrase_key),
        (None, Some(secret)) => (secret, &pin_key),
        (None, None) if findings.blames(&Key::of("sign_in")) => return None,
        (None, None) => return Some(SignInPlan::Generated),
    };
    let secret = resolve(secret, key, environment, findings)?;
    if written.passphrase.is_some() {
        passphrase(&secret, key, findings)
    } else {
        pin(&secret, key, findings)
    }
}

fn passphrase(secret: &Resolved, key: &Key, findings: &mut Findings<'_>) -> Option<SignInPlan> {
    let text = secret.text.expose_secret();
    let reason = if text.chars().count() < MIN_PASSPHRASE {
        format!("has fewer than {MIN_PASSPHRASE} characters")
    } else if is_easily_guessed(text) {
        "is a placeholder or a pattern that anyone would guess".to_owned()
    } else {
        return Some(SignInPlan::Configured {
            sign_in: SignIn::passphrase(text),
            source: secret.source.clone(),
        });
    };
    findings.mistake(
        key,
        reason,
        "choose five unrelated words, or leave it out to have one generated",
    );
    None
}

fn pin(secret: &Resolved, key: &Key, findings: &mut Findings<'_>) -> Option<SignInPlan> {
    let text = secret.text.expose_secret();
    let reason = if !(6..=12).contains(&text.len())
        || !text.bytes().all(|byte| byte.is_ascii_alphanumeric())
    {
        "must be 6 to 12 ASCII letters and digits"
    } else if is_easily_guessed(text) {
        "is a pattern that anyone would guess"
    } else {
        return Some(SignInPlan::Configured {
            sign_in: SignIn::pin(text),
            source: secret.source.clone(),
        });
    };
    findings.mistake(
        key,
        reason,
        "choose letters and digits at random, or use a passphrase",
    );
    None
}

/// Words that examples and templates put where a secret belongs.
const PLACEHOLDER_WORDS: [&str; 32] = [
    "a",
    "admin",
    "change",
    "changeit",
    "changeme",
    "choose",
    "default",
    "dummy",
    "enter",
    "example",
    "foo",
    "here",
    "insert",
    "it",
    "letmein",
    "me",
    "my",
    "now",
    "of",
    "pass",
    "passphrase",
    "password",
    "phrase",
    "placeholder",
    "please",
    "replace",
    "secret",
    "test",
    "the",
    "this",
    "word",
    "your",
];

/// Whether `text` is of a kind that is tried first: a placeholder, a run such as `abcdef` or
/// `123456`, or made of hardly any different characters.
fn is_easily_guessed(text: &str) -> bool {
    let plain: String = text
        .chars()
        .filter(|character| character.is_alphanumeric())
        .flat_map(char::to_lowercase)
        .collect();
    let different: BTreeSet<char> = text.chars().collect();
    // A random six-digit PIN often has only three different digits; a passphrase never so few.
    let enough = if text.len() < MIN_PASSPHRASE { 3 } else { 5 };
    different.len() < enough || is_run(&plain) || is_made_of_placeholders(&plain)
}

/// Whether each character follows on the one before, up or down.
fn is_run(text: &str) -> bool {
    let steps: Vec<i64> = text
        .chars()
        .zip(text.chars().skip(1))
        .map(|(a, b)| match (a, b) {
            ('9', '0') => 1,
            ('0', '9') => -1,
            _ => i64::from(u32::from(b)) - i64::from(u32::from(a)),
        })
        .collect();
    steps.iter().all(|step| *step == 1) || steps.iter().all(|step| *step == -1)
}

/// Whether nothing is left of `text` but placeholder words and a number at the end.
fn is_made_of_placeholders(text: &str) -> bool {
    let text = text.trim_end_matches(|last: char| last.is_ascii_digit());
    // reachable[i]: the first i bytes are placeholder words in a row.
    let mut reachable = vec![false; text.len() + 1];
    reachable[0] = true;
    for start in 0..text.len() {
        if !reachable[start] {
            continue;
        }
        for word in PLACEHOLDER_WORDS {
            if text.as_bytes()[start..].starts_with(word.as_bytes()) {
                reachable[start + word.len()] = true;
            }
        }
    }
    !text.is_empty() && reachable[text.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_and_patterns_are_easily_guessed() {
        for text in [
            "changemechangeme",
            "Change-Me-Please",
            "your passphrase here",
            "passphrase123456",
            "aaaaaaaaaaaaaaaa",
            "abababababababab",
            "abcdefghijklmnop",
            "1234567890123",
            "987654",
            "------------",
        ] {
            assert!(is_easily_guessed(text), "{text}");
        }
    }

    #[test]
    fn other_texts_are_not_easily_guessed() {
        for text in [
            "orange tractor wisdom sail",
            "the secret of lighthouse 7",
            "k7wq2z",
            "480193",
            "пять случайных слов",
        ] {
            assert!(!is_easily_guessed(text), "{text}");
        }
    }
}
