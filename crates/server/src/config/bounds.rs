//! Durations and sizes, each within sensible bounds.

use std::{ops::RangeInclusive, time::Duration};

use protocol::{policy::TokenPolicy, rates::Rate};

use super::{
    findings::Findings,
    key::Key,
    quantity::{OFF, parse_duration, parse_rate, parse_size, show_duration, show_rate, show_size},
    written::TokensConfig,
};

/// Reads `[tokens]`.
pub(super) fn tokens(written: &TokensConfig, findings: &mut Findings<'_>) -> TokenPolicy {
    const MINUTE: u64 = 60;
    const HOUR: u64 = 60 * MINUTE;
    const DAY: u64 = 24 * HOUR;
    let default = TokenPolicy::default();
    let mut table = Bounds::of("tokens", findings);
    let mut read = |name: &str, written: Option<&str>, default, bounds| {
        table.duration(name, written, default, bounds)
    };
    let tokens = TokenPolicy {
        access_lifetime: read(
            "access_lifetime",
            written.access_lifetime.as_deref(),
            default.access_lifetime,
            MINUTE..=90 * DAY,
        ),
        refresh_idle: read(
            "refresh_idle",
            written.refresh_idle.as_deref(),
            default.refresh_idle,
            HOUR..=3650 * DAY,
        ),
        refresh_absolute: read(
            "refresh_absolute",
            written.refresh_absolute.as_deref(),
            default.refresh_absolute,
            HOUR..=3650 * DAY,
        ),
        refresh_retry_window: read(
            "refresh_retry_window",
            written.refresh_retry_window.as_deref(),
            default.refresh_retry_window,
            0..=5 * MINUTE,
        ),
        code_lifetime: read(
            "code_lifetime",
            written.code_lifetime.as_deref(),
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

/// Reads the keys of one table, each within its bounds.
pub(super) struct Bounds<'f, 'i> {
    table: Key,
    findings: &'f mut Findings<'i>,
}

impl<'f, 'i> Bounds<'f, 'i> {
    pub(super) fn of(table: &str, findings: &'f mut Findings<'i>) -> Self {
        Self {
            table: Key::of(table),
            findings,
        }
    }

    pub(super) fn duration(
        &mut self,
        name: &str,
        written: Option<&str>,
        default: Duration,
        bounds: RangeInclusive<u64>,
    ) -> Duration {
        let key = self.table.child(name);
        duration(written, &key, default, bounds, "", self.findings)
    }

    /// A duration, or none when it is switched off.
    pub(super) fn optional_duration(
        &mut self,
        name: &str,
        written: Option<&str>,
        default: Option<Duration>,
        bounds: RangeInclusive<u64>,
    ) -> Option<Duration> {
        match written {
            None => default,
            Some(OFF) => None,
            written => {
                let key = self.table.child(name);
                let default = default.unwrap_or_default();
                let switch = format!(", and \"{OFF}\" switches it off");
                Some(duration(
                    written,
                    &key,
                    default,
                    bounds,
                    &switch,
                    self.findings,
                ))
            }
        }
    }

    pub(super) fn size(
        &mut self,
        name: &str,
        written: Option<&str>,
        default: u64,
        bounds: RangeInclusive<u64>,
    ) -> u64 {
        let key = self.table.child(name);
        size(written, &key, Some(default), &bounds, self.findings).unwrap_or(default)
    }

    /// A size that has no default.
    pub(super) fn optional_size(
        &mut self,
        name: &str,
        written: Option<&str>,
        bounds: RangeInclusive<u64>,
    ) -> Option<u64> {
        let key = self.table.child(name);
        size(written, &key, None, &bounds, self.findings)
    }

    pub(super) fn count(
        &mut self,
        name: &str,
        written: Option<u32>,
        default: usize,
        bounds: RangeInclusive<u32>,
    ) -> usize {
        let Some(count) = written else { return default };
        if !bounds.contains(&count) {
            self.findings.mistake(
                &self.table.child(name),
                format!("must be between {} and {}", bounds.start(), bounds.end()),
                format!("the default is {default}"),
            );
        }
        count as usize
    }

    /// A rate, or none when it is switched off.
    pub(super) fn rate(
        &mut self,
        name: &str,
        written: Option<&str>,
        default: Option<Rate>,
    ) -> Option<Rate> {
        let Some(text) = written else { return default };
        if text == OFF {
            return None;
        }
        let rate = parse_rate(text);
        if rate.is_none() {
            self.findings.mistake(
                &self.table.child(name),
                "is not a rate",
                format!(
                    "write a whole number above 0, a slash and s, m, h or d, as in \"{}\", or \"{OFF}\"",
                    show_rate(default)
                ),
            );
        }
        rate
    }
}

/// `beside` is what else may be written, for the remedies.
fn duration(
    written: Option<&str>,
    key: &Key,
    default: Duration,
    bounds: RangeInclusive<u64>,
    beside: &str,
    findings: &mut Findings<'_>,
) -> Duration {
    let Some(text) = written else { return default };
    let Some(duration) = parse_duration(text) else {
        findings.mistake(
            key,
            "is not a duration",
            format!(
                "write a whole number and s, m, h or d, as in \"{}\"{beside}",
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
            format!("the default is \"{}\"{beside}", show_duration(default)),
        );
    }
    duration
}

fn size(
    written: Option<&str>,
    key: &Key,
    default: Option<u64>,
    bounds: &RangeInclusive<u64>,
    findings: &mut Findings<'_>,
) -> Option<u64> {
    let text = written?;
    let Some(bytes) = parse_size(text) else {
        findings.mistake(
            key,
            "is not a size",
            format!(
                "write a whole number and B, KiB, MiB or GiB, as in \"{}\"",
                show_size(default.unwrap_or(*bounds.start()))
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
            default.map_or_else(
                || "leave it out for what the system allows".to_owned(),
                |default| format!("the default is \"{}\"", show_size(default)),
            ),
        );
    }
    Some(bytes)
}
