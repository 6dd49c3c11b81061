//! Queries for events, and pages of events.

use serde::{Deserialize, Serialize};

use crate::event::{Event, EventKind, Position};

/// Which events to read. All fields must match; an empty filter matches all events.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventFilter {
    pub model: Option<String>,
    /// Only with `model`.
    pub instance: Option<String>,
    /// Only events of model definitions, not of instances.
    pub definitions_only: bool,
    /// Empty: every kind.
    pub kinds: Vec<EventKind>,
}

impl EventFilter {
    /// Whether an event matches; for drivers that filter in memory, and for live listeners.
    pub fn matches(&self, event: &Event) -> bool {
        self.model.as_ref().is_none_or(|model| *model == event.model)
            && self.instance.as_ref().is_none_or(|instance| Some(instance) == event.instance.as_ref())
            && (!self.definitions_only || event.instance.is_none())
            && (self.kinds.is_empty() || self.kinds.contains(&event.kind))
    }
}

/// One page to read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventQuery {
    /// Only events with a greater position.
    pub after: Position,
    /// The maximum number of events, at least 1; fewer are returned if their data would exceed
    /// [`crate::PAGE_BYTES_MAX`].
    pub limit: u32,
    pub filter: EventFilter,
}

/// Events in order of position.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EventPage {
    pub events: Vec<Event>,
    /// Position of the last event of the whole log, regardless of the filter, when the page was read; 0 if the log is
    /// empty.
    pub head: Position,
    /// The page contains every matching event after the requested position up to this one: a reader that continues from
    /// here misses nothing. It is less than `head` if the page ends earlier: because of its limit, its size, or because
    /// the filter skipped [`SCAN_MAX`] events. Then more events may follow, even if the page has none.
    pub reached: Position,
}

impl EventPage {
    /// The position from which to continue; `None` if the page reaches the end of the log.
    pub fn next(&self) -> Option<Position> {
        (self.reached < self.head).then_some(self.reached)
    }
}

/// Approximate maximum number of events that one page skips. Skipped events cost as much as matching ones, and clients
/// choose the filter.
pub const SCAN_MAX: u32 = 50_000;
