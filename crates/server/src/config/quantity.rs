//! Durations and sizes, as operators write and read them.

use std::time::Duration;

use protocol::rates::Rate;

const DURATION_UNITS: [(&str, u64); 4] = [("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)];
const SIZE_UNITS: [(&str, u64); 4] = [
    ("GiB", 1024 * 1024 * 1024),
    ("MiB", 1024 * 1024),
    ("KiB", 1024),
    ("B", 1),
];

/// In place of a rate: no limit.
pub(super) const OFF: &str = "off";

/// Reads a duration: a whole number and one of the units `s`, `m`, `h`, `d`.
pub(super) fn parse_duration(text: &str) -> Option<Duration> {
    parse(text, &DURATION_UNITS).map(Duration::from_secs)
}

/// Writes a duration the way operators write it in the configuration, in the largest unit that
/// fits exactly.
pub fn show_duration(duration: Duration) -> String {
    show(duration.as_secs(), &DURATION_UNITS)
}

/// Reads a number of bytes: a whole number and one of the units `B`, `KiB`, `MiB`, `GiB`.
pub(super) fn parse_size(text: &str) -> Option<u64> {
    parse(text, &SIZE_UNITS)
}

/// Writes a number of bytes the way operators write it in the configuration.
pub fn show_size(bytes: u64) -> String {
    show(bytes, &SIZE_UNITS)
}

/// Reads a rate: a whole number above zero, a slash and one of the units `s`, `m`, `h`, `d`.
pub(super) fn parse_rate(text: &str) -> Option<Rate> {
    let (most, unit) = text.split_once('/')?;
    if !most.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let (_, seconds) = DURATION_UNITS.iter().find(|(name, _)| *name == unit)?;
    let most = most.parse().ok().filter(|most| *most > 0)?;
    let per = Duration::from_secs(*seconds);
    Some(Rate { most, per })
}

/// Writes a rate the way operators write it in the configuration.
pub(super) fn show_rate(rate: Option<Rate>) -> String {
    let Some(rate) = rate else {
        return OFF.to_owned();
    };
    let seconds = rate.per.as_secs();
    let unit = DURATION_UNITS.iter().find(|(_, unit)| *unit == seconds);
    let (unit, _) = unit.expect("rates are per second, minute, hour or day");
    format!("{}/{unit}", rate.most)
}

fn parse(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

fn show(amount: u64, units: &[(&str, u64)]) -> String {
    let (unit, factor) = units
        .iter()
        .find(|(_, factor)| amount > 0 && amount.is_multiple_of(*factor))
        .or(units.last())
        .expect("both lists of units have members");
    format!("{}{unit}", amount / factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_is_what_is_read() {
        for text in ["0s", "90s", "2m", "1h", "36h", "30d"] {
            assert_eq!(show_duration(parse_duration(text).unwrap()), text);
        }
        for text in ["0B", "1000B", "64KiB", "4MiB", "1GiB"] {
            assert_eq!(show_size(parse_size(text).unwrap()), text);
        }
    }

    #[test]
    fn a_rate_is_shown_as_it_is_read() {
        for text in ["1/s", "300/h", "600/m", "4294967295/d"] {
            assert_eq!(show_rate(Some(parse_rate(text).unwrap())), text);
        }
        assert_eq!(show_rate(None), "off");
        for text in [
            "",
            "/",
            "3",
            "300/",
            "/h",
            "0/s",
            "-1/s",
            "+1/s",
            "1.5/s",
            "3 /s",
            "300/hour",
            "1/2s",
            "4294967296/s",
        ] {
            assert_eq!(parse_rate(text), None, "{text:?}");
        }
    }

    #[test]
    fn an_equal_duration_is_shown_in_the_largest_unit() {
        assert_eq!(show_duration(Duration::from_hours(2)), "2h");
        assert_eq!(show_duration(Duration::from_secs(7201)), "7201s");
    }

    #[test]
    fn other_notations_are_refused() {
        for text in [
            "",
            "1",
            "h",
            "-1s",
            "1.5h",
            "1 h",
            "1H",
            "1h30m",
            "1month",
            "99999999999999999d",
        ] {
            assert_eq!(parse_duration(text), None, "{text:?}");
        }
        for text in ["", "4", "4MB", "4 MiB", "4mib", "-4MiB", "99999999999GiB"] {
            assert_eq!(parse_size(text), None, "{text:?}");
        }
    }
}
