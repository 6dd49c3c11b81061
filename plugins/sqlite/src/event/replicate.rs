//! Applies the ordered changes of a log that several nodes share.
//!
//! Every node judges the same changes with the same rules, so everything here may only depend on the changes and the
//! contents of the file. The file's position and the last counter of each writer change in the same transaction, so a
//! file is always consistent with one position in the log and continues from there.

use std::sync::{Arc, PoisonError, RwLock};

use rusqlite::params;
use snaphook_driver::{ErrorKind, LogRecord, Result};

use super::append::{Written, write};
use super::change::{ChangeOutcome, LogChange, LogEntry};
use super::names::Names;
use super::tails::Tails;
use super::writer::{LogWriter, WriterState};
use super::{blobs, claims, import};
use crate::fault::fault;

/// The counter as it is stored in the file.
fn counter_of(entry: &LogEntry<'_>) -> i64 {
    i64::try_from(entry.counter).unwrap_or(i64::MAX)
}

impl LogWriter {
    /// Judges and writes changes in order, all in one transaction. Returns one outcome for each.
    pub(super) fn replicate(
        &mut self,
        entries: &[LogEntry<'_>],
        published: &RwLock<Arc<Names>>,
    ) -> Result<Vec<ChangeOutcome>> {
        self.execute("BEGIN IMMEDIATE").map_err(fault("replicate"))?;
        // Stays set if the work panics.
        self.state = WriterState::Unknown;
        let (end, names) = (self.log.end, Arc::clone(&self.log.names));
        let written = self.changes(entries).and_then(|outcomes| {
            self.execute("COMMIT").map_err(fault("replicate"))?;
            Ok(outcomes)
        });
        match written {
            Ok(outcomes) => {
                self.state = WriterState::Works;
                if !Arc::ptr_eq(&self.log.names, &names) {
                    *published.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&self.log.names);
                }
                self.checkpointer.after_commit(&self.connection);
                Ok(outcomes)
            }
            Err(error) => {
                // If the commit failed, the file is reopened before the next write.
                if self.execute("ROLLBACK").is_ok() {
                    self.state = WriterState::Failed;
                }
                (self.log.end, self.log.names, self.log.tails) = (end, names, Tails::default());
                Err(error)
            }
        }
    }

    fn changes(&mut self, entries: &[LogEntry<'_>]) -> Result<Vec<ChangeOutcome>> {
        let mut outcomes = Vec::with_capacity(entries.len());
        for entry in entries {
            outcomes.push(match self.counts(entry)? {
                true => self.change(&entry.change)?,
                false => ChangeOutcome::Repeated,
            });
        }
        if let Some(last) = entries.last() {
            self.connection
                .prepare_cached("UPDATE replica SET sequence = ?1, writer = ?2, counter = ?3, next_removal = ?4")
                .and_then(|mut update| {
                    let counter = counter_of(last);
                    update.execute(params![last.sequence as i64, last.writer, counter, self.log.end.next_removal])
                })
                .map_err(fault("replicate"))?;
        }
        Ok(outcomes)
    }

    /// Whether a change has an effect: a repeated or late change has none, on any node.
    fn counts(&self, entry: &LogEntry<'_>) -> Result<bool> {
        let counter = counter_of(entry);
        let changed = self
            .connection
            .prepare_cached(
                "INSERT INTO writers(name, counter) VALUES (?1, ?2)
                 ON CONFLICT(name) DO UPDATE SET counter = ?2 WHERE counter < ?2",
            )
            .and_then(|mut put| put.execute(params![entry.writer, counter]))
            .map_err(fault("replicate"))?;
        Ok(changed > 0)
    }

    fn change(&mut self, change: &LogChange<'_>) -> Result<ChangeOutcome> {
        let connection = &self.connection;
        match change {
            LogChange::Nothing => Ok(ChangeOutcome::Done),
            LogChange::Begin { identity } => {
                connection
                    .execute("INSERT INTO log(one, identity) VALUES (1, ?1) ON CONFLICT DO NOTHING", [identity])
                    .map_err(fault("replicate"))?;
                Ok(ChangeOutcome::Done)
            }
            LogChange::Append { batch, atomic } => {
                let judged = self.log.judge(connection, batch, *atomic)?;
                if !judged.accepted.is_empty() {
                    let mut names = Arc::clone(&self.log.names);
                    let Written { end, tails } = write(connection, &judged, &mut names)?;
                    (self.log.end, self.log.names) = (end, names);
                    tails
                        .iter()
                        .for_each(|(model, instance, tail)| self.log.tails.moved(*model, instance.as_ref(), *tail));
                }
                Ok(ChangeOutcome::Appended(judged.answers))
            }
            LogChange::Reserve { keys } => claims::reserve(connection, keys, self.log.end.position)
                .map(ChangeOutcome::Reserved)
                .map_err(fault("replicate")),
            LogChange::Forget { prefix, limit } => {
                claims::forget(connection, prefix, *limit).map(ChangeOutcome::Forgotten).map_err(fault("replicate"))
            }
            LogChange::Blob { sha256, bytes } => {
                blobs::put(connection, sha256, bytes).map(|()| ChangeOutcome::Done).map_err(fault("replicate"))
            }
            LogChange::Import { records } => self.import_part(records),
            LogChange::FinishImport => {
                import::finish(connection).map(|()| ChangeOutcome::Done).map_err(fault("replicate"))
            }
        }
    }

    /// All nodes reject the same imports, and a rejected import has no effect.
    fn import_part(&mut self, records: &[LogRecord]) -> Result<ChangeOutcome> {
        self.execute("SAVEPOINT import").map_err(fault("replicate"))?;
        let (end, names) = (self.log.end, Arc::clone(&self.log.names));
        self.log.tails = Tails::default();
        let put = import::begin(&self.connection).and_then(|()| self.log.import(&self.connection, records));
        let outcome = match put {
            Ok(()) => ChangeOutcome::Done,
            Err(error) if error.kind() == ErrorKind::Conflict => {
                self.execute("ROLLBACK TO import").map_err(fault("replicate"))?;
                (self.log.end, self.log.names) = (end, names);
                ChangeOutcome::Refused(error.message().to_owned())
            }
            Err(error) => return Err(error),
        };
        self.execute("RELEASE import").map_err(fault("replicate"))?;
        Ok(outcome)
    }
}
