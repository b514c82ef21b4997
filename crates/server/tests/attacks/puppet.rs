//! An upstream that answers with whatever bytes it is told, and ends as it is told.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::{Instant, sleep},
};
use tokio_util::task::TaskTracker;

use super::support::upstream::{USUAL, is_trial};

/// A flood ends after as many bytes, if nobody ends it before.
const FLOOD: usize = 256 * 1024 * 1024;

/// As long as nothing moves, nothing will.
const STILL: Duration = Duration::from_millis(500);
const PATIENCE: Duration = Duration::from_mins(1);

/// Between two bytes that drip: a pause that no system waits for to join them.
const DRIP: Duration = Duration::from_secs(1);

/// What follows the bytes of an answer.
pub enum Ending {
    Close,
    Reset,
    /// Nothing, and no close.
    Silence,
    /// The same, and the request is not read either. Nothing comes before it.
    Deafness,
    /// This, a byte at a time, and then a close.
    Drip(Vec<u8>),
    /// This, again and again, and then a close.
    Flood(Vec<u8>),
}

pub struct Puppet {
    pub address: SocketAddr,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    queued: Mutex<VecDeque<(Vec<u8>, Ending)>>,
    played: AtomicUsize,
    deaf: Mutex<Vec<TcpStream>>,
    /// Answers that go on.
    lasting: AtomicUsize,
    flooded: AtomicUsize,
}

impl Puppet {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::<State>::default();
        let tasks = TaskTracker::new();
        let (shared, connections) = (Arc::clone(&state), tasks.clone());
        tasks.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(play(stream, Arc::clone(&shared)));
            }
        });
        Self { address, state }
    }

    /// Answers the next request like this; those that nothing is left for, as usual.
    pub fn plays(&self, bytes: impl Into<Vec<u8>>, ending: Ending) {
        let mut queued = self.state.queued.lock().unwrap();
        queued.push_back((bytes.into(), ending));
    }

    /// How many requests there were.
    pub fn played(&self) -> usize {
        self.state.played.load(Relaxed)
    }

    /// Waits until nobody takes more of the flood that is on.
    pub async fn is_held_up(&self) {
        let began = Instant::now();
        let mut before = 0;
        loop {
            sleep(STILL).await;
            let now = self.state.flooded.load(Relaxed);
            if now > 0 && now == before {
                break;
            }
            before = now;
            assert!(began.elapsed() < PATIENCE, "the flood goes on: {now}");
        }
        assert_eq!(self.state.lasting.load(Relaxed), 1, "all of it was taken");
    }

    /// Waits until what was on has ended, a flood before its time.
    pub async fn is_let_go(&self) {
        let began = Instant::now();
        while self.state.lasting.load(Relaxed) > 0 {
            assert!(began.elapsed() < PATIENCE, "the connection stays open");
            sleep(Duration::from_millis(5)).await;
        }
        let flooded = self.state.flooded.swap(0, Relaxed);
        assert!(flooded < FLOOD, "all of it was taken");
    }
}

impl State {
    /// Whether the next request is not to be read.
    fn is_to_be_deaf(&self) -> bool {
        let mut queued = self.queued.lock().unwrap();
        let next = queued.pop_front_if(|(_, ending)| matches!(ending, Ending::Deafness));
        next.is_some()
    }
}

async fn play(mut stream: TcpStream, state: Arc<State>) {
    if state.is_to_be_deaf() {
        state.deaf.lock().unwrap().push(stream);
        return;
    }
    let mut request = Vec::new();
    // Every call ends like that.
    while !request.ends_with(b"}") {
        if stream.read_buf(&mut request).await.unwrap_or(0) == 0 {
            return;
        }
    }
    if is_trial(&request) {
        let _ = stream.write_all(&usual()).await;
        return;
    }
    state.played.fetch_add(1, Relaxed);
    let queued = state.queued.lock().unwrap().pop_front();
    let (bytes, ending) = queued.unwrap_or_else(|| (usual(), Ending::Close));
    let _ = stream.write_all(&bytes).await;
    match ending {
        Ending::Close | Ending::Deafness => {}
        Ending::Reset => {
            // What was sent arrives before the reset does.
            sleep(Duration::from_millis(50)).await;
            stream.set_zero_linger().unwrap();
        }
        Ending::Silence => {
            state.lasting.fetch_add(1, Relaxed);
            while stream.read(&mut [0; 64]).await.is_ok_and(|read| read > 0) {}
            state.lasting.fetch_sub(1, Relaxed);
        }
        Ending::Drip(bytes) => {
            state.lasting.fetch_add(1, Relaxed);
            stream.set_nodelay(true).unwrap();
            for byte in bytes {
                sleep(DRIP).await;
                if stream.write_all(&[byte]).await.is_err() {
                    break;
                }
            }
            state.lasting.fetch_sub(1, Relaxed);
        }
        Ending::Flood(chunk) => {
            state.lasting.fetch_add(1, Relaxed);
            let mut flooded = 0;
            while flooded < FLOOD && stream.write_all(&chunk).await.is_ok() {
                flooded += chunk.len();
                state.flooded.fetch_add(chunk.len(), Relaxed);
            }
            state.lasting.fetch_sub(1, Relaxed);
        }
    }
}

pub fn usual() -> Vec<u8> {
    let length = USUAL.len();
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\
         content-length: {length}\r\n\r\n"
    );
    (head + USUAL).into_bytes()
}
