//! Grants in memory, so that a token seen before costs no store access.
//!
//! What this process changes is true here at once. What another process changed is seen when the
//! entry is older than `freshness`.

use std::{
    collections::HashMap,
    num::NonZeroUsize,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use lru::LruCache;

use crate::{
    mcp::session::Session,
    oauth::{access_token::Family, grant::Grant},
    ports::Timestamp,
    rates::Bucket,
};

/// Locks are split by family so that cores rarely meet.
const SHARDS: usize = 16;
/// Grants remembered in each shard: 65,536 in all, under 40 MiB.
const PER_SHARD: NonZeroUsize = NonZeroUsize::new(4096).expect("a constant above zero");

/// A grant as it was read or written last.
#[derive(Debug)]
pub struct LiveGrant {
    pub grant: Grant,
    version: u64,
    read_at: Duration,
    /// Whether it is known that an access token of this generation was used.
    use_noted: AtomicBool,
    pub(crate) conversation: Arc<Conversation>,
}

/// What this process remembers of the calls of a grant, over all generations.
#[derive(Debug, Default)]
pub(crate) struct Conversation {
    /// How many there were.
    pub(crate) calls: Bucket,
    /// Event streams that the upstream ended at once.
    pub(crate) brief_streams: Arc<Bucket>,
    /// The newest session that was opened.
    session: Mutex<Option<KeptSession>>,
    /// Whether the journal knows that this client's version header is not what its body says.
    pub(crate) mending_noted: AtomicBool,
}

/// A session of an upstream, for clients that do not send back the id that they were given.
#[derive(Clone, Debug)]
pub(crate) struct KeptSession {
    pub(crate) session: Session,
    pub(crate) opened_at: Timestamp,
    /// When it was read from the store or written to it, in monotonic time.
    pub(crate) known_at: Duration,
}

impl Conversation {
    pub(crate) fn session(&self) -> Option<KeptSession> {
        self.slot().clone()
    }

    pub(crate) fn keep_session(&self, kept: KeptSession) {
        *self.slot() = Some(kept);
    }

    /// Forgets the session of that id, if it is the one that is kept.
    pub(crate) fn forget_session(&self, session: &Session) {
        let mut slot = self.slot();
        if slot
            .as_ref()
            .is_some_and(|kept| kept.session.id == session.id)
        {
            *slot = None;
        }
    }

    fn slot(&self) -> MutexGuard<'_, Option<KeptSession>> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The grants that this process has seen.
pub struct LiveGrants {
    shards: [Mutex<LruCache<Family, Arc<LiveGrant>>>; SHARDS],
    freshness: Option<Duration>,
    /// First uses of access tokens that are not in the store yet: the generation, by family.
    unwritten: Mutex<HashMap<Family, u32>>,
}

impl LiveGrants {
    /// `freshness` is how long an entry is believed; `None` if no other process writes the store.
    pub fn new(freshness: Option<Duration>) -> Self {
        // Unbounded so that nothing is allocated before it is needed; `learn` keeps the bound.
        let shards = std::array::from_fn(|_| Mutex::new(LruCache::unbounded()));
        Self {
            shards,
            freshness,
            unwritten: Mutex::default(),
        }
    }

    /// The grant of `family`, if it was seen recently enough. `elapsed` is the monotonic time.
    pub fn fresh(&self, family: Family, elapsed: Duration) -> Option<Arc<LiveGrant>> {
        let live = self.shard(family).get(&family).cloned()?;
        let is_fresh = self
            .freshness
            .is_none_or(|freshness| elapsed.saturating_sub(live.read_at) < freshness);
        is_fresh.then_some(live)
    }

    /// Takes in a grant that was read from or written to the store. Whoever comes late with an
    /// older version does not overwrite a newer one. A revocation is final whatever its version,
    /// since a store that lost writes counts again from where it was.
    pub fn learn(
        &self,
        family: Family,
        grant: Grant,
        version: u64,
        elapsed: Duration,
    ) -> Arc<LiveGrant> {
        let mut shard = self.shard(family);
        let known = shard.peek(&family);
        if let Some(known) = known.filter(|known| match (&known.grant.revoked, &grant.revoked) {
            (Some(_), _) => true,
            (None, Some(_)) => false,
            (None, None) => known.version > version,
        }) {
            return Arc::clone(known);
        }
        let live = Arc::new(LiveGrant {
            use_noted: AtomicBool::new(grant.access_used),
            conversation: known.map_or_else(Arc::default, |known| Arc::clone(&known.conversation)),
            grant,
            version,
            read_at: elapsed,
        });
        shard.put(family, Arc::clone(&live));
        if shard.len() > PER_SHARD.get() {
            shard.pop_lru();
        }
        live
    }

    /// Forgets a grant whose state in the store is not known, so that the next call asks.
    pub fn forget(&self, family: Family) {
        self.shard(family).pop(&family);
    }

    /// Notes that an access token of `generation` was used, so that it gets written down. Nearly
    /// always that is known, and costs nothing.
    pub fn note_use(&self, family: Family, live: &LiveGrant, generation: u32) {
        if generation == live.grant.generation && !live.use_noted.swap(true, Ordering::Relaxed) {
            self.unwritten().insert(family, generation);
        }
    }

    /// Whether an access token of `generation` was used in this process, and the store does not
    /// know yet.
    pub fn was_used(&self, family: Family, generation: u32) -> bool {
        self.unwritten().get(&family) == Some(&generation)
    }

    /// The uses that are still to be written down.
    pub fn unwritten_uses(&self) -> Vec<(Family, u32)> {
        let unwritten = self.unwritten();
        unwritten
            .iter()
            .map(|(family, generation)| (*family, *generation))
            .collect()
    }

    /// Takes in that the use of `generation` is in the store, or has become moot.
    pub fn use_is_written(&self, family: Family, generation: u32) {
        let mut unwritten = self.unwritten();
        // A use of the next generation may have come meanwhile.
        if unwritten.get(&family) == Some(&generation) {
            unwritten.remove(&family);
        }
    }

    fn unwritten(&self) -> MutexGuard<'_, HashMap<Family, u32>> {
        self.unwritten
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn shard(&self, family: Family) -> MutexGuard<'_, LruCache<Family, Arc<LiveGrant>>> {
        let index = usize::from(family.0[0]) % SHARDS;
        self.shards[index]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oauth::grant::Revoked;

    const FAMILY: Family = Family([1; 16]);

    fn grant(version: u64, revoked: Option<Revoked>) -> (Grant, u64) {
        let record = Grant {
            revoked,
            ..Grant::sample()
        };
        (record, version)
    }

    fn learn(
        grants: &LiveGrants,
        (grant, version): (Grant, u64),
        elapsed: Duration,
    ) -> Arc<LiveGrant> {
        grants.learn(FAMILY, grant, version, elapsed)
    }

    #[test]
    fn an_older_version_never_overwrites_a_revocation() {
        let grants = LiveGrants::new(None);
        learn(&grants, grant(2, Some(Revoked::ByClient)), Duration::ZERO);
        let late = learn(&grants, grant(1, None), Duration::ZERO);
        assert!(late.grant.revoked.is_some());
        assert!(
            grants
                .fresh(FAMILY, Duration::ZERO)
                .unwrap()
                .grant
                .revoked
                .is_some()
        );
    }

    #[test]
    fn a_revocation_is_taken_in_even_when_the_store_counts_from_an_older_version() {
        let grants = LiveGrants::new(None);
        learn(&grants, grant(5, None), Duration::ZERO);
        let live = learn(&grants, grant(4, None), Duration::ZERO);
        assert_eq!(live.version, 5);
        let live = learn(&grants, grant(3, Some(Revoked::ByClient)), Duration::ZERO);
        assert!(live.grant.revoked.is_some());
        let live = learn(&grants, grant(6, None), Duration::ZERO);
        assert!(live.grant.revoked.is_some());
    }

    /// As after a backup was put back: the store counts again from where it was.
    #[test]
    fn the_same_version_with_another_content_is_taken_in_and_believed_anew() {
        let shared = LiveGrants::new(Some(Duration::from_secs(5)));
        learn(&shared, grant(2, None), Duration::ZERO);
        let mut other = grant(2, None);
        other.0.generation = 7;
        let live = learn(&shared, other, Duration::from_secs(5));
        assert_eq!(live.grant.generation, 7);
        let live = shared.fresh(FAMILY, Duration::from_secs(9)).unwrap();
        assert_eq!(live.grant.generation, 7);
        assert!(shared.fresh(FAMILY, Duration::from_secs(10)).is_none());
    }

    #[test]
    fn an_entry_is_believed_only_as_long_as_it_is_fresh() {
        let shared = LiveGrants::new(Some(Duration::from_secs(5)));
        learn(&shared, grant(1, None), Duration::from_secs(10));
        assert!(
            shared
                .fresh(FAMILY, Duration::from_millis(14_999))
                .is_some()
        );
        assert!(shared.fresh(FAMILY, Duration::from_secs(15)).is_none());
        let own = LiveGrants::new(None);
        learn(&own, grant(1, None), Duration::ZERO);
        assert!(own.fresh(FAMILY, Duration::from_hours(1000)).is_some());
    }

    #[test]
    fn the_first_use_of_a_generation_is_to_be_written_until_it_is() {
        let grants = LiveGrants::new(None);
        let live = learn(&grants, grant(1, None), Duration::ZERO);
        grants.note_use(FAMILY, &live, 7);
        assert_eq!(grants.unwritten_uses(), []);
        grants.note_use(FAMILY, &live, 1);
        assert_eq!(grants.unwritten_uses(), [(FAMILY, 1)]);
        assert!(grants.was_used(FAMILY, 1) && !grants.was_used(FAMILY, 2));
        grants.use_is_written(FAMILY, 2);
        assert_eq!(grants.unwritten_uses(), [(FAMILY, 1)]);
        grants.use_is_written(FAMILY, 1);
        grants.note_use(FAMILY, &live, 1);
        assert_eq!(grants.unwritten_uses(), []);
    }

    #[test]
    fn a_rotation_does_not_renew_the_allowance_of_calls() {
        let grants = LiveGrants::new(None);
        let before = learn(&grants, grant(1, None), Duration::ZERO);
        let after = learn(&grants, grant(2, None), Duration::ZERO);
        assert!(Arc::ptr_eq(&before.conversation, &after.conversation));
    }
}
