//! Consumer groups, and the events delivered to their members.

use serde::{Deserialize, Serialize};

use crate::event::Event;
use crate::event_query::EventFilter;

/// A consumer group: a named reader of the log whose progress the store keeps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    pub name: String,
    pub filter: EventFilter,
}

/// One event delivered to one member of a group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Delivery {
    pub event: Event,
    /// How often this event was claimed in this group, starting at 1.
    pub attempt: u32,
    /// Proof of ownership; `ack` and `release` with an old token do nothing.
    pub token: u64,
    /// The most recent note of a previous owner of the event; as durable as the rest of a group's progress.
    pub note: Option<String>,
}

/// Maximum size in bytes of the note that a store must be able to keep with an event of a group.
pub const NOTE_BYTES_MAX: usize = 64 * 1024;
