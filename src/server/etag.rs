//! Entity tags: `"<log>-<position>-<version>"`, opaque to clients. If a response shows more than the instance, they
//! have the suffix `-<digest>`; writes use only the part before it.
//!
//! A tag changes whenever the body would: with the event that wrote it (the position), with the version of the model to
//! which its data was carried over, and with the log, because positions are meaningful only within one log.

use snaphook_driver::{Instance, Position};

use super::json;
use crate::catalog::ModelRecord;

/// Bytes of a log's identity in a tag: its last hexadecimal digits, which are random.
const LOG_BYTES: usize = 8;

/// A log, short enough for a tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LogMark([u8; LOG_BYTES]);

impl LogMark {
    pub(super) fn of(identity: &str) -> Self {
        let bytes = identity.as_bytes();
        LogMark(*bytes.last_chunk().unwrap_or(b"00000000"))
    }
}

/// The content of a tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EntityTag {
    pub(super) log: LogMark,
    pub(super) position: Position,
    /// Of the model.
    pub(super) version: u64,
    /// The digest of the rest of the response.
    pub(super) besides: Option<u64>,
}

impl EntityTag {
    pub(super) fn of_instance(log: LogMark, instance: &Instance) -> Self {
        EntityTag { log, position: instance.position, version: instance.model_version, besides: None }
    }

    pub(super) fn of_model(log: LogMark, record: &ModelRecord) -> Self {
        EntityTag { log, position: record.position, version: record.version, besides: None }
    }

    /// Parses the text between the quotes; `None` for a tag that no server created.
    pub(super) fn parse(opaque: &[u8]) -> Option<Self> {
        let (log, rest) = opaque.split_first_chunk()?;
        let rest = std::str::from_utf8(rest).ok()?.strip_prefix('-')?;
        let (position, rest) = rest.split_once('-')?;
        let (version, besides) = match rest.split_once('-') {
            Some((version, digest)) => (version, Some(number(digest)?)),
            None => (rest, None),
        };
        Some(EntityTag { log: LogMark(*log), position: number(position)?, version: number(version)?, besides })
    }

    /// With its quotes.
    pub(super) fn write(self, out: &mut Vec<u8>) {
        out.push(b'"');
        out.extend_from_slice(&self.log.0);
        out.push(b'-');
        json::write_u64(out, self.position);
        out.push(b'-');
        json::write_u64(out, self.version);
        if let Some(digest) = self.besides {
            out.push(b'-');
            json::write_u64(out, digest);
        }
        out.push(b'"');
    }
}

/// Only in the server's own form: `007` is another tag than `7`.
fn number(text: &str) -> Option<u64> {
    let canonical = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| canonical)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_read_as_they_are_written() {
        let log = LogMark::of("01890a5d-ac96-774b-bcce-b302099a8057");
        for (position, version, besides) in [(0, 0, None), (12, 3, Some(0)), (u64::MAX, u64::MAX, Some(u64::MAX))] {
            let tag = EntityTag { log, position, version, besides };
            let mut text = Vec::new();
            tag.write(&mut text);
            assert!(text.starts_with(b"\"099a8057-") && text.ends_with(b"\""), "{text:?}");
            assert_eq!(EntityTag::parse(&text[1..text.len() - 1]), Some(tag));
        }
        for other in [
            "",
            "12",
            "099a8057",
            "099a8057-1",
            "099a8057-1-",
            "099a8057-01-1",
            "099a8057-1-+1",
            "9a8057-1-1",
            "099a8057-1-1-",
            "099a8057-1-1-x",
            "099a8057-1-1-1-1",
        ] {
            assert_eq!(EntityTag::parse(other.as_bytes()), None, "{other}");
        }
    }
}
