//! The registry: the models and their tables. Nodes that share the store read it again when its number of changes has
//! increased.
//!
//! Every writer first locks the row of `model_state`, so only one of all nodes writes at a time. Every reader compares
//! `changes` within its snapshot, so it never reads a table that belongs to another definition.

use std::collections::HashMap;
use std::sync::Arc;

use snaphook_driver::{CarryOver, DriverError, ErrorKind, ModelShape, Position, Result, json};
use tokio_postgres::Row;

use super::row::{self, get};
use super::table::{Layout, Table};
use crate::connection::Database;
use crate::migrate::Tables;
use crate::session::Session;

/// `numbers` is the last assigned table number. A row with `prepared` is a table that is built beside the one that is
/// read.
pub(super) const TABLES: Tables = Tables {
    store: "model",
    steps: &["CREATE TABLE @.model_state(
            one boolean PRIMARY KEY CHECK (one), checkpoint bigint NOT NULL, changes bigint NOT NULL,
            numbers bigint NOT NULL, log text);
        INSERT INTO @.model_state(one, checkpoint, changes, numbers) VALUES (true, 0, 0, 0);
        CREATE TABLE @.model_tables(
            model bytea NOT NULL, prepared boolean NOT NULL, number bigint NOT NULL UNIQUE, layout text NOT NULL,
            shape text NOT NULL, carry text, complete boolean NOT NULL, owner text, touched timestamptz NOT NULL,
            PRIMARY KEY (model, prepared))"],
};

/// The definitions at one number of changes.
#[derive(Debug, Default)]
pub(super) struct Registry {
    /// -1 before the first read.
    pub(super) changes: i64,
    pub(super) models: HashMap<String, Arc<Model>>,
}

/// A defined model.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) table: Table,
    pub(super) shape: ModelShape,
    pub(super) prepared: Option<PreparedTable>,
}

/// A table that is being built for a change of its model, or is complete. Applied events are written to it too.
#[derive(Clone, Debug)]
pub(super) struct PreparedTable {
    pub(super) table: Table,
    pub(super) shape: ModelShape,
    pub(super) carry: CarryOver,
    pub(super) complete: bool,
    /// The opened store that builds it.
    pub(super) owner: String,
    /// Seconds since its owner last worked on it, when the registry was read.
    pub(super) idle: f64,
}

impl Registry {
    pub(super) fn unknown() -> Registry {
        Registry { changes: -1, models: HashMap::new() }
    }

    /// Reads the registry, in the session's transaction if it has one.
    pub(super) async fn load(database: &Database, session: &mut Session, operation: &'static str) -> Result<Registry> {
        let sql = database.sql(
            "SELECT s.changes, t.model, t.prepared, t.number, t.layout, t.shape, t.carry, t.complete, t.owner, \
             extract(epoch FROM clock_timestamp() - t.touched)::float8 \
             FROM @.model_state s LEFT JOIN @.model_tables t ON true ORDER BY t.prepared",
            &[],
        );
        let rows = session.query(&sql, &[]).await?;
        let mut registry = Registry::unknown();
        for row in &rows {
            registry.changes = get(row, 0, operation)?;
            registry.add(row, operation)?;
        }
        match registry.changes {
            -1 => Err(removed(operation)),
            _ => Ok(registry),
        }
    }

    fn add(&mut self, row: &Row, operation: &'static str) -> Result<()> {
        let Some(model) = get::<Option<&[u8]>>(row, 1, operation)? else { return Ok(()) };
        let model = row::id(model, operation)?;
        let corrupt = |error: serde_json::Error| {
            DriverError::new(ErrorKind::Corrupt, operation, "a model's definition cannot be read back")
                .with("model", &model)
                .because(error)
        };
        let number = get::<i64>(row, 3, operation)? as u64;
        let layout: Layout = json::typed(get(row, 4, operation)?).map_err(corrupt)?;
        let shape: ModelShape = json::typed(get(row, 5, operation)?).map_err(corrupt)?;
        let table = Table { model: model.clone(), number, layout };
        if !get::<bool>(row, 2, operation)? {
            self.models.insert(model, Arc::new(Model { table, shape, prepared: None }));
            return Ok(());
        }
        let carry = get::<Option<&str>>(row, 6, operation)?.unwrap_or("null");
        let prepared = PreparedTable {
            table,
            shape,
            carry: json::typed(carry).map_err(corrupt)?,
            complete: get(row, 7, operation)?,
            owner: get::<Option<String>>(row, 8, operation)?.unwrap_or_default(),
            idle: get(row, 9, operation)?,
        };
        // Tables in use come first.
        if let Some(Ok(known)) = self.models.get_mut(&model).map(|known| Arc::get_mut(known).ok_or(())) {
            known.prepared = Some(prepared);
        }
        Ok(())
    }
}

/// The row of `model_state`.
#[derive(Clone, Copy, Debug)]
pub(super) struct StateRow {
    pub(super) checkpoint: Position,
    pub(super) changes: i64,
    pub(super) numbers: u64,
}

impl StateRow {
    /// Decodes a row of `checkpoint, changes, numbers`.
    pub(super) fn read(rows: &[Row], operation: &'static str) -> Result<StateRow> {
        let row = rows.first().ok_or_else(|| removed(operation))?;
        Ok(StateRow {
            checkpoint: get::<i64>(row, 0, operation)? as Position,
            changes: get(row, 1, operation)?,
            numbers: get::<i64>(row, 2, operation)? as u64,
        })
    }
}

fn removed(operation: &'static str) -> DriverError {
    let message = "the state of the model store is missing; drop the tables `model_state` and `model_tables`, delete \
                   the row `model` of `versions`, and restart to rebuild the store from the log";
    DriverError::new(ErrorKind::Corrupt, operation, message)
}
