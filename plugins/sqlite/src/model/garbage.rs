//! Removes tables that no longer belong to a model: the table before a change, or a prepared table that is not used.
//!
//! SQLite drops a table in one step, whose time grows with the table. So its rows are deleted first, a few at a time
//! between other commits. Tables left by a crash are found when the file is opened.

use std::collections::HashSet;
use std::sync::{Arc, Weak};
use std::time::Instant;

use rusqlite::Connection;

use super::open_models::{OpenModels, Tables};
use super::pace::{Pace, Rest};

/// All tables of models in the file, in use or not.
pub(super) fn all(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut statement =
        connection.prepare("SELECT name FROM sqlite_master WHERE type = 'table' AND name GLOB 'm[0-9]*'")?;
    statement.query_map([], |row| row.get(0))?.collect()
}

/// Those that belong to no model.
pub(super) fn find(connection: &Connection, tables: &Tables) -> rusqlite::Result<Vec<String>> {
    let used: HashSet<&str> = tables.values().map(|table| table.name.as_str()).collect();
    Ok(all(connection)?.into_iter().filter(|name| !used.contains(name.as_str())).collect())
}

/// Removes tables in the background; ends early when the store is closed.
pub(super) fn clear(shared: &Arc<OpenModels>, tables: Vec<String>) {
    if tables.is_empty() {
        return;
    }
    let shared = Arc::downgrade(shared);
    let work = move || tables.iter().for_each(|table| while step(&shared, table) {});
    if let Err(error) = std::thread::Builder::new().name("sqlite-garbage".to_owned()).spawn(work) {
        tracing::info!("an unused table is kept until the next start: {error}");
    }
}

/// Deletes some rows; `false` once the table is gone.
fn step(shared: &Weak<OpenModels>, table: &str) -> bool {
    let Some(shared) = shared.upgrade() else { return false };
    let mut pace = Pace::new(&shared.writes, Rest::Garbage);
    // Several steps for each upgrade of the weak reference.
    for _ in 0..16 {
        let began = Instant::now();
        let mut gone = true;
        let done = shared.step("clear", |connection| {
            let delete = || -> rusqlite::Result<usize> {
                let rows = connection
                    .prepare_cached(&format!(
                        "DELETE FROM {table} WHERE rowid IN (SELECT rowid FROM {table} ORDER BY rowid LIMIT ?1)"
                    ))?
                    .execute([pace.rows as i64])?;
                if rows == 0 {
                    connection.execute_batch(&format!("DROP TABLE {table}"))?;
                }
                Ok(rows)
            };
            gone = delete().map_err(crate::fault::fault("clear"))? == 0;
            Ok(())
        });
        match done {
            Ok(held) if !gone => pace.rest(began, held),
            // Done, or the store is closed, or a reset has removed the table.
            _ => return false,
        }
    }
    true
}
