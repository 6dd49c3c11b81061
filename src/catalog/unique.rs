//! Keys under which the event store keeps the values of `unique` lists.
//!
//! Two instances share a key exactly if their values are equal: numbers by value (`1` is `1.0`), strings by code
//! point. An instance that lacks one of the values, or has null there, has no key.

use serde_json::Value;
use sha2::{Digest, Sha256};

/// Longer values are kept by their hash, so that a key stays far below what a store takes.
const VALUES_BYTES_MAX: usize = 512;

/// One key that data needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UniqueKey {
    /// The list of properties, as in the definition.
    pub properties: Vec<String>,
    pub key: String,
}

/// The keys of one instance's data.
pub fn keys(model: &str, unique: &[Vec<String>], data: &Value) -> Vec<UniqueKey> {
    unique
        .iter()
        .filter_map(|properties| {
            let mut values = String::new();
            for property in properties {
                match data.get(property) {
                    None | Some(Value::Null) => return None,
                    Some(value) => canonical(value, &mut values),
                }
                values.push(',');
            }
            if values.len() > VALUES_BYTES_MAX {
                values = format!("{:x}", Sha256::digest(values.as_bytes()));
            }
            let names = serde_json::to_string(properties).unwrap_or_default();
            Some(UniqueKey { properties: properties.clone(), key: format!("unique {model} {names} {values}") })
        })
        .collect()
}

/// The properties that a key stands for.
pub fn properties_of(key: &str) -> Option<Vec<String>> {
    let names = key.strip_prefix("unique ")?.split_once(' ')?.1;
    serde_json::Deserializer::from_str(names).into_iter().next()?.ok()
}

/// Writes a value so that equal values are equal text.
fn canonical(value: &Value, out: &mut String) {
    match value {
        Value::Number(number) => out.push_str(&canonical_number(&number.to_string())),
        Value::Array(items) => {
            out.push('[');
            for item in items {
                canonical(item, out);
                out.push(',');
            }
            out.push(']');
        }
        Value::Object(map) => {
            let mut names: Vec<&String> = map.keys().collect();
            names.sort_unstable();
            out.push('{');
            for name in names {
                out.push_str(&Value::String(name.clone()).to_string());
                out.push(':');
                canonical(&map[name], out);
                out.push(',');
            }
            out.push('}');
        }
        other => out.push_str(&other.to_string()),
    }
}

/// `[-]digits e exponent` with no zeros at either end: exact, whatever the size.
fn canonical_number(text: &str) -> String {
    let (sign, rest) = match text.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", text),
    };
    let (mantissa, exponent) = rest.split_once(['e', 'E']).unwrap_or((rest, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let trimmed = digits.trim_start_matches('0');
    let significant = trimmed.trim_end_matches('0');
    if significant.is_empty() {
        return "0".to_owned();
    }
    let exponent =
        exponent.parse::<i128>().unwrap_or(0) - fraction.len() as i128 + (trimmed.len() - significant.len()) as i128;
    format!("{sign}{significant}e{exponent}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_numbers_share_a_key() {
        let key = |text: &str| keys("m", &[vec!["n".to_owned()]], &serde_json::from_str(text).unwrap())[0].key.clone();
        for same in [r#"{"n":1.0}"#, r#"{"n":10e-1}"#, r#"{"n":0.1E1}"#] {
            assert_eq!(key(same), key(r#"{"n":1}"#));
        }
        assert_ne!(key(r#"{"n":9007199254740993}"#), key(r#"{"n":9007199254740992}"#));
        assert_ne!(key(r#"{"n":"1"}"#), key(r#"{"n":1}"#));
        assert_eq!(key(r#"{"n":0}"#), key(r#"{"n":-0.0}"#));
    }

    #[test]
    fn what_lacks_a_value_is_not_compared() {
        let unique = [vec!["a".to_owned(), "b".to_owned()]];
        assert!(keys("m", &unique, &serde_json::json!({"a": 1})).is_empty());
        assert!(keys("m", &unique, &serde_json::json!({"a": 1, "b": null})).is_empty());
        let key = &keys("m", &unique, &serde_json::json!({"a": "x,", "b": "y"}))[0];
        assert_eq!(properties_of(&key.key).unwrap(), ["a", "b"]);
        assert_ne!(key.key, keys("m", &unique, &serde_json::json!({"a": "x", "b": ",y"}))[0].key);
    }
}
