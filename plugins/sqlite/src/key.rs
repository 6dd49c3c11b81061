//! Compact ids: a UUID in its usual spelling is stored as 16 bytes instead of 36 characters.

use rusqlite::ToSql;
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSqlOutput, ValueRef};

/// An id as a statement parameter: a blob if it is a UUID as `Uuid::to_string` writes it, otherwise the text.
pub(crate) enum Key<'a> {
    Uuid([u8; 16]),
    Text(&'a str),
}

impl<'a> Key<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        parse(text.as_bytes()).map_or(Key::Text(text), Key::Uuid)
    }
}

impl ToSql for Key<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Key::Uuid(bytes) => ValueRef::Blob(bytes),
            Key::Text(text) => ValueRef::Text(text.as_bytes()),
        }))
    }
}

/// An id that was read back.
pub(crate) struct Id(pub(crate) String);

impl FromSql for Id {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        match value {
            ValueRef::Blob(bytes) => {
                bytes.try_into().map(|bytes| Id(format(bytes))).map_err(|_| FromSqlError::InvalidType)
            }
            other => other.as_str().map(|text| Id(text.to_owned())),
        }
    }
}

const HYPHENS: [usize; 4] = [8, 13, 18, 23];

/// The offsets of the two digits of each byte.
const PAIRS: [usize; 16] = [0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34];

/// The value in [`NIBBLES`] for a character that is not a digit.
const NO_DIGIT: u8 = 0xff;

/// Values of hexadecimal digits; lowercase only, so that the text that is read equals the text that was written.
const NIBBLES: [u8; 256] = {
    let mut nibbles = [NO_DIGIT; 256];
    let mut value = 0;
    while value < 16 {
        nibbles[b"0123456789abcdef"[value as usize] as usize] = value;
        value += 1;
    }
    nibbles
};

/// Without a branch per digit: every append does this three times.
fn parse(text: &[u8]) -> Option<[u8; 16]> {
    let text: &[u8; 36] = text.try_into().ok()?;
    if HYPHENS.iter().any(|at| text[*at] != b'-') {
        return None;
    }
    let (mut bytes, mut seen) = ([0; 16], 0);
    for (byte, at) in bytes.iter_mut().zip(PAIRS) {
        let (high, low) = (NIBBLES[usize::from(text[at])], NIBBLES[usize::from(text[at + 1])]);
        seen |= high | low;
        *byte = high << 4 | low & 15;
    }
    (seen < 16).then_some(bytes)
}

fn format(bytes: &[u8; 16]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(36);
    for (index, byte) in bytes.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_usual_spelling_is_packed() {
        let uuid = "0190a6c4-5f8b-7cde-8f01-23456789abcd";
        let Key::Uuid(bytes) = Key::new(uuid) else { panic!("not packed") };
        assert_eq!(format(&bytes), uuid);
        for text in [
            "",
            "a",
            "0190A6C4-5f8b-7cde-8f01-23456789abcd",
            "0190a6c45f8b7cde8f0123456789abcd",
            "0190a6c4-5f8b-7cde-8f01-23456789abcg",
            "0190a6c4-5f8b-7cde-8f01-23456789abc-",
            "-190a6c4-5f8b-7cde-8f01-23456789abcd",
        ] {
            assert!(matches!(Key::new(text), Key::Text(_)), "{text}");
        }
    }
}
