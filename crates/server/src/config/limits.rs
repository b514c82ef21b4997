//! `[limits]`: how much of everything there may be.

use std::time::Duration;

use protocol::policy::Limits;

use super::{bounds::Bounds, findings::Findings, written::LimitsConfig};
use crate::{
    listen::{ConnectionLimits, Http2Limits},
    upstream::UpstreamTimeouts,
};

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
const GIB: u64 = 1024 * MIB;
const SECOND: u64 = 1;
const MINUTE: u64 = 60;

/// All of `[limits]`.
#[derive(Clone, Debug, Default)]
pub struct LimitsPlan {
    pub requests: Limits,
    pub connections: ConnectionLimits,
    pub upstream: UpstreamTimeouts,
    /// Bytes of memory, when the operator says how many.
    pub memory: Option<u64>,
}

/// Reads `[limits]`.
pub(super) fn read(written: &LimitsConfig, findings: &mut Findings<'_>) -> LimitsPlan {
    let mut bounds = Bounds::of("limits", findings);
    LimitsPlan {
        requests: requests(written, &mut bounds),
        connections: connections(written, &mut bounds),
        upstream: upstream(written, &mut bounds),
        memory: bounds.optional_size("memory", written.memory.as_deref(), 64 * MIB..=1024 * GIB),
    }
}

fn requests(written: &LimitsConfig, bounds: &mut Bounds<'_, '_>) -> Limits {
    let default = Limits::default();
    Limits {
        mcp_body: bounds.size(
            "mcp_body",
            written.mcp_body.as_deref(),
            default.mcp_body,
            KIB..=GIB,
        ),
        oauth_body: in_memory(bounds.size(
            "oauth_body",
            written.oauth_body.as_deref(),
            default.oauth_body as u64,
            4 * KIB..=MIB,
        )),
        registration_body: in_memory(bounds.size(
            "registration_body",
            written.registration_body.as_deref(),
            default.registration_body as u64,
            KIB..=MIB,
        )),
        waiting_requests: in_memory(bounds.size(
            "waiting_requests",
            written.waiting_requests.as_deref(),
            default.waiting_requests as u64,
            MIB..=16 * GIB,
        )),
        registrations_per_address: bounds.rate(
            "registrations_per_address",
            written.registrations_per_address.as_deref(),
            default.registrations_per_address,
        ),
        registrations: bounds.rate(
            "registrations",
            written.registrations.as_deref(),
            default.registrations,
        ),
        clients: bounds.count(
            "clients",
            written.clients,
            default.clients,
            100..=10_000_000,
        ),
        wrong_tokens_per_address: bounds.rate(
            "wrong_tokens_per_address",
            written.wrong_tokens_per_address.as_deref(),
            default.wrong_tokens_per_address,
        ),
        calls_per_grant: bounds.rate(
            "calls_per_grant",
            written.calls_per_grant.as_deref(),
            default.calls_per_grant,
        ),
        streams_per_grant: bounds.count(
            "streams_per_grant",
            written.streams_per_grant,
            default.streams_per_grant,
            1..=10_000,
        ),
        kept_session_lifetime: bounds.duration(
            "kept_session_lifetime",
            written.kept_session_lifetime.as_deref(),
            default.kept_session_lifetime,
            MINUTE..=30 * 24 * 60 * MINUTE,
        ),
        brief_streams_per_grant: bounds.rate(
            "brief_streams_per_grant",
            written.brief_streams_per_grant.as_deref(),
            default.brief_streams_per_grant,
        ),
        stream_keep_alive: bounds.optional_duration(
            "stream_keep_alive",
            written.stream_keep_alive.as_deref(),
            default.stream_keep_alive,
            SECOND..=10 * MINUTE,
        ),
        documents_per_address: bounds.rate(
            "documents_per_address",
            written.documents_per_address.as_deref(),
            default.documents_per_address,
        ),
        documents_per_host: bounds.rate(
            "documents_per_host",
            written.documents_per_host.as_deref(),
            default.documents_per_host,
        ),
        documents: bounds.rate("documents", written.documents.as_deref(), default.documents),
        failures_per_document: bounds.rate(
            "failures_per_document",
            written.failures_per_document.as_deref(),
            default.failures_per_document,
        ),
    }
}

fn connections(written: &LimitsConfig, bounds: &mut Bounds<'_, '_>) -> ConnectionLimits {
    let default = ConnectionLimits::default();
    ConnectionLimits {
        connections: bounds.count(
            "connections",
            written.connections,
            default.connections,
            1..=1_000_000,
        ),
        per_address: bounds.count(
            "connections_per_address",
            written.connections_per_address,
            default.per_address,
            1..=1_000_000,
        ),
        // Comes from `[trusted_proxies]`.
        shared_addresses: Vec::new(),
        headers: bounds.count("headers", written.headers, default.headers, 1..=1000),
        head_bytes: in_memory(bounds.size(
            "header_size",
            written.header_size.as_deref(),
            default.head_bytes as u64,
            8 * KIB..=256 * KIB,
        )),
        head: bounds.duration(
            "header_timeout",
            written.header_timeout.as_deref(),
            default.head,
            SECOND..=MINUTE,
        ),
        idle: bounds.duration(
            "idle_timeout",
            written.idle_timeout.as_deref(),
            default.idle,
            SECOND..=120 * MINUTE,
        ),
        body_stall: bounds.duration(
            "body_timeout",
            written.body_timeout.as_deref(),
            default.body_stall,
            SECOND..=10 * MINUTE,
        ),
        write_stall: bounds.duration(
            "write_timeout",
            written.write_timeout.as_deref(),
            default.write_stall,
            SECOND..=10 * MINUTE,
        ),
        min_rate: bounds.size(
            "min_rate",
            written.min_rate.as_deref(),
            default.min_rate,
            1..=MIB,
        ),
        drain: bounds.duration(
            "drain_timeout",
            written.drain_timeout.as_deref(),
            default.drain,
            SECOND..=10 * MINUTE,
        ),
        http2: http2(written, bounds),
    }
}

fn http2(written: &LimitsConfig, bounds: &mut Bounds<'_, '_>) -> Http2Limits {
    let default = Http2Limits::default();
    Http2Limits {
        streams: bounds.count(
            "http2_streams",
            written.http2_streams,
            default.streams,
            1..=1000,
        ),
        stream_window: bounds.size(
            "http2_stream_window",
            written.http2_stream_window.as_deref(),
            default.stream_window,
            16 * KIB..=16 * MIB,
        ),
        connection_window: bounds.size(
            "http2_connection_window",
            written.http2_connection_window.as_deref(),
            default.connection_window,
            64 * KIB..=256 * MIB,
        ),
    }
}

fn upstream(written: &LimitsConfig, bounds: &mut Bounds<'_, '_>) -> UpstreamTimeouts {
    let default = UpstreamTimeouts::default();
    UpstreamTimeouts {
        connect: bounds.duration(
            "connect_timeout",
            written.connect_timeout.as_deref(),
            default.connect,
            SECOND..=MINUTE,
        ),
        head: bounds.duration(
            "response_timeout",
            written.response_timeout.as_deref(),
            default.head,
            SECOND..=60 * MINUTE,
        ),
        idle: bounds.duration(
            "upstream_idle_timeout",
            written.upstream_idle_timeout.as_deref(),
            default.idle,
            0..=10 * MINUTE,
        ),
    }
}

/// A size within the bounds above, which every address space holds.
fn in_memory(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

/// The keys and what they come to, for people.
pub fn describe(plan: &LimitsPlan) -> Vec<(&'static str, String)> {
    use super::quantity::{OFF, show_duration, show_rate, show_size};

    let LimitsPlan {
        requests,
        connections,
        upstream,
        memory,
    } = plan;
    let http2 = &connections.http2;
    let size = |bytes: usize| show_size(bytes as u64);
    let time = |time: Duration| show_duration(time);
    vec![
        ("mcp_body", show_size(requests.mcp_body)),
        ("oauth_body", size(requests.oauth_body)),
        ("registration_body", size(requests.registration_body)),
        ("waiting_requests", size(requests.waiting_requests)),
        (
            "registrations_per_address",
            show_rate(requests.registrations_per_address),
        ),
        ("registrations", show_rate(requests.registrations)),
        ("clients", requests.clients.to_string()),
        (
            "wrong_tokens_per_address",
            show_rate(requests.wrong_tokens_per_address),
        ),
        ("calls_per_grant", show_rate(requests.calls_per_grant)),
        ("streams_per_grant", requests.streams_per_grant.to_string()),
        (
            "kept_session_lifetime",
            time(requests.kept_session_lifetime),
        ),
        (
            "brief_streams_per_grant",
            show_rate(requests.brief_streams_per_grant),
        ),
        (
            "stream_keep_alive",
            requests
                .stream_keep_alive
                .map_or_else(|| OFF.to_owned(), show_duration),
        ),
        (
            "documents_per_address",
            show_rate(requests.documents_per_address),
        ),
        ("documents_per_host", show_rate(requests.documents_per_host)),
        ("documents", show_rate(requests.documents)),
        (
            "failures_per_document",
            show_rate(requests.failures_per_document),
        ),
        ("connections", connections.connections.to_string()),
        (
            "connections_per_address",
            connections.per_address.to_string(),
        ),
        ("headers", connections.headers.to_string()),
        ("header_size", size(connections.head_bytes)),
        ("header_timeout", time(connections.head)),
        ("body_timeout", time(connections.body_stall)),
        ("write_timeout", time(connections.write_stall)),
        ("min_rate", show_size(connections.min_rate)),
        ("idle_timeout", time(connections.idle)),
        ("drain_timeout", time(connections.drain)),
        ("http2_streams", http2.streams.to_string()),
        ("http2_stream_window", show_size(http2.stream_window)),
        (
            "http2_connection_window",
            show_size(http2.connection_window),
        ),
        ("connect_timeout", time(upstream.connect)),
        ("response_timeout", time(upstream.head)),
        ("upstream_idle_timeout", time(upstream.idle)),
        (
            "memory",
            memory.map_or_else(|| "what the system allows".to_owned(), show_size),
        ),
    ]
}
