//! Times: milliseconds since the Unix epoch internally, RFC 3339 UTC with milliseconds externally.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serializer};

/// Milliseconds since 1970-01-01T00:00:00Z.
pub type Millis = i64;

/// 0000-01-01T00:00:00.000Z: RFC 3339 has four digits for the year and no sign.
const EARLIEST: Millis = -62_167_219_200_000;
/// 9999-12-31T23:59:59.999Z.
const LATEST: Millis = 253_402_300_799_999;

/// The current wall-clock time.
pub fn now() -> Millis {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_millis() as Millis)
}

/// `2026-01-31T12:00:00.000Z`.
pub fn format(millis: Millis) -> String {
    String::from_utf8_lossy(&text(millis)).into_owned()
}

/// Appends the text of [`format`] without an allocation. Times outside the years 0000 to 9999 become the nearest time
/// within them.
pub fn write(millis: Millis, out: &mut Vec<u8>) {
    out.extend_from_slice(&text(millis));
}

/// Parses RFC 3339; `None` if `text` has another format.
pub fn parse(text: &str) -> Option<Millis> {
    text.parse::<jiff::Timestamp>().ok().map(|timestamp| timestamp.as_millisecond())
}

/// For `#[serde(with = "time")]`.
pub fn serialize<S: Serializer>(millis: &Millis, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&format(*millis))
}

/// For `#[serde(with = "time")]`.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Millis, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse(&text).ok_or_else(|| D::Error::custom(format!("`{text}` is not an RFC 3339 time")))
}

/// The date uses Howard Hinnant's `civil_from_days`: a year that starts in March has the leap day at its end.
fn text(millis: Millis) -> [u8; 24] {
    const DAY: Millis = 86_400_000;
    let millis = millis.clamp(EARLIEST, LATEST);
    let (days, rest) = (millis.div_euclid(DAY), millis.rem_euclid(DAY) as u32);
    let shifted = days + 719_468; // Days since 0000-03-01.
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = (day_of_year - (153 * month_from_march + 2) / 5 + 1) as u32;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 } as u32;
    let year = (year_of_era + era * 400 + i64::from(month <= 2)) as u32;

    let mut text = *b"0000-00-00T00:00:00.000Z";
    let mut put = |at: usize, width: usize, mut number: u32| {
        for digit in text[at..at + width].iter_mut().rev() {
            *digit = b'0' + (number % 10) as u8;
            number /= 10;
        }
    };
    put(0, 4, year);
    put(5, 2, month);
    put(8, 2, day);
    put(11, 2, rest / 3_600_000);
    put(14, 2, rest / 60_000 % 60);
    put(17, 2, rest / 1_000 % 60);
    put(20, 3, rest % 1_000);
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn round_trip() {
        assert_eq!(super::format(1_700_000_000_007), "2023-11-14T22:13:20.007Z");
        assert_eq!(super::parse("2023-11-14T22:13:20.007Z"), Some(1_700_000_000_007));
        assert_eq!(super::format(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(super::parse("yesterday"), None);
    }

    #[test]
    fn agrees_with_the_calendar_of_jiff() {
        let check = |millis: i64| {
            let expected = jiff::Timestamp::from_millisecond(millis).map(|timestamp| format!("{timestamp:.3}"));
            assert_eq!(Some(super::format(millis)), expected.ok(), "{millis}");
        };
        // About every 11 days from the year 0 to 9999, so that each month end and leap-year rule occurs many times.
        (super::EARLIEST..super::LATEST - 200_000_000).step_by(987_654_321).for_each(check);
        [951_782_399_999, 951_782_400_000, 1_709_164_800_000, -1, -86_400_000].into_iter().for_each(check);
    }

    #[test]
    fn holds_at_the_ends() {
        assert_eq!(super::format(i64::MIN), "0000-01-01T00:00:00.000Z");
        assert_eq!(super::format(i64::MAX), "9999-12-31T23:59:59.999Z");
    }
}
