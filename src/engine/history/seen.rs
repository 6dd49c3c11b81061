//! Reads with a caller's rights: records, lists and events that the rules of their models hide do not exist here.

use std::time::{Duration, Instant};

use snaphook_driver::{Budget, EventPage, EventQuery, Instance, InstancePage, Position};

use super::expand::{Expand, Expanded};
use super::visible::Visibility;
use super::{History, absent, events, past, referring};
use crate::catalog::Reference;
use crate::catalog::query::QueryInput;
use crate::catalog::rules::Right;
use crate::engine::command::At;
use crate::engine::error::Result;
use crate::engine::reads::{self, LIMITS};

/// Events per step after the first ones of a page were hidden.
const LOOKED_AT: u32 = 100;
/// Limits for one page of events if many are hidden: the time of the search, and bytes of the events found.
const TIME_MAX: Duration = Duration::from_secs(2);
const BYTES_MAX: usize = 8 << 20;

/// [`History`] for one caller.
pub struct SeenBy<'a> {
    history: &'a History,
    right: &'a Right,
}

impl History {
    pub fn seen_by<'a>(&'a self, right: &'a Right) -> SeenBy<'a> {
        SeenBy { history: self, right }
    }

    /// The visibility of single events for a caller.
    pub fn visibility(&self, right: &Right) -> Visibility {
        Visibility::new(&self.core, right.clone())
    }
}

impl SeenBy<'_> {
    /// One current instance.
    pub async fn get(&self, model: &str, id: &str) -> Result<Instance> {
        reads::find(&self.history.core, model, id, self.right).await?.ok_or_else(|| absent(model, id))
    }

    /// A page of instances.
    pub async fn query(&self, model: &str, input: &QueryInput) -> Result<InstancePage> {
        reads::page(&self.history.core, model, input, None, &Budget::new(LIMITS), self.right).await
    }

    /// A page, and the number of all matching instances, within one budget.
    pub async fn query_and_count(&self, model: &str, input: &QueryInput) -> Result<(InstancePage, u64)> {
        let budget = Budget::new(LIMITS);
        let page = reads::page(&self.history.core, model, input, None, &budget, self.right).await?;
        Ok((page, reads::count(&self.history.core, model, input, None, &budget, self.right).await?))
    }

    /// The targets of these instances; see [`History::expand`].
    pub async fn expand(
        &self,
        instances: &[Instance],
        expands: &[Expand],
        may_read: impl Fn(&str) -> bool,
        hold: impl Fn(usize) -> Result<()>,
    ) -> Result<Expanded> {
        self.history.expand(instances, expands, self.right, may_read, hold).await
    }

    /// A page of the instances of `other` that refer to one; with `count`, also their number.
    pub async fn referring(
        &self,
        model: &str,
        id: &str,
        other: &str,
        reference: &Reference,
        input: &QueryInput,
        count: bool,
    ) -> Result<(InstancePage, Option<u64>)> {
        self.get(model, id).await?;
        referring::referring(&self.history.core, id, other, reference, input, count, self.right).await
    }

    /// A past state of an instance, in the form of that time. Both that state and the current one must be visible.
    pub async fn get_at(&self, model: &str, id: &str, at: At) -> Result<Instance> {
        let found = self.history.get_at(model, id, at).await?;
        match self.history.visibility(self.right).of_past(&found).await? {
            true => Ok(found),
            false => Err(past::absent_then(model, id)),
        }
    }

    /// Events of the log, oldest first. `is_shown`: events of hidden models do not count either.
    pub async fn events(&self, query: &EventQuery, is_shown: impl Fn(&str) -> bool) -> Result<EventPage> {
        let limit = query.limit as usize;
        let mut query = query.clone();
        let mut visibility = Visibility::of_page(&self.history.core, self.right.clone());
        let mut found: Vec<_> = Vec::new();
        let (started, mut bytes) = (Instant::now(), 0);
        loop {
            let page = self.history.events(&query).await?;
            // The size of the page reveals nothing about hidden events, unless there are very many.
            let is_short = page.events.len() < query.limit as usize;
            let mut reached = page.reached;
            let mut is_done = is_short || page.reached >= page.head;
            let mut events = page.events.into_iter();
            while let Some(event) = events.next() {
                let position = event.position;
                if is_shown(&event.model) && visibility.of_event(&event).await? {
                    bytes += event.data.as_ref().map_or(0, |data| data.len());
                    found.push(event);
                }
                if found.len() >= limit || bytes >= BYTES_MAX || started.elapsed() >= TIME_MAX {
                    is_done = true;
                    if events.len() > 0 {
                        reached = position;
                    }
                    break;
                }
            }
            if is_done {
                return Ok(EventPage { events: found, head: page.head, reached });
            }
            query.after = page.reached;
            query.limit = LOOKED_AT.max(u32::try_from(limit - found.len()).unwrap_or(LOOKED_AT));
        }
    }

    /// The events of one instance; `not-found` if none was ever visible.
    pub async fn instance_events(&self, model: &str, id: &str, after: Position, limit: u32) -> Result<EventPage> {
        let mut page = self.history.instance_events(model, id, after, limit).await?;
        let mut visibility = Visibility::of_page(&self.history.core, self.right.clone());
        if !visibility.of_instance(model, id).await? {
            return Err(events::never_was(model, id));
        }
        let started = Instant::now();
        let mut kept = Vec::with_capacity(page.events.len());
        let mut events = std::mem::take(&mut page.events).into_iter();
        while let Some(event) = events.next() {
            let position = event.position;
            if visibility.of_event(&event).await? {
                kept.push(event);
            }
            if started.elapsed() >= TIME_MAX && events.len() > 0 {
                page.reached = position;
                break;
            }
        }
        page.events = kept;
        Ok(page)
    }
}
