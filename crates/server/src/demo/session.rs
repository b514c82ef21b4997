//! The sessions of clients that begin with `initialize`.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use lru::LruCache;
use protocol::ports::Entropy;

use super::revision::Revision;

/// How many sessions are remembered. Then the one unused for longest is forgotten, and its client
/// is told to initialize again.
const MAX_SESSIONS: usize = 10_000;

/// What a session id stands for. It is no proof of anything: whoever presents it was
/// authenticated before, and must be the person it was given to.
struct Session {
    subject: Box<str>,
    revision: Revision,
}

type Id = [u8; 16];

pub(super) struct Sessions {
    entropy: Arc<dyn Entropy>,
    live: Mutex<LruCache<Id, Session>>,
}

impl Sessions {
    pub(super) fn new(entropy: Arc<dyn Entropy>) -> Self {
        Self {
            entropy,
            // Bounded below: a bounded cache would take the memory of a full one at once.
            live: Mutex::new(LruCache::unbounded()),
        }
    }

    /// Begins a session and returns its id: 22 visible ASCII characters.
    pub(super) fn begin(&self, subject: &str, revision: Revision) -> String {
        let mut id = Id::default();
        self.entropy.fill(&mut id);
        let mut live = self.live();
        while live.len() >= MAX_SESSIONS {
            live.pop_lru();
        }
        live.put(
            id,
            Session {
                subject: subject.into(),
                revision,
            },
        );
        URL_SAFE_NO_PAD.encode(id)
    }

    /// The revision that the session's `initialize` agreed on. `None`: `subject` has no such
    /// session.
    pub(super) fn revision(&self, id: &str, subject: &str) -> Option<Revision> {
        let id = parse(id)?;
        let mut live = self.live();
        let session = live.get(&id)?;
        (*session.subject == *subject).then_some(session.revision)
    }

    /// Ends a session. `false`: `subject` has no such session.
    pub(super) fn end(&self, id: &str, subject: &str) -> bool {
        let Some(id) = parse(id) else {
            return false;
        };
        let mut live = self.live();
        let is_theirs = live
            .peek(&id)
            .is_some_and(|session| *session.subject == *subject);
        if is_theirs {
            live.pop(&id);
        }
        is_theirs
    }

    fn live(&self) -> MutexGuard<'_, LruCache<Id, Session>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn parse(id: &str) -> Option<Id> {
    URL_SAFE_NO_PAD.decode(id).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    struct Counter(AtomicU64);

    impl Entropy for Counter {
        fn fill(&self, bytes: &mut [u8]) {
            let next = self.0.fetch_add(1, Ordering::Relaxed);
            bytes[..8].copy_from_slice(&next.to_be_bytes());
        }
    }

    fn sessions() -> Sessions {
        Sessions::new(Arc::new(Counter(AtomicU64::new(0))))
    }

    #[test]
    fn the_session_unused_for_longest_makes_room() {
        let sessions = sessions();
        let begin = || sessions.begin("ada", Revision::UNSAID);
        let first = begin();
        let second = begin();
        for _ in 2..MAX_SESSIONS {
            begin();
        }
        assert!(sessions.revision(&first, "ada").is_some());
        begin();
        assert!(
            sessions.revision(&first, "ada").is_some(),
            "it was used since"
        );
        assert!(sessions.revision(&second, "ada").is_none());
        assert_eq!(sessions.live().len(), MAX_SESSIONS);
    }

    #[test]
    fn a_session_belongs_to_one_person() {
        let sessions = sessions();
        let id = sessions.begin("ada", Revision::NEWEST_HANDSHAKE);
        assert!(sessions.revision(&id, "bob").is_none());
        assert!(!sessions.end(&id, "bob"));
        assert_eq!(
            sessions.revision(&id, "ada"),
            Some(Revision::NEWEST_HANDSHAKE)
        );
        assert!(sessions.end(&id, "ada"));
        assert!(!sessions.end(&id, "ada"));
        assert!(sessions.revision(&id, "ada").is_none());
    }
}
