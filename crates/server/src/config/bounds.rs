//! Durations and sizes, each within sensible bounds.

use std::{ops::RangeInclusive, time::Duration};

use protocol::policy::{Limits, TokenPolicy};

use super::{
    findings::Findings,
    key::Key,
    quantity::{parse_duration, parse_size, show_duration, show_size},
    written::{LimitsConfig, TokensConfig},
};

/// Reads `[tokens]`.
pub(super) fn tokens(written: &TokensConfig, findings: &mut Findings<'_>) -> TokenPolicy {
    const MINUTE: u64 = 60;
    const HOUR: u64 = 60 * MINUTE;
    const DAY: u64 = 24 * HOUR;
    let default = TokenPolicy::default();
    let mut read = |name: &str, written: &Option<String>, default, bounds: RangeInclusive<u64>| {
        let key = Key::of("tokens").child(name);
        duration(written.as_deref(), &key, default, bounds, findings)
    };
    let tokens = TokenPolicy {
        access_lifetime: read(
            "access_lifetime",
            &written.access_lifetime,
            default.access_lifetime,
            MINUTE..=90 * DAY,
        ),
        refresh_idle: read(
            "refresh_idle",
            &written.refresh_idle,
            default.refresh_idle,
            HOUR..=3650 * DAY,
        ),
        refresh_absolute: read(
            "refresh_absolute",
            &written.refresh_absolute,
            default.refresh_absolute,
            HOUR..=3650 * DAY,
        ),
        refresh_retry_window: read(
            "refresh_retry_window",
            &written.refresh_retry_window,
            default.refresh_retry_window,
            0..=5 * MINUTE,
        ),
        code_lifetime: read(
            "code_lifetime",
            &written.code_lifetime,
            default.code_lifetime,
            10..=10 * MINUTE,
        ),
        heal_store_regression: written
            .heal_store_regression
            .unwrap_or(default.heal_store_regression),
    };
    check_order(&tokens, findings);
    tokens
}

/// A grant's parts must not outlive it.
fn check_order(tokens: &TokenPolicy, findings: &mut Findings<'_>) {
    let table = Key::of("tokens");
    if findings.blames(&table) {
        return;
    }
    let absolute = show_duration(tokens.refresh_absolute);
    for (name, lifetime) in [
        ("refresh_idle", tokens.refresh_idle),
        ("access_lifetime", tokens.access_lifetime),
    ] {
        if lifetime > tokens.refresh_absolute {
            findings.mistake(
                &table.child(name),
                format!("is longer than refresh_absolute, which is {absolute}"),
                format!(
                    "shorten it, or set refresh_absolute to {} or more",
                    show_duration(lifetime)
                ),
            );
        }
    }
    if tokens.access_lifetime > tokens.refresh_idle {
        findings.warn(
            &table.child("access_lifetime"),
            "is longer than refresh_idle: a client that waits until its access token ends cannot refresh it any more",
        );
    }
}

fn duration(
    written: Option<&str>,
    key: &Key,
    default: Duration,
    bounds: RangeInclusive<u64>,
    findings: &mut Findings<'_>,
) -> Duration {
    let Some(text) = written else { return default };
    let Some(duration) = parse_duration(text) else {
        findings.mistake(
            key,
            "is not a duration",
            format!(
                "write a whole number and s, m, h or d, as in \"{}\"",
                show_duration(default)
            ),
        );
        return default;
    };
    if !bounds.contains(&duration.as_secs()) {
        let [least, most] = [bounds.start(), bounds.end()]
            .map(|seconds| show_duration(Duration::from_secs(*seconds)));
        findings.mistake(
            key,
            format!("must be between {least} and {most}"),
            format!("the default is \"{}\"", show_duration(default)),
        );
    }
    duration
}

/// Reads `[limits]`.
pub(super) fn limits(written: &LimitsConfig, findings: &mut Findings<'_>) -> Limits {
    const KIB: u64 = 1024;
    const MIB: u64 = 1024 * KIB;
    let default = Limits::default();
    let mut read = |name: &str, written: &Option<String>, default, bounds| {
        let key = Key::of("limits").child(name);
        size(written.as_deref(), &key, default, &bounds, findings)
    };
    Limits {
        mcp_body: read(
            "mcp_body",
            &written.mcp_body,
            default.mcp_body,
            KIB..=1024 * MIB,
        ),
        oauth_body: in_memory(read(
            "oauth_body",
            &written.oauth_body,
            default.oauth_body as u64,
            4 * KIB..=MIB,
        )),
        registration_body: in_memory(read(
            "registration_body",
            &written.registration_body,
            default.registration_body as u64,
            KIB..=MIB,
        )),
    }
}

/// A size within the bounds above, which every address space holds.
fn in_memory(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

fn size(
    written: Option<&str>,
    key: &Key,
    default: u64,
    bounds: &RangeInclusive<u64>,
    findings: &mut Findings<'_>,
) -> u64 {
    let Some(text) = written else { return default };
    let Some(bytes) = parse_size(text) else {
        findings.mistake(
            key,
            "is not a size",
            format!(
                "write a whole number and B, KiB, MiB or GiB, as in \"{}\"",
                show_size(default)
            ),
        );
        return default;
    };
    if !bounds.contains(&bytes) {
        findings.mistake(
            key,
            format!(
                "must be between {} and {}",
                show_size(*bounds.start()),
                show_size(*bounds.end())
            ),
            format!("the default is \"{}\"", show_size(default)),
        );
    }
    bytes
}
