//! Follows events from a position on, past and future ones.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::{self, BoxStream};
use snaphook_driver::{Event, EventFilter, EventPage, EventQuery, Position};
use tokio::sync::watch;

use super::History;
use crate::engine::core::Core;
use crate::engine::error::Result;
use crate::engine::tail::weight;
use crate::memory::{Lease, Share};

/// Events per page of a follower.
const PAGE: u32 = 500;
/// Bytes of these events, after the first one.
const PAGE_BYTES: usize = 1 << 20;
/// Delay before a follower asks again for memory that is in use.
const MEMORY_PAUSE: Duration = Duration::from_millis(100);

impl History {
    /// Every matching event after a position, then live ones, without gaps or duplicates. Ends when the server stops,
    /// or when a listener that had caught up falls behind the ring of newest events; it then resumes from the log.
    pub fn follow(&self, query: EventQuery) -> BoxStream<'static, Result<Arc<Event>>> {
        self.core.metrics.listeners.fetch_add(1, Ordering::Relaxed);
        let state = Follower {
            core: Arc::clone(&self.core),
            position: query.after,
            filter: query.filter,
            heads: self.core.tail.watch(),
            live: false,
            ended: false,
            part: PAGE,
            held: None,
        };
        let batches = stream::unfold(state, |mut follower| async move {
            if follower.ended {
                return None;
            }
            match follower.next().await {
                Ok(Some(events)) => {
                    let filter = follower.filter.clone();
                    let events = events.into_iter().filter(|event| filter.matches(event)).map(Ok).collect::<Vec<_>>();
                    Some((stream::iter(events), follower))
                }
                Ok(None) => None,
                Err(error) => {
                    follower.ended = true;
                    Some((stream::iter(vec![Err(error)]), follower))
                }
            }
        });
        batches.flatten().take_until(self.core.stopping.begun()).boxed()
    }
}

struct Follower {
    core: Arc<Core>,
    /// Everything up to this position was returned.
    position: Position,
    filter: EventFilter,
    heads: watch::Receiver<Position>,
    /// Whether the follower has reached the newest events once.
    live: bool,
    ended: bool,
    /// Events to read from the log per page: as many as were within [`PAGE_BYTES`] the last time.
    part: u32,
    /// Memory of events that were read from the log and not returned yet.
    held: Option<Lease<Arc<Share>>>,
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.core.metrics.listeners.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Follower {
    /// The next events after the position, empty only because of the filter; `None` at the end.
    async fn next(&mut self) -> Result<Option<Vec<Arc<Event>>>> {
        // All of its events were returned.
        self.held = None;
        loop {
            let head = *self.heads.borrow_and_update();
            match self.core.tail.after(self.position, PAGE as usize, PAGE_BYTES) {
                Some(events) => {
                    self.live = true;
                    if let Some(last) = events.last() {
                        self.position = last.position;
                        return Ok(Some(events));
                    }
                    if self.heads.changed().await.is_err() {
                        return Ok(None);
                    }
                }
                None if self.live => {
                    tracing::info!(position = self.position, head, "a listener cannot keep up and is disconnected");
                    return Ok(None);
                }
                None => {
                    let query = EventQuery { after: self.position, limit: self.part, filter: self.filter.clone() };
                    let mut page = self.core.stores.event.read(&query, None).await?;
                    self.cut(&mut page).await;
                    // Listeners never get unpublished events: the rest comes from the tail.
                    let published = self.core.tail.head();
                    let events: Vec<Arc<Event>> =
                        page.events.into_iter().filter(|event| event.position <= published).map(Arc::new).collect();
                    self.position = page.reached.min(published).max(self.position);
                    if !events.is_empty() {
                        return Ok(Some(events));
                    }
                }
            }
        }
    }

    /// Limits a page to what one follower may hold, and waits for the memory: a thousand followers that read the log
    /// wait for each other.
    async fn cut(&mut self, page: &mut EventPage) {
        let mut bytes = 0;
        let kept = page.events.iter().take_while(|event| {
            let first = bytes == 0;
            bytes += weight(event);
            first || bytes <= PAGE_BYTES
        });
        let kept = kept.count();
        if kept < page.events.len() {
            page.events.truncate(kept);
            page.reached = page.events.last().map_or(page.reached, |event| event.position);
            self.part = u32::try_from(kept).unwrap_or(PAGE);
        } else {
            self.part = self.part.saturating_mul(2).min(PAGE);
        }
        let lease = Lease::of(Arc::clone(&self.core.own_memory));
        let bytes = page.events.iter().map(weight).sum();
        while lease.grow(bytes).is_err_and(|shortage| shortage.can_fit()) {
            tokio::time::sleep(MEMORY_PAUSE).await;
        }
        self.held = Some(lease);
    }
}
