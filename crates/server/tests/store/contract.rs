//! What every store promises, one function per promise.

use std::sync::Arc;

use bytes::Bytes;
use protocol::{
    memory::MemoryStore,
    ports::{KEYS_PER_PAGE, Store, Versioned},
};
use tokio::task::JoinSet;

use super::LATER;

/// A store that several tasks use at once.
pub(super) type Shared = Arc<dyn Store>;

/// Makes a test of each promise; `$with_store` makes a store and calls the function with it.
macro_rules! contract {
    ($with_store:path) => {
        contract! { $with_store:
            a_record_is_found_at_version_one
            a_taken_key_is_not_inserted_again
            a_replaced_record_has_the_next_version
            a_replacement_at_another_version_changes_nothing
            a_removed_record_is_gone
            a_removed_key_can_be_taken_again
            one_of_a_hundred_insertions_wins
            one_of_a_hundred_replacements_wins
            one_of_a_hundred_removals_wins
            values_of_any_bytes_come_back
            keys_of_a_prefix_come_in_byte_order
            keys_stop_where_the_prefix_stops
            keys_are_paged
        }
    };
    ($with_store:path: $($promise:ident)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $promise() {
            $with_store($crate::contract::$promise).await;
        }
    )*};
}
pub(super) use contract;

mod memory {
    use super::{Arc, MemoryStore, Shared};

    async fn with_store<F: Future>(promise: impl FnOnce(Shared) -> F) {
        promise(Arc::new(MemoryStore::default())).await;
    }

    contract!(with_store);
}

async fn assert_found(store: &Shared, key: &str, value: &'static str, version: u64) {
    let value = Bytes::from_static(value.as_bytes());
    let expected = Versioned { value, version };
    assert_eq!(store.get(key).await.unwrap(), Some(expected));
}

async fn insert(store: &Shared, key: &str, value: &'static str) -> bool {
    store.insert(key, value.into(), LATER).await.unwrap()
}

pub(super) async fn a_record_is_found_at_version_one(store: Shared) {
    assert_eq!(store.get("grant/a").await.unwrap(), None);
    assert!(insert(&store, "grant/a", "first").await);
    assert_found(&store, "grant/a", "first", 1).await;
    assert_eq!(store.get("grant/").await.unwrap(), None);
    assert_eq!(store.get("GRANT/A").await.unwrap(), None);
}

pub(super) async fn a_taken_key_is_not_inserted_again(store: Shared) {
    assert!(insert(&store, "code/a", "first").await);
    assert!(!insert(&store, "code/a", "second").await);
    assert_found(&store, "code/a", "first", 1).await;
}

pub(super) async fn a_replaced_record_has_the_next_version(store: Shared) {
    insert(&store, "grant/a", "first").await;
    insert(&store, "grant/b", "other").await;
    for (seen, value) in [(1, "second"), (2, "third")] {
        let replaced = store.replace("grant/a", seen, value.into(), LATER).await;
        assert!(replaced.unwrap());
        assert_found(&store, "grant/a", value, seen + 1).await;
    }
    assert_found(&store, "grant/b", "other", 1).await;
}

pub(super) async fn a_replacement_at_another_version_changes_nothing(store: Shared) {
    let replace = async |key, seen| {
        store
            .replace(key, seen, "lost".into(), LATER)
            .await
            .unwrap()
    };
    assert!(!replace("grant/a", 1).await);
    assert_eq!(store.get("grant/a").await.unwrap(), None);

    insert(&store, "grant/a", "first").await;
    for seen in [0, 2, i64::MAX as u64, u64::MAX] {
        assert!(!replace("grant/a", seen).await, "{seen}");
    }
    assert_found(&store, "grant/a", "first", 1).await;
}

pub(super) async fn a_removed_record_is_gone(store: Shared) {
    insert(&store, "grant/a", "first").await;
    insert(&store, "grant/b", "other").await;
    assert!(store.remove("grant/a").await.unwrap());
    assert!(!store.remove("grant/a").await.unwrap());
    assert_eq!(store.get("grant/a").await.unwrap(), None);
    let replaced = store.replace("grant/a", 1, "back".into(), LATER).await;
    assert!(!replaced.unwrap());
    assert_eq!(store.keys("", None).await.unwrap(), ["grant/b"]);
}

pub(super) async fn a_removed_key_can_be_taken_again(store: Shared) {
    insert(&store, "client/a", "first").await;
    store.remove("client/a").await.unwrap();
    assert!(insert(&store, "client/a", "second").await);
    assert_found(&store, "client/a", "second", 1).await;
}

/// Starts `attempt` a hundred times at once and counts those that say they won.
async fn winners<F>(store: &Shared, attempt: impl Fn(Shared, u8) -> F) -> usize
where
    F: Future<Output = bool> + Send + 'static,
{
    let mut attempts = JoinSet::new();
    for number in 0..100 {
        attempts.spawn(attempt(Arc::clone(store), number));
    }
    let outcomes = attempts.join_all().await;
    assert_eq!(outcomes.len(), 100);
    outcomes.into_iter().filter(|won| *won).count()
}

pub(super) async fn one_of_a_hundred_insertions_wins(store: Shared) {
    let won = winners(&store, |store: Shared, number| async move {
        let value = Bytes::from(vec![number]);
        let inserted = store.insert("code/a", value.clone(), LATER).await.unwrap();
        // The winner's value is the one that stays.
        assert_eq!(
            inserted,
            store.get("code/a").await.unwrap().unwrap().value == value
        );
        inserted
    });
    assert_eq!(won.await, 1);
}

pub(super) async fn one_of_a_hundred_replacements_wins(store: Shared) {
    insert(&store, "grant/a", "first").await;
    let won = winners(&store, |store: Shared, number| async move {
        let value = Bytes::from(vec![number]);
        let replaced = store
            .replace("grant/a", 1, value.clone(), LATER)
            .await
            .unwrap();
        // The winner's value is the one that stays.
        assert_eq!(
            replaced,
            store.get("grant/a").await.unwrap().unwrap().value == value
        );
        replaced
    });
    assert_eq!(won.await, 1);
    assert_eq!(store.get("grant/a").await.unwrap().unwrap().version, 2);
}

pub(super) async fn one_of_a_hundred_removals_wins(store: Shared) {
    insert(&store, "request/a", "first").await;
    let won = winners(&store, |store: Shared, _| async move {
        store.remove("request/a").await.unwrap()
    });
    assert_eq!(won.await, 1);
}

pub(super) async fn values_of_any_bytes_come_back(store: Shared) {
    let every_byte: Vec<u8> = (0..=255).collect();
    let large = every_byte.repeat(256);
    let values = [
        vec![],
        vec![0],
        b"it's \\x00 ''".to_vec(),
        every_byte,
        large,
    ];
    for (number, value) in values.into_iter().enumerate() {
        let (key, value) = (format!("value/{number}"), Bytes::from(value));
        store.insert(&key, value.clone(), LATER).await.unwrap();
        let found = store.get(&key).await.unwrap().unwrap();
        assert_eq!(found.value, value);

        let replaced = store.replace(&key, 1, Bytes::new(), LATER).await.unwrap();
        assert!(replaced);
        assert_found(&store, &key, "", 2).await;
        assert!(store.replace(&key, 2, value.clone(), LATER).await.unwrap());
        assert_eq!(store.get(&key).await.unwrap().unwrap().value, value);
    }
}

pub(super) async fn keys_of_a_prefix_come_in_byte_order(store: Shared) {
    // In an order of its own, and one that a language would sort otherwise.
    for key in [
        "b", "_", "B", "a", "~", "1", "a/", "A", "-", "a-b", "10", "2",
    ] {
        insert(&store, &format!("client/{key}"), "").await;
    }
    let expected = [
        "-", "1", "10", "2", "A", "B", "_", "a", "a-b", "a/", "b", "~",
    ];
    let expected = expected.map(|key| format!("client/{key}"));
    assert_eq!(store.keys("client/", None).await.unwrap(), expected);
    assert_eq!(store.keys("", None).await.unwrap(), expected);
}

pub(super) async fn keys_stop_where_the_prefix_stops(store: Shared) {
    for key in [
        "grant", "grant.", "grant/", "grant/%", "grant/_", "grant/a", "grant/a~", "grant/b",
        "grant0", "grant_x", "grantXx", "Grant/a", "%", "_", "~~",
    ] {
        insert(&store, key, "").await;
    }
    for (prefix, expected) in [
        (
            "grant/",
            &[
                "grant/", "grant/%", "grant/_", "grant/a", "grant/a~", "grant/b",
            ][..],
        ),
        ("grant/a", &["grant/a", "grant/a~"]),
        ("grant/_", &["grant/_"]),
        ("grant/%", &["grant/%"]),
        ("grant_", &["grant_x"]),
        ("%", &["%"]),
        ("_", &["_"]),
        ("~", &["~~"]),
        ("grant/c", &[]),
    ] {
        assert_eq!(
            store.keys(prefix, None).await.unwrap(),
            expected,
            "{prefix}"
        );
    }
    for (after, expected) in [
        ("grant/_", &["grant/a", "grant/a~", "grant/b"][..]),
        ("grant/a0", &["grant/a~", "grant/b"]),
        (
            "a",
            &[
                "grant/", "grant/%", "grant/_", "grant/a", "grant/a~", "grant/b",
            ],
        ),
        ("grant/b", &[]),
        ("z", &[]),
    ] {
        let keys = store.keys("grant/", Some(after)).await.unwrap();
        assert_eq!(keys, expected, "{after}");
    }
}

pub(super) async fn keys_are_paged(store: Shared) {
    let total = 2 * KEYS_PER_PAGE + 1;
    let mut insertions = JoinSet::new();
    // Starting in different places, so that they do not arrive in their order.
    for worker in 0..20 {
        let store = Arc::clone(&store);
        insertions.spawn(async move {
            for number in (worker..total).step_by(20) {
                insert(&store, &format!("refresh/{number:05}"), "").await;
            }
        });
    }
    insertions.join_all().await;
    insert(&store, "refresh0", "").await;

    let expected: Vec<String> = (0..total)
        .map(|number| format!("refresh/{number:05}"))
        .collect();
    let mut pages = Vec::new();
    let mut after = None::<String>;
    loop {
        let page = store.keys("refresh/", after.as_deref()).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.clone());
        pages.push(page);
        assert!(pages.len() <= 3, "the keys do not end");
    }
    let lengths: Vec<usize> = pages.iter().map(Vec::len).collect();
    assert_eq!(lengths, [KEYS_PER_PAGE, KEYS_PER_PAGE, 1]);
    assert_eq!(pages.concat(), expected);
}
