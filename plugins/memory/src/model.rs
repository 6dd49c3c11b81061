//! Instances in sorted maps, one per model.
//!
//! Data is kept as text and, parsed, beside it: filters and sorts look at the tree, clients get the text.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use serde_json::{Map, Value};
use snaphook_driver::compare::{compare, lookup, matches_within, order};
use snaphook_driver::{
    Budget, Capabilities, CarryOver, Condition, Cursor, DriverError, ErrorKind, Event, EventKind, Instance,
    InstancePage, InstanceQuery, Json, ModelShape, ModelStore, PAGE_BYTES_MAX, Position, Result, moves_checkpoint,
};

use crate::locked;

/// See the crate's documentation.
#[derive(Default)]
pub struct MemoryModelStore {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    log: Option<String>,
    checkpoint: Position,
    models: BTreeMap<String, Model>,
    /// The last ticket that was given out.
    tickets: u64,
}

struct Model {
    shape: ModelShape,
    /// Replaced rather than changed while a read looks at them.
    rows: Arc<Rows>,
    /// The next version, if one is prepared; events are applied to it too.
    next: Option<Prepared>,
}

type Rows = BTreeMap<String, Arc<Row>>;

struct Prepared {
    ticket: u64,
    shape: ModelShape,
    carry: CarryOver,
    rows: Rows,
    complete: bool,
}

impl Prepared {
    /// The record is no part of what is prepared.
    fn is_for(&self, new: &ModelShape, carry: &CarryOver) -> bool {
        self.complete && self.shape.is_like(new) && self.carry == *carry
    }
}

/// Rows that are prepared while the store is locked once.
const ROWS_AT_ONCE: usize = 500;

#[derive(Clone)]
struct Row {
    instance: Instance,
    data: Arc<Value>,
}

#[async_trait]
impl ModelStore for MemoryModelStore {
    fn capabilities(&self) -> Capabilities {
        Capabilities::LEAST
    }

    async fn health(&self) -> Result<()> {
        Ok(())
    }

    async fn close(&self) -> Result<()> {
        Ok(())
    }

    async fn define(
        &self,
        after: Position,
        _old: Option<&ModelShape>,
        new: &ModelShape,
        carry: &CarryOver,
        position: Position,
    ) -> Result<()> {
        let mut state = locked(&self.state);
        if !moves_checkpoint("define", state.checkpoint, after, position)? {
            return Ok(());
        }
        match state.models.get_mut(&new.model) {
            Some(model) if carry.is_empty() && model.shape.is_like(new) => model.shape = new.clone(),
            Some(model) => {
                model.shape = new.clone();
                match model.next.take() {
                    Some(next) if next.is_for(new, carry) => model.rows = Arc::new(next.rows),
                    _ => {
                        let rows = Arc::make_mut(&mut model.rows).values_mut();
                        rows.for_each(|row| Arc::make_mut(row).carry(carry, new.version));
                    }
                }
            }
            None => {
                let model = Model { shape: new.clone(), rows: Arc::default(), next: None };
                state.models.insert(new.model.clone(), model);
            }
        }
        state.checkpoint = position;
        Ok(())
    }

    async fn prepare(&self, new: &ModelShape, carry: &CarryOver) -> Result<u64> {
        /// Takes it back if the caller goes away.
        struct Unfinished<'a>(&'a MemoryModelStore, &'a str, u64);
        impl Drop for Unfinished<'_> {
            fn drop(&mut self) {
                if let Some(model) = locked(&self.0.state).models.get_mut(self.1) {
                    drop(model.next.take_if(|next| next.ticket == self.2 && !next.complete));
                }
            }
        }
        let ticket = {
            let mut state = locked(&self.state);
            state.tickets += 1;
            let ticket = state.tickets;
            let Some(model) = state.models.get_mut(&new.model) else { return Ok(0) };
            let (shape, carry) = (new.clone(), carry.clone());
            model.next = Some(Prepared { ticket, shape, carry, rows: BTreeMap::new(), complete: false });
            ticket
        };
        let _unfinished = Unfinished(self, &new.model, ticket);
        let mut after = String::new();
        loop {
            {
                let mut state = locked(&self.state);
                let Some(model) = state.models.get_mut(&new.model) else { return Ok(0) };
                let Some(next) = model.next.as_mut().filter(|next| next.ticket == ticket) else { return Ok(0) };
                let rows = model.rows.range((Bound::Excluded(after), Bound::Unbounded)).take(ROWS_AT_ONCE);
                let mut last = None;
                for (id, row) in rows {
                    let mut row = row.clone();
                    Arc::make_mut(&mut row).carry(carry, new.version);
                    next.rows.insert(id.clone(), row);
                    last = Some(id.clone());
                }
                let Some(last) = last else {
                    next.complete = true;
                    return Ok(ticket);
                };
                after = last;
            }
            tokio::task::yield_now().await;
        }
    }

    async fn discard(&self, model: &str, ticket: u64) -> Result<()> {
        if let Some(model) = locked(&self.state).models.get_mut(model) {
            drop(model.next.take_if(|next| next.ticket == ticket));
        }
        Ok(())
    }

    async fn drop_model(&self, after: Position, model: &str, position: Position) -> Result<()> {
        let mut state = locked(&self.state);
        if moves_checkpoint("drop_model", state.checkpoint, after, position)? {
            state.models.remove(model);
            state.checkpoint = position;
        }
        Ok(())
    }

    async fn apply(&self, after: Position, events: &[Event], to: Position) -> Result<()> {
        let mut state = locked(&self.state);
        if !moves_checkpoint("apply", state.checkpoint, after, to)? {
            return Ok(());
        }
        let checkpoint = state.checkpoint;
        // Everything that can fail comes before the first change.
        let mut changes = Vec::with_capacity(events.len());
        for event in events.iter().filter(|event| event.position > checkpoint && event.kind.is_instance()) {
            if !state.models.contains_key(&event.model) {
                return Err(invalid(event, format!("an instance event of `{}`, which is not defined", event.model)));
            }
            changes.push((event, Change::of(event)?));
        }
        for (event, change) in changes {
            if let Some(model) = state.models.get_mut(&event.model) {
                change.make(event, Arc::make_mut(&mut model.rows));
                if let (Some(next), Some(id)) = (&mut model.next, &event.instance) {
                    match model.rows.get(id).cloned() {
                        Some(mut row) => {
                            Arc::make_mut(&mut row).carry(&next.carry, next.shape.version);
                            next.rows.insert(id.clone(), row);
                        }
                        None => drop(next.rows.remove(id)),
                    }
                }
            }
        }
        state.checkpoint = to;
        Ok(())
    }

    async fn log(&self) -> Result<Option<String>> {
        Ok(locked(&self.state).log.clone())
    }

    async fn checkpoint(&self) -> Result<Position> {
        Ok(locked(&self.state).checkpoint)
    }

    async fn definitions(&self) -> Result<Vec<ModelShape>> {
        Ok(locked(&self.state).models.values().map(|model| model.shape.clone()).collect())
    }

    async fn get(&self, model: &str, id: &str) -> Result<Option<Instance>> {
        let state = locked(&self.state);
        Ok(state.models.get(model).and_then(|model| model.rows.get(id)).map(|row| row.instance.clone()))
    }

    async fn query(&self, model: &str, query: &InstanceQuery, budget: &Budget) -> Result<InstancePage> {
        let cursor = Cursor::decode(model, query)?;
        let mut rows = self.matching(model, &query.filter, budget, "query").await?;
        // Comparisons that the sort needs, at most.
        let comparisons = rows.len() as u64 * u64::from(rows.len().checked_ilog2().unwrap_or(0) + 1);
        budget.charge(comparisons * query.sort.len() as u64).map_err(|limit| limit.into_error("query"))?;
        // Rows come by id, and the sort keeps that order among equals.
        rows.sort_by(|left, right| order(&left.data, &right.data, &query.sort));
        let start = cursor.map_or(0, |cursor| rows.partition_point(|row| is_at_or_before(row, &cursor, query)));
        let limit = query.limit.max(1) as usize;
        let mut bytes = 0;
        let fits = rows[start..].iter().take(limit).take_while(|row| {
            let first = bytes == 0;
            bytes += row.instance.data.len();
            first || bytes <= PAGE_BYTES_MAX
        });
        let end = start + fits.count();
        let more = end < rows.len();
        let page = &rows[start..end];
        let next = page.last().filter(|_| more).map(|row| {
            let keys =
                query.sort.iter().map(|key| lookup(&row.data, &key.path).cloned().unwrap_or(Value::Null)).collect();
            Cursor { keys, id: row.instance.id.clone() }.encode(model, query)
        });
        Ok(InstancePage { items: page.iter().map(|row| row.instance.clone()).collect(), next: next.transpose()? })
    }

    async fn count(&self, model: &str, filter: &[Condition], budget: &Budget) -> Result<u64> {
        Ok(self.matching(model, filter, budget, "count").await?.len() as u64)
    }

    async fn reset(&self, log: &str) -> Result<()> {
        *locked(&self.state) = State { log: Some(log.to_owned()), ..State::default() };
        Ok(())
    }
}

/// Steps after which a read lets others have the thread. A dropped read ends there.
const STEPS_AT_ONCE: u64 = 50_000;

impl MemoryModelStore {
    /// Rows that match, by id. The lock is not held meanwhile.
    async fn matching(
        &self,
        model: &str,
        filter: &[Condition],
        budget: &Budget,
        operation: &'static str,
    ) -> Result<Vec<Arc<Row>>> {
        budget.start();
        let rows = locked(&self.state).models.get(model).map(|model| Arc::clone(&model.rows)).unwrap_or_default();
        let mut matching = Vec::new();
        let mut yielded = budget.steps();
        for row in rows.values() {
            if budget.steps() - yielded > STEPS_AT_ONCE {
                yielded = budget.steps();
                tokio::task::yield_now().await;
            }
            let matches = budget.charge(1).and_then(|()| matches_within(&row.data, filter, budget));
            if matches.map_err(|limit| limit.into_error(operation))? {
                budget.hold(size_of::<Arc<Row>>()).map_err(|limit| limit.into_error(operation))?;
                matching.push(Arc::clone(row));
            }
        }
        Ok(matching)
    }
}

impl Row {
    fn carry(&mut self, carry: &CarryOver, version: u64) {
        let Value::Object(data) = &*self.data else { return };
        let mut data: Map<String, Value> = data.clone();
        if carry.apply(&mut data) {
            let data = Value::Object(data);
            self.instance.data = Json::from_value(&data);
            self.instance.model_version = version;
            self.data = Arc::new(data);
        }
    }
}

/// What an event does, with its data read.
enum Change {
    Put { data: Arc<Value>, text: Json },
    Remove,
}

impl Change {
    fn of(event: &Event) -> Result<Change> {
        if event.kind == EventKind::InstanceDeleted {
            return Ok(Change::Remove);
        }
        let text = event.data.clone().ok_or_else(|| invalid(event, format!("`{}` without data", event.kind)))?;
        let data = text.to_value().map_err(|error| invalid(event, "data that is no JSON".into()).because(error))?;
        Ok(Change::Put { data: Arc::new(data), text })
    }

    fn make(self, event: &Event, rows: &mut Rows) {
        let Some(id) = &event.instance else { return };
        match self {
            Change::Remove => {
                rows.remove(id);
            }
            Change::Put { data, text } => {
                let before = rows.get(id).filter(|_| event.kind == EventKind::InstanceUpdated);
                let instance = Instance {
                    id: id.clone(),
                    model: event.model.clone(),
                    model_version: event.model_version,
                    revision: event.revision,
                    position: event.position,
                    created_at: before.map_or(event.time, |row| row.instance.created_at),
                    updated_at: event.time,
                    data: text,
                };
                rows.insert(id.clone(), Arc::new(Row { instance, data }));
            }
        }
    }
}

fn is_at_or_before(row: &Row, cursor: &Cursor, query: &InstanceQuery) -> bool {
    query
        .sort
        .iter()
        .zip(&cursor.keys)
        .map(|(key, value)| {
            compare(lookup(&row.data, &key.path), Some(value).filter(|value| !value.is_null()), key.descending)
        })
        .find(|ordering| ordering.is_ne())
        .unwrap_or_else(|| row.instance.id.cmp(&cursor.id))
        != Ordering::Greater
}

fn invalid(event: &Event, message: String) -> DriverError {
    DriverError::new(ErrorKind::Invalid, "apply", message).with("position", event.position)
}
