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
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::{self, Duration},
};

use tokio::{
    sync::{Notify, futures::Notified},
    time::Instant,
};

use super::{ConnectionLimits, Limit, Meter};

/// How long a peer that was slow must have had nothing to take before it is not slow any more.
const WRITE_KEPT: Duration = Duration::from_secs(1);

/// How long an end may take that both sides know of.
pub(super) const FAREWELL: Duration = Duration::from_secs(1);

/// What the parts of one connection tell its task. Atomic because the task changes threads, and
/// because the streams of an HTTP/2 connection are tasks of their own.
pub(super) struct Watch {
    accepted: Instant,
    head_limit: Duration,
    idle_limit: Duration,
    write_limit: Duration,
    /// Bytes that the peer has to take within `write_limit`.
    write_least: u64,
    meter: Meter,
    /// By when the head of the awaited request must be there.
    head: Moment,
    /// By when the HTTP/2 frame or header block that has begun must be there.
    frame: Moment,
    /// By when the peer must have taken `write_least` of what we write.
    write: Moment,
    /// The same, kept while all has been written: what comes next may stand in the way again at
    /// once, as with requests that are sent without a look at their answers.
    write_due: Moment,
    /// Until when it is kept.
    write_kept: Moment,
    /// What the peer has taken of `write_least`.
    taken: AtomicU64,
    /// The socket gave bytes, or its end, since a head is awaited.
    arrived: AtomicBool,
    /// The first request of the connection has been waited for.
    opened: AtomicBool,
    /// It has come.
    served: AtomicBool,
    /// The client speaks HTTP/2, where what arrives need not be a request.
    http2: AtomicBool,
    /// Its streams at work.
    streams: AtomicUsize,
    /// One of them was too slow.
    slow: AtomicBool,
    /// Before the connection ends, what has arrived is to be read.
    last_look: AtomicBool,
    /// The listener is stopping.
    stopping: AtomicBool,
    /// It has stopped, and calls have had their time to finish.
    out_of_time: AtomicBool,
    /// One of these two has happened.
    changed: Notify,
    /// Some of a request's body was not read.
    unread: AtomicBool,
    /// The client speaks HTTP/1.0, where the end of the connection ends a body of unknown length.
    old_client: AtomicBool,
}

impl Watch {
    pub(super) fn new(limits: &ConnectionLimits, meter: Meter) -> Self {
        let accepted = Instant::now();
        Self {
            accepted,
            head_limit: limits.head,
            idle_limit: limits.idle,
            write_limit: limits.write_stall,
            write_least: limits.least(limits.write_stall),
            meter,
            head: Moment::default(),
            frame: Moment::default(),
            write: Moment::default(),
            write_due: Moment::default(),
            write_kept: Moment::default(),
            taken: AtomicU64::new(0),
            arrived: AtomicBool::new(false),
            opened: AtomicBool::new(false),
            served: AtomicBool::new(false),
            http2: AtomicBool::new(false),
            streams: AtomicUsize::new(0),
            slow: AtomicBool::new(false),
            last_look: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            out_of_time: AtomicBool::new(false),
            changed: Notify::new(),
            unread: AtomicBool::new(false),
            old_client: AtomicBool::new(false),
        }
    }

    /// Tells of a limit that was met.
    pub(super) fn met(&self, limit: Limit) {
        if matches!(limit, Limit::SlowBody | Limit::SlowReader) {
            self.slow.store(true, Relaxed);
        }
        (self.meter)(limit);
    }

    /// When the first of the things that are waited for is overdue.
    pub(super) fn due(&self) -> Option<Instant> {
        if self.streams.load(Relaxed) > 0 {
            self.await_next_stream();
        }
        let due = [&self.head, &self.frame, &self.write]
            .map(|moment| moment.0.load(Relaxed))
            .into_iter()
            .min()
            .unwrap_or(NEVER);
        (due != NEVER).then(|| self.accepted + Duration::from_millis(due))
    }

    /// Which limit it is that has been overdue first.
    pub(super) fn overdue(&self) -> Limit {
        let [head, frame, write] =
            [&self.head, &self.frame, &self.write].map(|moment| moment.0.load(Relaxed));
        let in_head = if self.http2.load(Relaxed) {
            frame <= head
        } else {
            self.arrived.load(Relaxed)
        };
        if write <= head.min(frame) {
            Limit::SlowReader
        } else if in_head || !self.opened.load(Relaxed) {
            Limit::SlowHead
        } else {
            Limit::Idle
        }
    }

    /// Whether a part of a request's head has come over HTTP/1.
    pub(super) fn is_in_head(&self) -> bool {
        !self.http2.load(Relaxed) && self.arrived.load(Relaxed) && !self.head.is_never()
    }

    /// Has the socket look whether something has arrived that the runtime does not know of.
    pub(super) fn look_once_more(&self) {
        self.last_look.store(true, Relaxed);
    }

    /// Whether it is to do so now.
    pub(super) fn looks_once_more(&self) -> bool {
        self.last_look.load(Relaxed) && self.last_look.swap(false, Relaxed)
    }

    /// Until when the connection may be idle, if it is: it has served, and nothing of a further
    /// request has come.
    pub(super) fn idle_until(&self) -> Option<Instant> {
        let is_at_work = if self.http2.load(Relaxed) {
            self.streams.load(Relaxed) > 0 || !self.frame.is_never()
        } else {
            self.arrived.load(Relaxed)
        };
        if is_at_work || self.head.is_never() || !self.served.load(Relaxed) {
            return None;
        }
        Some(self.accepted + Duration::from_millis(self.head.0.load(Relaxed)))
    }

    fn set(&self, moment: &Moment, within: Duration) {
        moment.set((Instant::now() + within).duration_since(self.accepted));
    }

    pub(super) fn bytes_arrived(&self) {
        if !self.arrived.load(Relaxed) {
            self.arrived.store(true, Relaxed);
        }
    }

    pub(super) fn write_blocked(&self) {
        if !self.write.is_never() {
            return;
        }
        let now = Instant::now().duration_since(self.accepted);
        if self.write_kept.is_never() || self.write_kept.has_passed(now) {
            self.taken.store(0, Relaxed);
            self.write_due.set(now + self.write_limit);
        }
        self.write.0.store(self.write_due.0.load(Relaxed), Relaxed);
    }

    /// Notes that the peer took something. That alone is no reason to wait longer: it has to be
    /// enough, or all there is.
    pub(super) fn write_progressed(&self, bytes: usize) {
        if self.write.is_never() && self.write_kept.is_never() {
            return;
        }
        let taken = self.taken.load(Relaxed).saturating_add(bytes as u64);
        if taken < self.write_least {
            self.taken.store(taken, Relaxed);
            return;
        }
        self.taken.store(0, Relaxed);
        self.set(&self.write_due, self.write_limit);
        if !self.write.is_never() {
            self.write.0.store(self.write_due.0.load(Relaxed), Relaxed);
        }
    }

    /// Notes that nothing is left to be written.
    pub(super) fn write_caught_up(&self) {
        if !self.write.is_never() {
            self.write.clear();
            self.set(&self.write_kept, WRITE_KEPT);
        }
    }

    /// Whether the peer is the one that is being waited for to read.
    pub(super) fn is_write_blocked(&self) -> bool {
        !self.write.is_never()
    }

    /// Notes that an HTTP/2 connection begins, and its first request has yet to come.
    pub(super) fn await_first_stream(&self) {
        self.http2.store(true, Relaxed);
        self.head.set(self.head_limit);
    }

    /// Notes that no stream is overdue before the connection has been idle for as long as it may
    /// be, which is not long once a client has been too slow.
    fn await_next_stream(&self) {
        let idle = if self.slow.load(Relaxed) {
            FAREWELL
        } else {
            self.idle_limit
        };
        self.set(&self.head, idle);
    }

    /// Gives a connection that has been told to end the time to do so.
    pub(super) fn await_end(&self) {
        self.set(&self.head, FAREWELL);
    }

    /// Notes that an HTTP/2 frame or header block has begun.
    pub(super) fn frame_begun(&self) {
        self.set(&self.frame, self.head_limit);
    }

    pub(super) fn frame_complete(&self) {
        if !self.frame.is_never() {
            self.frame.clear();
        }
    }

    /// Counts a stream of HTTP/2 until what it returns is dropped.
    pub(super) fn open_stream(self: Arc<Self>) -> OpenStream {
        self.opened.store(true, Relaxed);
        self.served.store(true, Relaxed);
        self.streams.fetch_add(1, Relaxed);
        OpenStream(self)
    }

    /// Ready when [`Self::is_stopping`] or [`Self::is_out_of_time`] has changed.
    pub(super) fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }

    pub(super) fn stop(&self) {
        self.stopping.store(true, Relaxed);
        self.changed.notify_waiters();
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Relaxed)
    }

    pub(super) fn run_out_of_time(&self) {
        self.out_of_time.store(true, Relaxed);
        self.changed.notify_waiters();
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

    /// Notes that a request has come over HTTP/1.
    pub(super) fn note_version(&self, version: http::Version) {
        self.served.store(true, Relaxed);
        self.old_client
            .store(version < http::Version::HTTP_11, Relaxed);
    }

    pub(super) fn is_old_client(&self) -> bool {
        self.old_client.load(Relaxed)
    }
}

/// A stream of HTTP/2 at work. While there is one, the connection is not idle.
pub(super) struct OpenStream(Arc<Watch>);

impl Drop for OpenStream {
    fn drop(&mut self) {
        let watch = &self.0;
        watch.await_next_stream();
        watch.streams.fetch_sub(1, Relaxed);
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

    fn has_passed(&self, after: Duration) -> bool {
        u128::from(self.0.load(Relaxed)) < after.as_millis()
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
pub(super) struct HeadTimer {
    watch: Arc<Watch>,
}

impl HeadTimer {
    pub(super) fn new(watch: Arc<Watch>) -> Self {
        Self { watch }
    }

    /// Notes that a head is awaited. `true`: it counts as begun, because a new connection must
    /// not be silent for as long as one that has been of use.
    fn await_head(&self, idle_until: time::Instant) -> bool {
        let watch = &self.watch;
        watch.arrived.store(false, Relaxed);
        let first = !watch.opened.swap(true, Relaxed);
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
            self.watch.set(&self.watch.head, self.watch.head_limit);
        }
        Poll::Pending
    }
}

impl Drop for AwaitedHead {
    fn drop(&mut self) {
        self.watch.head.clear();
    }
}
