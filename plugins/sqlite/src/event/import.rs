//! Imports of a log. During an import, the file is marked as incomplete.

use rusqlite::{Connection, params};
use snaphook_driver::{DriverError, ErrorKind, LogRecord, Result};

use super::blobs;
use crate::fault::fault;

/// A table that exists while an import is in progress.
const IMPORTING: &str = "importing";

/// Imports records other than events into the log, in the caller's transaction.
pub(super) fn put(connection: &Connection, record: &LogRecord) -> rusqlite::Result<()> {
    match record {
        LogRecord::Claim { key, holder } => {
            connection
                .prepare_cached(
                    "INSERT OR REPLACE INTO claims(key, model, instance, position, expires, value)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                )?
                .execute(params![
                    key,
                    holder.stream.model,
                    holder.stream.instance,
                    holder.position as i64,
                    holder.expires,
                    holder.value
                ])?;
        }
        LogRecord::Blob { sha256, bytes } => blobs::put(connection, sha256, bytes)?,
        // Events are imported separately, and groups have their own file.
        LogRecord::Event(_) | LogRecord::Group { .. } | LogRecord::Pending { .. } => {}
    }
    Ok(())
}

/// Marks the log as incomplete, in the caller's transaction; `Conflict` if it contained data before.
pub(super) fn begin(connection: &Connection) -> Result<()> {
    if is_importing(connection)? {
        return Ok(());
    }
    let holds_data: bool = connection
        .query_row(
            "SELECT EXISTS (SELECT 1 FROM events) OR EXISTS (SELECT 1 FROM claims) OR EXISTS (SELECT 1 FROM blobs)",
            [],
            |row| row.get(0),
        )
        .map_err(fault("import"))?;
    if holds_data {
        return Err(DriverError::new(ErrorKind::Conflict, "import", "the log already contains data"));
    }
    connection.execute_batch(&format!("CREATE TABLE {IMPORTING}(one)")).map_err(fault("import"))
}

pub(super) fn finish(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(&format!("DROP TABLE IF EXISTS {IMPORTING}"))
}

fn is_importing(connection: &Connection) -> Result<bool> {
    connection
        .query_row("SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE name = ?1)", [IMPORTING], |row| row.get(0))
        .map_err(fault("open"))
}

/// Fails if the log is incomplete.
pub(super) fn check_whole(connection: &Connection) -> Result<()> {
    if !is_importing(connection)? {
        return Ok(());
    }
    Err(DriverError::new(
        ErrorKind::Config,
        "open",
        "the file contains part of a log, because a copy or a restore was interrupted; run `snaphook copy` again, or \
         remove the files of all configured stores and restore again",
    ))
}
