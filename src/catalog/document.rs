//! JSON documents as clients send them: parsed once, strictly, with digits kept.

use std::fmt;

use serde_json::{Map, Value};
use snaphook_driver::Json;

pub use snaphook_driver::limits::NESTING_MAX;

/// Data that was parsed and its text.
#[derive(Clone, Debug)]
pub struct Document {
    pub value: Value,
    /// One line; digits and order of properties as they came.
    pub text: Json,
}

/// Why text is not a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DocumentError(pub String);

impl fmt::Display for DocumentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Document {
    /// Parses one JSON object. Refuses what parsers read differently: a property that stands twice.
    pub fn parse(text: &Json) -> Result<Document, DocumentError> {
        let shape = scan(text);
        if shape.nesting > NESTING_MAX {
            return Err(DocumentError(format!(
                "data is nested {} deep, at most {NESTING_MAX} levels are allowed",
                shape.nesting
            )));
        }
        let value: Value = serde_json::from_str(text).map_err(|error| DocumentError(error.to_string()))?;
        if !value.is_object() {
            return Err(DocumentError(format!("data is {}, expected an object", type_name(&value))));
        }
        if members(&value) != shape.members {
            let name = duplicate(text).unwrap_or_default();
            return Err(DocumentError(format!("property `{name}` stands twice in one object")));
        }
        let text = if shape.lines { Json::from_value(&value) } else { text.clone() };
        Ok(Document { value, text })
    }

    /// A tree that is known to be an object, written out.
    pub fn from_value(value: Value) -> Document {
        let text = Json::from_value(&value);
        Document { value, text }
    }
}

/// The first property that stands twice in one object of a text, which was parsed to `value`.
pub fn repeated(text: &str, value: &Value) -> Option<String> {
    (members(value) != scan(text).members).then(|| duplicate(text).unwrap_or_default())
}

/// Applies a merge patch (RFC 7396).
pub fn merge_patch(target: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    if let Value::Object(target) = target {
        for (name, value) in patch {
            if value.is_null() {
                target.shift_remove(&name);
            } else if let Some(existing) = target.get_mut(&name) {
                merge_patch(existing, value);
            } else {
                let mut fresh = Value::Null;
                merge_patch(&mut fresh, value);
                target.insert(name, fresh);
            }
        }
    }
}

/// What kind of value it is, for messages.
pub fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

struct Shape {
    members: usize,
    nesting: usize,
    lines: bool,
}

/// Counts members and nesting without building a tree. The text is valid JSON or will be refused by the parser.
fn scan(text: &str) -> Shape {
    let mut shape = Shape { members: 0, nesting: 0, lines: false };
    let (mut nesting, mut in_string, mut escaped) = (0usize, false, false);
    for byte in text.bytes() {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b':' => shape.members += 1,
            b'{' | b'[' => {
                nesting += 1;
                shape.nesting = shape.nesting.max(nesting);
            }
            b'}' | b']' => nesting = nesting.saturating_sub(1),
            b'\n' | b'\r' => shape.lines = true,
            _ => {}
        }
    }
    shape
}

fn members(value: &Value) -> usize {
    match value {
        Value::Array(items) => items.iter().map(members).sum(),
        Value::Object(map) => map.len() + map.values().map(members).sum::<usize>(),
        _ => 0,
    }
}

/// The first property that stands twice; only called when one does.
fn duplicate(text: &str) -> Option<String> {
    use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

    struct Walk;
    impl<'de> DeserializeSeed<'de> for Walk {
        type Value = ();
        fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
            deserializer.deserialize_any(self)
        }
    }
    impl<'de> Visitor<'de> for Walk {
        type Value = ();
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("JSON")
        }
        fn visit_bool<E>(self, _: bool) -> Result<(), E> {
            Ok(())
        }
        fn visit_i64<E>(self, _: i64) -> Result<(), E> {
            Ok(())
        }
        fn visit_u64<E>(self, _: u64) -> Result<(), E> {
            Ok(())
        }
        fn visit_f64<E>(self, _: f64) -> Result<(), E> {
            Ok(())
        }
        fn visit_str<E>(self, _: &str) -> Result<(), E> {
            Ok(())
        }
        fn visit_unit<E>(self) -> Result<(), E> {
            Ok(())
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
            while items.next_element_seed(Walk)?.is_some() {}
            Ok(())
        }
        fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
            let mut seen = std::collections::HashSet::new();
            while let Some(name) = entries.next_key::<String>()? {
                if seen.contains(&name) {
                    return Err(A::Error::custom(format!("\u{0}{name}\u{0}")));
                }
                seen.insert(name);
                entries.next_value_seed(Walk)?;
            }
            Ok(())
        }
    }
    let error = Walk.deserialize(&mut serde_json::Deserializer::from_str(text)).err()?.to_string();
    error.split('\u{0}').nth(1).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<String, String> {
        Document::parse(&Json::trusted(text)).map(|document| document.text.to_string()).map_err(|error| error.0)
    }

    #[test]
    fn keeps_digits_and_order() {
        let text = r#"{"b":9007199254740993,"a":12345678901234567890.123456789,"c":1.0,"d":-0.0}"#;
        assert_eq!(parse(text).unwrap(), text);
        let lines = "{\"b\": 9007199254740993,\n \"a\": [12345678901234567890.123456789]}";
        assert_eq!(parse(lines).unwrap(), r#"{"b":9007199254740993,"a":[12345678901234567890.123456789]}"#);
    }

    #[test]
    fn refuses_what_is_read_in_two_ways() {
        assert_eq!(parse(r#"{"a":1,"b":{"x":1,"x":2}}"#).unwrap_err(), "property `x` stands twice in one object");
        assert_eq!(parse(r#"{"a":":{\":","b":1}"#).unwrap(), r#"{"a":":{\":","b":1}"#);
        assert!(parse(r"[1]").unwrap_err().contains("expected an object"));
        assert!(parse(&format!("{{\"a\":{}{}}}", "[".repeat(500), "]".repeat(500))).unwrap_err().contains("nested"));
    }

    #[test]
    fn merge_patch_follows_the_rfc() {
        // RFC 7396, appendix A.
        for (target, patch, result) in [
            (r#"{"a":"b"}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
            (r#"{"a":"b"}"#, r#"{"b":"c"}"#, r#"{"a":"b","b":"c"}"#),
            (r#"{"a":"b"}"#, r#"{"a":null}"#, r"{}"),
            (r#"{"a":"b","b":"c"}"#, r#"{"a":null}"#, r#"{"b":"c"}"#),
            (r#"{"a":["b"]}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
            (r#"{"a":{"b":"c"}}"#, r#"{"a":{"b":"d","c":null}}"#, r#"{"a":{"b":"d"}}"#),
            (r#"{"a":[{"b":"c"}]}"#, r#"{"a":[1]}"#, r#"{"a":[1]}"#),
            (r#"{"e":null}"#, r#"{"a":1}"#, r#"{"e":null,"a":1}"#),
            (r"{}", r#"{"a":{"bb":{"ccc":null}}}"#, r#"{"a":{"bb":{}}}"#),
        ] {
            let mut value: Value = serde_json::from_str(target).unwrap();
            merge_patch(&mut value, serde_json::from_str(patch).unwrap());
            assert_eq!(value.to_string(), result);
        }
    }
}
