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

/// Holds when it ends, and does not when it panics.
pub type Running = Pin<Box<dyn Future<Output = ()> + Send>>;

pub fn case<F, R>(id: &'static str, tried: &'static str, run: F) -> Case
where
    F: Fn(Arc<World>) -> R + Send + Sync + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    Case {
        id,
        tried,
        run: Box::new(move |world| Box::pin(run(world))),
    }
}
