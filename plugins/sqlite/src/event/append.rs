//! The one writer of the log.
//!
//! A batch is one transaction with one fsync. Each row is checked before anything of it is written, so a row that
//! conflicts leaves no trace and needs no savepoint.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use rusqlite::{CachedStatement, Connection, OptionalExtension as _, params};
use snaphook_driver::time::Millis;
use snaphook_driver::{
    Append, Appended, Claim, Conflict, DriverError, ErrorKind, Event, EventKind, Expected, Holder, LogRecord, Position,
    Quiet, Result, Stream,
};

use super::names::Names;
use super::tails::{Tail, Tails};
use super::transfer;
use crate::checkpoint::Checkpointer;
use crate::database::{Format, open_writer};
use crate::fault::fault;
use crate::key::Key;

/// The writing connection and what it knows without asking.
pub(super) struct Writer {
    path: PathBuf,
    format: &'static Format,
    connection: Connection,
    checkpointer: Checkpointer,
    log: Log,
    state: State,
}

/// What the last write left behind.
#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Works,
    /// The write failed and nothing of it is there.
    Failed,
    /// What is in the file is known only after opening it again: the disk failed in a commit, or the work panicked.
    Unknown,
}

/// The log as the transaction that runs leaves it.
struct Log {
    head: Position,
    /// Time of the last event.
    time: Millis,
    names: Arc<Names>,
    tails: Tails,
    /// When claims that have ended are looked for again.
    next_removal: Millis,
}

/// Time between two looks for claims that have ended.
const REMOVAL_MILLIS: Millis = 60_000;
/// Claims that one batch removes, so that it does not wait for many.
const REMOVALS_MAX: usize = 256;

/// Prepared once for each batch.
const INSERT: &str = "INSERT INTO events(position, model, instance, kind, model_version, revision, time, id, \
    request_id, actor, cause, hooks, data) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)";

impl Writer {
    /// Opens the log at `path`, or makes it.
    pub(super) fn open(path: &Path, format: &'static Format) -> Result<Writer> {
        let mut connection = open_writer(path, format)?;
        let names = Arc::new(Names::load(&connection).map_err(fault("open"))?);
        let (head, time): (i64, Millis) = connection
            .query_row("SELECT position, time FROM events ORDER BY position DESC LIMIT 1", [], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
            .optional()
            .map_err(fault("open"))?
            .unwrap_or((0, Millis::MIN));
        let checkpointer = Checkpointer::start(path, &mut connection, format)?;
        let log = Log { head: head as Position, time, names, tails: Tails::default(), next_removal: 0 };
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

    /// Position of the last committed event.
    pub(super) fn head(&self) -> Position {
        self.log.head
    }

    /// Runs one statement outside of `append`, in a transaction of its own.
    pub(super) fn with<T>(&mut self, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> rusqlite::Result<T> {
        let result = work(&self.connection);
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
        if self.state == State::Unknown {
            self.recover()?;
            *published.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&self.log.names);
        }
        let (head, time, names) = (self.log.head, self.log.time, Arc::clone(&self.log.names));
        // Stays if the work panics.
        self.state = State::Unknown;
        let result = self.transaction(batch, atomic);
        if matches!(result, Ok((_, true))) {
            self.log.tails.committed();
            if !Arc::ptr_eq(&self.log.names, &names) {
                *published.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&self.log.names);
            }
        } else {
            (self.log.head, self.log.time, self.log.names) = (head, time, names);
            self.log.tails.rolled_back();
        }
        self.checkpointer.after_commit(&self.connection);
        self.state = match &result {
            Ok(_) => State::Works,
            Err(error) if error.kind() == ErrorKind::Uncertain => State::Unknown,
            Err(_) => State::Failed,
        };
        result.map(|(answers, _)| answers)
    }

    /// Puts records of an export into the log; see [`snaphook_driver::EventStore::import`].
    pub(super) fn import(&mut self, records: &[LogRecord], published: &RwLock<Arc<Names>>) -> Result<()> {
        self.execute("BEGIN IMMEDIATE").map_err(fault("import"))?;
        let (head, time, names) = (self.log.head, self.log.time, Arc::clone(&self.log.names));
        let put = transfer::begin_import(&self.connection)
            .and_then(|()| self.log.import(&self.connection, records))
            .and_then(|()| self.execute("COMMIT").map_err(fault("import")));
        // Nothing was appended, and nothing that is remembered of the log's end is so any more.
        self.log.tails = Tails::default();
        if let Err(error) = put {
            let _ = self.execute("ROLLBACK");
            (self.log.head, self.log.time, self.log.names) = (head, time, names);
            return Err(error);
        }
        *published.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&self.log.names);
        self.checkpointer.after_commit(&self.connection);
        Ok(())
    }

    /// The answers, and whether anything was committed.
    fn transaction(&mut self, batch: &[Append], atomic: bool) -> Result<(Vec<Result<Appended, Conflict>>, bool)> {
        self.execute("BEGIN IMMEDIATE").map_err(fault("append"))?;
        let answers = match self.log.rows(&self.connection, batch, atomic) {
            Ok(answers) => answers,
            Err(error) => {
                // SQLite may have rolled back by itself; then this fails, and there is nothing to do.
                let _ = self.execute("ROLLBACK");
                return Err(error);
            }
        };
        let failed = answers.iter().filter(|answer| answer.is_err()).count();
        if failed == answers.len() || (atomic && failed > 0) {
            self.execute("ROLLBACK").map_err(fault("append"))?;
            return Ok((answers, false));
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
        Ok((answers, true))
    }

    fn execute(&self, sql: &str) -> rusqlite::Result<()> {
        self.connection.prepare_cached(sql)?.execute([]).map(drop)
    }
}

impl Log {
    fn rows(
        &mut self,
        connection: &Connection,
        batch: &[Append],
        atomic: bool,
    ) -> Result<Vec<Result<Appended, Conflict>>> {
        if let Some(time) = batch.iter().map(|append| append.event.time).max()
            && time >= self.next_removal
        {
            let more = remove_expired(connection, time).map_err(fault("append"))?;
            self.next_removal = if more { time } else { time + REMOVAL_MILLIS };
        }
        let mut insert = connection.prepare_cached(INSERT).map_err(fault("append"))?;
        let mut answers = Vec::with_capacity(batch.len());
        for append in batch {
            let answer = self.row(connection, &mut insert, append)?;
            if atomic && answer.is_err() {
                let failed = answers.len();
                answers.clear();
                answers.resize(batch.len(), Err(Conflict::Batch));
                answers[failed] = answer;
                break;
            }
            answers.push(answer);
        }
        Ok(answers)
    }

    fn import(&mut self, connection: &Connection, records: &[LogRecord]) -> Result<()> {
        let mut insert = connection.prepare_cached(INSERT).map_err(fault("import"))?;
        for record in records {
            let LogRecord::Event(event) = record else {
                transfer::put(connection, record).map_err(fault("import"))?;
                continue;
            };
            let position = event.position;
            if position <= self.head {
                let message = format!("an event at {position} after the one at {}", self.head);
                return Err(DriverError::new(ErrorKind::Conflict, "import", message));
            }
            let number = match self.names.number(&event.model) {
                Some(number) => number,
                None => Arc::make_mut(&mut self.names).add(connection, &event.model).map_err(fault("import"))?,
            };
            let instance = event.instance.as_deref().map(Key::new);
            insert_event(&mut insert, event, number, instance.as_ref(), position, event.time)?;
            (self.head, self.time) = (position, event.time);
        }
        Ok(())
    }

    fn row(
        &mut self,
        connection: &Connection,
        insert: &mut CachedStatement<'_>,
        append: &Append,
    ) -> Result<Result<Appended, Conflict>> {
        let event = &append.event;
        let instance = event.instance.as_deref().map(Key::new);
        let known = self.names.number(&event.model);
        let time = event.time.max(self.time);
        if let Err(conflict) = self.check(connection, append, known, instance.as_ref(), time)? {
            return Ok(Err(conflict));
        }
        let number = match known {
            Some(number) => number,
            None => Arc::make_mut(&mut self.names).add(connection, &event.model).map_err(fault("append"))?,
        };
        let after = self.head;
        let position = after + 1;
        self.tails.moved(connection, number, instance.as_ref(), Tail { position, ended: event.kind.ends_stream() })?;
        write(connection, insert, append, number, instance.as_ref(), position, time)?;
        (self.head, self.time) = (position, time);
        Ok(Ok(Appended { position, time, after }))
    }

    fn check(
        &mut self,
        connection: &Connection,
        append: &Append,
        known: Option<i64>,
        instance: Option<&Key<'_>>,
        time: Millis,
    ) -> Result<Result<(), Conflict>> {
        if append.expected != Expected::Any {
            let tail = self.tails.find(connection, known, instance)?;
            let holds = match append.expected {
                Expected::Any => true,
                Expected::New => tail.position == 0 || tail.ended,
                Expected::At(position) => tail.position == position && !tail.ended,
            };
            if !holds {
                return Ok(Err(Conflict::Stream { last: tail.position, ended: tail.ended }));
            }
        }
        for require in &append.requires {
            let number = self.names.number(&require.stream.model);
            let instance = require.stream.instance.as_deref().map(Key::new);
            let tail = self.tails.find(connection, number, instance.as_ref())?;
            if tail.position != require.position {
                return Ok(Err(Conflict::Required { stream: require.stream.clone(), last: tail.position }));
            }
        }
        if let Some(quiet) = &append.quiet
            && let Some(last) = self.last_of_instances(connection, quiet).map_err(fault("append"))?
        {
            return Ok(Err(Conflict::NotQuiet { last }));
        }
        if append.claims.is_empty() { Ok(Ok(())) } else { self.check_claims(connection, append, time) }
    }

    /// Position of the last event of a model's instances that came since.
    fn last_of_instances(&self, connection: &Connection, quiet: &Quiet) -> rusqlite::Result<Option<Position>> {
        let Some(number) = self.names.number(&quiet.model) else { return Ok(None) };
        let last = connection
            .prepare_cached(
                "SELECT position FROM events INDEXED BY events_model
                 WHERE model = ?1 AND position > ?2 AND instance IS NOT NULL ORDER BY position DESC LIMIT 1",
            )?
            .query_row(params![number, i64::try_from(quiet.since).unwrap_or(i64::MAX)], |row| row.get::<_, i64>(0))
            .optional()?;
        Ok(last.map(|last| last as Position))
    }

    fn check_claims(&self, connection: &Connection, append: &Append, time: Millis) -> Result<Result<(), Conflict>> {
        let own = append.event.stream();
        let released: HashSet<&str> = append.releases.iter().map(String::as_str).collect();
        let mut taken: HashMap<&str, &Stream> = HashMap::with_capacity(append.claims.len());
        for Claim { key, holder, replaces, .. } in &append.claims {
            let stream = holder.as_ref().unwrap_or(&own);
            let current = match taken.insert(key, stream) {
                Some(earlier) => Some(Holder::new(earlier.clone(), self.head + 1)),
                None if released.contains(key.as_str()) => None,
                None => holder_of(connection, key).map_err(fault("append"))?.filter(|holder| !holder.has_expired(time)),
            };
            let gives_way = |current: &Holder| current.stream == *stream || *replaces == Some(current.position);
            if let Some(holder) = current.filter(|current| !gives_way(current)) {
                return Ok(Err(Conflict::Claimed { key: key.clone(), holder }));
            }
        }
        Ok(Ok(()))
    }
}

fn write(
    connection: &Connection,
    insert: &mut CachedStatement<'_>,
    append: &Append,
    number: i64,
    instance: Option<&Key<'_>>,
    position: Position,
    time: Millis,
) -> Result<()> {
    let event = &append.event;
    let claims = || -> rusqlite::Result<()> {
        if !append.releases.is_empty() {
            let mut delete = connection.prepare_cached("DELETE FROM claims WHERE key = ?1")?;
            for key in &append.releases {
                delete.execute([key])?;
            }
        }
        if !append.claims.is_empty() {
            take_claims(connection, event, &append.claims, position)?;
        }
        Ok(())
    };
    claims().map_err(fault("append"))?;
    insert_event(insert, event, number, instance, position, time)
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
            event.actor,
            cause,
            hooks,
            event.data.as_deref(),
        ])
        .map(drop)
        .map_err(fault("append"))
}

fn take_claims(connection: &Connection, event: &Event, claims: &[Claim], position: Position) -> rusqlite::Result<()> {
    let mut put = connection.prepare_cached(
        "INSERT INTO claims(key, model, instance, position, expires, value) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT(key) DO UPDATE SET model = ?2, instance = ?3, position = ?4, expires = ?5, value = ?6",
    )?;
    for Claim { key, holder, expires, value, .. } in claims {
        let (model, instance) = match holder {
            Some(stream) => (&stream.model, &stream.instance),
            None => (&event.model, &event.instance),
        };
        put.execute(params![key, model, instance, position as i64, expires, value])?;
    }
    Ok(())
}

/// Removes claims that have ended by `time`. Returns whether there are more.
fn remove_expired(connection: &Connection, time: Millis) -> rusqlite::Result<bool> {
    let removed = connection
        .prepare_cached(
            "DELETE FROM claims WHERE key IN (
                SELECT key FROM claims WHERE expires IS NOT NULL AND expires <= ?1 ORDER BY expires LIMIT ?2)",
        )?
        .execute(params![time, REMOVALS_MAX as i64])?;
    Ok(removed >= REMOVALS_MAX)
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

/// The kind with that number, which is its place in [`EventKind::ALL`] and part of the file format.
pub(super) fn kind_of(number: i64) -> Option<EventKind> {
    usize::try_from(number).ok().and_then(|index| EventKind::ALL.get(index)).copied()
}
