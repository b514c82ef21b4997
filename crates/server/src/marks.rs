//! What a deployment writes down about itself, beside the records: which keys it has, and how late
//! it is.

use anyhow::Context;
use protocol::{
    ports::{Clock, Store, Timestamp},
    records::{LatestTime, MadeWith, MarkedKey, ReadError, Records},
    token::{KeyFingerprint, KeyId},
};

use crate::{key_file::KeyRing, system::SystemClock};

/// How often a write that lost a race against another start is tried again.
const MOST_TRIES: usize = 64;

/// The store was made with a key that is not among those at `place`.
#[derive(Debug, thiserror::Error)]
#[error("the store belongs to another key than the one {place}")]
pub(crate) struct ForeignKey {
    /// `in data/key`
    place: String,
    missing: KeyId,
}

impl ForeignKey {
    /// What to do about it.
    pub(crate) fn hint(&self) -> String {
        format!(
            "the key that is missing is called {}. Several processes on one store need the same key \
             file: copy that of the first process to where this one looks, {}, or name one with `key` \
             in the configuration of each. A process alone needs the keys that it had, and a key file \
             is made anew when it is missing: restore it, or begin with an empty store, which ends \
             every connection",
            self.missing, self.place
        )
    }
}

/// Makes sure that `keys`, which are at `place`, has every key that the records were made with, and
/// writes down which one makes from now on. Without one of them its tokens would not be
/// valid, and their clients would take their grants for ended.
pub(crate) async fn check_keys(
    store: &dyn Store,
    keys: &KeyRing,
    place: String,
    now: Timestamp,
) -> anyhow::Result<()> {
    let unknown = "it is not known which keys the store belongs to";
    let records = Records(store);
    for _ in 0..MOST_TRIES {
        let read = records.made_with().await.context(unknown)?;
        let known = read.as_ref().map(|read| read.record.clone());
        let known = known.unwrap_or_default();
        let is_here =
            |mark: &MarkedKey| keys.all().any(|key| key.fingerprint() == mark.fingerprint);
        if let Some(mark) = known.keys.iter().find(|mark| !is_here(mark)) {
            return Err(ForeignKey {
                place,
                missing: mark.fingerprint.id(),
            }
            .into());
        }
        let marked = with_first(known.clone(), keys.first().fingerprint(), now);
        if marked == known {
            return Ok(());
        }
        let seen = read.as_ref().map(|read| &read.seen);
        let written = records.write_made_with(seen, &marked).await;
        if written.context(unknown)? {
            return Ok(());
        }
    }
    anyhow::bail!("{unknown}: other processes change that at every try")
}

/// The marks once the key of that fingerprint makes.
fn with_first(mut marks: MadeWith, first: KeyFingerprint, now: Timestamp) -> MadeWith {
    if marks.keys.iter().all(|mark| mark.fingerprint != first) {
        marks.keys.push(MarkedKey {
            fingerprint: first,
            made_until: None,
        });
    }
    for mark in &mut marks.keys {
        mark.made_until = match mark.made_until {
            _ if mark.fingerprint == first => None,
            None => Some(now),
            since => since,
        };
    }
    marks
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
    use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
    use protocol::memory::MemoryStore;

    use super::*;

    /// The text of a key file with these keys.
    fn ring(bytes: &[u8]) -> KeyRing {
        let lines = bytes.iter().map(|byte| {
            let key = BASE64_URL_SAFE_NO_PAD.encode([*byte, 2].repeat(16));
            format!("mcp-oauth-proxy-key-1:{key}\n")
        });
        KeyRing::parse(&lines.collect::<String>()).unwrap()
    }

    #[tokio::test]
    async fn a_store_is_opened_with_every_key_that_made_something_in_it_only() {
        let store = MemoryStore::default();
        let check = async |keys: &[u8]| {
            let (place, now) = ("in data/key".to_owned(), Timestamp(5));
            check_keys(&store, &ring(keys), place, now).await
        };
        check(&[1]).await.unwrap();
        check(&[1]).await.unwrap();
        let refusal = check(&[3]).await.unwrap_err();
        assert_eq!(
            refusal.to_string(),
            "the store belongs to another key than the one in data/key"
        );
        // What an operator of two processes has to do, and which key it is.
        let hint = refusal.downcast::<ForeignKey>().unwrap().hint();
        assert!(hint.contains("copy that of the first process"), "{hint}");
        let missing = ring(&[1]).first().id().to_string();
        assert!(hint.contains(&missing), "{hint}");

        // A rotation: the old key has to stay, and a key that never made anything does not.
        check(&[5, 1, 3]).await.unwrap();
        for keys in [&[5][..], &[1], &[3]] {
            check(keys).await.unwrap_err();
        }
        check(&[5, 1]).await.unwrap();
        let read = Records(&store).made_with().await.unwrap().unwrap();
        let made_until = read.record.keys.iter().map(|key| key.made_until);
        assert!(made_until.eq([Some(Timestamp(5)), None]));
    }

    #[tokio::test]
    async fn the_mark_of_0_1_0_is_read() {
        let store = MemoryStore::default();
        let fingerprint = String::from(ring(&[1]).first().fingerprint());
        let later = Timestamp(i64::MAX);
        let inserted = store.insert("mark/key", fingerprint.into(), later).await;
        assert!(inserted.unwrap());
        let check =
            async |keys: &[u8]| check_keys(&store, &ring(keys), String::new(), Timestamp(5)).await;
        check(&[3]).await.unwrap_err();
        check(&[3, 1]).await.unwrap();
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
