//! What a deployment writes down about itself, beside the records: which key it has, and how late
//! it is.

use anyhow::Context;
use protocol::{
    ports::{Clock, Store},
    records::{LatestTime, MadeWith, ReadError, Records},
    token::fingerprint,
};

use crate::{key_file::MasterKey, system::SystemClock};

/// The store was made with another key than the one that is at `place`.
#[derive(Debug, thiserror::Error)]
#[error("the store belongs to another key than the one {place}")]
pub(crate) struct ForeignKey {
    /// `in data/key`
    place: String,
}

impl ForeignKey {
    /// What to do about it.
    pub(crate) fn hint(&self) -> String {
        format!(
            "several processes on one store need the same key: copy that of the first process to \
             where this one looks, {}, or name one with `key` in the configuration of each. A \
             process alone needs the key that it had, and a key file is made anew when it is \
             missing: restore it, or begin with an empty store, which ends every connection",
            self.place
        )
    }
}

/// Makes sure that the records were made with `key`, which is at `place`; the first key is the
/// store's for ever. With another key no token would be valid, and every client would take its
/// grant for ended.
pub(crate) async fn check_key(
    store: &dyn Store,
    key: &MasterKey,
    place: String,
) -> anyhow::Result<()> {
    let mark = fingerprint(&[b"key check", key.as_bytes().as_slice()].concat());
    let unknown = "it is not known which key the store belongs to";
    let records = Records(store);
    let mut found = records.made_with().await.context(unknown)?;
    if found.is_none() {
        let keys = vec![mark.clone()];
        let first = records.write_made_with(None, &MadeWith { keys }).await;
        if first.context(unknown)? {
            return Ok(());
        }
        found = records.made_with().await.context(unknown)?;
    }
    if found.is_none_or(|found| found.record.keys != [mark]) {
        return Err(ForeignKey { place }.into());
    }
    Ok(())
}

/// Holds `clock` to the latest time that was written down.
pub(crate) async fn recall_time(store: &dyn Store, clock: &SystemClock) -> anyhow::Result<()> {
    let read = Records(store).latest_time().await;
    if let Some(read) = read.context("the latest time is not known")? {
        clock.is_past(read.record.latest);
    }
    Ok(())
}

/// Writes the time down, unless another process has written a later one: then that counts.
pub(crate) async fn mark_time(store: &dyn Store, clock: &SystemClock) -> Result<(), ReadError> {
    let records = Records(store);
    let known = records.latest_time().await?;
    if let Some(known) = &known {
        clock.is_past(known.record.latest);
    }
    let latest = clock.now();
    let seen = known.as_ref().map(|known| &known.seen);
    // `false`: another process was first, and its time is as good.
    let _ = records
        .write_latest_time(seen, LatestTime { latest })
        .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use protocol::memory::MemoryStore;
    use tempfile::TempDir;

    use super::*;
    use crate::{key_file::load_or_create, system::SystemEntropy};

    fn new_key() -> MasterKey {
        let directory = TempDir::new().unwrap();
        load_or_create(directory.path(), &SystemEntropy).unwrap()
    }

    #[tokio::test]
    async fn a_store_is_opened_with_its_own_key_only() {
        let store = MemoryStore::default();
        let [own, other] = [new_key(), new_key()];
        let check = |key| check_key(&store, key, "in data/key".to_owned());
        check(&own).await.unwrap();
        check(&own).await.unwrap();
        let refusal = check(&other).await.unwrap_err();
        assert_eq!(
            refusal.to_string(),
            "the store belongs to another key than the one in data/key"
        );
        // What an operator of two processes has to do.
        let hint = refusal.downcast::<ForeignKey>().unwrap().hint();
        assert!(hint.contains("copy that of the first process"), "{hint}");
        check(&own).await.unwrap();
    }

    #[tokio::test]
    async fn the_latest_time_outlives_the_clock_that_saw_it() {
        let store = MemoryStore::default();
        let before = SystemClock::new();
        recall_time(&store, &before).await.unwrap();
        let latest = before.now() + std::time::Duration::from_hours(24);
        before.is_past(latest);
        mark_time(&store, &before).await.unwrap();

        let after = SystemClock::new();
        assert!(after.now() < latest);
        recall_time(&store, &after).await.unwrap();
        assert!(after.now() >= latest);
    }

    #[tokio::test]
    async fn a_process_that_is_behind_learns_from_one_that_is_ahead() {
        let store = MemoryStore::default();
        let [behind, ahead] = [SystemClock::new(), SystemClock::new()];
        ahead.is_past(ahead.now() + std::time::Duration::from_hours(1));
        mark_time(&store, &behind).await.unwrap();
        mark_time(&store, &ahead).await.unwrap();
        mark_time(&store, &behind).await.unwrap();
        assert!(behind.ahead() > std::time::Duration::from_mins(59));
    }
}
