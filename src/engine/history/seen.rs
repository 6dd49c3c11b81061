//! What is read with the right of somebody: records, lists and events that the rules of their models hide do not exist there.

use snaphook_driver::{Budget, EventPage, EventQuery, Instance, InstancePage, Position};

use super::visible::Visibility;
use super::{History, absent};
use crate::catalog::query::QueryInput;
use crate::catalog::rules::Right;
use crate::engine::command::At;
use crate::engine::error::Result;
use crate::engine::reads::{self, LIMITS};

/// Events that one page passes over because they are hidden.
const HIDDEN_MAX: usize = 10_000;

/// [`History`] for one caller.
pub struct SeenBy<'a> {
    history: &'a History,
    right: &'a Right,
}

impl History {
    pub fn seen_by<'a>(&'a self, right: &'a Right) -> SeenBy<'a> {
        SeenBy { history: self, right }
    }

    /// Whether single events are hidden from somebody; keeps what it found out.
    pub fn visibility(&self, right: &Right) -> Visibility {
        Visibility::new(&self.core, right.clone())
    }
}

impl SeenBy<'_> {
    /// One instance, as it is now.
    pub async fn get(&self, model: &str, id: &str) -> Result<Instance> {
        reads::find(&self.history.core, model, id, self.right).await?.ok_or_else(|| absent(model, id))
    }

    /// Whether one that was read elsewhere is visible.
    pub fn may_read(&self, instance: &Instance) -> Result<bool> {
        reads::may_read(&self.history.core, instance, self.right)
    }

    /// A page of instances.
    pub async fn query(&self, model: &str, input: &QueryInput) -> Result<InstancePage> {
        reads::page(&self.history.core, model, input, &Budget::new(LIMITS), self.right).await
    }

    /// A page, and how many instances match in all. They share one budget.
    pub async fn query_and_count(&self, model: &str, input: &QueryInput) -> Result<(InstancePage, u64)> {
        let budget = Budget::new(LIMITS);
        let page = reads::page(&self.history.core, model, input, &budget, self.right).await?;
        Ok((page, reads::count(&self.history.core, model, input, &budget, self.right).await?))
    }

    /// An instance as it was then, in the form that it had then. It must be visible as it was and as it is.
    pub async fn get_at(&self, model: &str, id: &str, at: At) -> Result<Instance> {
        let found = self.history.get_at(model, id, at).await?;
        match self.history.visibility(self.right).of_past(&found).await? {
            true => Ok(found),
            false => Err(super::past::absent_then(model, id)),
        }
    }

    /// Events of the log, oldest first. `is_shown`: those of models that are hidden altogether do not count either.
    pub async fn events(&self, query: &EventQuery, is_shown: impl Fn(&str) -> bool) -> Result<EventPage> {
        let mut visibility = self.history.visibility(self.right);
        let (mut query, limit) = (query.clone(), query.limit);
        let (mut events, mut hidden) = (Vec::new(), 0);
        loop {
            let page = self.history.events(&query).await?;
            let whole = page.events.len();
            let mut last = None;
            for event in page.events {
                last = Some(event.position);
                if is_shown(&event.model) && visibility.of_event(&event).await? {
                    events.push(event);
                }
            }
            hidden += whole;
            // What the page holds says nothing about what is hidden, unless very much is.
            let ends = page.reached >= page.head || events.len() >= limit as usize;
            let is_full_of_data = (whole as u32) < query.limit;
            if ends || is_full_of_data || hidden >= HIDDEN_MAX || last.is_none() {
                return Ok(EventPage { events, head: page.head, reached: page.reached });
            }
            query.after = page.reached;
            query.limit = limit - u32::try_from(events.len()).unwrap_or(limit);
        }
    }

    /// The events of one instance; `not-found` if there never was one that is visible.
    pub async fn instance_events(&self, model: &str, id: &str, after: Position, limit: u32) -> Result<EventPage> {
        let mut page = self.history.instance_events(model, id, after, limit).await?;
        let mut visibility = self.history.visibility(self.right);
        if !visibility.of_instance(model, id).await? {
            return Err(super::events::never_was(model, id));
        }
        let mut kept = Vec::with_capacity(page.events.len());
        for event in page.events {
            if visibility.of_event(&event).await? {
                kept.push(event);
            }
        }
        page.events = kept;
        Ok(page)
    }
}
