//! The only writer of the log.
//!
//! A batch is one transaction with one fsync. The cached state of the log only changes once the batch is committed.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use rusqlite::{Connection, OptionalExtension as _};
use snaphook_driver::judge::LogEnd;
use snaphook_driver::time::Millis;
use snaphook_driver::{Append, Appended, Conflict, DriverError, ErrorKind, LogRecord, Position, Result};

use super::append::{Log, Written, write};
use super::names::Names;
use super::tails::Tails;
use super::{format, import};
use crate::checkpoint::Checkpointer;
use crate::database::{Format, open_writer};
use crate::fault::fault;

/// The writing connection and its cached state.
pub(super) struct LogWriter {
    path: PathBuf,
    format: &'static Format,
    pub(super) connection: Connection,
    pub(super) checkpointer: Checkpointer,
    pub(super) log: Log,
    pub(super) state: WriterState,
}

/// The result of the last write.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum WriterState {
    Works,
    /// The write failed and nothing of it remains.
    Failed,
    /// The contents of the file are unknown until it is reopened: the disk failed during a commit, or the code
    /// panicked.
    Unknown,
}

impl LogWriter {
    /// Opens the log at `path`, or creates it.
    pub(super) fn open(path: &Path, format: &'static Format) -> Result<LogWriter> {
        let mut connection = open_writer(path, format)?;
        format::add_trace(&connection).map_err(fault("open"))?;
        let names = Arc::new(Names::load(&connection).map_err(fault("open"))?);
        let (head, time): (i64, Millis) = connection
            .query_row("SELECT position, time FROM events ORDER BY position DESC LIMIT 1", [], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
            .optional()
            .map_err(fault("open"))?
            .unwrap_or((0, Millis::MIN));
        let checkpointer = Checkpointer::start(path, &mut connection, format)?;
        let next_removal = format::next_removal(&connection).map_err(fault("open"))?;
        let end = LogEnd { position: head as Position, time, next_removal };
        let log = Log { end, names, tails: Tails::default() };
        Ok(LogWriter { path: path.to_owned(), format, connection, checkpointer, log, state: WriterState::Works })
    }

    /// The committed numbers of the models.
    pub(super) fn names(&self) -> &Arc<Names> {
        &self.log.names
    }

    /// Checks whether writing works again after a failed write; does nothing if none failed.
    pub(super) fn recover(&mut self) -> Result<()> {
        if self.state == WriterState::Unknown {
            // The old connection is only closed once the new one is open, so that a failure changes nothing.
            *self = LogWriter { state: WriterState::Failed, ..LogWriter::open(&self.path, self.format)? };
        }
        if self.state == WriterState::Failed {
            // Rewrites one page with the same contents.
            let version = self.format.version;
            self.connection
                .execute_batch(&format!("BEGIN IMMEDIATE; PRAGMA user_version = {version}; COMMIT"))
                .inspect_err(|_| drop(self.connection.execute_batch("ROLLBACK")))
                .map_err(fault("recover"))?;
            self.state = WriterState::Works;
        }
        Ok(())
    }

    /// Whether [`LogWriter::recover`] is required before the next write.
    pub(super) fn is_unknown(&self) -> bool {
        self.state == WriterState::Unknown
    }

    /// Position of the last committed event.
    pub(super) fn head(&self) -> Position {
        self.log.end.position
    }

    /// Runs one statement outside of `append`, in its own transaction.
    pub(super) fn with<T>(&mut self, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> rusqlite::Result<T> {
        let result = work(&self.connection);
        self.checkpointer.after_commit(&self.connection);
        result
    }

    /// The same without an fsync; the next batch's fsync covers it.
    pub(super) fn unsynced<T>(&mut self, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> rusqlite::Result<T> {
        self.connection.execute_batch("PRAGMA synchronous = NORMAL")?;
        let begun = self.connection.execute_batch("BEGIN IMMEDIATE");
        let result = begun
            .and_then(|()| work(&self.connection))
            .and_then(|value| self.connection.execute_batch("COMMIT").map(|()| value));
        if result.is_err() {
            // SQLite may have rolled back automatically; then this fails and nothing is left to do.
            let _ = self.connection.execute_batch("ROLLBACK");
        }
        // Before anything else can be appended; a reopened file has this setting from the start.
        if let Err(error) = self.connection.execute_batch("PRAGMA synchronous = FULL") {
            self.state = WriterState::Unknown;
            return Err(error);
        }
        self.checkpointer.after_commit(&self.connection);
        result
    }

    /// Closes the file and removes its write-ahead log.
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
        // Stays set if the work panics.
        self.state = WriterState::Unknown;
        let names = Arc::clone(&self.log.names);
        let result = self.transaction(batch, atomic);
        if !Arc::ptr_eq(&self.log.names, &names) {
            *published.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&self.log.names);
        }
        self.state = match &result {
            Ok(_) => WriterState::Works,
            Err(error) if error.kind() == ErrorKind::Uncertain => WriterState::Unknown,
            Err(_) => WriterState::Failed,
        };
        result
    }

    /// Looks after the write-ahead log. To be called when the head after an append is published.
    pub(super) fn after_append(&mut self) {
        self.checkpointer.after_commit(&self.connection);
    }

    /// Imports records of an export into the log; see [`snaphook_driver::EventStore::import`].
    pub(super) fn import(&mut self, records: &[LogRecord], published: &RwLock<Arc<Names>>) -> Result<()> {
        self.execute("BEGIN IMMEDIATE").map_err(fault("import"))?;
        // Stays set if the work panics.
        self.state = WriterState::Unknown;
        let (end, names) = (self.log.end, Arc::clone(&self.log.names));
        let put = import::begin(&self.connection)
            .and_then(|()| self.log.import(&self.connection, records))
            .and_then(|()| self.execute("COMMIT").map_err(fault("import")));
        // Nothing was appended, and the cached end of the log is no longer valid.
        self.log.tails = Tails::default();
        if let Err(error) = put {
            // If the commit failed, the file is reopened before the next write.
            if self.execute("ROLLBACK").is_ok() {
                self.state = WriterState::Failed;
            }
            (self.log.end, self.log.names) = (end, names);
            return Err(error);
        }
        self.state = WriterState::Works;
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
                // SQLite may have rolled back automatically; then this fails and nothing is left to do.
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
            // The commit may nevertheless have reached the file.
            let uncertain = error.sqlite_error_code() == Some(rusqlite::ErrorCode::SystemIoFailure);
            return Err(match uncertain {
                true => {
                    DriverError::new(ErrorKind::Uncertain, "append", "the disk failed during a commit").because(error)
                }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::claims;
    use crate::event::format::FORMAT;

    /// Otherwise later appends would be acknowledged although they are not on the disk.
    #[test]
    fn a_reservation_that_fails_leaves_the_log_synced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.db");
        let mut writer = LogWriter::open(&path, &FORMAT).unwrap();
        let synchronous = |writer: &LogWriter| {
            writer.connection.query_row("PRAGMA synchronous", [], |row| row.get::<_, i64>(0)).unwrap()
        };
        let full = synchronous(&writer);
        writer.connection.busy_timeout(std::time::Duration::ZERO).unwrap();
        let other = Connection::open(&path).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        let keys = [("k".to_owned(), snaphook_driver::Stream::of_instance("m", "i"))];
        writer.unsynced(|connection| claims::reserve(connection, &keys, 0)).unwrap_err();
        assert_eq!(synchronous(&writer), full);
        other.execute_batch("ROLLBACK").unwrap();
        assert!(writer.unsynced(|connection| claims::reserve(connection, &keys, 0)).unwrap().is_empty());
        assert_eq!((synchronous(&writer), full), (2, 2), "FULL");
    }
}
