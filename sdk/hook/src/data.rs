//! Parses a model's data into the hook's type.
//!
//! serde_json stores raw text and long numbers inside a `Value` under reserved member names, and misinterprets a
//! client's member of such a name: the hook would get different data from the stored data. Here such data is read
//! correctly if the type is `Value`, and is an error if the type may contain a `Value`.

use std::any::Any;
use std::fmt;

use serde::de::{DeserializeOwned, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Error, Map, Value};

/// The prefix of the names that serde_json reserves.
const RESERVED: &str = "$serde_json::private::";

/// Reads the data of an instance.
pub(crate) fn read<T: DeserializeOwned + 'static>(text: &str) -> Result<T, Error> {
    let Some(name) = reserved_name(text) else { return serde_json::from_str(text) };
    if is::<T, Box<RawValue>>() {
        return serde_json::from_str(text);
    }
    // With exact numbers a number has a reserved name too, and the two cannot be distinguished.
    if is::<T, Value>() && !has_exact_numbers() {
        let value: Box<dyn Any> = Box::new(serde_json::from_str::<Plain>(text)?.0);
        if let Ok(value) = value.downcast::<T>() {
            return Ok(*value);
        }
    }
    let message = format!(
        "the data has a member `{name}`, a name that serde_json reserves; use the type `Box<RawValue>` to accept such data"
    );
    Err(Error::custom(message))
}

fn is<T: 'static, U: 'static>() -> bool {
    std::any::TypeId::of::<T>() == std::any::TypeId::of::<U>()
}

/// Whether serde_json was built with its feature `arbitrary_precision`.
fn has_exact_numbers() -> bool {
    "1e400".parse::<serde_json::Number>().is_ok()
}

/// The first reserved name at the start of an object. The text is valid JSON.
fn reserved_name(text: &str) -> Option<String> {
    // True for nearly all data. Only an escape can hide the name.
    if !text.contains(RESERVED) && !text.contains("\\u") {
        return None;
    }
    let bytes = text.as_bytes();
    let (mut at, mut opened) = (0, false);
    while at < bytes.len() {
        match bytes[at] {
            b'"' => {
                let start = at;
                at += 1;
                while at < bytes.len() && bytes[at] != b'"' {
                    at += if bytes[at] == b'\\' { 2 } else { 1 };
                }
                if opened
                    && let Some(name) = text.get(start..=at)
                    && let Ok(name) = serde_json::from_str::<String>(name)
                    && name.starts_with(RESERVED)
                {
                    return Some(name);
                }
                opened = false;
            }
            b'{' => opened = true,
            b' ' | b'\t' | b'\n' | b'\r' => {}
            _ => opened = false,
        }
        at += 1;
    }
    None
}

/// A tree in which no name is special.
struct Plain(Value);

impl<'de> serde::Deserialize<'de> for Plain {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Build;
        impl<'de> Visitor<'de> for Build {
            type Value = Value;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("JSON")
            }

            fn visit_unit<E>(self) -> Result<Value, E> {
                Ok(Value::Null)
            }

            fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
                Ok(value.into())
            }

            fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
                Ok(value.into())
            }

            fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
                Ok(value.into())
            }

            fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
                Ok(value.into())
            }

            fn visit_str<E>(self, text: &str) -> Result<Value, E> {
                Ok(text.into())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
                let mut list = Vec::new();
                while let Some(Plain(item)) = items.next_element()? {
                    list.push(item);
                }
                Ok(list.into())
            }

            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
                let mut object = Map::new();
                while let Some((name, Plain(value))) = members.next_entry::<String, Plain>()? {
                    object.insert(name, value);
                }
                Ok(object.into())
            }
        }
        deserializer.deserialize_any(Build).map(Plain)
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    struct Order {
        total: f64,
    }

    #[test]
    fn reserved_names_are_found_where_they_matter() {
        for text in [
            r#"{"$serde_json::private::RawValue":"1"}"#,
            r#"{"a":[{ "\u0024serde_json::private::RawValue" : "1"}]}"#,
            "{\n\t\"$serde_json::private::Number\":1}",
        ] {
            assert!(reserved_name(text).is_some(), "{text}");
        }
        for text in [
            r#"{"a":"$serde_json::private::RawValue"}"#,
            r#"{"a":1,"$serde_json::private::RawValue":"1"}"#,
            r#"["$serde_json::private::RawValue"]"#,
            r#"{"a":"{\"$serde_json::private::RawValue\":1}"}"#,
            r#"{"é":"\u00e9\\"}"#,
        ] {
            assert_eq!(reserved_name(text), None, "{text}");
        }
    }

    #[test]
    fn no_type_sees_another_value() {
        let text = r#"{"a":{"$serde_json::private::RawValue":"{\"total\":5}"},"n":[1,-2,null,true,"x"]}"#;
        match read::<Value>(text) {
            Ok(value) => {
                assert_eq!(value["a"]["$serde_json::private::RawValue"], "{\"total\":5}");
                assert_eq!(value["n"].to_string(), r#"[1,-2,null,true,"x"]"#);
            }
            Err(error) => assert!(has_exact_numbers() && error.to_string().contains("serde_json reserves"), "{error}"),
        }
        assert_eq!(read::<Box<RawValue>>(text).unwrap().get(), text);
        let hidden = r#"{"$serde_json::private::RawValue":"{\"total\":5}"}"#;
        assert!(read::<Order>(hidden).unwrap_err().to_string().contains("`$serde_json::private::RawValue`"));
        assert!(read::<Vec<Value>>(&format!("[{hidden}]")).is_err());
        assert_eq!(read::<Order>(r#"{"total":5}"#).unwrap().total, 5.0);
        assert_eq!(read::<Value>(r#"{"a":"\u00e9"}"#).unwrap()["a"], "é");
    }
}
