//! The model store as a projection of the log: its position, its models, and how the next events are applied.
//!
//! An event that the store cannot apply makes only its model stuck: the event is found by bisecting its batch, and the
//! model's later events are skipped until the model is deleted; a rebuild tries again. Events that an admin skipped are
//! loaded before the first event is applied. If the store fails as a whole, the work ends with everything up to its
//! checkpoint applied.
//!
//! No hook runs here: this code has no handle to the hook host at all.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::value::RawValue;
use snaphook_driver::time::Millis;
use snaphook_driver::{
    CarryOver, DriverError, ErrorKind as DriverErrorKind, Event, EventFilter, EventKind, EventQuery, EventStore, Json,
    ModelShape, ModelStore, Position, limits, time,
};

use super::change::{Changing, DefinitionChange, Skip};
use super::error::{Error, ErrorKind, Result};
use super::models::Ready;
use super::stuck::{Stored, Stuck, stored};
use super::troubles::guarded;
use crate::catalog::{Model, ModelRecord, Schema};

/// Events per page, which are applied in one transaction.
const PAGE: u32 = 4096;

/// An event is recent if its time differs by less from this node's.
const RECENT_MILLIS: Millis = 60_000;

/// The progress of a replay.
#[derive(Debug, Default)]
pub struct Progress {
    pub position: AtomicU64,
    pub head: AtomicU64,
    pub events: AtomicU64,
}

/// Results of the node that writes a definition, available before its event is read.
pub(super) struct Hint {
    pub(super) schema: Arc<Schema>,
    /// The carry-over without the parts that affect no instance.
    pub(super) carry: CarryOver,
    pub(super) ready: Option<Ready>,
}

/// Changes of the models.
#[derive(Default)]
pub(super) struct Changes {
    /// Models whose writes are held back, and the time limit.
    pub(super) held_back: BTreeMap<String, Duration>,
    /// Models whose definition changed, or that were deleted, each with its prepared code.
    pub(super) models: BTreeMap<String, Option<Ready>>,
    /// All stuck models.
    pub(super) stuck: Vec<Stuck>,
}

/// Hints for definitions that are being appended, by the ids of their events: the first reader of an event takes its
/// hint.
#[derive(Default)]
pub(super) struct Hints(Mutex<HashMap<String, Hint>>);

impl Hints {
    pub(super) fn put(&self, event: &str, hint: Hint) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(event.to_owned(), hint);
    }

    pub(super) fn take(&self, event: &str) -> Option<Hint> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(event)
    }
}

/// A part of the log, in order and without gaps.
pub(super) struct LogPage {
    /// The position that it follows.
    pub(super) after: Position,
    pub(super) events: Vec<Event>,
    /// Events that no store can apply, and the reason.
    unusable: HashMap<Position, String>,
    /// Whether it was the end of the log when it was read.
    pub(super) is_last: bool,
    head: Position,
}

impl LogPage {
    /// Events that this server wrote.
    pub(super) fn own(after: Position, events: Vec<Event>) -> LogPage {
        let head = events.last().map_or(after, |event| event.position);
        LogPage { after, events, unusable: HashMap::new(), is_last: true, head }
    }

    /// Reads the log after a position.
    pub(super) async fn read(events: &dyn EventStore, after: Position) -> Result<LogPage> {
        let query = EventQuery { after, limit: PAGE, filter: EventFilter::default() };
        let page = events.read(&query, None).await?;
        let is_last = page.next().is_none();
        let unusable = page.events.iter().filter_map(|event| Some((event.position, unusable(event)?))).collect();
        Ok(LogPage { after, events: page.events, unusable, is_last, head: page.head })
    }

    fn end(&self) -> Position {
        self.events.last().map_or(self.after, |event| event.position)
    }
}

/// See the file's head.
pub(super) struct Projection {
    events: Arc<dyn EventStore>,
    store: Arc<dyn ModelStore>,
    hints: Arc<Hints>,
    /// The store has every event up to here, except those of stuck models and skipped ones.
    at: Position,
    models: HashMap<String, Arc<Model>>,
    /// Models that the store has only up to an event.
    stuck: BTreeMap<String, Stuck>,
    /// Models whose definition this server cannot use, for instance because it is older than a limit. The store has all
    /// their instances.
    unusable: BTreeMap<String, (Stuck, ModelShape)>,
    /// Models with work that the last replay postponed. Their events are applied.
    unsettled: BTreeMap<String, Stuck>,
    /// Positions that are never applied.
    skipped: HashSet<Position>,
    changes: Changes,
    has_changes: bool,
    /// The event at which a model is stuck was skipped: the store must be rebuilt without it.
    wants_rebuild: bool,
}

impl Projection {
    /// Opens the store in its current state. `storage` if it is a projection of another log, or of a longer one.
    pub(super) async fn open(events: &Arc<dyn EventStore>, store: &Arc<dyn ModelStore>) -> Result<Projection> {
        check_log(events, store).await?;
        let mut projection = Projection {
            events: Arc::clone(events),
            store: Arc::clone(store),
            hints: Arc::default(),
            at: 0,
            models: HashMap::new(),
            stuck: BTreeMap::new(),
            unusable: BTreeMap::new(),
            unsettled: BTreeMap::new(),
            skipped: skipped(events).await?,
            changes: Changes::default(),
            has_changes: false,
            wants_rebuild: false,
        };
        projection.load().await?;
        let head = events.head().await?;
        if projection.at > head {
            return Err(Error::new(
                ErrorKind::Storage,
                format!(
                    "the model store is at position {} of this log, which ends at {head}: events are lost, or an older \
                     copy of the log was put in its place; restore the log, or run `snaphook rebuild` to continue \
                     without the missing events",
                    projection.at
                ),
            ));
        }
        if projection.stuck.values().any(|stuck| projection.skipped.contains(&stuck.position)) {
            tracing::info!(
                "an event that could not be applied is skipped from now on: rebuilding the model store without it"
            );
            projection.reset().await?;
        }
        Ok(projection)
    }

    /// Reads the store's models. Models that are already known in this state are kept.
    async fn load(&mut self) -> Result<()> {
        let at = self.store.checkpoint().await?;
        let (mut models, mut stuck_models, mut unusable) = (HashMap::new(), BTreeMap::new(), BTreeMap::new());
        for shape in self.store.definitions().await? {
            let unreadable = |error: String| {
                let model = &shape.model;
                let message = format!(
                    "the model store's definition of `{model}` cannot be used ({error}); run `snaphook rebuild`"
                );
                Error::new(ErrorKind::Storage, message)
            };
            let Stored { record, stuck } = stored(&shape).map_err(unreadable)?;
            let (model, is_stuck) = (shape.model.clone(), stuck.is_some());
            stuck_models.extend(stuck.map(|stuck| (model.clone(), stuck)));
            let Some(record) = record else { continue };
            let position = record.position;
            if let Some(same) = self.models.get(&model).filter(|known| known.record == record) {
                models.insert(model, Arc::clone(same));
                continue;
            }
            match Model::from_record(record) {
                Ok(usable) => drop(models.insert(model, Arc::new(usable))),
                // The reason of its unavailability was already reported.
                Err(_) if is_stuck => {}
                Err(error) => {
                    let reason = format!("its definition cannot be used: {error}");
                    unusable.insert(model.clone(), (Stuck { model, position, reason }, shape));
                }
            }
        }
        let known = std::mem::replace(&mut self.models, models);
        (self.at, self.stuck, self.unusable) = (at, stuck_models, unusable);
        self.unsettled.clear();
        self.has_changes = true;
        self.changes.models.extend(known.into_keys().chain(self.models.keys().cloned()).map(|model| (model, None)));
        Ok(())
    }

    /// Empties the store.
    pub(super) async fn reset(&mut self) -> Result<()> {
        self.store.reset(self.events.identity()).await?;
        self.wants_rebuild = false;
        self.load().await
    }

    /// Continues after a fault from the store's position.
    pub(super) async fn resume(&mut self) -> Result<()> {
        if self.store.checkpoint().await? == self.at { Ok(()) } else { self.load().await }
    }

    /// Whether the store has less than was applied: a shared store may have lost it, or another node may be rebuilding
    /// it.
    pub(super) async fn went_back(&self) -> Result<bool> {
        Ok(self.store.capabilities().shared && self.store.checkpoint().await? < self.at)
    }

    /// Hints of this node for definitions that it is about to append.
    pub(super) fn hints(&self) -> &Arc<Hints> {
        &self.hints
    }

    /// Up to where the log is applied.
    pub(super) fn at(&self) -> Position {
        self.at
    }

    /// The models in the store, without those that are stuck at their first event.
    pub(super) fn models(&self) -> &HashMap<String, Arc<Model>> {
        &self.models
    }

    /// The models that cannot be used.
    pub(super) fn all_stuck(&self) -> Vec<Stuck> {
        let unusable = self.unusable.values().map(|(stuck, _)| stuck);
        let unsettled = self.unsettled.values().filter(|unsettled| !self.stuck.contains_key(&unsettled.model));
        self.stuck.values().chain(unusable).chain(unsettled).cloned().collect()
    }

    /// The changes since the last call.
    pub(super) fn take_changes(&mut self) -> Option<Changes> {
        if !std::mem::take(&mut self.has_changes) {
            return None;
        }
        Some(Changes { stuck: self.all_stuck(), ..std::mem::take(&mut self.changes) })
    }

    fn changed(&mut self, model: &str, ready: Option<Ready>) {
        self.has_changes = true;
        self.changes.held_back.remove(model);
        self.changes.models.insert(model.to_owned(), ready);
    }

    /// Whether the store must be rebuilt, because an admin skipped the event at which a model is stuck.
    pub(super) fn wants_rebuild(&self) -> bool {
        self.wants_rebuild
    }

    /// Applies the whole log; nobody may read the store meanwhile.
    pub(super) async fn replay(&mut self, progress: &Progress) -> Result<()> {
        progress.position.store(self.at, Ordering::Relaxed);
        self.store.begin_replay().await?;
        let mut page = LogPage::read(&*self.events, self.at).await?;
        progress.head.fetch_max(page.head, Ordering::Relaxed);
        while !page.events.is_empty() {
            // The next page is read while this one is applied.
            let next = tokio::spawn({
                let (events, end) = (Arc::clone(&self.events), page.end());
                async move { LogPage::read(&*events, end).await }
            });
            self.step(&page).await?;
            progress.position.store(page.end(), Ordering::Relaxed);
            progress.head.fetch_max(page.head, Ordering::Relaxed);
            progress.events.fetch_add(page.events.len() as u64, Ordering::Relaxed);
            page =
                next.await.map_err(|error| Error::new(ErrorKind::Storage, format!("a reader failed: {error}")))??;
        }
        // Does the postponed work; a model for which it fails becomes unavailable.
        let unsettled = guarded("end_replay", self.store.end_replay()).await?;
        self.unsettled.clear();
        self.has_changes = true;
        for (model, error) in unsettled {
            if !may_be_the_event(&error) {
                return Err(error.into());
            }
            let Some(position) = self.models.get(&model).map(|model| model.record.position) else { continue };
            let stuck = Stuck { model: model.clone(), position, reason: error.to_string() };
            self.unsettled.insert(model, stuck);
        }
        Ok(())
    }

    /// Applies a page, which continues or overlaps the applied part: runs of instance events at once, definitions one
    /// by one between them.
    pub(super) async fn step(&mut self, page: &LogPage) -> Result<()> {
        let known = page.events.partition_point(|event| event.position <= self.at);
        for run in page.events[known..].chunk_by(|a, b| a.kind.is_instance() && b.kind.is_instance()) {
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
            let next = match unusable.is_empty() {
                true => None,
                false => {
                    rest.iter().position(|event| !self.passes_over(event) && unusable.contains_key(&event.position))
                }
            };
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

    /// Applies instance events; on failure bisects them to find the event that cannot be applied.
    async fn apply(&mut self, run: &[Event], last: Position) -> Result<()> {
        let mut parts = vec![(run, last)];
        while let Some((part, last)) = parts.pop() {
            let wanted = self.wanted(part);
            let Err(error) = guarded("apply", self.store.apply(self.at, &wanted, last)).await else {
                self.at = self.at.max(last);
                continue;
            };
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

    /// The events that are not skipped.
    fn wanted<'e>(&self, events: &'e [Event]) -> Cow<'e, [Event]> {
        let is_plain = self.stuck.is_empty() && self.skipped.is_empty();
        match is_plain || !events.iter().any(|event| self.passes_over(event)) {
            true => Cow::Borrowed(events),
            false => events.iter().filter(|event| !self.passes_over(event)).cloned().collect(),
        }
    }

    fn passes_over(&self, event: &Event) -> bool {
        self.skipped.contains(&event.position) || self.stuck.contains_key(&event.model)
    }

    async fn definition(&mut self, event: &Event) -> Result<()> {
        if event.kind == EventKind::ModelDeleted {
            guarded("drop_model", self.store.drop_model(self.at, &event.model, event.position)).await?;
            self.at = self.at.max(event.position);
            self.models.remove(&event.model);
            self.stuck.remove(&event.model);
            self.unusable.remove(&event.model);
            self.unsettled.remove(&event.model);
            self.changed(&event.model, None);
            return Ok(());
        }
        if event.kind == EventKind::ModelEventSkipped {
            // An unreadable event fails when it is applied, unless it is skipped.
            let of = Skip::from_event(event).map(|skip| skip.position).unwrap_or_default();
            self.skipped.insert(of);
            self.wants_rebuild |= self.stuck.get(&event.model).is_some_and(|stuck| stuck.position == of);
        }
        let changed = match event.kind {
            _ if self.passes_over(event) => return self.apply(&[], event.position).await,
            EventKind::ModelEventSkipped => self.note_skip(event).await,
            EventKind::ModelChanging => self.note_changing(event).await,
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
        let old = self.models.get(&event.model).map(|model| model.shape());
        let old = old.or_else(|| self.unusable.get(&event.model).map(|(_, shape)| shape.clone()));
        let (new, carry, ready) = match self.hints.take(&event.id) {
            Some(Hint { schema, carry, ready }) => {
                (Model::with_schema(change.definition, schema).map_err(Refusal::Event)?, carry, ready)
            }
            None => {
                let new = Model::from_record(change.definition.clone()).map_err(Refusal::Event)?;
                let carry = old.as_ref().map_or_else(CarryOver::default, |_| change.carry_over(&new.schema));
                (new, carry, None)
            }
        };
        self.put(old.as_ref(), new, &carry, event.position).await?;
        self.unusable.remove(&event.model);
        self.changed(&event.model, ready);
        Ok(())
    }

    /// The definition stays unchanged, but its stream continues from this event.
    async fn note_skip(&mut self, event: &Event) -> Result<(), Refusal> {
        Skip::from_event(event).map_err(|error| Refusal::Event(error.detail))?;
        self.move_on(event, |record| record.skipped(event)).await
    }

    /// Changes only the record of a definition, whether this server can use it or not.
    async fn move_on(&mut self, event: &Event, change: impl FnOnce(&mut ModelRecord)) -> Result<(), Refusal> {
        if let Some(old) = self.models.get(&event.model) {
            let (shape, mut new) = (old.shape(), Model::clone(old));
            change(&mut new.record);
            self.put(Some(&shape), new, &CarryOver::default(), event.position).await?;
            self.changed(&event.model, None);
            return Ok(());
        }
        let Some((stuck, shape)) = self.unusable.get(&event.model).cloned() else {
            return Err(Refusal::Event("the model is not defined".to_owned()));
        };
        let mut record = stored(&shape)
            .ok()
            .and_then(|stored| stored.record)
            .ok_or_else(|| Refusal::Event("its definition cannot be read".to_owned()))?;
        change(&mut record);
        let record = serde_json::to_string(&record).map_err(|error| Refusal::Event(error.to_string()))?;
        let new = ModelShape { record: Json::trusted(record), ..shape.clone() };
        let carry = CarryOver::default();
        guarded("define", self.store.define(self.at, Some(&shape), &new, &carry, event.position)).await?;
        self.at = self.at.max(event.position);
        self.unusable.insert(event.model.clone(), (stuck, new));
        Ok(())
    }

    /// The definition stays unchanged, but its stream continues from this event: writes that were prepared before are
    /// prepared again.
    async fn note_changing(&mut self, event: &Event) -> Result<(), Refusal> {
        let Changing { within_ms } = Changing::from_event(event).map_err(|error| Refusal::Event(error.detail))?;
        self.move_on(event, |record| record.position = event.position).await?;
        // Old events hold nothing back. The time is counted from now, because clocks of nodes may differ.
        if (time::now() - event.time).abs() < RECENT_MILLIS {
            self.changes.held_back.insert(event.model.clone(), Duration::from_millis(within_ms));
        }
        Ok(())
    }

    async fn put(
        &mut self,
        old: Option<&ModelShape>,
        new: Model,
        carry: &CarryOver,
        position: Position,
    ) -> Result<(), Refusal> {
        guarded("define", self.store.define(self.at, old, &new.shape(), carry, position)).await?;
        self.at = self.at.max(position);
        self.models.insert(new.record.id.clone(), Arc::new(new));
        Ok(())
    }

    /// Marks a model as stuck and continues. If even that cannot be stored, the store as a whole has failed.
    async fn set_aside(&mut self, stuck: Stuck) -> Result<()> {
        let model = self.models.get(&stuck.model).map(|model| &**model);
        let (old, shape) = (model.map(Model::shape), stuck.shape(model)?);
        let carry = CarryOver::default();
        guarded("define", self.store.define(self.at, old.as_ref(), &shape, &carry, stuck.position)).await?;
        self.at = self.at.max(stuck.position);
        self.unusable.remove(&stuck.model);
        self.has_changes = true;
        self.stuck.insert(stuck.model.clone(), stuck);
        Ok(())
    }
}

/// Rejects a store that belongs to another log; an empty one is assigned to this log.
async fn check_log(events: &Arc<dyn EventStore>, store: &Arc<dyn ModelStore>) -> Result<()> {
    let (log, of) = (events.identity(), store.log().await?);
    if of.as_deref() == Some(log) {
        return Ok(());
    }
    let checkpoint = store.checkpoint().await?;
    if checkpoint == 0 {
        return Ok(store.reset(log).await?);
    }
    let of = of.as_deref().unwrap_or("an unknown one");
    Err(Error::new(
        ErrorKind::Storage,
        format!(
            "the model store is at position {checkpoint} of another log, {of}, while the event store has the log \
             {log}: one of them does not belong to this server; correct the configuration, or run `snaphook rebuild` \
             to rebuild the model store from this log"
        ),
    ))
}

/// Whether the store may still apply other events after this error.
pub(super) fn may_be_the_event(error: &DriverError) -> bool {
    use DriverErrorKind::{Config, Conflict, Corrupt};
    !error.is_temporary() && !matches!(error.kind(), Config | Conflict | Corrupt)
}

/// Why no store can apply an instance's event. The server never writes such events, but the log may have been edited.
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
            Err(error) => Some(format!("its data is not valid JSON: {error}")),
            Ok(value) if !value.get().starts_with('{') => Some("its data is not a JSON object".to_owned()),
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

/// Why an event was not applied.
enum Refusal {
    /// The event itself, with the reason as a clause.
    Event(String),
    /// The store, independent of the event.
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
