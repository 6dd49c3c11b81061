//! Checks every instance of a model against a new definition, and determines the work of the change.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use snaphook_driver::{CarryOver, Claim, EventFilter, EventQuery, Instance, InstanceQuery, ModelStore, Position};

use super::pace::Pace;
use super::references::Targets;
use super::twins::Twins;
use super::{LISTED_MAX, PAGE};
use crate::catalog::document::Document;
use crate::catalog::{Effort, FieldError, Model, ModelRecord, Unfit, references, unique};
use crate::drivers::Stores;
use crate::engine::core::Core;
use crate::engine::error::{Error, ErrorKind, Result};
use crate::engine::tail::Tail;
use crate::engine::workers::{Workers, late};

/// Time limit for checking the instances of a model, and the addition for each instance.
const TIME: Duration = Duration::from_secs(3);
const TIME_EACH: Duration = Duration::from_micros(500);

/// Changed instances that are checked again between two checks of the time.
const CHANGES_AT_ONCE: u32 = 50;

/// The progress of a review.
pub(super) struct CaughtUp {
    pub(super) review: Review,
    /// Everything up to this position was checked.
    pub(super) position: Position,
    /// Whether this is the end of the log.
    pub(super) is_all: bool,
}

pub(super) struct Review {
    pub(super) old: Arc<Model>,
    new: Model,
    carry: CarryOver,
    /// The problems, by instance.
    misfits: BTreeMap<String, String>,
    /// For each `unique` list the one before it with the same values; see [`unique::followed`].
    followed: Vec<Option<usize>>,
    /// Lists of the new definition whose values may be new, so that two instances may share one.
    unproven: Vec<usize>,
    /// Pairs with the same value, read at different moments.
    suspects: Vec<(String, String, usize)>,
    /// The targets of new references.
    targets: Targets,
    /// Whether instances must be read at all, and whether they must be validated.
    reads: bool,
    validates: bool,
    /// The parts of the carry-over that affect at least one instance: renames, and which defaults.
    renames: bool,
    defaults: BTreeSet<usize>,
    /// Time spent on checking, and the number of checked instances.
    spent: Duration,
    looked_at: u32,
}

impl Review {
    /// `since`: the end of the log before the first instance is read.
    pub(super) fn new(old: Arc<Model>, new: Model, carry: CarryOver, since: Position) -> Review {
        let followed = unique::followed(&old.record.unique, &new.record.unique, &carry.renames);
        let has_default = |name: &String| carry.defaults.iter().any(|(other, _)| other == name);
        let unproven: Vec<usize> = (0..followed.len())
            .filter(|list| followed[*list].is_none() || new.record.unique[*list].iter().any(has_default))
            .collect();
        let mut added = references::added(&old.record.references, &new.record.references, &carry.renames);
        // Others come with a default.
        let filled = new.record.references.iter().filter(|reference| has_default(&reference.property));
        added.extend(filled.filter(|reference| !added.contains(reference)).cloned().collect::<Vec<_>>());
        let targets = Targets::new(&old.record.id, added, &carry, since);
        let validates = old.record.schema != new.record.schema;
        let reads = validates || !carry.is_empty() || !unproven.is_empty() || !targets.is_empty();
        Review {
            old,
            new,
            carry,
            misfits: BTreeMap::new(),
            followed,
            unproven,
            suspects: Vec::new(),
            targets,
            reads,
            validates,
            renames: false,
            defaults: BTreeSet::new(),
            spent: Duration::ZERO,
            looked_at: 0,
        }
    }

    /// Checks every instance while writes continue: a page at a time, when it is the model's turn.
    pub(super) async fn all(
        mut self,
        store: &Arc<dyn ModelStore>,
        workers: &Workers,
        pace: &mut Pace,
    ) -> Result<Review> {
        if !self.reads {
            return Ok(self);
        }
        let model = self.old.record.id.clone();
        let mut query = InstanceQuery { limit: PAGE, ..InstanceQuery::default() };
        let mut twins = Twins::default();
        loop {
            let began = Instant::now();
            let page = store.query(&model, &query, &snaphook_driver::Budget::unlimited()).await?;
            let look = move |effort: &Effort| {
                page.items.iter().try_for_each(|instance| self.look(instance, Some(&mut twins), effort))?;
                Ok::<_, Error>((self, twins))
            };
            (self, twins) = workers.run(&model, look).await??;
            self.look_up_targets(&**store).await?;
            pace.rest(began).await;
            match page.next {
                Some(next) => query.cursor = Some(next),
                None => break,
            }
        }
        drop(twins);
        self.confront(&**store).await?;
        Ok(self)
    }

    /// Checks the instances again that changed after `since`, until the end of the log or its own deadline.
    pub(super) async fn catch_up(
        mut self,
        stores: &Stores,
        tail: &Tail,
        workers: &Workers,
        since: Position,
        within: Duration,
    ) -> Result<CaughtUp> {
        let deadline = Instant::now() + within;
        let model = self.old.record.id.clone();
        let filter = EventFilter { model: Some(model.clone()), ..EventFilter::default() };
        let mut query = EventQuery { after: since, limit: CHANGES_AT_ONCE, filter };
        loop {
            let page = stores.event.read(&query, None).await?;
            // Only then does the model store have the effects of these events.
            tail.reached_soon(page.head).await?;
            let Some(last) = page.events.last() else {
                // A page skips a bounded number of events of other models.
                match page.next() {
                    Some(next) => query.after = next,
                    None => return Ok(CaughtUp { position: page.head.max(query.after), review: self, is_all: true }),
                }
                continue;
            };
            query.after = last.position;
            // Each instance once: its current state covers all of its events in the page.
            let mut changed = BTreeSet::new();
            let mut instances = Vec::new();
            for event in &page.events {
                let Some(id) = event.instance.as_ref().filter(|id| changed.insert(*id)) else { continue };
                if !instances.is_empty() && Instant::now() >= deadline {
                    query.after = event.position - 1;
                    break;
                }
                self.misfits.remove(id);
                if self.reads {
                    instances.extend(stores.model.get(&model, id).await?.map(|instance| (event.position, instance)));
                }
            }
            if !instances.is_empty() {
                let look = move |effort: &Effort| {
                    for (index, (position, instance)) in instances.iter().enumerate() {
                        if index > 0 && Instant::now() >= deadline {
                            return Ok((self, Some(position - 1)));
                        }
                        self.look(instance, None, effort)?;
                    }
                    Ok::<_, Error>((self, None))
                };
                let stopped;
                (self, stopped) = workers.run(&model, look).await??;
                self.look_up_targets(&*stores.model).await?;
                query.after = stopped.unwrap_or(query.after);
            }
            if Instant::now() >= deadline {
                return Ok(CaughtUp { position: query.after, review: self, is_all: false });
            }
        }
    }

    fn look(&mut self, instance: &Instance, twins: Option<&mut Twins>, effort: &Effort) -> Result<()> {
        let started = Instant::now();
        self.compare(instance, twins, effort)?;
        self.spent += started.elapsed();
        self.looked_at += 1;
        if self.spent > TIME + TIME_EACH * self.looked_at {
            return Err(Error::new(
                ErrorKind::TooComplex,
                format!(
                    "checking the instances of `{}` against the new schema takes too long: {} of them took {} ms; make the schema simpler",
                    self.old.record.id,
                    self.looked_at,
                    self.spent.as_millis()
                ),
            ));
        }
        Ok(())
    }

    fn compare(&mut self, instance: &Instance, twins: Option<&mut Twins>, effort: &Effort) -> Result<()> {
        let mut value = parse(instance)?;
        if let Some(taken) = self.carry_over(&mut value) {
            self.misfit(&instance.id, || {
                format!("/{taken} has a value, though the schema does not declare it: the rename to `{taken}` would overwrite it")
            });
        }
        self.targets.note(&instance.id, &value);
        let verdict = if self.validates { self.new.schema.check(&value, "", effort) } else { Ok(()) };
        match verdict {
            Ok(()) => {}
            Err(Unfit::Errors(errors)) => self.misfit(&instance.id, || {
                let rows = errors.iter().take(3).map(|error| format!("{} {}", error.pointer, error.message));
                rows.collect::<Vec<_>>().join("; ").trim().to_owned()
            }),
            Err(Unfit::TooComplex(message)) => self.misfit(&instance.id, || message),
            Err(Unfit::Late) => return Err(late()),
        }
        let Some(twins) = twins.filter(|_| !self.unproven.is_empty()) else { return Ok(()) };
        twins.instance(&instance.id);
        for list in &self.unproven {
            if let Some(values) = unique::values(&self.new.record.unique[*list], &value)
                && let Some(other) = twins.key(*list, &values)
                && self.suspects.len() < LISTED_MAX
            {
                self.suspects.push((instance.id.clone(), other.to_owned(), *list));
            }
        }
        Ok(())
    }

    /// Carries data over and records which parts were needed. Returns the new name of a rename if the instance already
    /// has a value of that name.
    fn carry_over(&mut self, value: &mut Value) -> Option<String> {
        let data = value.as_object_mut()?;
        let is_moved = |name: &String| self.carry.renames.iter().any(|(old, _)| old == name);
        let taken = self
            .carry
            .renames
            .iter()
            .find(|(old, new)| data.contains_key(old) && data.contains_key(new) && !is_moved(new));
        let taken = taken.map(|(_, new)| new.clone());
        let renames = CarryOver { renames: std::mem::take(&mut self.carry.renames), defaults: Vec::new() };
        self.renames |= renames.apply(data);
        self.carry.renames = renames.renames;
        for (index, (name, default)) in self.carry.defaults.iter().enumerate() {
            if !data.contains_key(name) {
                data.insert(name.clone(), default.clone());
                self.defaults.insert(index);
            }
        }
        taken
    }

    fn misfit(&mut self, id: &str, message: impl FnOnce() -> String) {
        if self.misfits.len() < LISTED_MAX {
            self.misfits.entry(id.to_owned()).or_insert_with(message);
        }
    }

    /// Reads pairs that seemed to share a value again, both at nearly the same moment.
    async fn confront(&mut self, store: &dyn ModelStore) -> Result<()> {
        let model = self.old.record.id.clone();
        for (id, other, list) in std::mem::take(&mut self.suspects) {
            let mut values = Vec::with_capacity(2);
            for id in [&id, &other] {
                let Some(instance) = store.get(&model, id).await? else { break };
                let mut value = parse(&instance)?;
                self.carry_over(&mut value);
                values.push(unique::values(&self.new.record.unique[list], &value));
            }
            if let [Some(one), Some(two)] = &values[..]
                && one == two
            {
                self.share(&id, &other, list);
            }
        }
        Ok(())
    }

    fn share(&mut self, id: &str, other: &str, list: usize) {
        let clash = self.new.record.unique[list].clash(other);
        self.misfit(id, || clash);
    }

    async fn look_up_targets(&mut self, store: &dyn ModelStore) -> Result<()> {
        for (id, message) in self.targets.look_up(store).await? {
            self.misfit(&id, || message);
        }
        Ok(())
    }

    /// Looks for targets of new references that were deleted meanwhile; see [`Targets::fence`]. Call `verdict`
    /// afterwards: only some of many problems are kept.
    pub(super) async fn fence(&mut self, core: &Core) -> Result<Vec<Claim>> {
        let (dangling, claims) = self.targets.fence(core).await?;
        for (id, message) in dangling {
            self.misfit(&id, || message);
        }
        Ok(claims)
    }

    /// `incompatible` if instances have problems.
    pub(super) fn verdict(&self) -> Result<()> {
        incompatible(&self.old.record.id, &self.misfits)
    }

    /// The carry-over without the parts that affect no instance.
    pub(super) fn needed(&self) -> CarryOver {
        let renames = if self.renames { self.carry.renames.clone() } else { Vec::new() };
        let defaults = self.defaults.iter().map(|index| self.carry.defaults[*index].clone()).collect();
        CarryOver { renames, defaults }
    }

    /// The ids of the new definition's lists: a list whose values are the same as before keeps its id.
    pub(super) fn list_ids(&self) -> Vec<String> {
        (0..self.followed.len()).map(|list| self.kept_id(list).unwrap_or_else(unique::new_id)).collect()
    }

    /// The lists whose keys must be taken.
    pub(super) fn new_lists(&self) -> Vec<usize> {
        (0..self.followed.len()).filter(|list| self.kept_id(*list).is_none()).collect()
    }

    fn kept_id(&self, list: usize) -> Option<String> {
        let old = self.followed[list]?;
        let filled = |name: &String| self.defaults.iter().any(|index| self.carry.defaults[*index].0 == *name);
        if self.new.record.unique[list].iter().any(filled) {
            return None;
        }
        let id = self.old.record.unique_ids.get(old).cloned().unwrap_or_default();
        // Keys of a list without an id hold its names.
        let same_names = self.old.record.unique[old] == self.new.record.unique[list];
        (!id.is_empty() || same_names).then_some(id)
    }

    /// The keys that an instance needs in these lists of `record`.
    pub(super) fn keys(&mut self, record: &ModelRecord, wanted: &[usize], instance: &Instance) -> Result<Vec<String>> {
        let mut value = parse(instance)?;
        self.carry_over(&mut value);
        let keys = unique::keys(record, &value).into_iter().filter(|key| wanted.contains(&key.list));
        Ok(keys.map(|key| key.key).collect())
    }
}

fn parse(instance: &Instance) -> Result<Value> {
    Document::parse(&instance.data).map(|document| document.value).map_err(|error| {
        Error::new(ErrorKind::Storage, format!("`{}/{}` cannot be read: {error}", instance.model, instance.id))
    })
}

/// `incompatible` with a row for each instance; `Ok` if there are none.
pub(super) fn incompatible(model: &str, misfits: &BTreeMap<String, String>) -> Result<()> {
    if misfits.is_empty() {
        return Ok(());
    }
    let errors = misfits
        .iter()
        .map(|(id, message)| FieldError { pointer: format!("/instances/{id}"), message: message.clone() })
        .collect();
    Err(Error::new(
        ErrorKind::Incompatible,
        format!(
            "instances of `{model}` do not fit the new version, the first {} are listed; change them first, or the schema",
            misfits.len()
        ),
    )
    .with_errors(errors))
}
