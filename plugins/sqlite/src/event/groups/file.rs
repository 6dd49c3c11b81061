//! The file of the groups: its tables, and reading and writing progress.

use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, params};
use snaphook_driver::{DriverError, ErrorKind, Kept, LogRecord, PendingEvent, Position, Progress, Result, time};

use crate::database::Format;
use crate::event::format;
use crate::fault::fault;

/// `pending` contains the oldest unacknowledged event of each stream up to the group's cursor; all others up to the
/// cursor are acknowledged, except later events of the same streams. `due` is the earliest delivery time in
/// milliseconds.
pub(super) const FORMAT: Format = Format {
    name: "file of consumer groups",
    id: 0x534e_4847, // "SNHG"
    version: 1,
    schema: "
        CREATE TABLE groups(number INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, filter TEXT NOT NULL,
            cursor INTEGER NOT NULL);
        CREATE TABLE pending(number INTEGER, position INTEGER, attempt INTEGER NOT NULL, due INTEGER NOT NULL,
            note TEXT, PRIMARY KEY(number, position)) WITHOUT ROWID;",
    synchronous: "NORMAL",
    cache_kib: 4 * 1024,
    log_pages: 1024,
    settles: false,
    derived: false,
};

/// Checks that the groups belong to this log.
pub(super) fn check_log(connection: &Connection, identity: &str) -> Result<()> {
    let of = || -> rusqlite::Result<String> {
        connection.execute_batch(format::LOG)?;
        connection.execute("INSERT INTO log(one, identity) VALUES (1, ?1) ON CONFLICT DO NOTHING", [identity])?;
        connection.query_row("SELECT identity FROM log", [], |row| row.get(0))
    };
    let of = of().map_err(fault("open"))?;
    if of == identity {
        return Ok(());
    }
    Err(DriverError::new(
        ErrorKind::Config,
        "open",
        format!(
            "the file contains the progress of consumer groups of the log `{of}`, expected the log `{identity}`; \
             restore the right file, or remove this one (the post hooks of all events then run again)"
        ),
    ))
}

/// Adds the column to files that were created before events had notes; older programs ignore it.
pub(super) fn add_notes(connection: &Connection) -> rusqlite::Result<()> {
    let sql = "SELECT count(*) FROM pragma_table_info('pending') WHERE name = 'note'";
    match connection.query_row(sql, [], |row| row.get(0))? {
        true => Ok(()),
        false => connection.execute_batch("ALTER TABLE pending ADD COLUMN note TEXT"),
    }
}

/// Number, name, filter and cursor of each group.
pub(super) fn groups(connection: &Connection) -> rusqlite::Result<Vec<(i64, String, String, i64)>> {
    connection
        .prepare("SELECT number, name, filter, cursor FROM groups")?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?
        .collect()
}

/// The pending events of a group, by position.
pub(super) fn pending(connection: &Connection, number: i64) -> rusqlite::Result<Vec<Kept>> {
    let now = time::now();
    connection
        .prepare_cached("SELECT position, attempt, due, note FROM pending WHERE number = ?1 ORDER BY position")?
        .query_map([number], |row| {
            let delay = Duration::from_millis(row.get::<_, i64>(2)?.saturating_sub(now).max(0) as u64);
            let note = row.get::<_, Option<String>>(3)?.map(Arc::from);
            Ok(Kept { position: row.get::<_, i64>(0)? as Position, attempt: row.get(1)?, delay, note })
        })?
        .collect()
}

/// Writes the changes of a group.
pub(super) fn keep(connection: &Connection, number: i64, progress: &Progress) -> rusqlite::Result<()> {
    let transaction = connection.unchecked_transaction()?;
    transaction
        .prepare_cached("UPDATE groups SET cursor = ?2 WHERE number = ?1")?
        .execute(params![number, progress.cursor as i64])?;
    let mut put = transaction.prepare_cached(
        "INSERT INTO pending(number, position, attempt, due, note) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT DO UPDATE SET attempt = ?3, due = ?4, note = ?5",
    )?;
    for Kept { position, attempt, delay, note } in &progress.put {
        let due = if delay.is_zero() { 0 } else { time::now() + delay.as_millis() as i64 };
        put.execute(params![number, *position as i64, attempt, due, note.as_deref()])?;
    }
    let mut remove = transaction.prepare_cached("DELETE FROM pending WHERE number = ?1 AND position = ?2")?;
    for position in &progress.remove {
        remove.execute(params![number, *position as i64])?;
    }
    drop((put, remove));
    transaction.commit()
}

/// Imports groups of an export into the file.
pub(super) fn put(connection: &Connection, records: &[LogRecord]) -> rusqlite::Result<()> {
    let transaction = connection.unchecked_transaction()?;
    for record in records {
        match record {
            LogRecord::Group { group, cursor } => {
                let filter = serde_json::to_string(&group.filter)
                    .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
                // Remove what an interrupted import has already written.
                transaction
                    .prepare_cached("DELETE FROM pending WHERE number = (SELECT number FROM groups WHERE name = ?1)")?
                    .execute([&group.name])?;
                transaction.prepare_cached("DELETE FROM groups WHERE name = ?1")?.execute([&group.name])?;
                transaction
                    .prepare_cached("INSERT INTO groups(name, filter, cursor) VALUES (?1, ?2, ?3)")?
                    .execute(params![group.name, filter, *cursor as i64])?;
            }
            LogRecord::Pending { group, events } => {
                let number: i64 =
                    transaction.query_row("SELECT number FROM groups WHERE name = ?1", [group], |row| row.get(0))?;
                let mut put = transaction.prepare_cached(
                    "INSERT INTO pending(number, position, attempt, due, note) VALUES (?1, ?2, ?3, ?4, ?5)",
                )?;
                for PendingEvent { position, attempt, due, note } in events {
                    put.execute(params![number, *position as i64, attempt, due, note])?;
                }
            }
            _ => {}
        }
    }
    transaction.commit()
}
