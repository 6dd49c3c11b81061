//! A ring of the newest events in memory, for listeners that keep up; others read the log.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use snaphook_driver::{Event, Position};
use tokio::sync::watch;

use super::error::{Error, ErrorKind, Result};

/// Capacity of the ring, in events.
const EVENTS_MAX: usize = 8192;
/// Capacity of the ring, in bytes of data.
const BYTES_MAX: usize = 16 * 1024 * 1024;
/// How long to wait for events of other nodes.
const SOON: Duration = Duration::from_secs(5);
/// Approximate memory of an event besides its data.
const EVENT_BYTES: usize = 512;

/// The end of the log. Derived: it may be dropped at any time.
pub(super) struct Tail {
    ring: Mutex<Ring>,
    head: watch::Sender<Position>,
    /// The last event that a client may know, which may not be published yet.
    visible: AtomicU64,
}

struct Ring {
    events: VecDeque<Arc<Event>>,
    bytes: usize,
    /// Every event after this position is in the ring.
    floor: Position,
}

impl Tail {
    pub(super) fn new(head: Position) -> Tail {
        Tail {
            ring: Mutex::new(Ring { events: VecDeque::new(), bytes: 0, floor: head }),
            head: watch::Sender::new(head),
            visible: AtomicU64::new(head),
        }
    }

    /// Adds events that are stored and applied, in order and without gaps. Events that are already there are ignored.
    pub(super) fn publish(&self, events: impl Iterator<Item = Arc<Event>>) {
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let known = ring.events.back().map_or(ring.floor, |event| event.position);
        for event in events.skip_while(|event| event.position <= known) {
            ring.bytes += weight(&event);
            ring.events.push_back(event);
        }
        while ring.events.len() > EVENTS_MAX || ring.bytes > BYTES_MAX {
            let Some(oldest) = ring.events.pop_front() else { break };
            ring.bytes -= weight(&oldest);
            ring.floor = oldest.position;
        }
        let head = ring.events.back().map_or(ring.floor, |event| event.position);
        drop(ring);
        self.head.send_replace(head);
    }

    /// Continues from a later position, without the events up to it; the log has them.
    pub(super) fn jump(&self, head: Position) {
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        if ring.events.back().map_or(ring.floor, |event| event.position) >= head {
            return;
        }
        *ring = Ring { events: VecDeque::new(), bytes: 0, floor: head };
        drop(ring);
        self.head.send_replace(head);
    }

    /// Position of the last event.
    pub(super) fn head(&self) -> Position {
        *self.head.borrow()
    }

    /// From now on clients may know this event: they get its result, or the model store is about to apply it.
    pub(super) fn becomes_visible(&self, position: Position) {
        self.visible.fetch_max(position, Ordering::Release);
    }

    /// The last event that a client may know from this node.
    pub(super) fn visible(&self) -> Position {
        self.head().max(self.visible.load(Ordering::Acquire))
    }

    /// Waits until the event at a position is published, and thereby applied to the model store.
    pub(super) async fn reached(&self, position: Position) {
        if self.head() < position {
            // The sender lives as long as `self`, so this ends only when the condition holds.
            let _ = self.head.subscribe().wait_for(|head| *head >= position).await;
        }
    }

    /// The same with a short time limit; `unavailable` if this node lags further behind.
    pub(super) async fn reached_soon(&self, position: Position) -> Result<()> {
        tokio::time::timeout(SOON, self.reached(position)).await.map_err(|_| {
            let head = self.head();
            Error::new(
                ErrorKind::Unavailable,
                format!("this node has applied the log up to position {head}, not up to {position} yet; try again in a moment"),
            )
        })
    }

    /// Changes with each publication.
    pub(super) fn watch(&self) -> watch::Receiver<Position> {
        self.head.subscribe()
    }

    /// Up to `limit` events after a position, and after the first no more than `bytes_max` of data; `None` if the ring no
    /// longer reaches back that far.
    pub(super) fn after(&self, position: Position, limit: usize, bytes_max: usize) -> Option<Vec<Arc<Event>>> {
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        if position < ring.floor {
            return None;
        }
        let start = ring.events.partition_point(|event| event.position <= position);
        let mut bytes = 0;
        let events = ring.events.range(start..).take(limit).take_while(|event| {
            let first = bytes == 0;
            bytes += weight(event);
            first || bytes <= bytes_max
        });
        Some(events.cloned().collect())
    }
}

/// Approximate memory of an event, in bytes.
pub(super) fn weight(event: &Event) -> usize {
    EVENT_BYTES + event.text_bytes()
}
