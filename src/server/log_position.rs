//! Positions in the log as clients store them: `<log>.<position>`, or a bare number, which is a position of this log.
//!
//! A position that this log does not have (beyond its end, or of the log before a restore) is 410; otherwise it would
//! look like a log without new events.

use snaphook_driver::Position;

use super::json;
use super::problem::{Problem, Result};
use super::query::shorten;

/// Length of a log's identity, a UUID.
const IDENTITY_BYTES: usize = 36;

/// A position in a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LogPosition {
    /// `None`: this log.
    pub(super) log: Option<String>,
    pub(super) position: Position,
}

impl LogPosition {
    /// `name` is its parameter or header, for messages.
    pub(super) fn parse(name: &str, text: &str) -> Result<LogPosition> {
        let read = || {
            let (log, digits) = match text.rsplit_once('.') {
                Some((log, digits)) => (Some(log), digits),
                None => (None, text),
            };
            let is_log = log.is_none_or(|log| {
                log.len() == IDENTITY_BYTES && log.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
            });
            let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
            let position = digits.parse().ok().filter(|_| is_log && is_number)?;
            Some(LogPosition { log: log.map(str::to_owned), position })
        };
        read().ok_or_else(|| {
            Problem::bad_request(format!(
                "`{name}` is `{}`, expected a position such as 12, or the id of an event of a stream",
                shorten(text)
            ))
        })
    }
}

/// `<log>.<position>`
pub(super) fn write(out: &mut Vec<u8>, log: &str, position: Position) {
    out.extend_from_slice(log.as_bytes());
    out.push(b'.');
    json::write_u64(out, position);
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

    #[test]
    fn places() {
        let place = |log: Option<&str>, position| LogPosition { log: log.map(str::to_owned), position };
        for (text, expected) in [
            ("0", Some(place(None, 0))),
            ("18446744073709551615", Some(place(None, u64::MAX))),
            ("01890a5d-ac96-774b-bcce-b302099a8057.7", Some(place(Some(LOG), 7))),
            ("01890a5d-ac96-774b-bcce-b302099a8057.", None),
            ("01890a5d-ac96-774b-bcce-b302099a8057", None),
            ("01890a5d-ac96-774b-bcce-b302099a805x.7", None),
            ("1.5", None),
            ("", None),
            ("+7", None),
            ("-1", None),
            ("x", None),
            ("x.", None),
            (".7", None),
            ("a.b.7", None),
            ("a b.7", None),
            ("18446744073709551616", None),
        ] {
            assert_eq!(LogPosition::parse("after", text).ok(), expected, "{text}");
        }
        let mut out = Vec::new();
        write(&mut out, LOG, 70);
        assert_eq!(
            LogPosition::parse("after", std::str::from_utf8(&out).expect("text")).expect("a place"),
            place(Some(LOG), 70)
        );
    }
}
