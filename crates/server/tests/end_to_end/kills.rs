//! A process that is killed in the middle of its work, again and again, loses nobody's session.

use std::{
    hash::{BuildHasher, RandomState},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use super::support::{
    client::{Answer, Client, Failed, Http, Tokens},
    postgres::Schema,
    proxy::Proxy,
    say,
    upstream::Upstream,
};

/// Sessions that are refreshed at the same time.
const SESSIONS: usize = 50;
/// Rotations in a normal run; `KILL_ROTATIONS` asks for another number on SQLite.
const ROTATIONS: usize = 300;
/// There is a kill for at least so many rotations.
const ROTATIONS_PER_KILL: usize = 50;
/// Time from a start to the next kill, in milliseconds.
const KILL_AFTER: std::ops::Range<u64> = 50..300;
/// How long a session waits for a process that is down.
const PAUSE: Duration = Duration::from_millis(20);
/// How long a process may be down for a session.
const PATIENCE: Duration = Duration::from_secs(30);

/// S1-17, S1-24, TK-18
#[tokio::test]
async fn killing_the_process_during_rotations_on_sqlite_loses_no_session() {
    let rotations = std::env::var("KILL_ROTATIONS");
    let rotations = rotations.map_or(ROTATIONS, |rotations| rotations.parse().unwrap());
    kill_during_rotations("SQLite", "store = \"sqlite\"", rotations).await;
}

/// S1-24, TK-18
#[tokio::test]
async fn killing_the_process_during_rotations_on_postgresql_loses_no_session() {
    let Some(schema) = Schema::new("kills").await else {
        return;
    };
    let store = format!("store = \"{}\"", schema.url);
    kill_during_rotations("PostgreSQL", &store, ROTATIONS).await;
    schema.remove().await;
}

/// What all sessions together have done, and whether that is enough.
#[derive(Default)]
struct Tally {
    rotations: AtomicUsize,
    unanswered: AtomicUsize,
    unavailable: AtomicUsize,
    is_enough: AtomicBool,
}

async fn kill_during_rotations(name: &str, store: &str, wanted: usize) {
    let upstream = Upstream::start().await;
    let mut proxy = Proxy::with(upstream.address, store).await;
    let client = Client::register(&Http::to(proxy.address)).await;
    let mut sessions = JoinSet::new();
    let mut oldest = None;
    let tally = Arc::new(Tally::default());
    for _ in 0..SESSIONS {
        let tokens = client.sign_in().await;
        oldest.get_or_insert_with(|| tokens.clone());
        sessions.spawn(refresh_again_and_again(
            client.clone(),
            tokens,
            Arc::clone(&tally),
        ));
    }

    let started = Instant::now();
    let mut kills = 0;
    let random = RandomState::new();
    while tally.rotations.load(Ordering::Relaxed) < wanted || kills * ROTATIONS_PER_KILL < wanted {
        let span = KILL_AFTER.end - KILL_AFTER.start;
        let after = KILL_AFTER.start + random.hash_one(kills) % span;
        sleep(Duration::from_millis(after)).await;
        proxy.kill().await;
        kills += 1;
        proxy.start().await;
        if let Some(ended) = sessions.try_join_next() {
            let _: Tokens = ended.unwrap();
            panic!("a session has ended by itself");
        }
    }
    tally.is_enough.store(true, Ordering::Relaxed);

    // Each goes on from the last answer that it got.
    let mut lasted = 0;
    while let Some(session) = sessions.join_next().await {
        let last = session.unwrap();
        let next = Tokens::of(&client.refresh(&last).await.expect(200));
        let _ = client.call(&next).await.expect(200);
        lasted += 1;
    }
    assert_eq!(lasted, SESSIONS);
    say(&format!(
        "{name}: {} rotations, {kills} kills, {} requests without an answer, {} answered with 503, \
         no session lost, {:.1?}",
        tally.rotations.load(Ordering::Relaxed),
        tally.unanswered.load(Ordering::Relaxed),
        tally.unavailable.load(Ordering::Relaxed),
        started.elapsed()
    ));

    // It is not that every token is taken: one from long ago still ends its family.
    let replayed = client.refresh(&oldest.unwrap()).await.expect(400);
    assert_eq!(replayed.json()["error"], "invalid_grant");
}

/// Refreshes and calls until there was enough of it; ends with the tokens of the last answer. Any
/// answer but a success or 503 is a lost session.
async fn refresh_again_and_again(client: Client, mut tokens: Tokens, tally: Arc<Tally>) -> Tokens {
    while !tally.is_enough.load(Ordering::Relaxed) {
        let answer = insist(&tally, || client.try_refresh(&tokens.refresh_token)).await;
        tokens = Tokens::of(&answer);
        tally.rotations.fetch_add(1, Ordering::Relaxed);
        let called = insist(&tally, || {
            client.http.try_send(client.call_request(&tokens))
        });
        let _ = called.await;
    }
    tokens
}

/// Sends the same until there is an answer.
async fn insist<F>(tally: &Tally, send: impl Fn() -> F) -> Answer
where
    F: Future<Output = Result<Answer, Failed>>,
{
    let started = Instant::now();
    loop {
        match send().await {
            Ok(answer) if answer.status != 503 => return answer.expect(200),
            Ok(_) => tally.unavailable.fetch_add(1, Ordering::Relaxed),
            Err(_) => tally.unanswered.fetch_add(1, Ordering::Relaxed),
        };
        assert!(started.elapsed() < PATIENCE, "no answer any more");
        sleep(PAUSE).await;
    }
}
