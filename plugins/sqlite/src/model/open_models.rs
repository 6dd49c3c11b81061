//! The state shared by the store's calls: one writer with its transactions, readers, and the committed tables.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use snaphook_driver::{Budget, DriverError, ErrorKind, Position, Result, moves_checkpoint};

use super::names::Counter;
use super::shadow::Shadow;
use super::table::Table;
use crate::checkpoint::Checkpointer;
use crate::database::{Readers, Turn, locked};
use crate::fault::fault;
use crate::lanes::Lanes;

pub(super) struct OpenModels {
    /// `None` once closed.
    pub(super) writer: Mutex<Option<ModelWriter>>,
    pub(super) readers: Readers,
    /// Queues for reads that may take long.
    pub(super) lanes: Lanes,
    /// The committed tables; replaced as a whole when a definition changes.
    pub(super) tables: RwLock<Arc<Tables>>,
    /// Counts the changes of `tables`: if the count is equal before and after a read, the table was the model's table
    /// throughout.
    pub(super) changes: AtomicU64,
    /// Counts the batches of events, so that background work can slow down during writes.
    pub(super) writes: AtomicU64,
}

pub(super) type Tables = HashMap<String, Arc<Table>>;

/// A change of the tables that is made when its transaction is committed.
pub(super) type Publish = Box<dyn FnOnce(&mut Tables)>;

pub(super) struct ModelWriter {
    pub(super) connection: Connection,
    pub(super) checkpointer: Checkpointer,
    pub(super) state: StateRow,
    /// Prepared tables, by model.
    pub(super) shadows: HashMap<String, Shadow>,
    /// Whether definitions are deferred; see [`super::replay`].
    pub(super) replaying: bool,
}

/// The contents of `_state`.
#[derive(Clone, Copy)]
pub(super) struct StateRow {
    pub(super) checkpoint: Position,
    pub(super) names: Counter,
}

impl StateRow {
    pub(super) fn load(connection: &Connection) -> rusqlite::Result<StateRow> {
        connection.query_row("SELECT checkpoint, names FROM _state", [], |row| {
            let (checkpoint, names): (i64, i64) = (row.get(0)?, row.get(1)?);
            Ok(StateRow { checkpoint: checkpoint as Position, names: Counter(names as u64) })
        })
    }
}

impl OpenModels {
    pub(super) fn tables(&self) -> Arc<Tables> {
        Arc::clone(&self.tables.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn table(&self, model: &str) -> Option<Arc<Table>> {
        self.tables.read().unwrap_or_else(PoisonError::into_inner).get(model).cloned()
    }

    /// Runs work that moves the checkpoint to `position`, both in one transaction, unless the checkpoint is already
    /// there; see [`moves_checkpoint`].
    pub(super) fn writing(
        &self,
        operation: &'static str,
        after: Position,
        position: Position,
        work: impl FnOnce(&mut ModelWriter) -> Result<Option<Publish>>,
    ) -> Result<()> {
        self.transaction(operation, |writer| {
            if !moves_checkpoint(operation, writer.state.checkpoint, after, position)? {
                return Ok(None);
            }
            let publish = work(writer)?;
            writer.state.checkpoint = position;
            writer
                .connection
                .prepare_cached("UPDATE _state SET checkpoint = ?1, names = ?2")
                .and_then(|mut statement| statement.execute([position as i64, writer.state.names.0 as i64]))
                .map_err(fault(operation))?;
            Ok(publish)
        })
    }

    /// Runs work in a transaction. The returned change updates the tables accordingly.
    pub(super) fn transaction(
        &self,
        operation: &'static str,
        work: impl FnOnce(&mut ModelWriter) -> Result<Option<Publish>>,
    ) -> Result<()> {
        let mut writer = locked(&self.writer);
        let Some(writer) = writer.as_mut() else {
            return Err(DriverError::new(ErrorKind::Unavailable, operation, "the store is closed"));
        };
        if !writer.connection.is_autocommit() {
            // An earlier caller panicked in the middle of its work.
            writer.execute("ROLLBACK").map_err(fault(operation))?;
            writer.state = StateRow::load(&writer.connection).map_err(fault(operation))?;
        }
        let state = writer.state;
        let run = |writer: &mut ModelWriter| -> Result<()> {
            writer.execute("BEGIN IMMEDIATE").map_err(fault(operation))?;
            let Some(publish) = work(writer)? else {
                return writer.execute("COMMIT").map_err(fault(operation));
            };
            // Locked during the commit, so that a reader with an outdated statement finds the new tables; see
            // `reading`.
            let mut tables = self.tables.write().unwrap_or_else(PoisonError::into_inner);
            writer.execute("COMMIT").map_err(fault(operation))?;
            publish(Arc::make_mut(&mut tables));
            self.changes.fetch_add(1, Ordering::Release);
            Ok(())
        };
        let result = run(writer);
        if result.is_err() {
            // SQLite may have rolled back automatically; then this fails and nothing is left to do.
            let _ = writer.execute("ROLLBACK");
            writer.state = state;
        }
        writer.checkpointer.after_commit(&writer.connection);
        result
    }

    /// Runs one step of longer work in its own transaction. Returns how long it held the writer, including the commit.
    pub(super) fn step(
        &self,
        operation: &'static str,
        work: impl FnOnce(&Connection) -> Result<()>,
    ) -> Result<Duration> {
        let mut began = Instant::now();
        self.transaction(operation, |writer| {
            // Measured from here on, without the wait for the writer.
            began = Instant::now();
            work(&writer.connection).map(|()| None)
        })?;
        Ok(began.elapsed())
    }

    /// Runs one turn of a read of one model; see [`Readers::turn`].
    pub(super) fn turn<T>(
        &self,
        operation: &'static str,
        model: &str,
        none: impl Fn() -> T,
        budget: &Budget,
        steps: Option<u64>,
        read: impl Fn(&Connection, &Table) -> Result<T>,
    ) -> Result<Turn<T>> {
        self.retried(
            model,
            || Turn::Done(none()),
            |table| self.readers.turn(operation, budget, steps, |connection| read(connection, table)),
        )
    }

    /// Runs a read of one model; `none` if the model does not exist. If the model was redefined between the choice of
    /// the table and the end of the read, the read may have used a table that is being emptied, so it is repeated.
    pub(super) fn retried<T>(
        &self,
        model: &str,
        none: impl Fn() -> T,
        read: impl Fn(&Table) -> Result<T>,
    ) -> Result<T> {
        loop {
            let changes = self.changes.load(Ordering::Acquire);
            let Some(table) = self.table(model) else { return Ok(none()) };
            let result = read(&table);
            if self.changes.load(Ordering::Acquire) == changes {
                return result;
            }
            match self.table(model) {
                None => return Ok(none()),
                // Another model was redefined.
                Some(same) if Arc::ptr_eq(&same, &table) => return result,
                Some(_) => {}
            }
        }
    }

    pub(super) fn set_replaying(&self, replaying: bool) {
        if let Some(writer) = locked(&self.writer).as_mut() {
            writer.replaying = replaying;
        }
    }
}

impl ModelWriter {
    /// Stores the last assigned number.
    pub(super) fn save_names(&self, operation: &'static str) -> Result<()> {
        self.connection
            .prepare_cached("UPDATE _state SET names = ?1")
            .and_then(|mut statement| statement.execute([self.state.names.0 as i64]))
            .map(drop)
            .map_err(fault(operation))
    }

    pub(super) fn execute(&self, sql: &str) -> rusqlite::Result<()> {
        self.connection.prepare_cached(sql)?.execute([]).map(drop)
    }

    pub(super) fn close(self) -> Result<()> {
        drop(self.checkpointer);
        self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).map_err(fault("close"))?;
        self.connection.close().map_err(|(_, error)| fault("close")(error))
    }
}
