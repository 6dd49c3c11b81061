//! The stored form of a group: one value with its owner and its progress.

use bytes::Bytes;
use prost::Message as _;
use snaphook_driver::wire::proto;
use snaphook_driver::{EventFilter, Position, Result};

use crate::fault::corrupt;
use crate::parts::Reference;

/// Values up to this size are stored in their message.
pub(super) const INLINE_BYTES: usize = 128 * 1024;

/// Notes up to this size are stored in the value.
pub(super) const NOTE_INLINE_BYTES: usize = 200;

/// A group.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Record {
    /// The identity of its log.
    #[prost(string, tag = "1")]
    pub(super) log: String,
    #[prost(string, tag = "2")]
    pub(super) name: String,
    #[prost(message, optional, tag = "3")]
    filter: Option<proto::EventFilter>,
    #[prost(uint64, tag = "4")]
    pub(super) cursor: Position,
    /// The session that delivers its events; empty if there is none.
    #[prost(string, tag = "5")]
    pub(super) owner: String,
    /// The session's copy of the log. A copy is only opened once at a time, so any other session of the same copy has
    /// ended.
    #[prost(string, tag = "6")]
    pub(super) copy: String,
    /// By position.
    #[prost(message, repeated, tag = "7")]
    pub(super) pending: Vec<Pending>,
}

/// The oldest unacknowledged event of a stream.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Pending {
    #[prost(uint64, tag = "1")]
    pub(super) position: Position,
    #[prost(uint32, tag = "2")]
    pub(super) attempt: u32,
    /// Earliest delivery time in milliseconds; 0: at once.
    #[prost(int64, tag = "3")]
    pub(super) due: i64,
    #[prost(string, optional, tag = "4")]
    pub(super) note: Option<String>,
    /// The location of a long note.
    #[prost(message, optional, tag = "5")]
    pub(super) note_parts: Option<Reference>,
}

/// The record in its message.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Wrapped {
    #[prost(oneof = "RecordLocation", tags = "1, 2")]
    pub(super) place: Option<RecordLocation>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum RecordLocation {
    #[prost(message, tag = "1")]
    Here(Record),
    #[prost(message, tag = "2")]
    Parts(Reference),
}

impl Record {
    pub(super) fn new(log: &str, name: &str, filter: &EventFilter, cursor: Position) -> Record {
        Record { log: log.to_owned(), name: name.to_owned(), filter: Some(filter.into()), cursor, ..Record::default() }
    }

    pub(super) fn filter(&self) -> Result<EventFilter> {
        let filter = self.filter.clone().unwrap_or_default();
        EventFilter::try_from(filter).map_err(|error| {
            corrupt("claim", "a group's filter cannot be read back").with("group", &self.name).because(error)
        })
    }

    pub(super) fn set_filter(&mut self, filter: &EventFilter) {
        self.filter = Some(filter.into());
    }
}

impl Wrapped {
    pub(super) fn read(bytes: Bytes) -> Result<RecordLocation> {
        let kept = Wrapped::decode(bytes).ok().and_then(|kept| kept.place);
        kept.ok_or_else(|| corrupt("claim", "a group cannot be read back"))
    }
}
