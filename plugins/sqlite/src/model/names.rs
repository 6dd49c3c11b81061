//! Names in the database: numbers that the store gives out, never what a client chose.
//!
//! A model's table is `m<number>`, a property's column `c<number>`, an index `i<number>`. All numbers come from one
//! counter and none is used twice. So no model id and no property name can collide with another one, with a name of
//! SQLite (`json_each`, `rowid`, `sqlite_master`) or with a name of this store. A reader that still has the definition
//! before a change finds that a name is gone; it never finds that the name means something else.
//!
//! The one place where SQLite still compares names that clients chose is JSON: it finds a property in an instance's
//! data by its name, and takes U+0000 in a name for the name's end. [`searchable`] rewrites such names in the text that
//! SQLite searches, and [`json_path`] in the paths that it searches for.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use snaphook_driver::SortKey;

/// The numbers of one model, as the store keeps them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Names {
    pub(super) table: u64,
    /// Properties that have a column.
    pub(super) columns: BTreeMap<String, u64>,
    pub(super) indexes: Vec<(Vec<SortKey>, u64)>,
}

/// Gives out numbers that were never used in this file.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Counter(pub(super) u64);

impl Counter {
    pub(super) fn next(&mut self) -> u64 {
        self.0 += 1;
        self.0
    }
}

/// The text that SQLite searches instead of `text`, if names in it need that.
///
/// U+0000 in a name becomes U+0001 U+0001, and U+0001 becomes U+0001 U+0002, so different names stay different.
pub(super) fn searchable(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    if !bytes.contains(&b'\\') || !text.contains("\\u000") {
        return None;
    }
    let mut out = String::new();
    let (mut at, mut copied) = (0, 0);
    while at < bytes.len() {
        if bytes[at] != b'"' {
            at += 1;
            continue;
        }
        let start = at;
        at = end_of_string(bytes, start);
        // Only a property name is followed by a colon.
        let is_name = bytes[at..].iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b':');
        if is_name && let Some(name) = rewritten(&text[start..at]) {
            out.push_str(&text[copied..start]);
            out.push_str(&name);
            copied = at;
        }
    }
    (copied > 0).then(|| {
        out.push_str(&text[copied..]);
        out
    })
}

/// The end of the JSON string that begins at `start`, behind its quote.
fn end_of_string(bytes: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while at < bytes.len() {
        match bytes[at] {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// A name as a JSON string, with what [`searchable`] replaces replaced; `None` if there is nothing of it.
fn rewritten(name: &str) -> Option<String> {
    let mut out = String::new();
    let (mut at, mut copied) = (0, 0);
    while let Some(escape) = name[at..].find('\\') {
        let start = at + escape;
        let replacement = match name.get(start..start + 6) {
            Some("\\u0000") => r"\u0001\u0001",
            Some("\\u0001") => r"\u0001\u0002",
            _ => {
                // An escape is two ASCII characters or begins with them.
                at = start + 2;
                continue;
            }
        };
        out.push_str(&name[copied..start]);
        out.push_str(replacement);
        at = start + 6;
        copied = at;
    }
    (copied > 0).then(|| {
        out.push_str(&name[copied..]);
        out
    })
}

/// A path into the text that SQLite searches: `$."a"."b"`, each name as a JSON string.
pub(super) fn json_path(path: &[String]) -> String {
    path.iter().fold(String::from("$"), |mut text, name| {
        text.push('.');
        let name = serde_json::Value::from(name.as_str()).to_string();
        text.push_str(&rewritten(&name).unwrap_or(name));
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_with_the_two_characters_are_rewritten() {
        for text in [
            r"{}",
            r#"{"a":"\u0000"}"#,
            r#"{"a\\u0000":1}"#,
            r#"{"a\u0002":"\u0001","b":["\u0000:","\"\u0000\":"]}"#,
            r#"{"\u0010":1}"#,
        ] {
            assert_eq!(searchable(text), None, "{text}");
        }
        for (text, expected) in [
            (r#"{"\u0000":1}"#, r#"{"\u0001\u0001":1}"#),
            (
                r#"{"a\u0000b\u0001" : "\u0000", "\\\u0000":[{"\u0001":2}]}"#,
                r#"{"a\u0001\u0001b\u0001\u0002" : "\u0000", "\\\u0001\u0001":[{"\u0001\u0002":2}]}"#,
            ),
            (r#"{"é\"\u0000": 1.50, "z":"\\"}"#, r#"{"é\"\u0001\u0001": 1.50, "z":"\\"}"#),
        ] {
            assert_eq!(searchable(text).as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn paths_and_texts_agree() {
        for name in ["a", "", "\0", "\u{1}", "\u{1}\0", "a\0b", "\"\0\\", "é\0"] {
            let text = serde_json::json!({ name: 1 }).to_string();
            let path = json_path(&[name.to_owned()]);
            let searched = searchable(&text).unwrap_or(text);
            assert_eq!(searched, format!("{{{}:1}}", &path[2..]), "{name:?}");
        }
    }
}
