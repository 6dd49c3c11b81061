//! The current instances: a projection of the log that may be deleted at any time.

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
    /// Starts at 1 and increases by 1 with each event.
    pub revision: u64,
    /// Position of its last event.
    pub position: Position,
    #[serde(with = "time")]
    pub created_at: Millis,
    #[serde(with = "time")]
    pub updated_at: Millis,
    pub data: Json,
}

/// The type of a column, as guaranteed by the schema.
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
    /// The property's name in the schema; may contain spaces, quotes and any other character.
    pub name: String,
    pub kind: ColumnKind,
}

/// One key of a sort order or index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SortKey {
    pub path: Path,
    pub descending: bool,
}

/// The properties of a model that a model store needs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelShape {
    pub model: String,
    pub version: u64,
    /// Top-level scalar properties, in the order of the schema.
    pub columns: Vec<Column>,
    /// Indexes over paths into the data.
    pub indexes: Vec<Vec<SortKey>>,
    /// Lists of top-level properties. Claims in the event store guarantee uniqueness; in a model store the lists only
    /// serve as indexes.
    pub unique: Vec<Vec<String>>,
    /// The model's definition in the server's own format; stored and returned by [`ModelStore::definitions`].
    pub record: Json,
}

impl ModelShape {
    /// Whether two shapes are the same except for the record.
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
    /// The sort keys, always followed by ascending id. Absent and null values come last in either direction.
    pub sort: Vec<SortKey>,
    /// The maximum number of instances, at least 1; fewer are returned if their data would exceed
    /// [`crate::PAGE_BYTES_MAX`].
    pub limit: u32,
    /// `next` of an earlier page with the same filter and sort.
    pub cursor: Option<String>,
}

/// One page of instances.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InstancePage {
    pub items: Vec<Instance>,
    /// Opaque, URL-safe; `None` on the last page. Instances that are created or deleted between two pages do not make
    /// others repeat or disappear (keyset, not offset).
    pub next: Option<String>,
}

/// Whether a call with the log from `after` to `to` advances a store that has the checkpoint `checkpoint`; `false` if
/// the store is already at or after `to`. `ErrorKind::Conflict` if events between the checkpoint and `after` would be
/// missed.
pub fn moves_checkpoint(operation: &'static str, checkpoint: Position, after: Position, to: Position) -> Result<bool> {
    if to <= checkpoint {
        return Ok(false);
    }
    if checkpoint < after {
        let message = "the store is behind this position, so events would be missed";
        return Err(DriverError::new(ErrorKind::Conflict, operation, message)
            .with("checkpoint", checkpoint)
            .with("after", after));
    }
    Ok(true)
}

/// A store of instances.
///
/// `define`, `drop_model`, `apply` and `reset` are called one after the other by a node, and may block its thread; the
/// reads may be called concurrently from many tasks and never wait for the writer. Nothing here needs to be durable
/// when it returns: after a crash the server continues from [`ModelStore::checkpoint`]. But the content must be
/// consistent with the checkpoint: each of the four calls is atomic.
///
/// `define`, `drop_model` and `apply` advance the store from one position of the log to a later one: they compare and
/// set the checkpoint, so that several nodes may update one store ([`moves_checkpoint`]).
#[async_trait]
pub trait ModelStore: Send + Sync {
    /// Constant while the store is open.
    fn capabilities(&self) -> Capabilities;

    /// Whether the store currently responds.
    async fn health(&self) -> Result<()>;

    /// Ends background work. Called once, last.
    async fn close(&self) -> Result<()>;

    /// Creates a model (`old` is `None`) or changes one: its columns, its indexes, and the data of every instance
    /// through `carry` (instances that change get `new.version` as their `model_version`). Afterwards the checkpoint is
    /// `position`. The caller has the log from `after` up to that position.
    async fn define(
        &self,
        after: Position,
        old: Option<&ModelShape>,
        new: &ModelShape,
        carry: &CarryOver,
        position: Position,
    ) -> Result<()>;

    /// Does in advance all work of a model's change whose cost grows with the number of its instances: a following
    /// `define` with the same `new` (its `record` may differ) and the same `carry` must take no longer than for an
    /// empty model. Readers see the old version until then; `apply` continues for all models, including this one, and
    /// must not wait for this for longer than a few milliseconds. Replaces earlier preparations for the model. Does
    /// nothing if the model does not exist. A `define` that changes only the model's `record` keeps the preparation.
    ///
    /// Not called from the thread that calls `define`, `drop_model`, `apply` and `reset`. If the call is dropped, the
    /// work ends soon and leaves nothing behind. Preparations need not survive a restart; a driver removes leftovers
    /// when it is opened. Returns a ticket for `discard`.
    async fn prepare(&self, new: &ModelShape, carry: &CarryOver) -> Result<u64> {
        let _ = (new, carry);
        Ok(0)
    }

    /// Discards the preparation with this ticket, unless it is in use or was replaced.
    async fn discard(&self, model: &str, ticket: u64) -> Result<()> {
        let _ = (model, ticket);
        Ok(())
    }

    /// Called before the store catches up with a long part of the log: until `end_replay` there are no reads. A driver
    /// may postpone the changes of instances by `define` and build indexes at the end; consecutive steps then take one
    /// pass ([`crate::CarryOvers`]). `checkpoint` and `definitions` still return the applied state.
    async fn begin_replay(&self) -> Result<()> {
        Ok(())
    }

    /// Does the postponed work, including work that was postponed before a crash. Called at the end of every replay,
    /// even if there is nothing to do.
    ///
    /// Returns the models for which this failed, each with the reason: they stay unchanged and are retried at the next
    /// `end_replay`; all others are completed. An error means that the store as a whole does not work.
    async fn end_replay(&self) -> Result<Vec<(String, DriverError)>> {
        Ok(Vec::new())
    }

    /// Removes a model with all its instances. Afterwards the checkpoint is `position`; `after` as in
    /// [`ModelStore::define`]. Not an error if the model does not exist.
    async fn drop_model(&self, after: Position, model: &str, position: Position) -> Result<()>;

    /// Applies instance events in order; afterwards the checkpoint is `to` (at or after the last event's position).
    /// `events` are the log's events between `after` and `to`, except those that must not be applied. Events at or
    /// before the checkpoint are skipped, and so are events of other kinds.
    async fn apply(&self, after: Position, events: &[Event], to: Position) -> Result<()>;

    /// The identity of the log that the store is a projection of; `None` if it was never set ([`ModelStore::reset`]).
    async fn log(&self) -> Result<Option<String>>;

    /// Position up to which the log is applied; 0 for an empty store.
    async fn checkpoint(&self) -> Result<Position>;

    /// The defined models, by id.
    async fn definitions(&self) -> Result<Vec<ModelShape>>;

    /// One instance; `None` if it or its model does not exist.
    async fn get(&self, model: &str, id: &str) -> Result<Option<Instance>>;

    /// A page of instances. `ErrorKind::Invalid` for a cursor of another query.
    ///
    /// The driver charges `budget` while it works, for every row that it reads, whether the row matches or not, and
    /// stops promptly when the budget is used up: [`crate::Exceeded::into_error`]. It also stops when the returned
    /// future is dropped. A driver with a limited number of permits for reads gives short ones their own, so that long
    /// ones cannot delay them; a read that gets no permit within [`crate::Budget::wait_left`], or finds too many
    /// waiting, is `ErrorKind::Overloaded`.
    async fn query(&self, model: &str, query: &InstanceQuery, budget: &Budget) -> Result<InstancePage>;

    /// The number of matching instances. The budget is used as in [`ModelStore::query`].
    async fn count(&self, model: &str, filter: &Filter, budget: &Budget) -> Result<u64>;

    /// Removes everything; the checkpoint is 0, and from then on the store is a projection of the log with this
    /// identity. If no log is set yet ([`ModelStore::log`] is `None`) and the checkpoint is 0, the server calls this
    /// first.
    async fn reset(&self, log: &str) -> Result<()>;
}
