//! What both SQL stores promise beyond the contract.

use std::{sync::Arc, time::Duration};

use protocol::ports::{Store, Timestamp};
use server::store::SqlStore;
use tokio::{task::JoinSet, time::Instant};

use super::{LATER, say};

/// How many tasks write at once where many should.
const WRITERS: u64 = 64;

/// The numbers below `count`, shared out among the writers: as many calls at one moment would wait for
/// connections until their time is over, on a busy machine.
fn shares(count: i64) -> impl Iterator<Item = impl Iterator<Item = i64>> {
    let step = usize::try_from(WRITERS).unwrap();
    (0..WRITERS).map(move |writer| (writer.cast_signed()..count).step_by(step))
}

pub(super) async fn an_expired_record_is_swept(store: Arc<SqlStore>) {
    let now = Timestamp(1_000_000);
    let mut insertions = JoinSet::new();
    for share in shares(1_200) {
        let store = Arc::clone(&store);
        insertions.spawn(async move {
            for number in share {
                // Of each ten: three long expired, one just now, six alive.
                let expires_at = match number % 10 {
                    0..3 => Timestamp(number),
                    3 => now,
                    4 => now + Duration::from_secs(1),
                    _ => LATER,
                };
                let key = format!("code/{number:04}");
                assert!(store.insert(&key, "".into(), expires_at).await.unwrap());
            }
        });
    }
    insertions.join_all().await;
    // Extended, so that it stays.
    let extended = store.replace("code/0000", 1, "".into(), LATER).await;
    assert!(extended.unwrap());

    assert_eq!(store.sweep(Timestamp(-1)).await.unwrap(), 0);
    assert_eq!(store.sweep(now).await.unwrap(), 479);
    assert_eq!(store.sweep(now).await.unwrap(), 0);

    let left = store.keys("code/", None).await.unwrap();
    assert_eq!(left.len(), 721);
    assert!(left.contains(&"code/0000".to_owned()));
    assert!(left.contains(&"code/0004".to_owned()));
    assert!(!left.contains(&"code/0003".to_owned()));
}

/// N-RG-39, N-RG-40: when there are too many clients, those go that nobody ever approved, the
/// oldest first; the others stay, however old.
pub(super) async fn unused_clients_make_room(store: Arc<SqlStore>) {
    let mut insertions = JoinSet::new();
    for share in shares(1_300) {
        let store = Arc::clone(&store);
        insertions.spawn(async move {
            for number in share {
                let key = format!("client/{number:04}");
                let expires_at = Timestamp(LATER.0 + number);
                assert!(store.insert(&key, "".into(), expires_at).await.unwrap());
                // Of each ten, one was used, after which it ends before all others.
                if number % 10 == 0 {
                    let used = store.replace(&key, 1, "".into(), LATER).await;
                    assert!(used.unwrap());
                }
            }
        });
    }
    insertions.join_all().await;
    for other in ["client", "client.", "clients/1", "code/1", "grant/1"] {
        store.insert(other, "".into(), Timestamp(0)).await.unwrap();
    }

    assert_eq!(store.make_room_for_clients(1_300).await.unwrap(), 0);
    assert_eq!(store.make_room_for_clients(700).await.unwrap(), 600);
    assert_eq!(store.make_room_for_clients(700).await.unwrap(), 0);
    let mut left = store.keys("client/", None).await.unwrap();
    assert_eq!(left.len(), 700);
    let unused: Vec<_> = left.extract_if(.., |key| !key.ends_with('0')).collect();
    assert_eq!(left.len(), 130);
    // 600 unused ones are those of the first 666 numbers that end with another digit than 0.
    assert_eq!(unused.first().unwrap(), "client/0667");

    assert_eq!(store.make_room_for_clients(0).await.unwrap(), 570);
    assert_eq!(store.keys("client/", None).await.unwrap(), left);
    assert_eq!(store.keys("c", None).await.unwrap().len(), 130 + 4);
}

pub(super) async fn writes_go_on_during_a_sweep(store: Arc<SqlStore>) {
    let mut insertions = JoinSet::new();
    for worker in 0..WRITERS {
        let store = Arc::clone(&store);
        insertions.spawn(async move {
            for number in 0..20 {
                let key = format!("old/{worker}/{number}");
                store.insert(&key, "".into(), Timestamp(1)).await.unwrap();
            }
        });
    }
    insertions.join_all().await;
    store.insert("grant/a", "".into(), LATER).await.unwrap();

    let (swept, ()) = tokio::join!(store.sweep(Timestamp(2)), async {
        for seen in 1..=20 {
            let replaced = store.replace("grant/a", seen, "".into(), LATER).await;
            assert!(replaced.unwrap());
        }
    });
    assert_eq!(swept.unwrap(), WRITERS * 20);
    assert_eq!(store.keys("", None).await.unwrap(), ["grant/a"]);
}

/// Callers who stop waiting, as requests do whose client hangs up, spoil nothing for others.
pub(super) async fn an_abandoned_call_harms_no_other(store: Arc<SqlStore>) {
    store.insert("grant/a", "".into(), LATER).await.unwrap();
    let mut others = JoinSet::new();
    for number in 0..200 {
        let store = Arc::clone(&store);
        let key = format!("grant/{number}");
        if number % 2 == 0 {
            others.spawn(async move { store.insert(&key, "".into(), LATER).await.unwrap() });
            continue;
        }
        let read = store.get("grant/a");
        let written = store.insert(&key, "".into(), LATER);
        for call in [
            tokio::time::timeout(Duration::from_micros(number), async { drop(read.await) }).await,
            tokio::time::timeout(Duration::from_micros(number), async { drop(written.await) })
                .await,
        ] {
            // Whether it was in time is all the same.
            let _ = call;
        }
    }
    assert!(others.join_all().await.into_iter().all(|inserted| inserted));
    assert!(store.get("grant/a").await.unwrap().is_some());
}

pub(super) async fn what_was_asked_before_closing_is_done(store: Arc<SqlStore>) {
    // More than one commit of SQLite takes, and more than PostgreSQL has connections.
    let mut insertions = JoinSet::new();
    for number in 0..600 {
        let store = Arc::clone(&store);
        insertions.spawn(async move {
            let key = format!("grant/{number}");
            store.insert(&key, "".into(), LATER).await.unwrap()
        });
    }
    // On one thread, so each has asked once this goes on, and none is answered.
    tokio::task::yield_now().await;
    store.close().await;
    let inserted = insertions.join_all().await;
    assert!(inserted.into_iter().all(|inserted| inserted));
}

pub(super) async fn a_closed_store_answers_with_an_error(store: Arc<SqlStore>) {
    store.insert("grant/a", "".into(), LATER).await.unwrap();
    store.close().await;
    store.close().await;
    store.get("grant/a").await.unwrap_err();
    store.keys("", None).await.unwrap_err();
    store.remove("grant/a").await.unwrap_err();
    store.sweep(LATER).await.unwrap_err();
}

/// Prints how many refreshes a second are durable: one read and one replacement each.
pub(super) async fn refreshes_are_counted(store: Arc<SqlStore>, name: &str) {
    const ROUNDS: u64 = 40;
    let value = vec![7; 400];
    for number in 0..WRITERS {
        let key = format!("grant/{number}");
        store
            .insert(&key, value.clone().into(), LATER)
            .await
            .unwrap();
    }
    let start = Instant::now();
    let mut workers = JoinSet::new();
    for number in 0..WRITERS {
        let (store, value) = (Arc::clone(&store), value.clone());
        workers.spawn(async move {
            let key = format!("grant/{number}");
            for _ in 0..ROUNDS {
                let seen = store.get(&key).await.unwrap().unwrap().version;
                let replaced = store.replace(&key, seen, value.clone().into(), LATER).await;
                assert!(replaced.unwrap());
            }
        });
    }
    workers.join_all().await;
    let refreshes = Duration::from_secs(WRITERS * ROUNDS);
    let rate = refreshes.div_duration_f64(start.elapsed());
    say(&format!(
        "{name}: {rate:.0} durable refreshes per second, {WRITERS} at once"
    ));

    for number in 0..WRITERS {
        let record = store.get(&format!("grant/{number}")).await.unwrap();
        assert_eq!(record.unwrap().version, 1 + ROUNDS);
    }
}
