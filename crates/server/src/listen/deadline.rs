//! When one connection's time is up.
//!
//! hyper would start and drop a timer for each request. Here the parts of a connection only note
//! what they wait for, and the connection's task keeps one timer, which in a busy connection
//! fires every few seconds and finds that nothing is due.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::{self, Duration},
};

use tokio::time::Instant;

/// What the parts of one connection tell its task. Atomic because the task changes threads, not
/// because parts run at the same time.
#[derive(Debug)]
pub(super) struct Watch {
    accepted: Instant,
    head_limit: Duration,
    write_limit: Duration,
    /// By when the head of the awaited request must be there.
    head: Moment,
    /// By when the peer must take something of what we write.
    write: Moment,
    /// The socket gave bytes, or its end, since a head is awaited.
    arrived: AtomicBool,
    /// The listener is stopping.
    stopping: AtomicBool,
    /// It has stopped, and calls have had their time to finish.
    out_of_time: AtomicBool,
    /// Some of a request's body was not read.
    unread: AtomicBool,
    /// The client speaks HTTP/1.0, where the end of the connection ends a body of unknown length.
    old_client: AtomicBool,
}

impl Watch {
    pub(super) fn new(head_limit: Duration, write_limit: Duration) -> Self {
        Self {
            accepted: Instant::now(),
            head_limit,
            write_limit,
            head: Moment::default(),
            write: Moment::default(),
            arrived: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            out_of_time: AtomicBool::new(false),
            unread: AtomicBool::new(false),
            old_client: AtomicBool::new(false),
        }
    }

    /// When the first of the things that are waited for is overdue.
    pub(super) fn due(&self) -> Option<Instant> {
        let due = self.head.0.load(Relaxed).min(self.write.0.load(Relaxed));
        (due != NEVER).then(|| self.accepted + Duration::from_millis(due))
    }

    pub(super) fn bytes_arrived(&self) {
        if !self.arrived.load(Relaxed) {
            self.arrived.store(true, Relaxed);
        }
    }

    pub(super) fn write_blocked(&self) {
        if self.write.is_never() {
            let due = Instant::now() + self.write_limit;
            self.write.set(due.duration_since(self.accepted));
        }
    }

    pub(super) fn write_progressed(&self) {
        if !self.write.is_never() {
            self.write.clear();
        }
    }

    /// Whether the peer is the one that is being waited for to read.
    pub(super) fn is_write_blocked(&self) -> bool {
        !self.write.is_never()
    }

    pub(super) fn stop(&self) {
        self.stopping.store(true, Relaxed);
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Relaxed)
    }

    pub(super) fn run_out_of_time(&self) {
        self.out_of_time.store(true, Relaxed);
    }

    pub(super) fn is_out_of_time(&self) -> bool {
        self.out_of_time.load(Relaxed)
    }

    pub(super) fn leave_unread(&self) {
        self.unread.store(true, Relaxed);
    }

    pub(super) fn has_unread(&self) -> bool {
        self.unread.load(Relaxed)
    }

    pub(super) fn note_version(&self, version: http::Version) {
        self.old_client
            .store(version < http::Version::HTTP_11, Relaxed);
    }

    pub(super) fn is_old_client(&self) -> bool {
        self.old_client.load(Relaxed)
    }
}

const NEVER: u64 = u64::MAX;

/// A moment that may not be set, in milliseconds after the connection was accepted.
#[derive(Debug)]
struct Moment(AtomicU64);

impl Default for Moment {
    fn default() -> Self {
        Self(AtomicU64::new(NEVER))
    }
}

impl Moment {
    fn set(&self, after: Duration) {
        let after = u64::try_from(after.as_millis()).unwrap_or(NEVER);
        self.0.store(after, Relaxed);
    }

    fn clear(&self) {
        self.0.store(NEVER, Relaxed);
    }

    fn is_never(&self) -> bool {
        self.0.load(Relaxed) == NEVER
    }
}

/// What hyper takes for its timer. It asks for a sleep when it starts to wait for a request,
/// polls it whenever what has arrived is not a whole head, and drops it when the head is whole:
/// exactly what the [`Watch`] needs to know.
#[derive(Debug)]
pub(super) struct HeadTimer {
    watch: Arc<Watch>,
    /// The first request of the connection has been waited for.
    opened: AtomicBool,
}

impl HeadTimer {
    pub(super) fn new(watch: Arc<Watch>) -> Self {
        Self {
            watch,
            opened: AtomicBool::new(false),
        }
    }

    /// Notes that a head is awaited. `true`: it counts as begun, because a new connection must
    /// not be silent for as long as one that has been of use.
    fn await_head(&self, idle_until: time::Instant) -> bool {
        let watch = &self.watch;
        watch.arrived.store(false, Relaxed);
        let first = !self.opened.swap(true, Relaxed);
        let due = if first {
            watch.accepted + watch.head_limit
        } else {
            Instant::from_std(idle_until)
        };
        watch.head.set(due.duration_since(watch.accepted));
        first
    }
}

impl hyper::rt::Timer for HeadTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn hyper::rt::Sleep>> {
        self.sleep_until(self.now() + duration)
    }

    fn sleep_until(&self, deadline: time::Instant) -> Pin<Box<dyn hyper::rt::Sleep>> {
        let begun = self.await_head(deadline);
        Box::pin(AwaitedHead {
            watch: Arc::clone(&self.watch),
            begun,
        })
    }

    fn now(&self) -> time::Instant {
        Instant::now().into_std()
    }

    // The provided one would drop the old sleep last, and with it the new deadline.
    fn reset(&self, _: &mut Pin<Box<dyn hyper::rt::Sleep>>, deadline: time::Instant) {
        self.await_head(deadline);
    }
}

/// The head of a request, from the moment that hyper waits for it until hyper has it.
#[derive(Debug)]
struct AwaitedHead {
    watch: Arc<Watch>,
    begun: bool,
}

impl hyper::rt::Sleep for AwaitedHead {}

impl Future for AwaitedHead {
    type Output = ();

    /// Never ready: the connection's task has the timer.
    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        if !self.begun && self.watch.arrived.load(Relaxed) {
            self.begun = true;
            let due = Instant::now() + self.watch.head_limit;
            self.watch.head.set(due.duration_since(self.watch.accepted));
        }
        Poll::Pending
    }
}

impl Drop for AwaitedHead {
    fn drop(&mut self) {
        self.watch.head.clear();
    }
}
