//! JSON documents from clients: parsed once, strictly, keeping all digits.

use std::fmt;

use serde_json::{Map, Value};
use snaphook_driver::Json;
use snaphook_driver::json::{self, Limits};

pub use snaphook_driver::limits::NESTING_MAX;

/// Parsed data and its text.
#[derive(Clone, Debug)]
pub struct Document {
    pub value: Value,
    /// One line; digits and the order of properties are unchanged.
    pub text: Json,
}

/// Why a text is not a valid document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DocumentError {
    /// Within the document. A line or column would be one of the document's own text, not of the body that it was part of.
    pub pointer: String,
    pub message: String,
}

impl fmt::Display for DocumentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if self.pointer.is_empty() { Ok(()) } else { write!(f, ", at `{}` of the data", self.pointer) }
    }
}

impl Document {
    /// Parses one JSON object. Rejects duplicate properties, which parsers treat differently.
    pub fn parse(text: &Json) -> Result<Document, DocumentError> {
        Document::parse_within(text, usize::MAX).map(|(document, _)| document)
    }

    /// The same with a maximum number of values. Also returns their number.
    pub fn parse_within(text: &Json, values_max: usize) -> Result<(Document, usize), DocumentError> {
        let limits = Limits { depth: NESTING_MAX, values: values_max };
        let (value, shape) = json::parse_within(text, limits).map_err(|error| DocumentError {
            pointer: error.pointer().to_owned(),
            message: error.fault().to_string(),
        })?;
        if !value.is_object() {
            let message = format!("data is {}, expected an object", type_name(&value));
            return Err(DocumentError { pointer: String::new(), message });
        }
        let text = if shape.lines { Json::from_value(&value) } else { text.clone() };
        Ok((Document { value, text }, shape.values))
    }

    /// Serializes a tree that is known to be an object.
    pub fn from_value(value: Value) -> Document {
        let text = Json::from_value(&value);
        Document { value, text }
    }
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

/// The type of a value, for messages.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<String, String> {
        Document::parse(&Json::trusted(text))
            .map(|document| document.text.to_string())
            .map_err(|error| error.to_string())
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
        assert_eq!(
            parse(r#"{"a":1,"b":{"x":1,"x":2}}"#).unwrap_err(),
            "property `x` appears twice in one object, at `/b/x` of the data"
        );
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
            let mut value = json::parse(target).unwrap();
            merge_patch(&mut value, json::parse(patch).unwrap());
            assert_eq!(value.to_string(), result);
        }
    }
}
