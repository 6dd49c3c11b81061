//! Ids in little room: a UUID in its usual spelling is kept as 16 bytes instead of 36 characters.

use rusqlite::ToSql;
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSqlOutput, ValueRef};

/// An id to be bound: a blob if it is a UUID as `Uuid::to_string` writes it, else the text.
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

fn parse(text: &[u8]) -> Option<[u8; 16]> {
    if text.len() != 36 || HYPHENS.iter().any(|at| text[*at] != b'-') {
        return None;
    }
    let mut bytes = [0; 16];
    let mut at = 0;
    for byte in &mut bytes {
        if HYPHENS.contains(&at) {
            at += 1;
        }
        *byte = nibble(text[at])? << 4 | nibble(text[at + 1])?;
        at += 2;
    }
    Some(bytes)
}

/// Lowercase only: what is read back must be what was written.
fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
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
