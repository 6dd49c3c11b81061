//! The one writer of the log.
//!
//! A batch is one transaction with one fsync. The SDK's judge decides it as a whole before anything of it is written, so
//! rows that conflict need no savepoint, and what is known of the log changes only once the batch is committed.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use rusqlite::{CachedStatement, Connection, OptionalExtension as _, params};
use snaphook_driver::judge::{Accepted, HolderRef, Judged, LogEnd, LogState, REMOVALS_MAX, Tail, judge};
use snaphook_driver::time::Millis;
use snaphook_driver::{
    Append, Appended, Conflict, DriverError, ErrorKind, Event, Holder, LogRecord, Position, Result, Stream, StreamRef,
};

use super::names::Names;
use super::replicate;
use super::tails::Tails;
use super::transfer;
use crate::checkpoint::Checkpointer;
use crate::database::{Format, open_writer};
use crate::fault::fault;
use crate::key::Key;

/// The writing connection and what it knows without asking.
pub(super) struct Writer {
    path: PathBuf,
    format: &'static Format,
    pub(super) connection: Connection,
    pub(super) checkpointer: Checkpointer,
    pub(super) log: Log,
    pub(super) state: State,
}

/// What the last write left behind.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum State {
    Works,
    /// The write failed and nothing of it is there.
    Failed,
    /// What is in the file is known only after opening it again: the disk failed in a commit, or the work panicked.
    Unknown,
}

/// What is known of the log, as committed; while an import writes, as it will be.
pub(super) struct Log {
    pub(super) end: LogEnd,
    pub(super) names: Arc<Names>,
    pub(super) tails: Tails,
}

/// Prepared once for each batch.
const INSERT: &str = "INSERT INTO events(position, model, instance, kind, model_version, revision, time, id, \
    request_id, actor, cause, hooks, data, trace) \
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)";

impl Writer {
    /// Opens the log at `path`, or makes it.
    pub(super) fn open(path: &Path, format: &'static Format) -> Result<Writer> {
        let mut connection = open_writer(path, format)?;
        add_trace(&connection).map_err(fault("open"))?;
        let names = Arc::new(Names::load(&connection).map_err(fault("open"))?);
        let (head, time): (i64, Millis) = connection
            .query_row("SELECT position, time FROM events ORDER BY position DESC LIMIT 1", [], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
            .optional()
            .map_err(fault("open"))?
            .unwrap_or((0, Millis::MIN));
        let checkpointer = Checkpointer::start(path, &mut connection, format)?;
        let next_removal = replicate::next_removal(&connection).map_err(fault("open"))?;
        let end = LogEnd { position: head as Position, time, next_removal };
        let log = Log { end, names, tails: Tails::default() };
        Ok(Writer { path: path.to_owned(), format, connection, checkpointer, log, state: State::Works })
    }

    /// The models' numbers, as committed.
    pub(super) fn names(&self) -> &Arc<Names> {
        &self.log.names
    }

    /// Finds out whether writing works again after a write failed; does nothing if none did.
    pub(super) fn recover(&mut self) -> Result<()> {
        if self.state == State::Unknown {
            // The old connection is closed only when the new one is there, so that a failure changes nothing.
            *self = Writer { state: State::Failed, ..Writer::open(&self.path, self.format)? };
        }
        if self.state == State::Failed {
            // Writes one page, the same as it was.
            let version = self.format.version;
            self.connection
                .execute_batch(&format!("BEGIN IMMEDIATE; PRAGMA user_version = {version}; COMMIT"))
                .inspect_err(|_| drop(self.connection.execute_batch("ROLLBACK")))
                .map_err(fault("recover"))?;
            self.state = State::Works;
        }
        Ok(())
    }

    /// Whether nothing can be written before [`Writer::recover`].
    pub(super) fn is_unknown(&self) -> bool {
        self.state == State::Unknown
    }

    /// Position of the last committed event.
    pub(super) fn head(&self) -> Position {
        self.log.end.position
    }

    /// Runs one statement outside of `append`, in a transaction of its own.
    pub(super) fn with<T>(&mut self, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> rusqlite::Result<T> {
        let result = work(&self.connection);
        self.checkpointer.after_commit(&self.connection);
        result
    }

    /// The same without an fsync, which the next batch of the log makes up for.
    pub(super) fn unsynced<T>(&mut self, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> rusqlite::Result<T> {
        self.connection.execute_batch("PRAGMA synchronous = NORMAL")?;
        let begun = self.connection.execute_batch("BEGIN IMMEDIATE");
        let result = begun
            .and_then(|()| work(&self.connection))
            .and_then(|value| self.connection.execute_batch("COMMIT").map(|()| value));
        if result.is_err() {
            // SQLite may have rolled back by itself; then this fails, and there is nothing to do.
            let _ = self.connection.execute_batch("ROLLBACK");
        }
        // Before anything else can be appended; a file that is opened again has it from the start.
        if let Err(error) = self.connection.execute_batch("PRAGMA synchronous = FULL") {
            self.state = State::Unknown;
            return Err(error);
        }
        self.checkpointer.after_commit(&self.connection);
        result
    }

    /// Leaves one file without a log beside it.
    pub(super) fn close(self) -> Result<()> {
        drop(self.checkpointer);
        self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).map_err(fault("close"))?;
        self.connection.close().map_err(|(_, error)| fault("close")(error))
    }

    /// See [`snaphook_driver::EventStore::append`].
    pub(super) fn append(
        &mut self,
        batch: &[Append],
        atomic: bool,
        published: &RwLock<Arc<Names>>,
    ) -> Result<Vec<Result<Appended, Conflict>>> {
        // Stays if the work panics.
        self.state = State::Unknown;
        let names = Arc::clone(&self.log.names);
        let result = self.transaction(batch, atomic);
        if !Arc::ptr_eq(&self.log.names, &names) {
            *published.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&self.log.names);
        }
        self.checkpointer.after_commit(&self.connection);
        self.state = match &result {
            Ok(_) => State::Works,
            Err(error) if error.kind() == ErrorKind::Uncertain => State::Unknown,
            Err(_) => State::Failed,
        };
        result
    }

    /// Puts records of an export into the log; see [`snaphook_driver::EventStore::import`].
    pub(super) fn import(&mut self, records: &[LogRecord], published: &RwLock<Arc<Names>>) -> Result<()> {
        self.execute("BEGIN IMMEDIATE").map_err(fault("import"))?;
        // Stays if the work panics.
        self.state = State::Unknown;
        let (end, names) = (self.log.end, Arc::clone(&self.log.names));
        let put = transfer::begin_import(&self.connection)
            .and_then(|()| self.log.import(&self.connection, records))
            .and_then(|()| self.execute("COMMIT").map_err(fault("import")));
        // Nothing was appended, and nothing that is remembered of the log's end is so any more.
        self.log.tails = Tails::default();
        if let Err(error) = put {
            // If it was the commit that failed, the file is opened again before the next write.
            if self.execute("ROLLBACK").is_ok() {
                self.state = State::Failed;
            }
            (self.log.end, self.log.names) = (end, names);
            return Err(error);
        }
        self.state = State::Works;
        *published.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&self.log.names);
        self.checkpointer.after_commit(&self.connection);
        Ok(())
    }

    fn transaction(&mut self, batch: &[Append], atomic: bool) -> Result<Vec<Result<Appended, Conflict>>> {
        self.execute("BEGIN IMMEDIATE").map_err(fault("append"))?;
        let mut names = Arc::clone(&self.log.names);
        let written = self.log.judge(&self.connection, batch, atomic).and_then(|judged| {
            let written = write(&self.connection, &judged, &mut names)?;
            Ok((judged, written))
        });
        let (judged, Written { end, tails }) = match written {
            Ok(written) => written,
            Err(error) => {
                // SQLite may have rolled back by itself; then this fails, and there is nothing to do.
                let _ = self.execute("ROLLBACK");
                return Err(error);
            }
        };
        if judged.accepted.is_empty() {
            self.execute("ROLLBACK").map_err(fault("append"))?;
            return Ok(judged.answers);
        }
        if let Err(error) = self.execute("COMMIT") {
            let _ = self.execute("ROLLBACK");
            // The commit may have reached the file all the same.
            let uncertain = error.sqlite_error_code() == Some(rusqlite::ErrorCode::SystemIoFailure);
            return Err(match uncertain {
                true => DriverError::new(ErrorKind::Uncertain, "append", "the disk failed in a commit").because(error),
                false => fault("append")(error),
            });
        }
        (self.log.end, self.log.names) = (end, names);
        tails.iter().for_each(|(model, instance, tail)| self.log.tails.moved(*model, instance.as_ref(), *tail));
        Ok(judged.answers)
    }

    pub(super) fn execute(&self, sql: &str) -> rusqlite::Result<()> {
        self.connection.prepare_cached(sql)?.execute([]).map(drop)
    }
}

impl Log {
    pub(super) fn judge<'a>(
        &mut self,
        connection: &Connection,
        batch: &'a [Append],
        atomic: bool,
    ) -> Result<Judged<'a>> {
        let mut state = Lookup { connection, names: &self.names, tails: &mut self.tails };
        judge(self.end, batch, atomic, &mut state)
    }

    pub(super) fn import(&mut self, connection: &Connection, records: &[LogRecord]) -> Result<()> {
        let mut insert = connection.prepare_cached(INSERT).map_err(fault("import"))?;
        for record in records {
            let LogRecord::Event(event) = record else {
                transfer::put(connection, record).map_err(fault("import"))?;
                continue;
            };
            let position = event.position;
            if position <= self.end.position {
                let message = format!("an event at {position} after the one at {}", self.end.position);
                return Err(DriverError::new(ErrorKind::Conflict, "import", message));
            }
            let number = match self.names.number(&event.model) {
                Some(number) => number,
                None => Arc::make_mut(&mut self.names).add(connection, &event.model).map_err(fault("import"))?,
            };
            let instance = event.instance.as_deref().map(Key::new);
            insert_event(&mut insert, event, number, instance.as_ref(), position, event.time)?;
            (self.end.position, self.end.time) = (position, event.time);
        }
        Ok(())
    }
}

/// The log before a batch, in the batch's transaction.
struct Lookup<'l> {
    connection: &'l Connection,
    names: &'l Names,
    tails: &'l mut Tails,
}

impl LogState for Lookup<'_> {
    fn tail(&mut self, stream: StreamRef<'_>) -> Result<Tail> {
        // A model without a number has no event.
        let Some(number) = self.names.number(stream.model) else { return Ok(Tail::NONE) };
        self.tails.find(self.connection, number, stream.instance.map(Key::new))
    }

    fn last_of_instances(&mut self, model: &str, since: Position) -> Result<Position> {
        let Some(number) = self.names.number(model) else { return Ok(0) };
        self.connection
            .prepare_cached(
                "SELECT position FROM events INDEXED BY events_model
                 WHERE model = ?1 AND position > ?2 AND instance IS NOT NULL ORDER BY position DESC LIMIT 1",
            )
            .and_then(|mut statement| {
                let since = i64::try_from(since).unwrap_or(i64::MAX);
                statement.query_row(params![number, since], |row| row.get::<_, i64>(0)).optional()
            })
            .map(|last| last.unwrap_or(0) as Position)
            .map_err(fault("append"))
    }

    fn holder(&mut self, key: &str) -> Result<Option<Holder>> {
        holder_of(self.connection, key).map_err(fault("append"))
    }
}

/// What is known of the log once a batch is committed.
pub(super) struct Written<'a> {
    pub(super) end: LogEnd,
    /// By model number and instance, in order.
    pub(super) tails: Vec<(i64, Option<Key<'a>>, Tail)>,
}

/// Writes what a batch changes; models that are new get their numbers.
pub(super) fn write<'a>(connection: &Connection, judged: &Judged<'a>, names: &mut Arc<Names>) -> Result<Written<'a>> {
    let mut tails = Vec::with_capacity(judged.accepted.len());
    let mut insert = connection.prepare_cached(INSERT).map_err(fault("append"))?;
    for row in &judged.accepted {
        let (event, Appended { position, time, .. }) = (&row.append.event, row.appended);
        let number = match names.number(&event.model) {
            Some(number) => number,
            None => Arc::make_mut(names).add(connection, &event.model).map_err(fault("append"))?,
        };
        write_claims(connection, row).map_err(fault("append"))?;
        let instance = event.instance.as_deref().map(Key::new);
        insert_event(&mut insert, event, number, instance.as_ref(), position, time)?;
        tails.push((number, instance, row.tail()));
    }
    let mut end = judged.end;
    if let Some(time) = judged.removal {
        end.removed(remove_expired(connection, time).map_err(fault("append"))?);
    }
    Ok(Written { end, tails })
}

fn write_claims(connection: &Connection, row: &Accepted<'_>) -> rusqlite::Result<()> {
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

fn insert_event(
    insert: &mut CachedStatement<'_>,
    event: &Event,
    number: i64,
    instance: Option<&Key<'_>>,
    position: Position,
    time: Millis,
) -> Result<()> {
    let json = |error: serde_json::Error| {
        DriverError::new(ErrorKind::Invalid, "append", "the event cannot be written as JSON").because(error)
    };
    let cause = event.cause.as_ref().map(serde_json::to_string).transpose().map_err(json)?;
    let hooks = (!event.hooks.is_empty()).then(|| serde_json::to_string(&event.hooks)).transpose().map_err(json)?;
    insert
        .execute(params![
            position as i64,
            number,
            instance,
            event.kind as i64,
            event.model_version as i64,
            event.revision as i64,
            time,
            Key::new(&event.id),
            event.request_id.as_deref().map(Key::new),
            event.actor.as_ref().map(|actor| actor.to_text()),
            cause,
            hooks,
            event.data.as_deref(),
            event.trace,
        ])
        .map(drop)
        .map_err(fault("append"))
}

/// Files that were made before events had their place in a trace get the column; an older program does not see it.
fn add_trace(connection: &Connection) -> rusqlite::Result<()> {
    let found: bool =
        connection
            .query_row("SELECT count(*) FROM pragma_table_info('events') WHERE name = 'trace'", [], |row| row.get(0))?;
    match found {
        true => Ok(()),
        false => connection.execute_batch("ALTER TABLE events ADD COLUMN trace TEXT"),
    }
}

/// Removes claims that have expired by `time`, as [`Judged::removal`] has it. Returns how many.
fn remove_expired(connection: &Connection, time: Millis) -> rusqlite::Result<usize> {
    connection
        .prepare_cached(
            "DELETE FROM claims WHERE key IN (
                SELECT key FROM claims WHERE expires IS NOT NULL AND expires <= ?1 ORDER BY expires, key LIMIT ?2)",
        )?
        .execute(params![time, REMOVALS_MAX as i64])
}

/// Who holds a claim.
pub(super) fn holder_of(connection: &Connection, key: &str) -> rusqlite::Result<Option<Holder>> {
    connection
        .prepare_cached("SELECT model, instance, position, expires, value FROM claims WHERE key = ?1")?
        .query_row([key], |row| {
            let stream = Stream { model: row.get(0)?, instance: row.get(1)? };
            let position = row.get::<_, i64>(2)? as Position;
            Ok(Holder { stream, position, expires: row.get(3)?, value: row.get(4)? })
        })
        .optional()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{FORMAT, reserve};

    /// What is appended after it would else be acknowledged and not on the disk.
    #[test]
    fn a_reservation_that_fails_leaves_the_log_synced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.db");
        let mut writer = Writer::open(&path, &FORMAT).unwrap();
        let synchronous = |writer: &Writer| {
            writer.connection.query_row("PRAGMA synchronous", [], |row| row.get::<_, i64>(0)).unwrap()
        };
        let full = synchronous(&writer);
        writer.connection.busy_timeout(std::time::Duration::ZERO).unwrap();
        let other = Connection::open(&path).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        let keys = [("k".to_owned(), snaphook_driver::Stream::of_instance("m", "i"))];
        writer.unsynced(|connection| reserve::reserve(connection, &keys, 0)).unwrap_err();
        assert_eq!(synchronous(&writer), full);
        other.execute_batch("ROLLBACK").unwrap();
        assert!(writer.unsynced(|connection| reserve::reserve(connection, &keys, 0)).unwrap().is_empty());
        assert_eq!((synchronous(&writer), full), (2, 2), "FULL");
    }
}
