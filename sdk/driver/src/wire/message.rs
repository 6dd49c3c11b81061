//! Messages as bytes.

use prost::Message;

use crate::json::{self, Json};

/// An invalid message: the problem as a clause without a full stop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed(String);

impl Malformed {
    pub(super) fn new(what: impl Into<String>) -> Self {
        Malformed(what.into())
    }

    pub(super) fn missing(field: &str) -> Self {
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

/// Maximum number of top-level fields of one message, such as its events: more than any message has. In memory a field
/// takes many times its bytes.
const FIELDS_MAX: usize = 1 << 18;

/// Reads a message.
pub fn decode<M: Message + Default>(bytes: &[u8]) -> Result<M, Malformed> {
    // A field has at least two bytes, so only a long message may have too many.
    if bytes.len() / 2 > FIELDS_MAX && count_fields(bytes) > FIELDS_MAX {
        return Err(Malformed(format!("it has more than {FIELDS_MAX} fields")));
    }
    M::decode(bytes).map_err(|error| Malformed(format!("it is not a valid message: {error}")))
}

/// The number of readable top-level fields; counting stops when it exceeds the maximum.
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

pub(super) fn required<T>(field: &str, value: Option<T>) -> Result<T, Malformed> {
    value.ok_or_else(|| Malformed::missing(field))
}

/// Parses text that must be JSON, because data from the other side is not checked again.
pub(super) fn json(field: &str, text: String) -> Result<Json, Malformed> {
    json::check(&text).map_err(|error| Malformed(format!("`{field}` is not valid JSON: {error}")))?;
    Ok(Json::trusted(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::proto;

    #[test]
    fn a_message_of_nothing_but_fields_is_refused() {
        let events = |count: usize| [0x0a, 0x00].repeat(count);
        assert_eq!(decode::<proto::EventReadResponse>(&events(FIELDS_MAX)).unwrap().events.len(), FIELDS_MAX);
        assert!(decode::<proto::EventReadResponse>(&events(FIELDS_MAX + 1)).is_err());
    }
}
