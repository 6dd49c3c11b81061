//! Artifacts of hooks, by digest.

use rusqlite::{Connection, OptionalExtension as _, params};

pub(super) fn put(connection: &Connection, sha256: &str, bytes: &[u8]) -> rusqlite::Result<()> {
    connection
        .prepare_cached("INSERT INTO blobs(sha256, bytes) VALUES (?1, ?2) ON CONFLICT DO NOTHING")?
        .execute(params![sha256, bytes])?;
    Ok(())
}

pub(super) fn get(connection: &Connection, sha256: &str) -> rusqlite::Result<Option<Vec<u8>>> {
    connection.query_row("SELECT bytes FROM blobs WHERE sha256 = ?1", [sha256], |row| row.get(0)).optional()
}
