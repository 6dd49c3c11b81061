//! The value at a path of an instance's data, as the model store compares it.
//!
//! SQLite's own JSON functions see another value than [`snaphook_driver::compare`] does: the first of two equal names,
//! 64-bit numbers, no names with NUL. So filters, sorts and indexes go through these functions, which read the text
//! with the parser that everybody else uses.
//!
//! | JSON | class | value |
//! | --- | --- | --- |
//! | boolean | 0 | INTEGER 0 or 1 |
//! | number | 1 | BLOB, [`number_key`]: any number of digits, compared byte by byte |
//! | string | 2 | TEXT |
//! | array, object | 3 | NULL |
//! | null, absent | 4 | NULL |

use std::borrow::Cow;
use std::fmt;

use rusqlite::types::Value as Sql;
use serde::Deserializer as _;
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use snaphook_driver::compare::number_key;

/// Class of what is absent or null.
pub(crate) const CLASS_ABSENT: i64 = 4;

/// The JSON text at a path; `None` if there is nothing. Of two members with one name the last counts.
pub(crate) fn find<'a>(data: &'a str, path: &[&str]) -> Option<&'a str> {
    path.iter().try_fold(data, |text, name| {
        let text = text.trim_ascii_start();
        if !text.starts_with('{') {
            return None;
        }
        serde_json::Deserializer::from_str(text).deserialize_map(Member(name)).ok().flatten()
    })
}

/// The class of a JSON text.
pub(crate) fn class(found: Option<&str>) -> i64 {
    match found.and_then(|text| text.as_bytes().first()) {
        Some(b't' | b'f') => 0,
        Some(b'-' | b'0'..=b'9') => 1,
        Some(b'"') => 2,
        Some(b'[' | b'{') => 3,
        _ => CLASS_ABSENT,
    }
}

/// The value of a JSON text.
pub(crate) fn value(found: Option<&str>) -> Sql {
    let Some(text) = found else { return Sql::Null };
    match class(found) {
        0 => Sql::Integer(i64::from(text == "true")),
        1 => Sql::Blob(number_key(text)),
        2 => string(text).map_or(Sql::Null, |text| Sql::Text(text.into_owned())),
        _ => Sql::Null,
    }
}

/// What a JSON string says.
fn string(text: &str) -> Option<Cow<'_, str>> {
    let inner = text.strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') { serde_json::from_str(text).ok().map(Cow::Owned) } else { Some(Cow::Borrowed(inner)) }
}

/// Takes the last member of that name out of an object.
struct Member<'n>(&'n str);

impl<'de> Visitor<'de> for Member<'_> {
    type Value = Option<&'de str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(is_wanted) = members.next_key_seed(Is(self.0))? {
            if is_wanted {
                found = Some(members.next_value::<&RawValue>()?.get());
            } else {
                members.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

/// Whether a name is this one.
struct Is<'n>(&'n str);

impl<'de> DeserializeSeed<'de> for Is<'_> {
    type Value = bool;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Is<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<bool, E> {
        Ok(name == self.0)
    }

    fn visit_bytes<E: serde::de::Error>(self, _: &[u8]) -> Result<bool, E> {
        Err(E::custom("a name that is no text"))
    }
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
            // A tree of the magic names is no tree of what the text says, so it is made by hand.
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
        // Deeper than a recursive parser goes.
        let deep = format!(r#"{{"x":{}{},"a":1}}"#, "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(find(&deep, &["a"]), Some("1"));
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
