//! The two encodings of messages on the wire.

use serde::Deserialize;
use snaphook_driver::wire::{JsonMappingError, from_json, to_json};

/// The encoding of messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// The proto3 JSON mapping.
    #[default]
    Json,
    Protobuf,
}

impl Encoding {
    /// Its media type.
    pub const fn media_type(self) -> &'static str {
        match self {
            Encoding::Json => "application/json",
            Encoding::Protobuf => "application/x-protobuf",
        }
    }

    /// The encoding with that media type; parameters are ignored.
    pub(crate) fn from_media_type(text: &str) -> Option<Encoding> {
        let essence = text.split(';').next().unwrap_or_default().trim();
        let has = |encoding: &Encoding| essence.eq_ignore_ascii_case(encoding.media_type());
        [Encoding::Json, Encoding::Protobuf].into_iter().find(has)
    }

    /// Converts a message from Protobuf to this encoding.
    pub(crate) fn write(self, message: &str, bytes: Vec<u8>) -> Result<Vec<u8>, JsonMappingError> {
        match self {
            Encoding::Json => to_json(message, &bytes),
            Encoding::Protobuf => Ok(bytes),
        }
    }

    /// Converts a message from this encoding to Protobuf. An empty body is an empty message.
    pub(crate) fn read(self, message: &str, bytes: Vec<u8>) -> Result<Vec<u8>, JsonMappingError> {
        match self {
            Encoding::Json if !bytes.is_empty() => from_json(message, &bytes),
            _ => Ok(bytes),
        }
    }
}
