//! Definitions during a replay of the log: their effect on instances is deferred and carried out once.
//!
//! Until then a model's rows stay in their table, without indexes if it is new, and each row keeps the version under
//! which it was written. The deferred work is stored with the checkpoint, so a crash does not lose it.

use rusqlite::Connection;
use snaphook_driver::{CarryOver, ModelShape, Result};

use super::definitions::{Pending, load, save};
use super::migrate;
use super::names::Counter;
use super::open_models::{ModelWriter, Publish, Tables};
use super::rows::Steps;
use super::table::Table;
use crate::fault::fault;

/// Whether two shapes have the same table layout.
fn same_layout(a: &ModelShape, b: &ModelShape) -> bool {
    (&a.columns, &a.indexes, &a.unique) == (&b.columns, &b.indexes, &b.unique)
}

/// A definition during a replay. `old` is the model's table.
pub(super) fn define(
    connection: &Connection,
    old: Option<&Table>,
    new: &ModelShape,
    carry: &CarryOver,
    names: &mut Counter,
) -> Result<Option<Table>> {
    let Some(old) = old else {
        let table = Table::follow(None, new, names);
        connection.execute_batch(&table.create()).map_err(fault("define"))?;
        save(connection, new, table.names(), Some(&Pending::default()))?;
        return Ok(Some(table));
    };
    let (before, mut pending) = load(connection, &new.model)?;
    if !same_layout(&before, new) || !carry.is_empty() {
        let due = pending.get_or_insert_default();
        due.refill = true;
        if !carry.is_empty() {
            due.steps.push((new.version, carry.clone()));
        }
    }
    save(connection, new, old.names(), pending.as_ref())?;
    Ok(None)
}

/// Models with deferred work.
pub(super) fn due(connection: &Connection) -> Result<Vec<String>> {
    let read = || -> rusqlite::Result<Vec<String>> {
        connection
            .prepare("SELECT id FROM _models WHERE pending IS NOT NULL ORDER BY id")?
            .query_map([], |row| row.get(0))?
            .collect()
    };
    read().map_err(fault("end_replay"))
}

/// Carries out the deferred work of a model.
pub(super) fn settle(writer: &mut ModelWriter, tables: &Tables, model: &str) -> Result<Option<Publish>> {
    let (shape, pending) = load(&writer.connection, model)?;
    let (Some(pending), Some(old)) = (pending, tables.get(model)) else { return Ok(None) };
    if !pending.refill {
        migrate::create_indexes(&writer.connection, old)?;
        save(&writer.connection, &shape, old.names(), None)?;
        return Ok(None);
    }
    let table = Table::follow(None, &shape, &mut writer.state.names);
    migrate::refill(&writer.connection, old, &table, &mut Steps::new(pending.steps))?;
    // Nobody reads during a replay, and nothing else is written.
    writer.connection.execute_batch(&format!("DROP TABLE {}", old.name)).map_err(fault("end_replay"))?;
    save(&writer.connection, &shape, table.names(), None)?;
    writer.save_names("end_replay")?;
    Ok(Some(Box::new(move |tables: &mut Tables| {
        tables.insert(table.model.clone(), std::sync::Arc::new(table));
    })))
}
