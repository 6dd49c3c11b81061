//! Instances as they are now: a projection of the log that may be deleted at any time.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::budget::Budget;
use crate::capabilities::Capabilities;
use crate::carry_over::CarryOver;
use crate::error::{DriverError, ErrorKind, Result};
use crate::event::{Event, Position};
use crate::filter::Filter;
use crate::json::Json;
use crate::path::Path;
use crate::time::{self, Millis};

/// One entity of a model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Instance {
    pub id: String,
    pub model: String,
    /// Version of the model under which the data was last written or carried over.
    pub model_version: u64,
    /// From 1, plus 1 with each event.
    pub revision: u64,
    /// Position of its last event.
    pub position: Position,
    #[serde(with = "time")]
    pub created_at: Millis,
    #[serde(with = "time")]
    pub updated_at: Millis,
    pub data: Json,
}

/// Type of a column; what the schema promises of a property.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ColumnKind {
    Text,
    Integer,
    Number,
    Boolean,
    /// Several scalar types are allowed.
    Any,
}

/// A scalar property of a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// The property's name as it stands in the schema; may hold spaces, quotes and any other character.
    pub name: String,
    pub kind: ColumnKind,
}

/// One key of a sort order or index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SortKey {
    pub path: Path,
    pub descending: bool,
}

/// What a model store needs to know of a model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelShape {
    pub model: String,
    pub version: u64,
    /// Top-level scalar properties, in the order of the schema.
    pub columns: Vec<Column>,
    /// Of paths into the data.
    pub indexes: Vec<Vec<SortKey>>,
    /// Lists of top-level properties; kept unique by claims in the event store, here only worth an index.
    pub unique: Vec<Vec<String>>,
    /// The model's definition in the server's own form; kept and given back by [`ModelStore::definitions`].
    pub record: Json,
}

impl ModelShape {
    /// Whether both are the same but for the record.
    pub fn is_like(&self, other: &ModelShape) -> bool {
        let (a, b) = (self, other);
        (&a.model, a.version, &a.columns, &a.indexes, &a.unique)
            == (&b.model, b.version, &b.columns, &b.indexes, &b.unique)
    }
}

/// Which instances, in which order.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct InstanceQuery {
    pub filter: Filter,
    /// Then by id ascending, always. Absent and null values come last in either direction.
    pub sort: Vec<SortKey>,
    /// At most that many, from 1; fewer if their data would be more than [`crate::PAGE_BYTES_MAX`].
    pub limit: u32,
    /// `next` of an earlier page of the same filter and sort.
    pub cursor: Option<String>,
}

/// One page of instances.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InstancePage {
    pub items: Vec<Instance>,
    /// Opaque, URL-safe; `None` on the last page. Instances that come or go between two pages neither repeat nor
    /// hide others (keyset, not offset).
    pub next: Option<String>,
}

/// Whether a call that knows the log from `after` to `to` moves a store whose checkpoint is `checkpoint`: not if the store is
/// there already. `ErrorKind::Conflict` if events between the checkpoint and `after` would be missed.
pub fn moves_checkpoint(operation: &'static str, checkpoint: Position, after: Position, to: Position) -> Result<bool> {
    if to <= checkpoint {
        return Ok(false);
    }
    if checkpoint < after {
        let message = "the store has not got that far, so events would be missed";
        return Err(DriverError::new(ErrorKind::Conflict, operation, message)
            .with("checkpoint", checkpoint)
            .with("after", after));
    }
    Ok(true)
}

/// A store of instances.
///
/// `define`, `drop_model`, `apply` and `reset` are called one after the other by a node, and may block its thread; the reads
/// may be called at once from many tasks and never wait for the writer. Nothing here needs to be durable when it
/// returns: after a crash the server goes on from [`ModelStore::checkpoint`]. But what is there must be consistent
/// with the checkpoint: each of the four calls happens as a whole or not at all.
///
/// `define`, `drop_model` and `apply` take the store from one position of the log to a later one: they compare and set the
/// checkpoint, so that several nodes may bring one store up to date ([`moves_checkpoint`]).
#[async_trait]
pub trait ModelStore: Send + Sync {
    /// Constant over the life of the store.
    fn capabilities(&self) -> Capabilities;

    /// Whether the store can answer now.
    async fn health(&self) -> Result<()>;

    /// Ends background work. Called once, last.
    async fn close(&self) -> Result<()>;

    /// Makes a model (`old` is `None`) or changes one: columns, indexes, and every instance's data through `carry`
    /// (instances that change get `new.version` as their `model_version`). Then the checkpoint is `position`. The caller
    /// knows the log from `after` to there.
    async fn define(
        &self,
        after: Position,
        old: Option<&ModelShape>,
        new: &ModelShape,
        carry: &CarryOver,
        position: Position,
    ) -> Result<()>;

    /// Does ahead of a change of a model everything whose cost grows with its instances: a following `define` with the
    /// same `new` (its `record` may differ) and the same `carry` must take no longer than that of an empty model. The
    /// model's readers see the old version until then; `apply` goes on for all models, this one included, and must not
    /// wait longer than a few milliseconds for this. Replaces what was prepared for the model before. Does nothing for a
    /// model that is not there. A `define` that changes nothing but the model's `record` leaves what is prepared.
    ///
    /// Called from another thread than the four. The work ends soon after the call is dropped, and nothing of it stays.
    /// What is prepared need not survive a restart; a driver removes what it finds of it when it is opened. Returns a
    /// ticket for `discard`.
    async fn prepare(&self, new: &ModelShape, carry: &CarryOver) -> Result<u64> {
        let _ = (new, carry);
        Ok(0)
    }

    /// Forgets what a `prepare` with this ticket made, unless it is in use or replaced by now.
    async fn discard(&self, model: &str, ticket: u64) -> Result<()> {
        let _ = (model, ticket);
        Ok(())
    }

    /// Called before many changes are made up with the log: until `end_replay` there are no reads. A driver may put off what
    /// `define` does to instances and build indexes at the end; steps that follow each other then cost one pass
    /// ([`crate::CarryOvers`]). `checkpoint` and `definitions` say what was applied all the same.
    async fn begin_replay(&self) -> Result<()> {
        Ok(())
    }

    /// Carries out what was put off, also before a crash. Called at the end of every replay, so also without anything to do.
    ///
    /// Returns the models for which that failed, each with the reason: they stay as they are and are tried again at the
    /// next `end_replay`, the others are done all the same. An error means that the store as a whole does not work.
    async fn end_replay(&self) -> Result<Vec<(String, DriverError)>> {
        Ok(Vec::new())
    }

    /// Removes a model with all its instances. Then the checkpoint is `position`; `after` as in [`ModelStore::define`]. Not
    /// an error if it is not there.
    async fn drop_model(&self, after: Position, model: &str, position: Position) -> Result<()>;

    /// Applies instance events in order, then the checkpoint is `to` (at or after the last event's). `events` are those that
    /// the log has between `after` and `to`, without what is not to be applied. Events at or before the checkpoint are
    /// skipped; events of other kinds too.
    async fn apply(&self, after: Position, events: &[Event], to: Position) -> Result<()>;

    /// The identity of the log that the store is a projection of; `None` if it was never told
    /// ([`ModelStore::reset`]).
    async fn log(&self) -> Result<Option<String>>;

    /// Position up to which the log is applied; 0 for an empty store.
    async fn checkpoint(&self) -> Result<Position>;

    /// The models that are defined, by id.
    async fn definitions(&self) -> Result<Vec<ModelShape>>;

    /// One instance; `None` if it or its model is not there.
    async fn get(&self, model: &str, id: &str) -> Result<Option<Instance>>;

    /// A page of instances. A cursor that this query did not make: `ErrorKind::Invalid`.
    ///
    /// The driver charges `budget` while it works, for every row that it looks at, whether the row matches or not, and
    /// stops within a moment when that says so: [`crate::Exceeded::into_error`]. It also stops when the returned future is
    /// dropped. A driver that has a bounded number of places for reads gives short ones their own, so that long ones
    /// cannot hold them up; a read that gets no place within [`crate::Budget::wait_left`], or finds too many waiting, is
    /// `ErrorKind::Overloaded`.
    async fn query(&self, model: &str, query: &InstanceQuery, budget: &Budget) -> Result<InstancePage>;

    /// How many instances match. The budget as in [`ModelStore::query`].
    async fn count(&self, model: &str, filter: &Filter, budget: &Budget) -> Result<u64>;

    /// Removes everything; the checkpoint is 0, and from then on the store is a projection of the log with this
    /// identity. Where no log is named yet ([`ModelStore::log`] is `None`) and the checkpoint is 0, the server calls this
    /// first.
    async fn reset(&self, log: &str) -> Result<()>;
}
