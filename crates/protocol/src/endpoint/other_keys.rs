//! Keys that another process of the deployment already has and this one has not yet, as while a new
//! key file goes round.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use super::App;
use crate::{
    oauth::error::{ErrorCode, OAuthError},
    records::ReadError,
    token::KeyId,
};

/// How long a look is believed. Anybody can name a key that there is not, and each look is a read.
const BELIEVED: Duration = Duration::from_secs(5);

/// The keys that the store's records were made with, as they were last looked up.
#[derive(Default)]
pub(crate) struct OtherKeys(Mutex<Option<(Duration, Vec<KeyId>)>>);

/// Refuses a text that was made with a key which this process is yet to get, as a fault that passes.
/// Any other is for the caller to refuse.
pub(super) async fn refuse_if_missing(app: &App, text: &str) -> Result<(), OAuthError> {
    match app.keys.unknown_key(text) {
        Some(key) if is_in_use(app, key).await? => Err(missing()),
        _ => Ok(()),
    }
}

/// The key that could give the answer is not here.
pub(super) fn missing() -> OAuthError {
    OAuthError::new(
        ErrorCode::TemporarilyUnavailable,
        "the server is yet to be given a key that another process of it has; its operator has to \
         restart this process with the same key file",
    )
}

async fn is_in_use(app: &App, key: KeyId) -> Result<bool, ReadError> {
    let now = app.ports.clock.elapsed();
    {
        let mut last = app.other_keys.lock();
        match &mut *last {
            Some((at, keys)) if now < *at + BELIEVED => return Ok(keys.contains(&key)),
            Some((at, _)) => *at = now,
            None => *last = Some((now, Vec::new())),
        }
    }
    let read = app.records().made_with().await?;
    let marked = read.map(|read| read.record.keys).unwrap_or_default();
    let keys: Vec<KeyId> = marked.iter().map(|it| it.fingerprint.id()).collect();
    let is_in_use = keys.contains(&key);
    *app.other_keys.lock() = Some((now, keys));
    Ok(is_in_use)
}

impl OtherKeys {
    fn lock(&self) -> std::sync::MutexGuard<'_, Option<(Duration, Vec<KeyId>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
