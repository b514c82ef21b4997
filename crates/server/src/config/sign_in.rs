//! The rules for a passphrase or PIN that the operator chose.

use protocol::identity::password::SignIn;
use secrecy::ExposeSecret;

use super::{
    findings::Findings,
    guessable::is_easily_guessed,
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
