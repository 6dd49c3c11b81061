//! Property values as bytes. PostgreSQL compares them byte by byte, with the result of [`snaphook_driver::compare`].
//!
//! `jsonb` rejects U+0000 and large exponents, and `text` compares by collation, so neither can store all values that a
//! client sends. A key is a class, followed by the value:
//!
//! | JSON | class | rest, ascending | rest, descending |
//! | --- | --- | --- | --- |
//! | boolean | 1 | 0 or 1 | 1 or 0 |
//! | number | 2 | [`number_key`] | the key of the negated number |
//! | string | 3 | UTF-8 | each byte inverted, so that greater text is less, then 255 |
//! | array, object | 4 | | |
//! | null, absent | 5 | | |
//!
//! Classes keep their order in both directions, so every sort order is ascending in keys.
//!
//! An index entry of PostgreSQL has at most 2,704 bytes, so a column contains only the first [`STORED_MAX`] bytes of a
//! key. Two stored keys that differ have the same order as the whole keys. If they are equal and shorter than that, the
//! whole keys are equal too.

use serde_json::Value;
use snaphook_driver::compare::{Found, number_key};

pub(super) const BOOLEAN: u8 = 1;
pub(super) const NUMBER: u8 = 2;
pub(super) const TEXT: u8 = 3;
pub(super) const OTHER: u8 = 4;
pub(super) const ABSENT: u8 = 5;

/// How many bytes of a key a column contains. Eight such keys and an id fit into an index entry.
pub(super) const STORED_MAX: usize = 300;

/// The whole key of a value; `None` means absent or null.
pub(super) fn key(value: Option<&Value>, descending: bool) -> Vec<u8> {
    match value {
        Some(Value::String(text)) => text_key(text, descending),
        other => short_key(other, descending),
    }
}

/// The whole key of the value that a path leads to.
pub(super) fn found_key(found: Option<Found<'_>>, descending: bool) -> Vec<u8> {
    match found {
        Some(Found::Array(_) | Found::Object) => vec![OTHER],
        Some(found) => key(Some(&found.to_value()), descending),
        None => vec![ABSENT],
    }
}

/// The part of a value's key that a column contains.
pub(super) fn stored_key(value: Option<&Value>, descending: bool) -> Vec<u8> {
    let mut key = match value {
        // The rest of a long text is not needed.
        Some(Value::String(text)) if text.len() >= STORED_MAX => text_bytes(&text.as_bytes()[..STORED_MAX], descending),
        other => key(other, descending),
    };
    key.truncate(STORED_MAX);
    key
}

/// The part of a key that a column contains.
pub(super) fn stored(key: &[u8]) -> &[u8] {
    &key[..key.len().min(STORED_MAX)]
}

/// Whether the part in the column distinguishes the key from all others.
pub(super) fn is_exact(key: &[u8]) -> bool {
    key.len() < STORED_MAX
}

/// The beginning of the keys of all texts with this prefix.
pub(super) fn prefix_key(prefix: &str, descending: bool) -> Vec<u8> {
    text_bytes(prefix.as_bytes(), descending)
}

/// The text of a key of class [`TEXT`]; `None` if it is not such a key.
pub(super) fn text_of(key: &[u8], descending: bool) -> Option<String> {
    let bytes = match (key.strip_prefix(&[TEXT])?, descending) {
        (bytes, false) => bytes.to_vec(),
        (bytes, true) => bytes.strip_suffix(&[0xff])?.iter().map(|byte| !(byte.wrapping_add(1))).collect(),
    };
    String::from_utf8(bytes).ok()
}

/// The key of the same value in the other direction; `None` if it is not a key. `descending` is the direction of `key`.
pub(super) fn turned(key: &[u8], descending: bool) -> Option<Vec<u8>> {
    match key {
        [BOOLEAN, value] => Some(vec![BOOLEAN, value ^ 1]),
        [NUMBER, number @ ..] => Some([&[NUMBER], negated(number)?.as_slice()].concat()),
        [TEXT, ..] => text_of(key, descending).map(|text| text_key(&text, !descending)),
        other => Some(other.to_vec()),
    }
}

/// The [`number_key`] of the negated number. Zero's key is 128; the keys of negative numbers are those of positive ones
/// inverted, with 255 at the end.
fn negated(number: &[u8]) -> Option<Vec<u8>> {
    let invert = |bytes: &[u8]| bytes.iter().map(|byte| !byte).collect::<Vec<u8>>();
    match number {
        [128] => Some(vec![128]),
        [first, ..] if *first > 128 => Some([invert(number).as_slice(), &[0xff]].concat()),
        [_, .., 0xff] => Some(invert(&number[..number.len() - 1])),
        _ => None,
    }
}

fn text_key(text: &str, descending: bool) -> Vec<u8> {
    let mut key = text_bytes(text.as_bytes(), descending);
    if descending {
        key.push(0xff);
    }
    key
}

fn text_bytes(bytes: &[u8], descending: bool) -> Vec<u8> {
    let mut key = Vec::with_capacity(bytes.len() + 2);
    key.push(TEXT);
    match descending {
        false => key.extend_from_slice(bytes),
        // UTF-8 has no byte above 244, so the last byte of a key is greater than all of these: a longer text comes
        // first.
        true => key.extend(bytes.iter().map(|byte| (!byte).wrapping_sub(1))),
    }
    key
}

fn short_key(value: Option<&Value>, descending: bool) -> Vec<u8> {
    match value {
        Some(Value::Bool(value)) => vec![BOOLEAN, u8::from(*value != descending)],
        Some(Value::Number(number)) => {
            let text = number.to_string();
            let text = match (descending, text.strip_prefix('-')) {
                (false, _) => text,
                (true, Some(positive)) => positive.to_owned(),
                (true, None) => format!("-{text}"),
            };
            let mut key = vec![NUMBER];
            key.extend(number_key(&text));
            key
        }
        Some(Value::Array(_) | Value::Object(_)) => vec![OTHER],
        Some(Value::String(text)) => text_key(text, descending),
        Some(Value::Null) | None => vec![ABSENT],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use snaphook_driver::compare::compare;
    use snaphook_driver::json::parse;

    fn values() -> Vec<Option<Value>> {
        let long = "x".repeat(STORED_MAX - 1);
        let mut values: Vec<Value> = [
            "false",
            "true",
            "0",
            "-0.0",
            "1",
            "1.0",
            "-1",
            "1.5",
            "10",
            "-10",
            "1e400",
            "-1e400",
            "1e-400",
            "9007199254740993",
            "9007199254740992",
            "18446744073709551617",
            "[1]",
            "{}",
            "null",
        ]
        .iter()
        .map(|text| parse(text).unwrap())
        .collect();
        for text in ["", "\0", "\0\0", "a", "a\0", "a\0b", "ab", "a\u{1}", "b", "é", "日本", "\u{10ffff}", "\u{7f}"]
        {
            values.push(text.into());
            values.push(format!("{long}{text}").into());
        }
        values.push(long[1..].into());
        values.push(parse(&"7".repeat(2 * STORED_MAX)).unwrap());
        values.push(parse(&"7".repeat(3 * STORED_MAX)).unwrap());
        values.push(parse(&format!("-{}", "7".repeat(3 * STORED_MAX))).unwrap());
        values.push(parse(&format!("{}8", "7".repeat(2 * STORED_MAX - 1))).unwrap());
        values.into_iter().map(Some).chain([None]).collect()
    }

    #[test]
    fn keys_order_as_values_do() {
        let values = values();
        let present = |value: &'_ Option<Value>| value.clone().filter(|value| !value.is_null());
        for left in &values {
            for right in &values {
                for descending in [false, true] {
                    let (a, b) = (present(left), present(right));
                    let expected = compare(a.as_ref().map(Found::from), b.as_ref().map(Found::from), descending);
                    let (a, b) = (key(a.as_ref(), descending), key(b.as_ref(), descending));
                    assert_eq!(a.cmp(&b), expected, "{left:?} to {right:?}, descending {descending}");
                    let ordering = stored(&a).cmp(stored(&b));
                    let decides = ordering.is_ne() || is_exact(&a);
                    assert!(!decides || ordering == expected, "{left:?} to {right:?}, descending {descending}, stored");
                }
            }
        }
    }

    #[test]
    fn a_column_holds_the_beginning_of_the_key() {
        for value in values() {
            for descending in [false, true] {
                let whole = key(value.as_ref(), descending);
                assert_eq!(stored_key(value.as_ref(), descending), stored(&whole), "{value:?}");
                let text = value.as_ref().and_then(Value::as_str);
                let other = key(value.as_ref(), !descending);
                assert_eq!(turned(&whole, descending), Some(other), "{value:?}");
                assert_eq!(text_of(&whole, descending).as_deref(), text);
                if let Some(text) = text {
                    assert!(whole.starts_with(&prefix_key(&text[..0], descending)));
                    assert!(whole.starts_with(&prefix_key(text, descending)));
                }
            }
        }
    }
}
