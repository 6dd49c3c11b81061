//! The one writer of the log.
//!
//! A batch is one transaction with one fsync. Each row is checked before anything of it is written, so a row that
//! conflicts leaves no trace and needs no savepoint.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use rusqlite::{Connection, OptionalExtension as _, params};
use snaphook_driver::{
    Append, Claim, Conflict, DriverError, ErrorKind, Event, EventKind, Expected, Holder, Position, Result, Stream,
};

use super::names::Names;
use crate::checkpoint::Checkpointer;
use crate::database::Format;
use crate::fault::{corrupt, fault};
use crate::key::Key;

/// The writing connection and what it knows without asking.
pub(super) struct Writer {
    connection: Connection,
    checkpointer: Checkpointer,
    head: Position,
    /// As published, but for what the transaction that runs has added.
    names: Arc<Names>,
    /// Last events of definition streams, by model number; every append requires one. Only this process writes,
    /// so they are right until a rollback, which clears them.
    definitions: HashMap<i64, Tail>,
    /// Set when the disk failed in a commit: what is in the log then is known only after opening it again.
    broken: bool,
}

/// The last event of a stream; position 0 if there is none.
#[derive(Clone, Copy)]
struct Tail {
    position: Position,
    ended: bool,
}

impl Writer {
    pub(super) fn new(path: &Path, mut connection: Connection, names: Arc<Names>, format: &Format) -> Result<Writer> {
        let head: i64 = connection
            .query_row("SELECT coalesce(max(position), 0) FROM events", [], |row| row.get(0))
            .map_err(fault("open"))?;
        let checkpointer = Checkpointer::start(path, &mut connection, format)?;
        Ok(Writer {
            connection,
            checkpointer,
            head: head as Position,
            names,
            definitions: HashMap::new(),
            broken: false,
        })
    }

    /// Position of the last committed event.
    pub(super) fn head(&self) -> Position {
        self.head
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
    ) -> Result<Vec<Result<Position, Conflict>>> {
        if self.broken {
            return Err(DriverError::new(
                ErrorKind::Unavailable,
                "append",
                "the disk failed in an earlier commit; restart after it is mended",
            ));
        }
        let (head, names) = (self.head, Arc::clone(&self.names));
        let result = self.transaction(batch, atomic);
        if !matches!(result, Ok((_, true))) {
            self.head = head;
            self.definitions.clear();
            self.names = names;
        } else if !Arc::ptr_eq(&self.names, &names) {
            *published.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&self.names);
        }
        self.checkpointer.after_commit(&self.connection);
        result.map(|(answers, _)| answers)
    }

    /// The answers, and whether anything was committed.
    fn transaction(&mut self, batch: &[Append], atomic: bool) -> Result<(Vec<Result<Position, Conflict>>, bool)> {
        self.execute("BEGIN IMMEDIATE").map_err(fault("append"))?;
        let answers = match self.rows(batch, atomic) {
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
            self.broken = error.sqlite_error_code() == Some(rusqlite::ErrorCode::SystemIoFailure);
            let _ = self.execute("ROLLBACK");
            return Err(fault("append")(error));
        }
        Ok((answers, true))
    }

    fn execute(&self, sql: &str) -> rusqlite::Result<()> {
        self.connection.prepare_cached(sql)?.execute([]).map(drop)
    }

    fn rows(&mut self, batch: &[Append], atomic: bool) -> Result<Vec<Result<Position, Conflict>>> {
        let mut answers = Vec::with_capacity(batch.len());
        for append in batch {
            let answer = self.row(append)?;
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

    fn row(&mut self, append: &Append) -> Result<Result<Position, Conflict>> {
        let event = &append.event;
        let known = self.names.number(&event.model);
        if let Err(conflict) = self.check(append, known)? {
            return Ok(Err(conflict));
        }
        let number = match known {
            Some(number) => number,
            None => Arc::make_mut(&mut self.names).add(&self.connection, &event.model).map_err(fault("append"))?,
        };
        let position = self.head + 1;
        self.write(append, number, position)?;
        self.head = position;
        if event.instance.is_none() {
            self.definitions.insert(number, Tail { position, ended: event.kind.ends_stream() });
        }
        Ok(Ok(position))
    }

    fn check(&mut self, append: &Append, known: Option<i64>) -> Result<Result<(), Conflict>> {
        let event = &append.event;
        if append.expected != Expected::Any {
            let tail = self.tail(known, event.instance.as_deref())?;
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
            let tail = self.tail(number, require.stream.instance.as_deref())?;
            if tail.position != require.position {
                return Ok(Err(Conflict::Required { stream: require.stream.clone(), last: tail.position }));
            }
        }
        if append.claims.is_empty() { Ok(Ok(())) } else { self.check_claims(append) }
    }

    fn check_claims(&self, append: &Append) -> Result<Result<(), Conflict>> {
        let own = append.event.stream();
        let released: HashSet<&str> = append.releases.iter().map(String::as_str).collect();
        let mut taken: HashMap<&str, &Stream> = HashMap::with_capacity(append.claims.len());
        for Claim { key, holder } in &append.claims {
            let stream = holder.as_ref().unwrap_or(&own);
            let current = match taken.insert(key, stream) {
                Some(earlier) => Some(Holder { stream: earlier.clone(), position: self.head + 1 }),
                None if released.contains(key.as_str()) => None,
                None => holder_of(&self.connection, key).map_err(fault("append"))?,
            };
            if let Some(holder) = current.filter(|current| current.stream != *stream) {
                return Ok(Err(Conflict::Claimed { key: key.clone(), holder }));
            }
        }
        Ok(Ok(()))
    }

    /// The last event of a stream; `model` is `None` for a model without any event.
    fn tail(&mut self, model: Option<i64>, instance: Option<&str>) -> Result<Tail> {
        let none = Tail { position: 0, ended: false };
        let Some(model) = model else { return Ok(none) };
        if instance.is_none()
            && let Some(tail) = self.definitions.get(&model)
        {
            return Ok(*tail);
        }
        let tail = self.find_tail(model, instance).map_err(fault("append"))?;
        let tail = match tail {
            None => none,
            Some((position, kind)) => {
                let kind = kind_of(kind).ok_or_else(|| corrupt("append", format!("event kind `{kind}` is unknown")))?;
                Tail { position: position as Position, ended: kind.ends_stream() }
            }
        };
        if instance.is_none() {
            self.definitions.insert(model, tail);
        }
        Ok(tail)
    }

    fn find_tail(&self, model: i64, instance: Option<&str>) -> rusqlite::Result<Option<(i64, i64)>> {
        let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
        match instance {
            Some(instance) => self
                .connection
                .prepare_cached(
                    "SELECT position, kind FROM events INDEXED BY events_stream
                     WHERE model = ?1 AND instance = ?2 ORDER BY position DESC LIMIT 1",
                )?
                .query_row(params![model, Key::new(instance)], row)
                .optional(),
            None => self
                .connection
                .prepare_cached(
                    "SELECT position, kind FROM events INDEXED BY events_stream
                     WHERE model = ?1 AND instance IS NULL ORDER BY position DESC LIMIT 1",
                )?
                .query_row([model], row)
                .optional(),
        }
    }

    fn write(&self, append: &Append, number: i64, position: Position) -> Result<()> {
        let event = &append.event;
        let json = |error: serde_json::Error| {
            DriverError::new(ErrorKind::Invalid, "append", "the event cannot be written as JSON").because(error)
        };
        let cause = event.cause.as_ref().map(serde_json::to_string).transpose().map_err(json)?;
        let hooks = (!event.hooks.is_empty()).then(|| serde_json::to_string(&event.hooks)).transpose().map_err(json)?;
        let write = || -> rusqlite::Result<()> {
            if !append.releases.is_empty() {
                let mut delete = self.connection.prepare_cached("DELETE FROM claims WHERE key = ?1")?;
                for key in &append.releases {
                    delete.execute([key])?;
                }
            }
            if !append.claims.is_empty() {
                self.take_claims(event, &append.claims, position)?;
            }
            self.connection
                .prepare_cached(
                    "INSERT INTO events(position, model, instance, kind, model_version, revision, time, id,
                        request_id, actor, cause, hooks, data)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
                )?
                .execute(params![
                    position as i64,
                    number,
                    event.instance.as_deref().map(Key::new),
                    event.kind as i64,
                    event.model_version as i64,
                    event.revision as i64,
                    event.time,
                    Key::new(&event.id),
                    event.request_id.as_deref().map(Key::new),
                    event.actor,
                    cause,
                    hooks,
                    event.data.as_deref(),
                ])?;
            Ok(())
        };
        write().map_err(fault("append"))
    }

    fn take_claims(&self, event: &Event, claims: &[Claim], position: Position) -> rusqlite::Result<()> {
        let mut put = self.connection.prepare_cached(
            "INSERT INTO claims(key, model, instance, position) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT(key) DO UPDATE SET model = ?2, instance = ?3, position = ?4",
        )?;
        for Claim { key, holder } in claims {
            let (model, instance) = match holder {
                Some(stream) => (&stream.model, &stream.instance),
                None => (&event.model, &event.instance),
            };
            put.execute(params![key, model, instance, position as i64])?;
        }
        Ok(())
    }
}

/// Who holds a claim.
pub(super) fn holder_of(connection: &Connection, key: &str) -> rusqlite::Result<Option<Holder>> {
    connection
        .prepare_cached("SELECT model, instance, position FROM claims WHERE key = ?1")?
        .query_row([key], |row| {
            let stream = Stream { model: row.get(0)?, instance: row.get(1)? };
            Ok(Holder { stream, position: row.get::<_, i64>(2)? as Position })
        })
        .optional()
}

/// The kind with that number, which is its place in [`EventKind::ALL`] and part of the file format.
pub(super) fn kind_of(number: i64) -> Option<EventKind> {
    usize::try_from(number).ok().and_then(|index| EventKind::ALL.get(index)).copied()
}
