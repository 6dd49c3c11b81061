//! The limits that every store must support, which the server checks before it writes an event.
//!
//! Every model store must be able to apply every event in the log, now and in each rebuild, so the log must not contain
//! events that any of them rejects. A driver must accept everything within these limits; the testkit checks this. The
//! limits are below those of known stores: SQLite parses JSON to a depth of 1,000, PostgreSQL stores numbers with
//! 16,383 digits after the point and indexes with 32 columns.

use std::fmt;

use crate::event::Event;

/// Deepest nesting of arrays and objects in data.
pub const NESTING_MAX: usize = 120;

/// Largest payload of one event, instance or secret, in bytes.
///
/// The server rejects larger bodies before a driver gets them (`max-body`); drivers are tested up to this size.
pub const PAYLOAD_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Longest string that names a property, in bytes of JSON text.
pub const PROPERTY_NAME_BYTES_MAX: usize = 64 * 1024;

/// Longest number, in bytes of JSON text.
pub const NUMBER_BYTES_MAX: usize = 16 * 1024;

/// Longest id of a model, and of an instance, in bytes.
pub const MODEL_ID_BYTES_MAX: usize = 63;
pub const INSTANCE_ID_BYTES_MAX: usize = 128;

/// Lists in `indexes`, and in `unique`, of one model; properties in one such list.
pub const LISTS_MAX: usize = 32;
pub const LIST_LENGTH_MAX: usize = 8;

/// Whether a secret may have that name: `^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`.
pub fn is_secret_name(name: &str) -> bool {
    name.len() <= 128
        && name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

/// Whether the server reserves that name in the secure store, for example for its tokens. A driver treats such names
/// like all others, but no secret may have one. Case-insensitive, because some file systems are.
pub fn is_reserved_name(name: &str) -> bool {
    const PREFIX: &str = "snaphook.";
    name.get(..PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(PREFIX))
}

/// Whether a text is a SHA-256 digest in the form of blob names: 64 hexadecimal digits in lower case.
pub fn is_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// An exceeded limit, as a clause without a full stop: `data is nested 200 deep, at most 120 levels are allowed`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exceeded(String);

impl fmt::Display for Exceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Exceeded {}

/// Checks an event of an instance before it is written, or after it was read from a log that others may have written.
pub fn check_event(event: &Event) -> Result<(), Exceeded> {
    let instance = event.instance.as_deref().unwrap_or_default();
    for (what, length, max) in [
        ("model's id", event.model.len(), MODEL_ID_BYTES_MAX),
        ("instance's id", instance.len(), INSTANCE_ID_BYTES_MAX),
    ] {
        if length > max {
            return Err(Exceeded(format!("the {what} has {length} bytes, at most {max} are allowed")));
        }
    }
    event.data.as_deref().map_or(Ok(()), check_data)
}

/// Checks the JSON text of an instance's data. Invalid JSON passes; the parser detects it.
pub fn check_data(text: &str) -> Result<(), Exceeded> {
    if text.len() > PAYLOAD_BYTES_MAX {
        return Err(Exceeded(format!("data has {} bytes, at most {PAYLOAD_BYTES_MAX} are allowed", text.len())));
    }
    // Nearly all data is short and has few brackets, so nothing in it can exceed a limit.
    let openings = text.bytes().filter(|byte| matches!(byte, b'{' | b'[')).count();
    if openings <= NESTING_MAX && text.len() <= NUMBER_BYTES_MAX {
        return Ok(());
    }
    check_tokens(text.as_bytes())
}

fn check_tokens(text: &[u8]) -> Result<(), Exceeded> {
    let (mut at, mut nesting) = (0, 0_usize);
    while let Some(byte) = text.get(at) {
        let start = at;
        at += 1;
        match byte {
            b'{' | b'[' => {
                nesting += 1;
                if nesting > NESTING_MAX {
                    return Err(Exceeded(format!(
                        "data is nested more than {NESTING_MAX} levels deep, which is not allowed"
                    )));
                }
            }
            b'}' | b']' => nesting = nesting.saturating_sub(1),
            b'"' => {
                at = end_of_string(text, at);
                let is_name = text[at..].iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b':');
                if is_name && at - start > PROPERTY_NAME_BYTES_MAX {
                    return Err(Exceeded(format!(
                        "the name of a property has {} bytes, at most {PROPERTY_NAME_BYTES_MAX} are allowed",
                        at - start
                    )));
                }
            }
            b'-' | b'0'..=b'9' => {
                let length = text[at..].iter().take_while(|byte| is_of_number(**byte)).count();
                at += length;
                if length + 1 > NUMBER_BYTES_MAX {
                    return Err(Exceeded(format!(
                        "a number has {} characters, at most {NUMBER_BYTES_MAX} are allowed",
                        length + 1
                    )));
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn is_of_number(byte: u8) -> bool {
    byte.is_ascii_digit() || matches!(byte, b'.' | b'e' | b'E' | b'+' | b'-')
}

/// The index after the quote that ends a string whose first character is at `at`.
fn end_of_string(text: &[u8], mut at: usize) -> usize {
    while let Some(byte) = text.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_keeps_names_with_its_own_prefix() {
        let rows = [("snaphook.tokens", true), ("SnapHook.x", true), ("snaphook.", true)];
        let others = [("snaphook", false), ("snaphook-tokens", false), ("mail.snaphook.key", false), ("", false)];
        for (name, expected) in rows.into_iter().chain(others) {
            assert_eq!(is_reserved_name(name), expected, "{name}");
        }
    }

    #[test]
    fn each_limit_lets_its_value_pass_and_no_more() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        let named = |length: usize| format!(r#"{{"{}" :1}}"#, "n".repeat(length - 2));
        let number = |length: usize| format!("[{}]", "1".repeat(length));
        let sized = |length: usize| format!(r#"["{}"]"#, "x".repeat(length - 4));
        for (text, fits) in [
            (nested(NESTING_MAX), true),
            (nested(NESTING_MAX + 1), false),
            (named(PROPERTY_NAME_BYTES_MAX), true),
            (named(PROPERTY_NAME_BYTES_MAX + 1), false),
            (number(NUMBER_BYTES_MAX), true),
            (number(NUMBER_BYTES_MAX + 1), false),
            (sized(PAYLOAD_BYTES_MAX), true),
            (sized(PAYLOAD_BYTES_MAX + 1), false),
            // Brackets inside a string do not count.
            (format!(r#"["{}"]"#, "[".repeat(100_000)), true),
            (format!(r#"["{}"]"#, "1".repeat(100_000)), true),
            (format!(r#"["\"{}"]"#, "[".repeat(100_000)), true),
            (format!("[{}]", vec!["[]"; 50_000].join(",")), true),
            (format!(r#"{{"a":"{}"}}"#, "n".repeat(100_000)), true),
            ("\"".to_owned() + &"[".repeat(100_000), true),
            ("\"\\".to_owned() + &"\\".repeat(99_999), true),
        ] {
            assert_eq!(check_data(&text).is_ok(), fits, "{} bytes: {}…", text.len(), &text[..20]);
        }
    }
}
