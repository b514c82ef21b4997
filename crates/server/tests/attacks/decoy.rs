//! A server that nobody may be led to.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;

/// Counts who comes.
pub struct Decoy {
    pub address: SocketAddr,
    hits: Arc<AtomicUsize>,
}

impl Decoy {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let hits = Arc::<AtomicUsize>::default();
        let counted = Arc::clone(&hits);
        TaskTracker::new().spawn(async move {
            while listener.accept().await.is_ok() {
                counted.fetch_add(1, Ordering::Relaxed);
            }
        });
        Self { address, hits }
    }

    pub fn hits(&self) -> usize {
        self.hits.load(Ordering::Relaxed)
    }
}
