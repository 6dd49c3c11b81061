//! The whole content of a log, as records: the driver-independent format of backups.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::append::Holder;
use crate::error::Result;
use crate::event::{Event, Position};
use crate::group::Group;
use crate::time::Millis;

/// Size in bytes at which a driver ends a part of an export; a part always contains at least one record.
pub const EXPORT_BYTES: usize = 1024 * 1024;

/// Maximum number of pending events per record.
pub const PENDING_MAX: usize = 1000;

/// One record of a log.
///
/// The order of an export: events by position, claims by key, blobs by digest, groups by name; each group is followed
/// by its pending events, by position, with at most [`PENDING_MAX`] per record. Texts compare by code point. So the
/// same log always yields the same records.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum LogRecord {
    Event(Event),
    Claim {
        key: String,
        holder: Holder,
    },
    Blob {
        sha256: String,
        /// Not part of the serialized form: the bytes are transferred separately.
        #[serde(skip)]
        bytes: Vec<u8>,
    },
    /// A consumer group. Matching events up to the cursor are acknowledged, except the pending ones and those after
    /// them in their streams.
    Group {
        group: Group,
        cursor: Position,
    },
    /// The oldest unacknowledged event of streams, at or before the cursor of the group.
    Pending {
        group: String,
        events: Vec<PendingEvent>,
    },
}

/// An event that a group has not acknowledged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingEvent {
    pub position: Position,
    /// How often the event was claimed.
    pub attempt: u32,
    /// The event is not delivered before this time; 0: immediately.
    pub due: Millis,
    /// As in [`crate::Delivery`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// A copy of a log at one moment; see [`crate::EventStore::export`].
#[async_trait]
pub trait LogExport: Send {
    /// Position of the last event of the copy; 0 if there is none.
    fn head(&self) -> Position;

    /// The next records, about [`EXPORT_BYTES`] bytes; empty at the end.
    async fn next(&mut self) -> Result<Vec<LogRecord>>;
}
