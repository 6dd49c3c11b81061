//! The proto3 JSON mapping of messages, based on their description.

use std::fmt;
use std::sync::OnceLock;

use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, SerializeOptions};
use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{self, IntoDeserializer, Visitor};
use serde::forward_to_deserialize_any;
use serde_json::Value;

use super::method::Method;
use crate::json::Limits;

/// Maximum number of values in one message: more than any message needs, since data is text. In memory a value takes
/// many times its length.
const VALUES_MAX: usize = 1 << 20;

/// Why bytes cannot be converted to the other form, as a clause without a full stop.
#[derive(Debug)]
pub struct JsonMappingError(String);

impl fmt::Display for JsonMappingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for JsonMappingError {}

impl de::Error for JsonMappingError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        JsonMappingError(message.to_string())
    }
}

impl Method {
    /// The name of its request message.
    pub fn request(self) -> String {
        self.message_name("Request")
    }

    /// The name of its response message.
    pub fn response(self) -> String {
        self.message_name("Response")
    }

    fn message_name(self, suffix: &str) -> String {
        let name = format!("{}{suffix}", self.message());
        if descriptor(&name).is_ok() { name } else { "Empty".to_owned() }
    }
}

/// Converts a message of that name to JSON.
pub fn to_json(message: &str, bytes: &[u8]) -> Result<Vec<u8>, JsonMappingError> {
    let message = DynamicMessage::decode(descriptor(message)?, bytes)
        .map_err(|error| JsonMappingError(format!("it is not a valid message: {error}")))?;
    let mut json = serde_json::Serializer::new(Vec::new());
    message
        .serialize_with_options(&mut json, &SerializeOptions::new())
        .map_err(|error| JsonMappingError(error.to_string()))?;
    Ok(json.into_inner())
}

/// Converts JSON to a message of that name. Unknown members are ignored.
pub fn from_json(message: &str, json: &[u8]) -> Result<Vec<u8>, JsonMappingError> {
    let limits = Limits { values: VALUES_MAX, ..Limits::default() };
    let tree = crate::json::utf8(json).and_then(|text| crate::json::parse_within(text, limits));
    let (tree, _) = tree.map_err(|error| JsonMappingError(format!("it is not valid JSON: {error}")))?;
    let options = prost_reflect::DeserializeOptions::new().deny_unknown_fields(false);
    let message = DynamicMessage::deserialize_with_options(descriptor(message)?, Plain(tree), &options)?;
    Ok(message.encode_to_vec())
}

fn descriptor(message: &str) -> Result<MessageDescriptor, JsonMappingError> {
    static POOL: OnceLock<Option<DescriptorPool>> = OnceLock::new();
    let pool = POOL.get_or_init(|| DescriptorPool::decode(&include_bytes!("../../proto/driver.binpb")[..]).ok());
    let name = format!("snaphook.driver.v1.{message}");
    let descriptor = pool.as_ref().and_then(|pool| pool.get_message_by_name(&name));
    descriptor.ok_or_else(|| JsonMappingError(format!("there is no message `{message}`")))
}

/// A tree whose numbers are deserialized as plain numbers. (serde_json passes them as objects with a reserved name, so
/// that they keep their digits.)
struct Plain(Value);

impl<'de> de::Deserializer<'de> for Plain {
    type Error = JsonMappingError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonMappingError> {
        match self.0 {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(value),
            Value::Number(number) => match (number.as_u64(), number.as_i64(), number.as_f64()) {
                (Some(value), ..) => visitor.visit_u64(value),
                (None, Some(value), _) => visitor.visit_i64(value),
                (None, None, Some(value)) => visitor.visit_f64(value),
                (None, None, None) => Err(JsonMappingError(format!("the number `{number}` is too large"))),
            },
            Value::String(text) => visitor.visit_string(text),
            Value::Array(items) => visitor.visit_seq(SeqDeserializer::new(items.into_iter().map(Plain))),
            Value::Object(members) => {
                visitor.visit_map(MapDeserializer::new(members.into_iter().map(|(name, value)| (name, Plain(value)))))
            }
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonMappingError> {
        if self.0.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct
        newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

impl IntoDeserializer<'_, JsonMappingError> for Plain {
    type Deserializer = Plain;

    fn into_deserializer(self) -> Plain {
        self
    }
}
