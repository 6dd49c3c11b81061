//! The value at a path in an instance's data, as the model store compares it.
//!
//! SQLite's own JSON functions differ from [`snaphook_driver::compare`]: they use the first of two equal names and
//! 64-bit numbers, and do not support names with NUL. So filters, sorts and indexes use these functions, which
//! interpret the text in the same way as the rest of the system.
//!
//! | JSON | class | value |
//! | --- | --- | --- |
//! | boolean | 0 | INTEGER 0 or 1 |
//! | number | 1 | BLOB, [`number_key`]: any number of digits, compared byte by byte |
//! | string | 2 | TEXT |
//! | array, object | 3 | NULL |
//! | null, absent | 4 | NULL |

use std::borrow::Cow;

use rusqlite::types::Value as Sql;
use snaphook_driver::compare::number_key;

/// Class of absent values and null.
pub(crate) const CLASS_ABSENT: i64 = 4;

/// Class of arrays and objects.
pub(crate) const CLASS_ARRAY: i64 = 3;

/// The JSON text at a path; `None` if there is nothing. Of two members with the same name, the last counts.
///
/// The data was validated before it was stored, so this does not validate again: each index calls it twice for each
/// written row.
pub(crate) fn find<'a>(data: &'a str, path: &[&str]) -> Option<&'a str> {
    path.iter().try_fold(data, |text, name| member(text.trim_ascii_start(), name))
}

/// The last member of that name in an object.
fn member<'a>(object: &'a str, wanted: &str) -> Option<&'a str> {
    let bytes = object.as_bytes();
    let mut found = None;
    let mut at = if bytes.first() == Some(&b'{') { 1 } else { return None };
    loop {
        at = after_space(bytes, at);
        match bytes.get(at)? {
            b'}' => return found,
            b',' => at += 1,
            b'"' => {
                let end = after_string(bytes, at)?;
                let is_wanted = string_text(object.get(at..end)?)? == wanted;
                let colon = after_space(bytes, end);
                let start = after_space(bytes, colon + 1);
                at = after_value(bytes, start)?;
                if is_wanted {
                    found = object.get(start..at);
                }
            }
            _ => return None,
        }
    }
}

fn after_space(bytes: &[u8], at: usize) -> usize {
    let rest = bytes.get(at..).unwrap_or_default();
    at + rest.iter().take_while(|byte| byte.is_ascii_whitespace()).count()
}

/// The index after the string that begins at `at`.
fn after_string(bytes: &[u8], mut at: usize) -> Option<usize> {
    at += 1;
    loop {
        let rest = bytes.get(at..)?;
        let end = memchr::memchr2(b'"', b'\\', rest)?;
        match rest[end] {
            b'"' => return Some(at + end + 1),
            _ => at += end + 2,
        }
    }
}

/// The index after the value that begins at `at`, whatever its type and depth.
fn after_value(bytes: &[u8], mut at: usize) -> Option<usize> {
    let mut depth = 0_usize;
    loop {
        match bytes.get(at)? {
            b'"' => at = after_string(bytes, at)?,
            b'{' | b'[' => {
                depth += 1;
                at += 1;
            }
            b'}' | b']' => {
                // At the depth of the value itself, this closes the enclosing list or object.
                depth = depth.checked_sub(1)?;
                at += 1;
            }
            // Separators between the elements of a list or object.
            b',' | b':' | b' ' | b'\t' | b'\n' | b'\r' if depth > 0 => at += 1,
            b',' | b':' | b' ' | b'\t' | b'\n' | b'\r' => return None,
            _ => at += bytes[at..].iter().take_while(|byte| is_of_word(**byte)).count(),
        }
        if depth == 0 {
            return Some(at);
        }
    }
}

/// Whether the byte is part of a number or of a literal.
fn is_of_word(byte: u8) -> bool {
    !matches!(byte, b'"' | b'{' | b'}' | b'[' | b']' | b',' | b':' | b' ' | b'\t' | b'\n' | b'\r')
}

/// The class of a JSON text.
pub(crate) fn class(found: Option<&str>) -> i64 {
    match found.and_then(|text| text.as_bytes().first()) {
        Some(b't' | b'f') => 0,
        Some(b'-' | b'0'..=b'9') => 1,
        Some(b'"') => 2,
        Some(b'[' | b'{') => CLASS_ARRAY,
        _ => CLASS_ABSENT,
    }
}

/// The value of a JSON text.
pub(crate) fn value(found: Option<&str>) -> Sql {
    let Some(text) = found else { return Sql::Null };
    match class(found) {
        0 => Sql::Integer(i64::from(text == "true")),
        1 => Sql::Blob(number_key(text)),
        2 => string_text(text).map_or(Sql::Null, |text| Sql::Text(text.into_owned())),
        _ => Sql::Null,
    }
}

/// Whether an array has an element with this class and value.
pub(crate) fn has(array: &str, wanted: &(i64, Sql)) -> bool {
    let bytes = array.as_bytes();
    let mut at = if bytes.first() == Some(&b'[') { 1 } else { return false };
    loop {
        at = after_space(bytes, at);
        match bytes.get(at) {
            None | Some(b']') => return false,
            Some(b',') => at += 1,
            Some(_) => {
                let Some(end) = after_value(bytes, at) else { return false };
                let element = array.get(at..end);
                if class(element) == wanted.0 && value(element) == wanted.1 {
                    return true;
                }
                at = end;
            }
        }
    }
}

/// The text of a JSON string.
fn string_text(text: &str) -> Option<Cow<'_, str>> {
    let inner = text.strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') { serde_json::from_str(text).ok().map(Cow::Owned) } else { Some(Cow::Borrowed(inner)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;
    use snaphook_driver::compare::lookup;

    #[test]
    fn finds_what_lookup_finds() {
        let texts = [
            r#"{"a":1,"b":{"c":"x"},"a":2}"#,
            r#" { "a" : [ 1 , {"b":2} ] , "b" : { "c" : { "d" : -1.50e+3 } } } "#,
            r#"{"b":{"c":1},"b":5}"#,
            r#"{"a\u0062":"é\n","ab":null,"ab":"\u0000"}"#,
            r#"{"":{"":true},"nul\u0000":false}"#,
            r#"{"$serde_json::private::RawValue":"1","$serde_json::private::Number":"2","b":3}"#,
            r#"{"b":{"$serde_json::private::Number":7}}"#,
            "[]",
            "5",
            "null",
        ];
        let paths: [&[&str]; 13] = [
            &["a"],
            &["b"],
            &["b", "c"],
            &["b", "c", "d"],
            &["a", "b"],
            &["ab"],
            &[""],
            &["", ""],
            &["nul\0"],
            &["$serde_json::private::RawValue"],
            &["$serde_json::private::Number"],
            &["b", "$serde_json::private::Number"],
            &["c"],
        ];
        for text in texts {
            // serde_json misreads objects with its reserved names, so those texts are skipped here.
            let tree: Value = if text.contains("$serde_json") { continue } else { serde_json::from_str(text).unwrap() };
            for path in paths {
                let owned: Vec<String> = path.iter().map(|name| (*name).to_owned()).collect();
                let found = find(text, path).map(|found| serde_json::from_str::<Value>(found).unwrap());
                assert_eq!(
                    found.filter(|value| !value.is_null()).as_ref(),
                    lookup(&tree, &owned),
                    "{path:?} of {text}"
                );
            }
        }
        assert_eq!(find(texts[5], paths[9]), Some("\"1\""));
        assert_eq!(find(texts[5], paths[10]), Some("\"2\""));
        assert_eq!(find(texts[5], paths[1]), Some("3"));
        assert_eq!(find(texts[6], paths[11]), Some("7"));
        assert_eq!(find(r#"{"b":7}"#, paths[11]), None);
        // Deeper than a recursive parser can read.
        let deep = format!(r#"{{"x":{}{},"a":1}}"#, "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(find(&deep, &["a"]), Some("1"));
    }

    #[test]
    fn what_is_no_json_is_survived() {
        let text = r#"{ "a" : [ 1 , {"b":"\\"} ] , "b\u0061" : { "c" : { "d" : -1.50e+3 } } , "\"": true }"#;
        assert_eq!(find(text, &["ba", "c", "d"]), Some("-1.50e+3"));
        assert_eq!(find(text, &["\""]), Some("true"));
        for end in 0..text.len() {
            for path in [&["a"][..], &["ba", "c", "d"], &["x"]] {
                let _ = find(&text[..end], path);
            }
        }
        for text in
            ["{", "{]", r#"{"a"}"#, r#"{"a":}"#, r#"{"a":,"b":1}"#, r#"{"a":]}"#, r#"{"a" 1}"#, r#"{1:2}"#, "{\u{e9}"]
        {
            let _ = find(text, &["a"]);
        }
    }

    #[test]
    fn values_and_their_classes() {
        for (text, expected, sql) in [
            ("true", 0, Sql::Integer(1)),
            ("false", 0, Sql::Integer(0)),
            ("-1", 1, Sql::Blob(number_key("-1.0"))),
            (r#""a""#, 2, Sql::Text("a".into())),
            (r#""\u0061\\""#, 2, Sql::Text("a\\".into())),
            ("[1]", 3, Sql::Null),
            ("{}", 3, Sql::Null),
            ("null", 4, Sql::Null),
        ] {
            assert_eq!((class(Some(text)), value(Some(text))), (expected, sql), "{text}");
        }
        assert_eq!((class(None), value(None)), (4, Sql::Null));
    }
}
