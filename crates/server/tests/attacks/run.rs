//! Runs cases, and remembers what came of them.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use super::{
    case::{Case, Missing},
    support::{nothing_may_be_missing, say},
    world::{Store, World},
};

/// Worlds of each store at the same time: some cases wait more than they work.
const LANES: usize = 3;

/// Longer than any case takes.
const PATIENCE: Duration = Duration::from_mins(3);

/// What is looked at in the end, beside the cases: that no secret came up anywhere.
const NO_SECRET: &str = "no secret";

/// What came of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Held,
    /// Something that it takes is missing here.
    NotTried,
    Broken,
}

/// What came of each case, by its id.
pub type Results = BTreeMap<&'static str, Outcome>;

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
        let (outcome, why) = match timeout(PATIENCE, running).await {
            Ok(Ok(Ok(()))) => (Outcome::Held, String::new()),
            Ok(Ok(Err(Missing(what)))) if nothing_may_be_missing() => {
                (Outcome::Broken, format!("not tried, {what}"))
            }
            Ok(Ok(Err(Missing(what)))) => (Outcome::NotTried, format!("not tried, {what}")),
            Ok(Err(panic)) => (Outcome::Broken, panic.to_string()),
            Err(late) => (Outcome::Broken, late.to_string()),
        };
        if outcome != Outcome::Held {
            say(&format!("{} on {}: {why}", case.id, store.name()));
        }
        if outcome == Outcome::Broken {
            // Whatever is left of it is not for the next.
            world = Arc::new(World::on(&store, "").await);
        }
        results.lock().unwrap().insert(case.id, outcome);
    }
    let leaks = world.leaks().await;
    let mut results = results.lock().unwrap();
    results.entry(NO_SECRET).or_insert(Outcome::Held);
    if !leaks.is_empty() {
        say(&format!("on {}: {leaks:#?}", store.name()));
        results.insert(NO_SECRET, Outcome::Broken);
    }
}
