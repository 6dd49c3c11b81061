//! Claims that are taken and given back without an event, a few hundred at a time, between two batches of the log.
//!
//! They need not be durable on their own: the next batch's fsync covers all that is in the log before it. So these
//! transactions do without, and hold the writer for as long as the rows take.

use rusqlite::{Connection, params};
use snaphook_driver::{Holder, Position, Stream};

use super::append::holder_of;

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
            && let Some(holder) = holder_of(connection, key)?
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
    // No key of the server goes on with the last of all characters.
    delete.execute(params![prefix, format!("{prefix}\u{10ffff}"), limit]).map(|count| count as u64)
}
