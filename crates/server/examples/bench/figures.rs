//! What is measured, and the numbers that come of it.

use crate::{
    load::Sample,
    upstream::{LARGE_ANSWER, SMALL_ANSWER, large_call, small_call},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// The upstream itself, with its key.
    Direct,
    Nginx,
    Proxy,
}

impl Target {
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Nginx => "nginx",
            Self::Proxy => "mcp-oauth-proxy",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Workload {
    OneConnection,
    ManyConnections,
    LargeAnswer,
}

impl Workload {
    pub(crate) const ALL: [Self; 3] = [
        Self::OneConnection,
        Self::ManyConnections,
        Self::LargeAnswer,
    ];

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::OneConnection => "300 B, 1 connection",
            Self::ManyConnections => "300 B, 64 connections",
            Self::LargeAnswer => "1 MiB, 4 connections",
        }
    }

    pub(crate) fn connections(self) -> usize {
        match self {
            Self::OneConnection => 1,
            Self::ManyConnections => 64,
            Self::LargeAnswer => 4,
        }
    }

    /// The body of the call and the length of its answer.
    pub(crate) fn exchange(self) -> (Vec<u8>, usize) {
        match self {
            Self::OneConnection | Self::ManyConnections => (small_call(), SMALL_ANSWER),
            Self::LargeAnswer => (large_call(), LARGE_ANSWER),
        }
    }
}

/// One phase of load, in numbers.
#[derive(Clone, Copy)]
pub(crate) struct Pace {
    pub(crate) per_second: f64,
    /// Latency in microseconds.
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    /// The target's CPU time for each step, in microseconds. The upstream's own is not known
    /// apart from the load's.
    pub(crate) cpu: Option<f64>,
}

impl Pace {
    pub(crate) fn of(sample: &Sample, cpu_seconds: Option<f64>) -> Self {
        Self {
            per_second: sample.per_second(),
            p50: sample.percentile(50),
            p99: sample.percentile(99),
            cpu: cpu_seconds.map(|seconds| seconds * 1e6 / sample.count()),
        }
    }
}

pub(crate) struct CallFigure {
    pub(crate) workload: Workload,
    pub(crate) target: Target,
    pub(crate) pace: Pace,
}

/// Resident memory in KiB, of a process started for this.
pub(crate) struct MemoryFigure {
    pub(crate) target: Target,
    /// How many there were.
    pub(crate) streams: f64,
    /// Before the first request.
    pub(crate) idle: f64,
    /// After the first calls, before the first stream.
    pub(crate) before_streams: f64,
    pub(crate) with_streams: f64,
    pub(crate) after_streams: f64,
}

pub(crate) struct OAuthFigure {
    pub(crate) refreshes: Pace,
    pub(crate) new_clients: Pace,
    pub(crate) calls_alone: Pace,
    pub(crate) calls_beside: Pace,
}

/// Everything measured; each list is in the order of the rounds.
#[derive(Default)]
pub(crate) struct Figures {
    pub(crate) calls: Vec<CallFigure>,
    pub(crate) memory: Vec<MemoryFigure>,
    pub(crate) oauth: Vec<OAuthFigure>,
    pub(crate) errors: u32,
    /// What went wrong first, in each phase where something did.
    pub(crate) complaints: Vec<String>,
}

impl Figures {
    pub(crate) fn note_errors(&mut self, phase: &str, sample: &Sample) {
        self.errors += sample.errors;
        if let Some(error) = &sample.first_error {
            self.complaints
                .push(format!("{phase}: {} errors, first: {error}", sample.errors));
        }
    }
}

/// The middle one, or the mean of the two in the middle. What was not measured is no number and
/// does not count.
pub(crate) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.retain(|value| value.is_finite());
    values.sort_by(f64::total_cmp);
    let upper = values.get(values.len() / 2)?;
    let lower = values.get((values.len() - 1) / 2)?;
    Some(f64::midpoint(*lower, *upper))
}
