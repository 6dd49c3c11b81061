//! Questions about what happened: the log, one instance's past, and what happens from now on.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::{self, BoxStream};
use serde_json::value::RawValue;
use snaphook_driver::time::Millis;
use snaphook_driver::{Event, EventFilter, EventKind, EventPage, EventQuery, Instance, Position, Stream, json};
use tokio::sync::watch;

use super::change::{DefinitionChange, changes_definition};
use super::error::{Error, ErrorKind, Result};
use super::tail::weight;
use super::{Engine, stopped_signal};
use crate::catalog::ModelRecord;
use crate::memory::{Lease, Share};

/// A point in the past.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    Position(Position),
    Time(Millis),
}

/// Events that a follower takes at once.
const PAGE: u32 = 500;
/// Bytes of them, after the first.
const PAGE_BYTES: usize = 1 << 20;
/// Delay before a follower asks again for memory that others hold.
const MEMORY_PAUSE: Duration = Duration::from_millis(100);

impl Engine {
    /// Events of the log, oldest first. A page passes over a bounded number of events that do not match, so it may have no
    /// events and still say where to go on.
    pub async fn events(&self, query: &EventQuery) -> Result<EventPage> {
        Ok(self.stores.event.read(query, None).await?)
    }

    /// The log's identity.
    pub fn log(&self) -> &str {
        self.stores.event.identity()
    }

    /// A position that a client kept; `log` is the log that it is of, `None` this one. `position-unknown` if this log
    /// does not have it. Only the event store knows: this node may lag behind it.
    pub async fn find_position(&self, log: Option<&str>, position: Position) -> Result<Position> {
        if let Some(log) = log
            && log != self.log()
        {
            return Err(Error::new(
                ErrorKind::PositionUnknown,
                format!(
                    "position {position} is of the log `{log}`, this one is `{}` (a restored backup is another log); \
                     start over without a position",
                    self.log()
                ),
            ));
        }
        let head = self.stores.event.head().await?;
        if position > head {
            return Err(Error::new(
                ErrorKind::PositionUnknown,
                format!("position {position} is beyond the end of the log, which is at {head}; start over without it"),
            ));
        }
        Ok(position)
    }

    /// `not-found` for a model that the log has never seen; one that was deleted still has its history.
    pub async fn check_in_log(&self, model: &str) -> Result<()> {
        if self.models.get(model).is_some()
            || self.stores.event.last(&Stream::of_model(model), Position::MAX).await?.is_some()
        {
            return Ok(());
        }
        Err(Error::not_found(format!("the log has never seen a model `{}`", model.escape_debug())))
    }

    /// Position of the last event that this node has applied.
    pub fn head(&self) -> Position {
        self.tail.head()
    }

    /// Waits until this node has applied the log up to there; `unavailable` if that takes long.
    pub async fn reached(&self, position: Position) -> Result<()> {
        self.tail.reached_soon(position).await
    }

    /// An older version of a model, from the log.
    pub async fn model_version(&self, id: &str, version: u64) -> Result<ModelRecord> {
        let entry = self.models.require(id)?;
        if entry.model.record.version == version {
            return Ok(entry.model.record.clone());
        }
        let stream = Stream::of_model(id);
        let mut event = match self.stores.event.last(&stream, Position::MAX).await? {
            Some(last) => self.at_revision(&stream, last, version).await?,
            None => None,
        };
        while let Some(found) = event.take_if(|event| !changes_definition(event.kind)) {
            event = self.stores.event.last_but(&stream, found.position, 1).await?;
        }
        let found = event.filter(|event| event.revision == version);
        let found = found.map(|event| DefinitionChange::from_event(&event)).transpose()?;
        found.map(|change| change.definition).ok_or_else(|| {
            let current = entry.model.record.version;
            Error::not_found(format!("model `{id}` has no version {version}, it is at version {current}"))
        })
    }

    /// An instance as it was then. Its data has the form that it had then.
    pub async fn get_at(&self, model: &str, id: &str, at: At) -> Result<Instance> {
        self.models.require(model)?;
        let at_most = match at {
            At::Position(position) => position,
            At::Time(time) => self.position_at(time).await?,
        };
        let stream = Stream::of_instance(model, id);
        let absent = || Error::not_found(format!("there was no `{model}/{id}` then"));
        let last = self.stores.event.last(&stream, at_most).await?.filter(|event| !event.kind.ends_stream());
        let last = last.ok_or_else(absent)?;
        let created_at = match last.kind {
            EventKind::InstanceCreated => last.time,
            _ => match self.created_of_living(&last, id).await {
                Some(created_at) => created_at,
                None => {
                    let created = self.at_revision(&stream, last.clone(), 1).await?;
                    created.map_or(last.time, |created| created.time)
                }
            },
        };
        check_data(&last)?;
        Ok(Instance {
            id: id.to_owned(),
            model: last.model,
            model_version: last.model_version,
            revision: last.revision,
            position: last.position,
            created_at,
            updated_at: last.time,
            data: last.data.ok_or_else(absent)?,
        })
    }

    /// When the instance of an event was created, if it is the one that lives now: so the way back through all of its
    /// revisions is spared. The log's times never go back, so what was created before the event is no later life.
    async fn created_of_living(&self, event: &Event, id: &str) -> Option<Millis> {
        let instance = self.stores.model.get(&event.model, id).await.ok().flatten()?;
        (instance.position >= event.position && instance.created_at < event.time).then_some(instance.created_at)
    }

    /// The event of a stream that led to a revision, looked for backwards from a later event. Each event raises the
    /// revision by one, or leaves it.
    async fn at_revision(&self, stream: &Stream, later: Event, revision: u64) -> Result<Option<Event>> {
        let mut event = later;
        while event.revision > revision {
            let skip = event.revision - revision;
            match self.stores.event.last_but(stream, event.position, skip).await? {
                Some(earlier) if earlier.revision <= event.revision => event = earlier,
                _ => return Ok(None),
            }
        }
        Ok((event.revision == revision).then_some(event))
    }

    /// Position of the last event at or before a time; 0 if there is none. The log's times never go back, so this halves
    /// the log again and again.
    async fn position_at(&self, time: Millis) -> Result<Position> {
        // Events up to `low` are not later than `time`, those after `high` are.
        let (mut low, mut high) = (0, self.head());
        while low < high {
            let middle = low + (high - low) / 2;
            let query = EventQuery { after: middle, limit: 1, filter: EventFilter::default() };
            match self.stores.event.read(&query, None).await?.events.first() {
                Some(event) if event.time <= time => low = event.position,
                _ => high = middle,
            }
        }
        Ok(low)
    }

    /// The events of one instance; `not-found` if there never was one.
    pub async fn instance_events(&self, model: &str, id: &str, after: Position, limit: u32) -> Result<EventPage> {
        let filter =
            EventFilter { model: Some(model.to_owned()), instance: Some(id.to_owned()), ..EventFilter::default() };
        let page = self.stores.event.read(&EventQuery { after, limit, filter }, None).await?;
        if page.events.is_empty()
            && self.stores.event.last(&Stream::of_instance(model, id), Position::MAX).await?.is_none()
        {
            self.models.require(model)?;
            return Err(Error::new(ErrorKind::NotFound, format!("there never was a `{model}/{id}`")));
        }
        Ok(page)
    }

    /// Every matching event after a position, then live ones: none missed, none twice. Ends when the server stops,
    /// or when a listener that had caught up falls out of the reach of the newest events: it resumes from the log.
    pub fn follow(self: &Arc<Self>, query: EventQuery) -> BoxStream<'static, Result<Arc<Event>>> {
        self.metrics.listeners.fetch_add(1, Ordering::Relaxed);
        let state = Follower {
            engine: Arc::clone(self),
            position: query.after,
            filter: query.filter,
            heads: self.tail.watch(),
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
        batches.flatten().take_until(stopped_signal(self.stopping.subscribe())).boxed()
    }
}

/// Refuses an event whose data somebody changed in the log to what is no JSON.
pub(super) fn check_data(event: &Event) -> Result<()> {
    let Some(Err(error)) = event.data.as_ref().map(|data| json::typed::<&RawValue>(data)) else { return Ok(()) };
    let position = event.position;
    Err(Error::new(
        ErrorKind::Storage,
        format!(
            "the data of the event at {position} is no JSON: {error}; `snaphook events inspect {position}` shows it"
        ),
    ))
}

struct Follower {
    engine: Arc<Engine>,
    /// Everything up to here was given out.
    position: Position,
    filter: EventFilter,
    heads: watch::Receiver<Position>,
    /// Whether the follower has reached the newest events once.
    live: bool,
    ended: bool,
    /// Events to read from the log at once: as many as were within [`PAGE_BYTES`] the last time.
    part: u32,
    /// Memory of what was read from the log and is not given out yet.
    held: Option<Lease<Arc<Share>>>,
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.engine.metrics.listeners.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Follower {
    /// The next events after the position, not empty but for the filter; `None` at the end.
    async fn next(&mut self) -> Result<Option<Vec<Arc<Event>>>> {
        // All that it was for is given out.
        self.held = None;
        loop {
            let head = *self.heads.borrow_and_update();
            match self.engine.tail.after(self.position, PAGE as usize, PAGE_BYTES) {
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
                    let mut page = self.engine.stores.event.read(&query, None).await?;
                    self.cut(&mut page).await;
                    // Listeners never see what is not published yet: the rest comes from the tail.
                    let published = self.engine.tail.head();
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

    /// Keeps of a page what one follower may hold, and waits for the memory: a thousand that read the log at once wait for
    /// each other.
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
        let lease = Lease::of(Arc::clone(&self.engine.own_memory));
        let bytes = page.events.iter().map(weight).sum();
        while lease.grow(bytes).is_err_and(|shortage| shortage.can_fit()) {
            tokio::time::sleep(MEMORY_PAUSE).await;
        }
        self.held = Some(lease);
    }
}
