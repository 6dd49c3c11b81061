//! JSON: carried as text, so that digits, key order and spacing survive, and read by one strict parser.
//!
//! serde_json stores numbers and raw text inside a [`Value`] under reserved member names, and misinterprets a client's
//! member of such a name: an object could become another value. So text is parsed into a tree only here, with
//! [`parse`]. [`typed`] reads text into types without a tree, and a [`Tree`] is a tree inside such a type. `cargo xtask
//! tidy` rejects every other use of serde_json's readers.

mod checked;
mod error;
mod reader;
mod tree;

use std::any::type_name;
use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use checked::Checked;
pub use error::{Fault, JsonError};
pub use reader::{Build, DEPTH_MAX, Limits, Shape, read};
use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use serde_json::value::RawValue;
use tree::Trees;

/// Parses one JSON text into a tree: nothing may follow it, names must be unique within an object, and numbers keep
/// their digits.
pub fn parse(text: &str) -> Result<Value, JsonError> {
    parse_within(text, Limits::default()).map(|(value, _)| value)
}

/// Whether [`parse`] would accept a text, without building a tree.
pub fn check(text: &str) -> Result<(), JsonError> {
    read(text, Limits::default(), &mut Checked).map(|_| ())
}

/// [`parse`] for bytes, which must be UTF-8.
pub fn parse_bytes(bytes: &[u8]) -> Result<Value, JsonError> {
    parse(utf8(bytes)?)
}

/// [`parse`] with narrower limits. Also returns the counts.
pub fn parse_within(text: &str, limits: Limits) -> Result<(Value, Shape), JsonError> {
    read(text, limits, &mut Trees)
}

/// Checks that the bytes are UTF-8 without a byte order mark.
pub fn utf8(bytes: &[u8]) -> Result<&str, JsonError> {
    match std::str::from_utf8(bytes) {
        Ok(text) if text.starts_with('\u{feff}') => Err(JsonError::at(text, 0, Fault::ByteOrderMark)),
        Ok(text) => Ok(text),
        Err(error) => {
            let valid = &bytes[..error.valid_up_to()];
            let text = String::from_utf8_lossy(valid);
            Err(JsonError::at(&text, valid.len(), Fault::NotUtf8 { offset: valid.len() }))
        }
    }
}

/// Reads text into a type that contains no tree of serde_json's: a tree inside is a [`Tree`] or [`Json`].
pub fn typed<'a, T: Deserialize<'a>>(text: &'a str) -> serde_json::Result<T> {
    assert_no_tree::<T>();
    serde_json::from_str(text)
}

/// [`typed`] for bytes, which must be UTF-8.
pub fn typed_bytes<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> serde_json::Result<T> {
    assert_no_tree::<T>();
    serde_json::from_slice(bytes)
}

/// Reads a tree into a type that contains no tree of serde_json's.
pub fn from_tree<T: serde::de::DeserializeOwned>(value: Value) -> serde_json::Result<T> {
    assert_no_tree::<T>();
    serde_json::from_value(value)
}

/// Converts any value to a tree. Unlike with serde_json, text inside it ([`Json`]) is parsed by [`parse`].
pub fn to_tree(value: &(impl Serialize + ?Sized)) -> serde_json::Result<Value> {
    let text = serde_json::to_string(value)?;
    parse(&text).map_err(<serde_json::Error as serde::de::Error>::custom)
}

/// The text of one quoted JSON string; `None` if it is invalid.
pub fn unquote(quoted: &str) -> Option<Cow<'_, str>> {
    reader::unquote(quoted)
}

/// Detects trees by the type's own name. `cargo xtask tidy` detects those in the fields of a struct.
fn assert_no_tree<T>() {
    debug_assert!(
        !["serde_json::value::Value", "serde_json::map::Map", "serde_json::number::Number"]
            .iter()
            .any(|tree| type_name::<T>().contains(tree)),
        "{} contains a tree of serde_json; read it with `json::parse` or use `json::Tree`",
        type_name::<T>()
    );
}

/// A tree as a field of a type that is read with [`typed`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tree(pub Value);

impl Deref for Tree {
    type Target = Value;
    fn deref(&self) -> &Value {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        parse(raw.get()).map(Tree).map_err(|error| D::Error::custom(error.fault()))
    }
}

/// Reads a list of names with their trees, for a field of that type.
pub fn named_trees<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<(String, Value)>, D::Error> {
    let named = Vec::<(String, Tree)>::deserialize(deserializer)?;
    Ok(named.into_iter().map(|(name, tree)| (name, tree.0)).collect())
}

/// One JSON value as UTF-8 text. Cheap to clone.
///
/// Invariant: the text is valid JSON. Constructors check this, except [`Json::trusted`].
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Json(Arc<str>);

impl Json {
    /// Takes text that is known to be valid JSON, because serde_json wrote it or it was checked when it was stored.
    pub fn trusted(text: impl Into<Arc<str>>) -> Self {
        Json(text.into())
    }

    /// Serializes a value.
    pub fn from_value(value: &Value) -> Self {
        Json(value.to_string().into())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Parses the text into a tree.
    pub fn to_value(&self) -> Result<Value, JsonError> {
        parse(&self.0)
    }
}

impl Deref for Json {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // When serializing into a tree, like `json!`, serde_json's own parser would read the raw text.
        if type_name::<S>() == "serde_json::value::ser::Serializer" {
            return self.to_value().map_err(S::Error::custom)?.serialize(serializer);
        }
        let raw: &RawValue = serde_json::from_str(&self.0).map_err(S::Error::custom)?;
        raw.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        Ok(Json(raw.get().into()))
    }
}

#[cfg(test)]
mod tests;
