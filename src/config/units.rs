//! Durations (`'500 ms'`) and sizes (`'8 MiB'`) in readable notation.

use std::time::Duration;

/// Units of time, in milliseconds.
const TIME: [(&str, u64); 4] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)];
/// Units of size, in bytes.
const SIZE: [(&str, u64); 4] = [("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];

/// Parses an integer with `ms`, `s`, `m` or `h`; `None` if `text` is something else.
pub fn parse_duration(text: &str) -> Option<Duration> {
    parse(text, &TIME).map(Duration::from_millis)
}

/// Parses an integer with `B`, `KiB`, `MiB` or `GiB`; `None` if `text` is something else.
pub fn parse_size(text: &str) -> Option<usize> {
    parse(text, &SIZE).and_then(|bytes| usize::try_from(bytes).ok())
}

/// Formats a duration in the largest unit without a fraction, such as `500 ms` or `2 s`.
pub fn format_duration(duration: Duration) -> String {
    format(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX), &TIME)
}

/// Formats a size in the largest unit without a fraction, such as `64 MiB`.
pub fn format_size(bytes: usize) -> String {
    format(bytes as u64, &SIZE)
}

fn parse(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.find(|character: char| !character.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let unit = unit.strip_prefix(' ').unwrap_or(unit);
    let factor = units.iter().find(|(name, _)| *name == unit)?.1;
    number.parse::<u64>().ok()?.checked_mul(factor)
}

fn format(value: u64, units: &[(&str, u64)]) -> String {
    let (name, factor) = units
        .iter()
        .rev()
        .find(|(_, factor)| value >= *factor && value.is_multiple_of(*factor))
        .copied()
        .unwrap_or(units[0]);
    format!("{} {name}", value / factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, expected) in [
            ("500 ms", Some(500)),
            ("500ms", Some(500)),
            ("2 s", Some(2_000)),
            ("1 m", Some(60_000)),
            ("1 h", Some(3_600_000)),
            ("0 s", Some(0)),
            ("", None),
            ("s", None),
            ("5", None),
            ("5  s", None),
            ("-5 s", None),
            ("1.5 s", None),
            ("5 seconds", None),
            ("99999999999999999999 s", None),
            ("18446744073709551615 h", None),
        ] {
            assert_eq!(parse_duration(text), expected.map(Duration::from_millis), "{text}");
        }
    }

    #[test]
    fn sizes() {
        for (text, expected) in [
            ("8 MiB", Some(8 << 20)),
            ("64KiB", Some(64 << 10)),
            ("1 GiB", Some(1 << 30)),
            ("17 B", Some(17)),
            ("8 MB", None),
            ("8 mib", None),
            ("MiB", None),
        ] {
            assert_eq!(parse_size(text), expected, "{text}");
        }
    }

    #[test]
    fn formats() {
        assert_eq!(format_duration(Duration::from_millis(1_500)), "1500 ms");
        assert_eq!(format_duration(Duration::from_secs(120)), "2 m");
        assert_eq!(format_duration(Duration::ZERO), "0 ms");
        assert_eq!(format_size(64 << 20), "64 MiB");
        assert_eq!(format_size(1_000), "1000 B");
    }
}
