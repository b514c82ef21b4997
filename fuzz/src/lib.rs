//! What the targets share: the measure that is taken of every input, and the proxy in memory that
//! the tests of the protocol use.

use std::{cell::RefCell, future::Future, time::Duration};

use cpu_time::ProcessTime;
use peak_alloc::PeakAlloc;
use protocol::policy::Limits;
use tokio::runtime::{Builder, Runtime};

#[allow(
    unfulfilled_lint_expectations,
    reason = "what some test leaves unused may be used here"
)]
#[path = "../../crates/protocol/tests/support/mod.rs"]
mod support;

pub use support::{
    Answer, FakeClock, FaultyStore, HOME, TestServer, assertion, client, encoded, form, policy,
    request, upstream::FakeUpstream, walk,
};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// The most time of the processor that one input may take, whatever else the machine does.
const TIME: Duration = Duration::from_millis(100);
/// The most bytes that one input may have allocated at one time.
const BYTES: usize = 16 * 1024 * 1024;
/// Inputs that one server answers before a new one takes its place, since it remembers them all.
const PER_SERVER: usize = 500;

/// Tries one input, and insists that it costs little.
pub fn judge(one: impl FnOnce()) {
    MEMORY.reset_peak_usage();
    let before = MEMORY.current_usage();
    let started = ProcessTime::now();
    one();
    let took = started.elapsed();
    assert!(took < TIME, "took {took:?}");
    let used = MEMORY.peak_usage().saturating_sub(before);
    assert!(used < BYTES, "allocated {used} bytes");
}

/// A server with these upstreams that counts no requests: on it thousands of inputs come in one
/// second, from one address.
pub fn patient_server(upstreams: &[(&str, &str)]) -> TestServer {
    let mut policy = policy(upstreams);
    policy.limits = Limits {
        registrations_per_address: None,
        registrations: None,
        wrong_tokens_per_address: None,
        calls_per_grant: None,
        documents_per_address: None,
        documents_per_host: None,
        documents: None,
        failures_per_document: None,
        ..policy.limits
    };
    TestServer::with(policy)
}

thread_local! {
    static RUNTIME: Runtime = Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime with a clock alone always starts");
}

pub fn block_on<F: Future>(future: F) -> F::Output {
    RUNTIME.with(|runtime| runtime.block_on(future))
}

/// A server with what a target prepared in it, made anew now and then.
pub struct Stage<T: 'static> {
    prepare: fn() -> T,
    current: RefCell<Option<(T, usize)>>,
}

impl<T> Stage<T> {
    pub const fn new(prepare: fn() -> T) -> Self {
        Self {
            prepare,
            current: RefCell::new(None),
        }
    }

    /// Tries one input on it. What preparing costs is not the input's fault.
    pub fn judge(&self, one: impl FnOnce(&T)) {
        let mut current = self.current.borrow_mut();
        if current.as_ref().is_none_or(|(_, left)| *left == 0) {
            *current = Some(((self.prepare)(), PER_SERVER));
        }
        if let Some((stage, left)) = &mut *current {
            *left -= 1;
            judge(|| one(stage));
        }
    }
}
