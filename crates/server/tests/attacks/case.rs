//! One thing that is tried.

use std::{pin::Pin, sync::Arc};

use super::world::World;

/// A row of the page, and the code behind it.
pub struct Case {
    /// Permanent.
    pub id: &'static str,
    /// What is tried, in one line; of a compatibility guard, what must work.
    pub tried: &'static str,
    pub run: Box<dyn Fn(Arc<World>) -> Running + Send + Sync>,
}

/// What a case takes that this machine does not have.
#[derive(Clone, Copy, Debug)]
pub struct Missing(pub &'static str);

/// Holds when it ends, does not when it panics, and tells nothing when something is missing.
pub type Running = Pin<Box<dyn Future<Output = Result<(), Missing>> + Send>>;

/// How a case ends that does not panic.
pub trait Ending {
    fn or_missing(self) -> Result<(), Missing>;
}

impl Ending for () {
    fn or_missing(self) -> Result<(), Missing> {
        Ok(())
    }
}

impl Ending for Result<(), Missing> {
    fn or_missing(self) -> Self {
        self
    }
}

pub fn case<F, R>(id: &'static str, tried: &'static str, run: F) -> Case
where
    F: Fn(Arc<World>) -> R + Send + Sync + 'static,
    R: Future<Output: Ending> + Send + 'static,
{
    Case {
        id,
        tried,
        run: Box::new(move |world| {
            let running = run(world);
            Box::pin(async move { running.await.or_missing() })
        }),
    }
}
