//! Runs cases, and remembers which held.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use super::{
    case::Case,
    support::say,
    world::{Store, World},
};

/// Worlds of each store at the same time: some cases wait more than they work.
const LANES: usize = 3;

/// Longer than any case takes.
const PATIENCE: Duration = Duration::from_mins(3);

/// What is looked at in the end, beside the cases: that no secret came up anywhere.
const NO_SECRET: &str = "no secret";

/// Whether each case held, by its id.
pub type Results = BTreeMap<&'static str, bool>;

pub async fn run(store: Store, cases: Vec<Case>) -> Results {
    let waiting = Arc::new(Mutex::new(cases.into_iter()));
    let results = Arc::<Mutex<Results>>::default();
    let lanes = TaskTracker::new();
    for _ in 0..LANES {
        lanes.spawn(lane(
            store.clone(),
            Arc::clone(&waiting),
            Arc::clone(&results),
        ));
    }
    lanes.close();
    lanes.wait().await;
    assert!(waiting.lock().unwrap().next().is_none(), "no proxy started");
    store.remove().await;
    std::mem::take(&mut *results.lock().unwrap())
}

async fn lane(
    store: Store,
    waiting: Arc<Mutex<std::vec::IntoIter<Case>>>,
    results: Arc<Mutex<Results>>,
) {
    let mut world = Arc::new(World::on(&store, "").await);
    loop {
        let next = waiting.lock().unwrap().next();
        let Some(case) = next else { break };
        // A task of its own, so that its panic is its own too.
        let running = TaskTracker::new().spawn((case.run)(Arc::clone(&world)));
        let failure = match timeout(PATIENCE, running).await {
            Ok(Ok(())) => None,
            Ok(Err(panic)) => Some(panic.to_string()),
            Err(late) => Some(late.to_string()),
        };
        if let Some(failure) = &failure {
            say(&format!("{} on {}: {failure}", case.id, store.name()));
            // Whatever is left of it is not for the next.
            world = Arc::new(World::on(&store, "").await);
        }
        results.lock().unwrap().insert(case.id, failure.is_none());
    }
    let leaks = world.leaks().await;
    if !leaks.is_empty() {
        say(&format!("on {}: {leaks:#?}", store.name()));
    }
    let mut results = results.lock().unwrap();
    *results.entry(NO_SECRET).or_insert(true) &= leaks.is_empty();
}
