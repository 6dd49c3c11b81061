//! Computes the effects of calls on the instances on a copy, so that readers wait at most for a lookup or a step, never
//! for a call.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use snaphook_driver::{
    CarryOver, Changes, DriverError, ErrorKind, Event, Instances, ModelShape, Position, Result, Row, Rows,
    moves_checkpoint,
};

use crate::journal::{JournalEntry, Key};

/// Records that may differ from memory, and whether the peer may have one at all.
pub(crate) type Owed = BTreeMap<Key, bool>;

/// The records that the peer should have; `None`: no record.
pub(crate) type Targets = BTreeMap<Key, Option<Arc<Row>>>;

/// A panic of an earlier holder never leaves the state inconsistent: it is updated last, in one step.
pub(crate) fn locked(instances: &Mutex<Instances>) -> MutexGuard<'_, Instances> {
    instances.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A snapshot of the rows of some models. While it exists, a change of their instances copies the changed parts.
pub(crate) struct Snapshot(BTreeMap<String, Rows>);

impl Snapshot {
    pub(crate) fn of<'a>(instances: &Mutex<Instances>, keys: impl Iterator<Item = &'a Key>) -> Snapshot {
        let models: BTreeSet<&str> = keys.map(|(model, _)| model.as_str()).collect();
        let instances = locked(instances);
        let rows = |model: &str| Some((model.to_owned(), instances.rows(model)?));
        Snapshot(models.into_iter().filter_map(rows).collect())
    }

    pub(crate) fn of_all(instances: &Mutex<Instances>) -> Snapshot {
        let instances = locked(instances);
        let rows = |shape: &ModelShape| Some((shape.model.clone(), instances.rows(&shape.model)?));
        Snapshot(instances.definitions().filter_map(rows).collect())
    }

    pub(crate) fn row(&self, (model, id): &Key) -> Option<&Arc<Row>> {
        self.0.get(model)?.get(id.as_str())
    }

    pub(crate) fn rows(&self, model: &str) -> impl Iterator<Item = &Arc<Row>> {
        self.0.get(model).into_iter().flat_map(|rows| rows.values())
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = Key> {
        self.0.iter().flat_map(|(model, rows)| keys(model, rows))
    }
}

/// The records of a model.
pub(crate) fn keys(model: &str, rows: &Rows) -> impl Iterator<Item = Key> {
    rows.keys().map(move |id| (model.to_owned(), id.to_string()))
}

/// The instances that a conversion to a new version of the model changes.
pub(crate) fn carried(rows: &Rows, new: &ModelShape, carry: &CarryOver) -> Targets {
    if carry.is_empty() {
        return Targets::new();
    }
    let change = |(id, row): (&Arc<str>, &Arc<Row>)| {
        let mut after = Row::clone(row);
        after.carry(carry, new.version);
        (after.instance() != row.instance()).then(|| ((new.model.clone(), id.to_string()), Some(Arc::new(after))))
    };
    rows.iter().filter_map(change).collect()
}

/// The effects of events and the resulting instances, computed on a copy of the affected instances. `None` if the
/// checkpoint is already reached.
pub(crate) fn applied<'a>(
    instances: &Mutex<Instances>,
    after: Position,
    events: &'a [Event],
    to: Position,
) -> Result<Option<(Changes<'a>, Targets)>> {
    let (mut copy, rows) = {
        let instances = locked(instances);
        let checkpoint = instances.checkpoint();
        if !moves_checkpoint("apply", checkpoint, after, to)? {
            return Ok(None);
        }
        let new = events.iter().filter(|event| event.position > checkpoint && event.kind.is_instance());
        let models: BTreeSet<&str> = new.clone().map(|event| event.model.as_str()).collect();
        let mut copy = Instances::new(None, checkpoint);
        let shapes = instances.definitions().filter(|shape| models.contains(shape.model.as_str()));
        shapes.for_each(|shape| copy.put_model(shape.clone()));
        let rows = new.filter_map(|event| instances.row(&event.model, event.instance.as_deref()?).cloned());
        (copy, rows.collect::<Vec<_>>())
    };
    rows.iter().for_each(|row| copy.put_row(Row::clone(row)));
    let (changes, tried) = (copy.changes(events, to)?, copy.changes(events, to)?);
    let keys: BTreeSet<Key> =
        changes.events().filter_map(|event| Some((event.model.clone(), event.instance.clone()?))).collect();
    copy.apply(tried);
    let target = |key: Key| {
        let row = copy.row(&key.0, &key.1).cloned();
        (key, row)
    };
    Ok(Some((changes, keys.into_iter().map(target).collect())))
}

/// Marks a record of a call that is not yet applied in memory as owed. An earlier entry stays, because it already says
/// whether the peer may have the record.
pub(crate) fn owe(owed: &mut Owed, instances: &Instances, key: Key, is_known: bool) {
    let is_known = is_known || instances.row(&key.0, &key.1).is_some();
    owed.entry(key).or_insert(is_known);
}

/// Applies an entry of the journal again.
pub(crate) fn take_up(entry: JournalEntry, instances: &mut Instances, owed: &mut Owed) -> Result<()> {
    let damaged = |message: &str| DriverError::new(ErrorKind::Corrupt, "open", message.to_owned());
    match entry {
        JournalEntry::Begin { log, checkpoint } => *instances = Instances::new(log, checkpoint),
        JournalEntry::Model(shape) => instances.put_model(shape),
        JournalEntry::Row(instance) => {
            let row = Row::new(instance).map_err(|error| damaged("an instance is not valid JSON").because(error))?;
            instances.put_row(row);
        }
        JournalEntry::Define { new, carry, position } => {
            let rows = instances.rows(&new.model).unwrap_or_default();
            carried(&rows, &new, &carry).into_keys().for_each(|key| owe(owed, instances, key, false));
            drop(rows);
            instances.define(&new, &carry, position);
        }
        JournalEntry::DropModel { model, position } => {
            let rows = instances.rows(&model).unwrap_or_default();
            keys(&model, &rows).for_each(|key| owe(owed, instances, key, false));
            instances.drop_model(&model, position);
        }
        JournalEntry::Apply { events, to } => {
            let changes = instances.changes(&events, to)?;
            for event in changes.events() {
                if let Some(id) = &event.instance {
                    owe(owed, instances, (event.model.clone(), id.clone()), false);
                }
            }
            instances.apply(changes);
        }
        JournalEntry::Touch(keys) => owed.extend(keys.into_iter().map(|key| (key, true))),
        JournalEntry::Clean => owed.clear(),
    }
    Ok(())
}
