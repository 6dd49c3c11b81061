//! Brings a table from one shape to the next, within the caller's transaction.

use std::collections::HashSet;

use rusqlite::{Connection, params};
use serde_json::{Map, Value};
use snaphook_driver::{CarryOver, DriverError, ErrorKind, Result};

use super::names::searchable;
use super::table::Table;
use crate::fault::fault;

/// Rows that are brought over at a time, so that memory does not grow with the table.
const ROWS_MAX: i64 = 1000;

/// Makes or changes the table of a model. `version` is what changed rows get as their `_model_version`.
pub(super) fn migrate(
    connection: &Connection,
    old: Option<&Table>,
    new: &Table,
    carry: &CarryOver,
    version: u64,
) -> Result<()> {
    let refit = || -> rusqlite::Result<HashSet<String>> {
        match old {
            None => connection.execute_batch(&new.create()).map(|()| HashSet::new()),
            Some(old) => drop_unwanted(connection, old, new),
        }
    };
    let kept = refit().map_err(fault("define"))?;
    if old.is_some() && !carry.is_empty() {
        carry_rows(connection, new, carry, version)?;
    }
    add_missing(connection, new, &kept).map_err(fault("define"))
}

/// Answers the names of columns and indexes that stay.
fn drop_unwanted(connection: &Connection, old: &Table, new: &Table) -> rusqlite::Result<HashSet<String>> {
    // A name never changes what it stands for.
    let wanted: HashSet<String> =
        new.column_definitions().into_iter().chain(new.index_definitions()).map(|(name, _)| name).collect();
    let mut kept = HashSet::new();
    // Indexes first: SQLite drops no column that an index uses.
    for (name, _) in old.index_definitions() {
        if wanted.contains(&name) {
            kept.insert(name);
        } else {
            connection.execute_batch(&format!("DROP INDEX {name}"))?;
        }
    }
    for (name, _) in old.column_definitions() {
        if wanted.contains(&name) {
            kept.insert(name);
        } else {
            connection.execute_batch(&format!("ALTER TABLE {} DROP COLUMN {name}", new.name))?;
        }
    }
    Ok(kept)
}

fn add_missing(connection: &Connection, new: &Table, kept: &HashSet<String>) -> rusqlite::Result<()> {
    for (name, sql) in new.column_definitions() {
        if !kept.contains(&name) {
            connection.execute_batch(&format!("ALTER TABLE {} ADD COLUMN {sql}", new.name))?;
        }
    }
    for (name, sql) in new.index_definitions() {
        if !kept.contains(&name) {
            connection.execute_batch(&sql)?;
        }
    }
    Ok(())
}

fn carry_rows(connection: &Connection, table: &Table, carry: &CarryOver, version: u64) -> Result<()> {
    let broken = |id: &str, error: serde_json::Error| {
        DriverError::new(ErrorKind::Corrupt, "define", "an instance's data is no JSON object")
            .with("instance", format!("{}/{id}", table.model))
            .because(error)
    };
    let select = format!(
        "SELECT rowid, _id, coalesce(_text, _data) FROM {} WHERE rowid > ?1 ORDER BY rowid LIMIT ?2",
        table.name
    );
    let update = format!("UPDATE {} SET _data = ?2, _text = ?3, _model_version = ?4 WHERE rowid = ?1", table.name);
    let mut after = i64::MIN;
    loop {
        let read = || -> rusqlite::Result<Vec<(i64, String, String)>> {
            connection
                .prepare_cached(&select)?
                .query_map(params![after, ROWS_MAX], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
                .collect()
        };
        let rows = read().map_err(fault("define"))?;
        let Some((last, ..)) = rows.last() else { return Ok(()) };
        after = *last;
        for (row, id, data) in &rows {
            let mut data: Map<String, Value> = serde_json::from_str(data).map_err(|error| broken(id, error))?;
            if carry.apply(&mut data) {
                let text = serde_json::to_string(&data).map_err(|error| broken(id, error))?;
                let searched = searchable(&text);
                let (data, text) = (searched.as_ref().unwrap_or(&text), searched.is_some().then_some(&text));
                let write = || connection.prepare_cached(&update)?.execute(params![row, data, text, version as i64]);
                write().map_err(fault("define"))?;
            }
        }
    }
}
