//! A copy of a log that several nodes share, for drivers whose store only orders changes: each node applies the same
//! changes to its own file and serves all reads from it.
//!
//! The file can be rebuilt from the shared log, so nothing waits for the disk. The SDK's judge decides about each
//! change, depending only on the changes before it, so all nodes have the same file contents.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use rusqlite::OptionalExtension as _;
use snaphook_driver::files::FileLock;
use snaphook_driver::{
    ErrorKind, Event, EventFilter, EventPage, EventQuery, Holder, LogExport, Position, Result, Stream, new_log_identity,
};

use super::change::{ChangeOutcome, LogChange, LogEntry};
use super::export::Export;
use super::open_log::OpenLog;
use super::writer::LogWriter;
use super::{format, import, read};
use crate::database::{locked, off_thread, remove};
use crate::fault::fault;
use crate::lock::lock;

/// One node's copy. Reads return what [`Replica::apply`] has written.
pub struct Replica {
    shared: Arc<OpenLog>,
    id: String,
    identity: RwLock<Option<String>>,
    sequence: AtomicU64,
    is_closed: AtomicBool,
    lock: Mutex<Option<FileLock>>,
}

impl Replica {
    /// Opens the copy at `path`, or creates an empty one. `ErrorKind::Corrupt` if it is damaged: then it can be
    /// [recreated](Replica::remake).
    pub fn open(path: &Path) -> Result<Replica> {
        Replica::open_locked(path, lock(path)?)
    }

    /// Removes the copy at `path` and creates an empty one.
    pub fn remake(path: &Path) -> Result<Replica> {
        let lock = lock(path)?;
        remove(path).map_err(snaphook_driver::files::unusable_file(path))?;
        Replica::open_locked(path, lock)
    }

    /// Replaces the copy at `path` with a file from [`Replica::copy_to`], and opens it. The result is the same as if
    /// this node had judged everything up to there.
    pub fn adopt(path: &Path, copy: &Path) -> Result<Replica> {
        let lock = lock(path)?;
        let unusable = snaphook_driver::files::unusable_file(path);
        remove(path).and_then(|()| std::fs::rename(copy, path)).map_err(unusable)?;
        Replica::open_locked(path, lock)
    }

    fn open_locked(path: &Path, lock: FileLock) -> Result<Replica> {
        let mut writer = LogWriter::open(path, format::replica())?;
        let open = |connection: &rusqlite::Connection| -> rusqlite::Result<(String, u64, Option<String>)> {
            connection.execute(
                "INSERT INTO replica(one, id, sequence, writer, counter, next_removal) VALUES (1, ?1, 0, '', 0, ?2)
                 ON CONFLICT DO UPDATE SET id = ?1 WHERE id = ''",
                rusqlite::params![new_log_identity(), i64::MIN],
            )?;
            let (id, sequence) = connection.query_row("SELECT id, sequence FROM replica", [], |row| {
                Ok((row.get(0)?, row.get::<_, i64>(1)? as u64))
            })?;
            Ok((id, sequence, identity(connection)?))
        };
        let (id, sequence, identity) =
            writer.with(open).map_err(fault("open")).map_err(|error| error.with("path", path.display()))?;
        let shared = OpenLog::new(path, writer);
        Ok(Replica {
            shared,
            id,
            identity: RwLock::new(identity),
            sequence: AtomicU64::new(sequence),
            is_closed: AtomicBool::new(false),
            lock: Mutex::new(Some(lock)),
        })
    }

    /// Identifies this file among all copies; never changes.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The log's identity, once [`LogChange::Begin`] was applied.
    pub fn identity(&self) -> Option<String> {
        self.identity.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The sequence number of the last applied change; 0 before the first.
    pub fn sequence(&self) -> u64 {
        self.sequence.load(Ordering::Acquire)
    }

    /// The writer and counter of the last applied change; together they identify a change of the log.
    pub fn last_change(&self) -> Result<(String, u64)> {
        self.shared.readers.with(|connection| {
            connection
                .query_row("SELECT writer, counter FROM replica", [], |row| {
                    Ok((row.get(0)?, row.get::<_, i64>(1)? as u64))
                })
                .map_err(fault("last_change"))
        })
    }

    /// Applies all changes or, on failure, none. Blocks.
    pub fn apply(&self, entries: &[LogEntry<'_>]) -> Result<Vec<ChangeOutcome>> {
        let shared = &self.shared;
        let outcomes = shared.writing("apply", |writer| {
            let outcomes = writer.replicate(entries, &shared.names)?;
            if entries.iter().any(|entry| matches!(entry.change, LogChange::Begin { .. })) {
                let identity = writer.with(identity).map_err(fault("apply"))?;
                *self.identity.write().unwrap_or_else(PoisonError::into_inner) = identity;
            }
            shared.publish(writer.head());
            Ok(outcomes)
        })?;
        if let Some(last) = entries.last() {
            self.sequence.store(last.sequence, Ordering::Release);
        }
        Ok(outcomes)
    }

    /// Fails if the log is incomplete because an import has not finished.
    pub fn check_whole(&self) -> Result<()> {
        self.shared.readers.with(import::check_whole)
    }

    /// Whether an import is in progress.
    pub fn is_importing(&self) -> Result<bool> {
        match self.check_whole() {
            Ok(()) => Ok(false),
            Err(error) if error.kind() == ErrorKind::Config => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// See [`EventStore::read`](snaphook_driver::EventStore::read).
    pub async fn read(&self, query: &EventQuery, wait: Option<Duration>) -> Result<EventPage> {
        self.shared.read(query, wait).await
    }

    /// See [`EventStore::last`](snaphook_driver::EventStore::last).
    pub fn last(&self, stream: &Stream, at_most: Position) -> Result<Option<Event>> {
        read::last(&self.shared, stream, at_most)
    }

    /// See [`EventStore::last_but`](snaphook_driver::EventStore::last_but).
    pub async fn last_but(&self, stream: &Stream, at_most: Position, skip: u64) -> Result<Option<Event>> {
        self.shared.last_but(stream, at_most, skip).await
    }

    /// Position of the last event; 0 if there is none.
    pub fn head(&self) -> Position {
        self.shared.head()
    }

    /// Waits until the log has an event at or after that position.
    pub async fn reached(&self, position: Position) {
        // The sender lives as long as this.
        let _ = self.shared.head.subscribe().wait_for(|head| *head >= position).await;
    }

    /// See [`EventStore::next_claim`](snaphook_driver::EventStore::next_claim).
    pub fn next_claim(&self, from: &str) -> Result<Option<String>> {
        self.shared.next_claim(from)
    }

    /// See [`EventStore::holder`](snaphook_driver::EventStore::holder).
    pub fn holder(&self, key: &str) -> Result<Option<Holder>> {
        self.shared.holder(key)
    }

    /// See [`EventStore::get_blob`](snaphook_driver::EventStore::get_blob).
    pub async fn get_blob(&self, sha256: &str) -> Result<Option<Vec<u8>>> {
        self.shared.get_blob(sha256).await
    }

    /// Passes matching events after `after`, up to `until`, to `each` in order, until `limit` is reached or it returns
    /// `false`.
    pub fn scan(
        &self,
        filter: &EventFilter,
        after: Position,
        until: Position,
        limit: usize,
        each: impl FnMut(Event) -> bool,
    ) -> Result<()> {
        read::scan(&self.shared, filter, after, until, limit, each)
    }

    /// How many events match after `after`, up to `until`.
    pub fn count(&self, filter: &EventFilter, after: Position, until: Position) -> Result<u64> {
        read::count(&self.shared, filter, after, until)
    }

    /// One event by its position.
    pub fn at(&self, position: Position) -> Result<Option<Event>> {
        read::at(&self.shared, position)
    }

    /// A snapshot of events, claims and blobs, without groups.
    pub async fn export(&self) -> Result<Box<dyn LogExport>> {
        let shared = Arc::clone(&self.shared);
        off_thread("export", move || Ok(Box::new(Export::begin(&shared, None)?) as _)).await
    }

    /// Writes a snapshot of the copy to a new file. Returns the sequence number of its last change. Blocks; changes can
    /// be applied in the meantime.
    pub fn copy_to(&self, path: &Path) -> Result<u64> {
        // A query-only connection cannot make a copy.
        let connection = rusqlite::Connection::open(self.shared.readers.path()).map_err(fault("copy"))?;
        let name = path.to_string_lossy();
        connection
            .execute("VACUUM INTO ?1", [&name])
            .and_then(|_| rusqlite::Connection::open(path))
            // The copy is a different file, and gets its own id when it is opened.
            .and_then(|copy| {
                copy.query_row("UPDATE replica SET id = '' RETURNING sequence", [], |row| row.get::<_, i64>(0))
            })
            .map(|sequence| sequence as u64)
            .map_err(fault("copy"))
    }

    /// Ends all use of the file. Must be the last call.
    pub async fn close(&self) -> Result<()> {
        if self.is_closed.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        let shared = Arc::clone(&self.shared);
        let closed = off_thread("close", move || {
            let writer = locked(&shared.writer).take();
            shared.readers.close();
            writer.map_or(Ok(()), LogWriter::close)
        })
        .await;
        locked(&self.lock).take();
        closed
    }
}

fn identity(connection: &rusqlite::Connection) -> rusqlite::Result<Option<String>> {
    connection.query_row("SELECT identity FROM log", [], |row| row.get(0)).optional()
}
