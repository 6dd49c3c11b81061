//! Claims: those that events take and release, and those that are reserved and released without an event.
//!
//! The latter come a few hundred at a time, between two batches of the log. They need no fsync of their own: the next
//! batch's fsync covers everything before it. So these transactions skip it, and hold the writer only while the rows
//! are written.

use rusqlite::{Connection, OptionalExtension as _, params};
use snaphook_driver::judge::{Accepted, HolderRef, REMOVALS_MAX};
use snaphook_driver::time::Millis;
use snaphook_driver::{Holder, Position, Stream, StreamRef};

/// The holder of a claim.
pub(super) fn holder(connection: &Connection, key: &str) -> rusqlite::Result<Option<Holder>> {
    connection
        .prepare_cached("SELECT model, instance, position, expires, value FROM claims WHERE key = ?1")?
        .query_row([key], |row| {
            let stream = Stream { model: row.get(0)?, instance: row.get(1)? };
            let position = row.get::<_, i64>(2)? as Position;
            Ok(Holder { stream, position, expires: row.get(3)?, value: row.get(4)? })
        })
        .optional()
}

/// See [`snaphook_driver::EventStore::next_claim`].
pub(super) fn next(connection: &Connection, from: &str) -> rusqlite::Result<Option<String>> {
    connection
        .prepare_cached("SELECT key FROM claims WHERE key >= ?1 ORDER BY key LIMIT 1")?
        .query_row([from], |row| row.get(0))
        .optional()
}

/// Takes and releases the claims of an accepted append.
pub(super) fn put(connection: &Connection, row: &Accepted<'_>) -> rusqlite::Result<()> {
    if !row.append.releases.is_empty() {
        let mut delete = connection.prepare_cached("DELETE FROM claims WHERE key = ?1")?;
        for key in &row.append.releases {
            delete.execute([key])?;
        }
    }
    if !row.append.claims.is_empty() {
        let mut put = connection.prepare_cached(
            "INSERT INTO claims(key, model, instance, position, expires, value) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
             ON CONFLICT(key) DO UPDATE SET model = ?2, instance = ?3, position = ?4, expires = ?5, value = ?6",
        )?;
        for (key, HolderRef { stream: StreamRef { model, instance }, position, expires, value }) in row.claims() {
            put.execute(params![key, model, instance, position as i64, expires, value])?;
        }
    }
    Ok(())
}

/// Removes claims that have expired by `time`, as [`snaphook_driver::judge::Judged::removal`] specifies. Returns their
/// number.
pub(super) fn remove_expired(connection: &Connection, time: Millis) -> rusqlite::Result<usize> {
    connection
        .prepare_cached(
            "DELETE FROM claims WHERE key IN (
                SELECT key FROM claims WHERE expires IS NOT NULL AND expires <= ?1 ORDER BY expires, key LIMIT ?2)",
        )?
        .execute(params![time, REMOVALS_MAX as i64])
}

/// See [`snaphook_driver::EventStore::reserve`].
pub(super) fn reserve(
    connection: &Connection,
    keys: &[(String, Stream)],
    head: Position,
) -> rusqlite::Result<Vec<(usize, Holder)>> {
    let mut put = connection.prepare_cached(
        "INSERT INTO claims(key, model, instance, position) VALUES (?1, ?2, ?3, ?4) ON CONFLICT(key) DO UPDATE
             SET position = ?4, expires = NULL, value = NULL WHERE model = ?2 AND instance IS ?3",
    )?;
    let mut taken = Vec::new();
    for (index, (key, stream)) in keys.iter().enumerate() {
        if put.execute(params![key, stream.model, stream.instance, head as i64])? == 0
            && let Some(holder) = holder(connection, key)?
        {
            taken.push((index, holder));
        }
    }
    Ok(taken)
}

/// See [`snaphook_driver::EventStore::forget_claims`].
pub(super) fn forget(connection: &Connection, prefix: &str, limit: u32) -> rusqlite::Result<u64> {
    let mut delete = connection.prepare_cached(
        "DELETE FROM claims WHERE key IN (SELECT key FROM claims WHERE key >= ?1 AND key < ?2 ORDER BY key LIMIT ?3)",
    )?;
    // No key of the server has the last Unicode character after a prefix.
    delete.execute(params![prefix, format!("{prefix}\u{10ffff}"), limit]).map(|count| count as u64)
}
