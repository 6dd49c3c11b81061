//! Brings the model store from its checkpoint to the end of the log: after a crash, at a rebuild, for a new store.
//!
//! An event that the store cannot take makes its model stuck and nothing else: the event is found by halving its batch,
//! the model's later events are passed over until the model is deleted, and a rebuild tries again. Events that an admin
//! skipped are known before the first event is applied. A store that fails as a whole ends the replay instead, with
//! everything up to its checkpoint in place.
//!
//! No hook runs here: this code has no handle to the hook host at all.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::value::RawValue;
use snaphook_driver::{
    CarryOver, DriverError, ErrorKind as DriverErrorKind, Event, EventFilter, EventKind, EventQuery, EventStore,
    ModelShape, ModelStore, Position, limits,
};

use super::change::{DefinitionChange, Skip};
use super::error::{Error, ErrorKind, Result};
use super::stuck::{Stored, Stuck, stored};
use super::troubles::guarded;
use crate::catalog::Model;

/// Events that are read, and applied in one transaction, at a time.
const PAGE: u32 = 4096;

/// How far a replay has come; read by whoever shows it.
#[derive(Debug, Default)]
pub struct Progress {
    pub position: AtomicU64,
    pub head: AtomicU64,
    pub events: AtomicU64,
}

/// What the model store has after a replay.
#[derive(Debug)]
pub struct Replayed {
    /// Models that stuck at their first event are not among them.
    pub models: Vec<Model>,
    pub stuck: Vec<Stuck>,
}

/// Applies everything after the checkpoint.
pub async fn run(events: &Arc<dyn EventStore>, store: &Arc<dyn ModelStore>, progress: &Progress) -> Result<Replayed> {
    check_log(events, store).await?;
    let mut checkpoint = store.checkpoint().await?;
    let head = events.head().await?;
    if checkpoint > head {
        return Err(Error::new(
            ErrorKind::Storage,
            format!(
                "the model store is at position {checkpoint} of this log, which ends at {head}: events are lost, or an \
                 older copy of the log was put in its place; bring the log back, or run `snaphook rebuild` to go on \
                 without what is missing"
            ),
        ));
    }
    let skipped = skipped(events).await?;
    let Loaded { mut models, mut stuck, mut unusable } = load(store).await?;
    if stuck.values().any(|stuck| skipped.contains(&stuck.position)) {
        tracing::info!(
            "an event that could not be applied is skipped from now on: rebuilding the model store without it"
        );
        store.reset(events.identity()).await?;
        (checkpoint, models, stuck, unusable) = (0, HashMap::new(), BTreeMap::new(), BTreeMap::new());
    }
    progress.position.store(checkpoint, Ordering::Relaxed);
    progress.head.store(head, Ordering::Relaxed);
    store.begin_replay().await?;
    let mut replay = Replay { store, models, stuck, unusable, skipped };
    let mut page = read(events, checkpoint).await?;
    while let Some(last) = page.events.last().map(|event| event.position) {
        // The next page is read while this one is applied.
        let next = tokio::spawn({
            let events = Arc::clone(events);
            async move { read(&events, last).await }
        });
        replay.page(&page).await?;
        progress.position.store(last, Ordering::Relaxed);
        progress.head.fetch_max(page.head, Ordering::Relaxed);
        progress.events.fetch_add(page.events.len() as u64, Ordering::Relaxed);
        page = next.await.map_err(|error| Error::new(ErrorKind::Storage, format!("a reader failed: {error}")))??;
    }
    replay.end().await
}

/// A projection of another log (one that was restored from a backup is another) is made again from this one.
async fn check_log(events: &Arc<dyn EventStore>, store: &Arc<dyn ModelStore>) -> Result<()> {
    let (log, of) = (events.identity(), store.log().await?);
    if of.as_deref() == Some(log) {
        return Ok(());
    }
    let checkpoint = store.checkpoint().await?;
    if checkpoint > 0 {
        let of = of.as_deref().unwrap_or("unknown");
        tracing::warn!(log, of, checkpoint, "the model store is of another log; rebuilding it from this one");
    }
    Ok(store.reset(log).await?)
}

/// Whether a store that failed so may still take other events.
pub(super) fn may_be_the_event(error: &DriverError) -> bool {
    !error.is_temporary() && !matches!(error.kind(), DriverErrorKind::Config | DriverErrorKind::Corrupt)
}

/// Some of the log, and which of its events no store can take.
struct Page {
    events: Vec<Event>,
    head: Position,
    unusable: HashMap<Position, String>,
}

async fn read(events: &Arc<dyn EventStore>, after: Position) -> Result<Page> {
    let query = EventQuery { after, limit: PAGE, filter: EventFilter::default() };
    let page = events.read(&query, None).await?;
    let unusable =
        page.events.iter().filter_map(|event| Some((event.position, unusable(event)?))).collect::<HashMap<_, _>>();
    Ok(Page { events: page.events, head: page.head, unusable })
}

/// Why an instance's event can be in no store. The server writes no such event; somebody else may have.
fn unusable(event: &Event) -> Option<String> {
    if !event.kind.is_instance() {
        return None;
    }
    if let Err(exceeded) = limits::check_event(event) {
        return Some(exceeded.to_string());
    }
    match (&event.data, event.kind) {
        _ if event.instance.is_none() => Some(format!("`{}` without an instance", event.kind)),
        (_, EventKind::InstanceDeleted) => None,
        (None, kind) => Some(format!("`{kind}` without data")),
        (Some(data), _) => match snaphook_driver::json::typed::<&RawValue>(data) {
            Err(error) => Some(format!("its data is no JSON: {error}")),
            Ok(value) if !value.get().starts_with('{') => Some("its data is no JSON object".to_owned()),
            Ok(_) => None,
        },
    }
}

/// Positions that are never applied.
async fn skipped(events: &Arc<dyn EventStore>) -> Result<HashSet<Position>> {
    let filter =
        EventFilter { definitions_only: true, kinds: vec![EventKind::ModelEventSkipped], ..EventFilter::default() };
    let mut query = EventQuery { after: 0, limit: PAGE, filter };
    let mut positions = HashSet::new();
    loop {
        let page = events.read(&query, None).await?;
        for event in &page.events {
            positions.insert(Skip::from_event(event)?.position);
        }
        match page.next() {
            Some(next) => query.after = next,
            None => return Ok(positions),
        }
    }
}

/// The models that the store has.
#[derive(Default)]
struct Loaded {
    models: HashMap<String, Model>,
    /// Those that it has only up to an event.
    stuck: BTreeMap<String, Stuck>,
    /// Those whose definition this server cannot use, such as one from before a limit. The store has all their instances.
    unusable: BTreeMap<String, (Stuck, ModelShape)>,
}

async fn load(store: &Arc<dyn ModelStore>) -> Result<Loaded> {
    let mut loaded = Loaded::default();
    for shape in store.definitions().await? {
        let unreadable = |error: String| {
            let model = &shape.model;
            let message =
                format!("the model store's definition of `{model}` cannot be used ({error}); run `snaphook rebuild`");
            Error::new(ErrorKind::Storage, message)
        };
        let Stored { record, stuck } = stored(&shape).map_err(unreadable)?;
        let (model, is_stuck) = (shape.model.clone(), stuck.is_some());
        loaded.stuck.extend(stuck.map(|stuck| (model.clone(), stuck)));
        let Some(record) = record else { continue };
        let position = record.position;
        match Model::from_record(record) {
            Ok(usable) => drop(loaded.models.insert(model, usable)),
            // What keeps it unavailable is said already.
            Err(_) if is_stuck => {}
            Err(error) => {
                let reason = format!("its definition cannot be used: {error}");
                loaded.unusable.insert(model.clone(), (Stuck { model, position, reason }, shape));
            }
        }
    }
    Ok(loaded)
}

struct Replay<'a> {
    store: &'a Arc<dyn ModelStore>,
    models: HashMap<String, Model>,
    stuck: BTreeMap<String, Stuck>,
    unusable: BTreeMap<String, (Stuck, ModelShape)>,
    skipped: HashSet<Position>,
}

/// Why an event was not applied.
enum Refusal {
    /// The event itself: a clause that says what about it.
    Event(String),
    /// The store, whatever the event.
    Store(Error),
}

impl From<DriverError> for Refusal {
    fn from(error: DriverError) -> Self {
        match may_be_the_event(&error) {
            true => Refusal::Event(error.to_string()),
            false => Refusal::Store(error.into()),
        }
    }
}

impl Replay<'_> {
    /// Runs of instance events at once, definitions one by one between them.
    async fn page(&mut self, page: &Page) -> Result<()> {
        for run in page.events.chunk_by(|a, b| a.kind.is_instance() && b.kind.is_instance()) {
            match run {
                [event] if !event.kind.is_instance() => self.definition(event).await?,
                run => self.instances(run, &page.unusable).await?,
            }
        }
        Ok(())
    }

    async fn instances(&mut self, run: &[Event], unusable: &HashMap<Position, String>) -> Result<()> {
        let mut rest = run;
        while let Some(last) = rest.last() {
            let next = rest.iter().position(|event| !self.passes_over(event) && unusable.contains_key(&event.position));
            let Some(next) = next else { return self.apply(rest, last.position).await };
            let event = &rest[next];
            if let Some(before) = rest[..next].last() {
                self.apply(&rest[..next], before.position).await?;
            }
            let reason = unusable.get(&event.position).cloned().unwrap_or_default();
            self.set_aside(Stuck::at(event, reason)).await?;
            rest = &rest[next + 1..];
        }
        Ok(())
    }

    /// Applies instance events; halves them until the one that cannot be applied stands alone.
    async fn apply(&mut self, run: &[Event], last: Position) -> Result<()> {
        let mut parts = vec![(run, last)];
        while let Some((part, last)) = parts.pop() {
            let wanted = self.wanted(part);
            let Err(error) = guarded("apply", self.store.apply(&wanted, last)).await else { continue };
            let refusal = Refusal::from(error);
            match (refusal, &*wanted) {
                (Refusal::Store(error), _) => return Err(error),
                (Refusal::Event(reason), []) => return Err(Error::new(ErrorKind::Storage, reason)),
                (Refusal::Event(reason), [event]) => {
                    let stuck = Stuck::at(event, reason);
                    self.set_aside(stuck).await?;
                    parts.push((&[], last));
                }
                (Refusal::Event(_), _) => {
                    let (first, second) = part.split_at(part.len() / 2);
                    let middle = first.last().map_or(last, |event| event.position);
                    parts.push((second, last));
                    parts.push((first, middle));
                }
            }
        }
        Ok(())
    }

    /// Those that are not passed over.
    fn wanted<'e>(&self, events: &'e [Event]) -> Cow<'e, [Event]> {
        match self.stuck.is_empty() && self.skipped.is_empty() {
            true => Cow::Borrowed(events),
            false => events.iter().filter(|event| !self.passes_over(event)).cloned().collect(),
        }
    }

    fn passes_over(&self, event: &Event) -> bool {
        self.skipped.contains(&event.position) || self.stuck.contains_key(&event.model)
    }

    async fn definition(&mut self, event: &Event) -> Result<()> {
        let changed = match event.kind {
            EventKind::ModelDeleted => {
                guarded("drop_model", self.store.drop_model(&event.model, event.position)).await?;
                self.models.remove(&event.model);
                self.stuck.remove(&event.model);
                self.unusable.remove(&event.model);
                return Ok(());
            }
            _ if self.passes_over(event) => return self.apply(&[], event.position).await,
            EventKind::ModelEventSkipped => self.note_skip(event).await,
            _ => self.define(event).await,
        };
        match changed {
            Ok(()) => Ok(()),
            Err(Refusal::Store(error)) => Err(error),
            Err(Refusal::Event(reason)) => self.set_aside(Stuck::at(event, reason)).await,
        }
    }

    async fn define(&mut self, event: &Event) -> Result<(), Refusal> {
        let change = DefinitionChange::from_event(event).map_err(|error| Refusal::Event(error.detail))?;
        let old = self.models.get(&event.model).map(Model::shape);
        let old = old.or_else(|| self.unusable.get(&event.model).map(|(_, shape)| shape.clone()));
        let new = Model::from_record(change.definition.clone()).map_err(Refusal::Event)?;
        let carry = old.as_ref().map_or_else(CarryOver::default, |_| change.carry_over(&new.schema));
        guarded("define", self.store.define(old.as_ref(), &new.shape(), &carry, event.position)).await?;
        self.models.insert(event.model.clone(), new);
        self.unusable.remove(&event.model);
        Ok(())
    }

    /// The definition stays as it was, but its stream goes on from here.
    async fn note_skip(&mut self, event: &Event) -> Result<(), Refusal> {
        let Some(old) = self.models.get(&event.model) else {
            return Err(Refusal::Event("the model is not defined".to_owned()));
        };
        let mut new = old.clone();
        new.record.skipped(event);
        let (old, position) = (old.shape(), event.position);
        guarded("define", self.store.define(Some(&old), &new.shape(), &CarryOver::default(), position)).await?;
        self.models.insert(event.model.clone(), new);
        Ok(())
    }

    /// Everything is applied. What was put off is done now; a model for which that fails is unavailable.
    async fn end(mut self) -> Result<Replayed> {
        for (model, error) in guarded("end_replay", self.store.end_replay()).await? {
            if !may_be_the_event(&error) {
                return Err(error.into());
            }
            let Some(position) = self.models.get(&model).map(|model| model.record.position) else { continue };
            let stuck = Stuck { model: model.clone(), position, reason: error.to_string() };
            self.stuck.entry(model).or_insert(stuck);
        }
        let unusable = self.unusable.into_values().map(|(stuck, _)| stuck);
        let stuck = self.stuck.into_values().chain(unusable).collect();
        Ok(Replayed { models: self.models.into_values().collect(), stuck })
    }

    /// Goes on without a model. If even that cannot be stored, it is the store that fails.
    async fn set_aside(&mut self, stuck: Stuck) -> Result<()> {
        let model = self.models.get(&stuck.model);
        let (old, shape) = (model.map(Model::shape), stuck.shape(model)?);
        guarded("define", self.store.define(old.as_ref(), &shape, &CarryOver::default(), stuck.position)).await?;
        self.unusable.remove(&stuck.model);
        self.stuck.insert(stuck.model.clone(), stuck);
        Ok(())
    }
}
