//! Times are milliseconds since the Unix epoch inside, RFC 3339 UTC with milliseconds outside.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serializer};

/// Milliseconds since 1970-01-01T00:00:00Z.
pub type Millis = i64;

/// The wall clock, now.
pub fn now() -> Millis {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_millis() as Millis)
}

/// `2026-01-31T12:00:00.000Z`.
pub fn format(millis: Millis) -> String {
    match jiff::Timestamp::from_millisecond(millis) {
        Ok(timestamp) => format!("{timestamp:.3}"),
        Err(_) => format!("{:.3}", jiff::Timestamp::MAX),
    }
}

/// Parses RFC 3339; `None` if `text` is something else.
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

#[cfg(test)]
mod tests {
    #[test]
    fn round_trip() {
        assert_eq!(super::format(1_700_000_000_007), "2023-11-14T22:13:20.007Z");
        assert_eq!(super::parse("2023-11-14T22:13:20.007Z"), Some(1_700_000_000_007));
        assert_eq!(super::format(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(super::parse("yesterday"), None);
    }
}
