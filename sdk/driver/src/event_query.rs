//! Which events to read, and a page of them.

use serde::{Deserialize, Serialize};

use crate::event::{Event, EventKind, Position};

/// Which events to read. Empty matches all; fields add up with "and".
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
    /// Whether an event passes; for drivers that filter in memory, and for live listeners.
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
    /// At most that many events, from 1; fewer if their data would be more than [`crate::PAGE_BYTES_MAX`].
    pub limit: u32,
    pub filter: EventFilter,
}

/// Events in order of position.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EventPage {
    pub events: Vec<Event>,
    /// Position of the last event of the whole log (whatever the filter) when the page was read; 0 if it is empty.
    pub head: Position,
    /// Every matching event after the one asked for, up to this position, is in the page: a reader that goes on from here
    /// misses nothing, ever. Less than `head` where the page ends earlier: at its limit, for its size, or because the
    /// filter passed over [`SCAN_MAX`] events. Then more may follow, even if the page has no events.
    pub reached: Position,
}

impl EventPage {
    /// After which position to go on; `None` if the page reaches the end of the log.
    pub fn next(&self) -> Option<Position> {
        (self.reached < self.head).then_some(self.reached)
    }
}

/// Events that one page passes over, at least roughly, to find those that match. What a filter does not match costs as
/// much as what it does, and it is the client who chooses the filter.
pub const SCAN_MAX: u32 = 50_000;
