//! A network between two programs that does to their bytes what the test says.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use bytes::BytesMut;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
};
use tokio_util::task::TaskTracker;

/// What becomes of what is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flow {
    /// It arrives.
    Pass,
    /// It waits, in both directions.
    Stall,
    /// It arrives, and every answer is kept back.
    KeepAnswers,
    /// It arrives; at the first answer that tells of a write, all connections break.
    BreakAfterWrite,
    /// Connections break, and new ones break at once.
    Broken,
}

/// A relay that lives as long as its test.
pub(crate) struct Relay {
    pub(crate) address: SocketAddr,
    flow: watch::Sender<Flow>,
    kept: Arc<Mutex<BytesMut>>,
}

impl Relay {
    pub(crate) async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (flow, _) = watch::channel(Flow::Pass);
        let kept = Arc::<Mutex<BytesMut>>::default();
        let tasks = TaskTracker::new();
        tasks.spawn({
            let (flow, kept, tasks) = (flow.clone(), Arc::clone(&kept), tasks.clone());
            async move {
                while let Ok((near, _)) = listener.accept().await {
                    if let Ok(far) = TcpStream::connect(target).await {
                        near.set_nodelay(true).unwrap();
                        far.set_nodelay(true).unwrap();
                        tasks.spawn(carry(near, far, flow.clone(), Arc::clone(&kept)));
                    }
                }
            }
        });
        Self {
            address,
            flow,
            kept,
        }
    }

    pub(crate) fn set(&self, flow: Flow) {
        self.flow.send_replace(flow);
    }

    /// Waits until it has become so by itself.
    pub(crate) async fn becomes(&self, flow: Flow) {
        let mut changes = self.flow.subscribe();
        changes.wait_for(|now| *now == flow).await.unwrap();
    }

    /// What was kept back so far.
    pub(crate) fn kept(&self) -> String {
        String::from_utf8_lossy(&self.kept.lock().unwrap()).into_owned()
    }
}

/// Ends when either side does, or the flow breaks.
async fn carry(
    mut near: TcpStream,
    mut far: TcpStream,
    flow: watch::Sender<Flow>,
    kept: Arc<Mutex<BytesMut>>,
) {
    let mut changes = flow.subscribe();
    let (mut forth, mut back) = (BytesMut::new(), BytesMut::new());
    loop {
        let now = *changes.borrow_and_update();
        if now == Flow::Broken {
            break;
        }
        let moves = now != Flow::Stall;
        // An answer is read in one piece.
        back.reserve(64 * 1024);
        let step = tokio::select! {
            _ = changes.changed() => continue,
            read = near.read_buf(&mut forth), if moves => {
                read.is_ok_and(|read| read > 0) && far.write_all_buf(&mut forth).await.is_ok()
            }
            read = far.read_buf(&mut back), if moves => {
                if now == Flow::BreakAfterWrite && tells_of_a_write(&back) {
                    flow.send_replace(Flow::Broken);
                    break;
                }
                if now == Flow::KeepAnswers {
                    kept.lock().unwrap().extend(back.split());
                }
                read.is_ok_and(|read| read > 0) && near.write_all_buf(&mut back).await.is_ok()
            }
        };
        if !step {
            return;
        }
    }
    // A cut is no orderly end.
    for stream in [near, far] {
        stream.set_zero_linger().unwrap();
    }
}

/// Whether PostgreSQL says there that a record was written (command tags of its protocol).
fn tells_of_a_write(bytes: &[u8]) -> bool {
    [&b"INSERT 0 1\0"[..], b"UPDATE 1\0"]
        .iter()
        .any(|tag| bytes.windows(tag.len()).any(|window| window == *tag))
}
