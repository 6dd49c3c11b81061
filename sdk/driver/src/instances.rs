//! All instances of a model store in memory, and the effects of events and definitions on them: for drivers that
//! evaluate queries themselves. A driver guards this state with a lock, and may also store the data in any way.
//!
//! A change has two parts: a check, which can fail and changes nothing, and the change, which cannot fail. So a driver
//! can write a journal entry in between.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;

use crate::carry_over::CarryOver;
use crate::error::{DriverError, ErrorKind, Result};
use crate::event::{Event, EventKind, Position};
use crate::json::Json;
use crate::model_store::{Instance, ModelShape, moves_checkpoint};
use crate::rows::{Row, Rows, yield_now};

/// See the head of this file.
#[derive(Debug, Default)]
pub struct Instances {
    log: Option<String>,
    checkpoint: Position,
    models: BTreeMap<String, Model>,
    /// The last ticket.
    tickets: u64,
}

#[derive(Debug)]
struct Model {
    shape: ModelShape,
    rows: Rows,
    /// The prepared next version, if there is one; events are applied to it too.
    next: Option<PreparedRows>,
}

#[derive(Debug)]
struct PreparedRows {
    ticket: u64,
    shape: ModelShape,
    carry: CarryOver,
    rows: Rows,
    complete: bool,
}

impl PreparedRows {
    /// Whether the preparation is for this change. The record does not matter.
    fn is_for(&self, new: &ModelShape, carry: &CarryOver) -> bool {
        self.complete && self.shape.is_like(new) && self.carry == *carry
    }
}

/// The effects of events, with parsed data.
#[derive(Debug)]
pub struct Changes<'a> {
    changes: Vec<(&'a Event, RowChange)>,
    to: Position,
}

#[derive(Debug)]
enum RowChange {
    Put { data: Arc<Value>, text: Json },
    Remove,
}

impl<'a> Changes<'a> {
    /// The events that change something, in order.
    pub fn events(&self) -> impl ExactSizeIterator<Item = &'a Event> {
        self.changes.iter().map(|(event, _)| *event)
    }
}

/// Rows prepared per lock of the instances.
const ROWS_AT_ONCE: usize = 500;

impl Instances {
    /// Creates the state at a position of a log, without models.
    pub fn new(log: Option<String>, checkpoint: Position) -> Instances {
        Instances { log, checkpoint, ..Instances::default() }
    }

    pub fn log(&self) -> Option<&str> {
        self.log.as_deref()
    }

    pub fn checkpoint(&self) -> Position {
        self.checkpoint
    }

    /// The defined models, by id.
    pub fn definitions(&self) -> impl Iterator<Item = &ModelShape> {
        self.models.values().map(|model| &model.shape)
    }

    /// The current instances of a model; `None` if the model does not exist.
    pub fn rows(&self, model: &str) -> Option<Rows> {
        self.models.get(model).map(|model| model.rows.clone())
    }

    pub fn row(&self, model: &str, id: &str) -> Option<&Arc<Row>> {
        self.models.get(model).and_then(|model| model.rows.get(id))
    }

    /// Up to `count` rows of a model with ids greater than `id`.
    pub fn rows_after(&self, model: &str, id: &str, count: usize) -> Vec<Arc<Row>> {
        let Some(model) = self.models.get(model) else { return Vec::new() };
        model.rows.after(id).take(count).map(|(_, row)| Arc::clone(row)).collect()
    }

    /// The effects of events; `None` if the checkpoint is already at or after `to`. See [`crate::ModelStore::apply`].
    pub fn check<'a>(&self, after: Position, events: &'a [Event], to: Position) -> Result<Option<Changes<'a>>> {
        if !moves_checkpoint("apply", self.checkpoint, after, to)? {
            return Ok(None);
        }
        self.changes(events, to).map(Some)
    }

    /// The same without a check of `after`.
    pub fn changes<'a>(&self, events: &'a [Event], to: Position) -> Result<Changes<'a>> {
        let mut changes = Vec::with_capacity(events.len());
        for event in events.iter().filter(|event| event.position > self.checkpoint && event.kind.is_instance()) {
            if !self.models.contains_key(&event.model) {
                return Err(invalid(event, format!("an instance event of `{}`, which is not defined", event.model)));
            }
            changes.push((event, RowChange::of(event)?));
        }
        Ok(Changes { changes, to })
    }

    /// Applies the effects of events.
    pub fn apply(&mut self, changes: Changes<'_>) {
        for (event, change) in changes.changes {
            if let Some(model) = self.models.get_mut(&event.model) {
                change.make(event, &mut model.rows);
                model.follow(event);
            }
        }
        self.checkpoint = changes.to;
    }

    /// Creates or changes a model; see [`crate::ModelStore::define`]. Returns whether the data of instances may have
    /// changed.
    pub fn define(&mut self, new: &ModelShape, carry: &CarryOver, position: Position) -> bool {
        self.checkpoint = position;
        let Some(model) = self.models.get_mut(&new.model) else {
            self.put_model(new.clone());
            return false;
        };
        let is_record = carry.is_empty() && model.shape.is_like(new);
        model.shape = new.clone();
        if is_record {
            return false;
        }
        match model.next.take() {
            Some(next) if next.is_for(new, carry) => model.rows = next.rows,
            _ if carry.is_empty() => {}
            _ => {
                model.rows.values_mut().for_each(|row| Arc::make_mut(row).carry(carry, new.version));
            }
        }
        !carry.is_empty()
    }

    /// Removes a model; see [`crate::ModelStore::drop_model`].
    pub fn drop_model(&mut self, model: &str, position: Position) {
        self.models.remove(model);
        self.checkpoint = position;
    }

    /// Removes everything; see [`crate::ModelStore::reset`].
    pub fn reset(&mut self, log: &str) {
        // Earlier tickets stay invalid.
        *self = Instances { log: Some(log.to_owned()), tickets: self.tickets, ..Instances::default() };
    }

    /// Adds a model without instances, or replaces it, regardless of the checkpoint.
    pub fn put_model(&mut self, shape: ModelShape) {
        self.models.insert(shape.model.clone(), Model { shape, rows: Rows::default(), next: None });
    }

    /// Adds or replaces a row of an existing model, regardless of the checkpoint.
    pub fn put_row(&mut self, row: Row) {
        let Instance { id, model, .. } = row.instance();
        if let Some(model) = self.models.get_mut(model) {
            model.rows.insert(id.as_str().into(), Arc::new(row));
        }
    }

    /// Discards the prepared version of a model; see [`crate::ModelStore::discard`].
    pub fn discard(&mut self, model: &str, ticket: u64) {
        if let Some(model) = self.models.get_mut(model) {
            drop(model.next.take_if(|next| next.ticket == ticket));
        }
    }

    fn begin_prepare(&mut self, new: &ModelShape, carry: &CarryOver) -> Option<u64> {
        self.tickets += 1;
        let ticket = self.tickets;
        let model = self.models.get_mut(&new.model)?;
        let (shape, carry) = (new.clone(), carry.clone());
        model.next = Some(PreparedRows { ticket, shape, carry, rows: Rows::default(), complete: false });
        Some(ticket)
    }

    /// Prepares the rows after an id. Returns the last one; `None` if there is nothing left to do.
    fn prepare_some(&mut self, model: &str, ticket: u64, after: &str) -> Option<Arc<str>> {
        let model = self.models.get_mut(model)?;
        let next = model.next.as_mut().filter(|next| next.ticket == ticket)?;
        let rows = model.rows.after(after).take(ROWS_AT_ONCE);
        let mut last = None;
        for (id, row) in rows {
            let mut row = Arc::clone(row);
            Arc::make_mut(&mut row).carry(&next.carry, next.shape.version);
            next.rows.insert(Arc::clone(id), row);
            last = Some(Arc::clone(id));
        }
        next.complete = last.is_none();
        last
    }

    fn is_prepared(&self, model: &str, ticket: u64) -> bool {
        let next = self.models.get(model).and_then(|model| model.next.as_ref());
        next.is_some_and(|next| next.ticket == ticket && next.complete)
    }
}

/// Prepares a change of a model while others change its instances; see [`crate::ModelStore::prepare`].
pub async fn prepare_instances(instances: &Mutex<Instances>, new: &ModelShape, carry: &CarryOver) -> u64 {
    /// Discards it if the caller is dropped.
    struct Unfinished<'a>(&'a Mutex<Instances>, &'a str, u64);
    impl Drop for Unfinished<'_> {
        fn drop(&mut self) {
            let Unfinished(instances, model, ticket) = self;
            let mut instances = locked(instances);
            if !instances.is_prepared(model, *ticket) {
                instances.discard(model, *ticket);
            }
        }
    }
    let Some(ticket) = locked(instances).begin_prepare(new, carry) else { return 0 };
    let _unfinished = Unfinished(instances, &new.model, ticket);
    let mut after: Arc<str> = "".into();
    loop {
        let step = locked(instances).prepare_some(&new.model, ticket, &after);
        match step {
            Some(last) => after = last,
            None => return if locked(instances).is_prepared(&new.model, ticket) { ticket } else { 0 },
        }
        yield_now().await;
    }
}

/// The state is consistent even after a panic of an earlier holder, because changes are made last, in one step.
fn locked(instances: &Mutex<Instances>) -> MutexGuard<'_, Instances> {
    instances.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Model {
    /// Applies an event's change to the prepared version.
    fn follow(&mut self, event: &Event) {
        let (Some(next), Some(id)) = (&mut self.next, &event.instance) else { return };
        match self.rows.get_key_value(id.as_str()) {
            Some((id, row)) => {
                let mut row = Arc::clone(row);
                Arc::make_mut(&mut row).carry(&next.carry, next.shape.version);
                next.rows.insert(Arc::clone(id), row);
            }
            None => drop(next.rows.remove(id.as_str())),
        }
    }
}

impl RowChange {
    fn of(event: &Event) -> Result<RowChange> {
        if event.kind == EventKind::InstanceDeleted {
            return Ok(RowChange::Remove);
        }
        let text = event.data.clone().ok_or_else(|| invalid(event, format!("`{}` without data", event.kind)))?;
        let data =
            text.to_value().map_err(|error| invalid(event, "data that is not valid JSON".into()).because(error))?;
        Ok(RowChange::Put { data: Arc::new(data), text })
    }

    fn make(self, event: &Event, rows: &mut Rows) {
        let Some(id) = &event.instance else { return };
        match self {
            RowChange::Remove => drop(rows.remove(id.as_str())),
            RowChange::Put { data, text } => {
                let before = rows.get(id.as_str()).filter(|_| event.kind == EventKind::InstanceUpdated);
                let instance = Instance {
                    id: id.clone(),
                    model: event.model.clone(),
                    model_version: event.model_version,
                    revision: event.revision,
                    position: event.position,
                    created_at: before.map_or(event.time, |row| row.instance().created_at),
                    updated_at: event.time,
                    data: text,
                };
                rows.insert(id.as_str().into(), Arc::new(Row::of(instance, data)));
            }
        }
    }
}

fn invalid(event: &Event, message: String) -> DriverError {
    DriverError::new(ErrorKind::Invalid, "apply", message).with("position", event.position)
}
