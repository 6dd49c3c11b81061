//! Driver calls as bytes: what a library gets through the C ABI and a remote driver by HTTP.
//!
//! [`Service`] serves an opened store: it takes the bytes of a request and returns those of the response. [`Client`] is
//! such a store again, over any [`Transport`] that carries the bytes. `proto/driver.proto` describes the messages;
//! [`proto`] is generated from it, and each of the other files here turns one part of them into the types of the traits.

mod client;
mod describe;
mod error;
mod events;
mod instances;
mod json;
mod method;
mod records;
mod service;
mod time;

/// The messages, generated from `proto/driver.proto` (`SNAPHOOK_BLESS=1 cargo test -p snaphook-driver --test proto`).
#[allow(clippy::all, clippy::pedantic, missing_docs, unreachable_pub, reason = "generated")]
#[rustfmt::skip]
pub mod proto;

pub use client::{Client, Transport};
pub use describe::{DriverDescription, PluginDescription};
pub use error::{decode_error, encode_error};
pub use json::{JsonMappingError, from_json, to_json};
pub use method::Method;
pub use service::{Opened, Service};
pub use time::{CALL_TIME, WHOLE_TIME};

use prost::Message;

use crate::json::Json;

/// A message that was read and says something that cannot be: what is wrong, as a clause without a full stop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed(String);

impl Malformed {
    fn new(what: impl Into<String>) -> Self {
        Malformed(what.into())
    }

    fn missing(field: &str) -> Self {
        Malformed(format!("`{field}` is missing"))
    }
}

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Malformed {}

/// Writes a message.
pub fn encode(message: &impl Message) -> Vec<u8> {
    message.encode_to_vec()
}

/// Fields at the top of one message, such as its events: more than any has. Each takes many times its bytes in memory.
const FIELDS_MAX: usize = 1 << 18;

/// Reads a message.
pub fn decode<M: Message + Default>(bytes: &[u8]) -> Result<M, Malformed> {
    // A field has two bytes at least, so only a long message may have too many.
    if bytes.len() / 2 > FIELDS_MAX && count_fields(bytes) > FIELDS_MAX {
        return Err(Malformed(format!("it has more than {FIELDS_MAX} fields")));
    }
    M::decode(bytes).map_err(|error| Malformed(format!("it is no such message: {error}")))
}

/// The fields at the top, as far as they can be read, but no more than one too many.
fn count_fields(mut bytes: &[u8]) -> usize {
    use prost::encoding::{DecodeContext, decode_key, skip_field};
    let mut count = 0;
    while !bytes.is_empty() && count <= FIELDS_MAX {
        let Ok((tag, wire_type)) = decode_key(&mut bytes) else { break };
        if skip_field(wire_type, tag, &mut bytes, DecodeContext::default()).is_err() {
            break;
        }
        count += 1;
    }
    count
}

fn required<T>(field: &str, value: Option<T>) -> Result<T, Malformed> {
    value.ok_or_else(|| Malformed::missing(field))
}

/// Text that must be JSON: what the other side sends becomes data that nobody checks again.
fn json(field: &str, text: String) -> Result<Json, Malformed> {
    crate::json::check(&text).map_err(|error| Malformed(format!("`{field}` is no JSON: {error}")))?;
    Ok(Json::trusted(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_of_nothing_but_fields_is_refused() {
        let events = |count: usize| [0x0a, 0x00].repeat(count);
        assert_eq!(decode::<proto::EventReadResponse>(&events(FIELDS_MAX)).unwrap().events.len(), FIELDS_MAX);
        assert!(decode::<proto::EventReadResponse>(&events(FIELDS_MAX + 1)).is_err());
    }
}
