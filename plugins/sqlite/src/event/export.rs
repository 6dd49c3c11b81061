//! Exports of a log.
//!
//! An export uses two read transactions, one per file. They begin while nothing can be acknowledged, first that of the
//! groups, so that the copy of the log contains every acknowledged event. Until the export ends, the write-ahead logs
//! of both files grow with all writes.

use std::sync::Arc;

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension as _, params};
use snaphook_driver::{
    DriverError, EXPORT_BYTES, ErrorKind, Event, Group, Holder, LogExport, LogRecord, PENDING_MAX, PendingEvent,
    Position, Result, Stream,
};

use super::groups::Groups;
use super::open_log::OpenLog;
use super::read;
use crate::database::{off_thread, open_reader};
use crate::fault::{corrupt, fault};

/// How many claims one step reads at most.
const CLAIMS_MAX: u32 = 4096;

pub(super) struct Export {
    head: Position,
    /// `None` while a step uses it, and after a step has failed.
    copy: Option<Snapshot>,
}

struct Snapshot {
    shared: Arc<OpenLog>,
    log: Connection,
    /// `None` if the groups are stored elsewhere.
    groups: Option<Connection>,
    next: Next,
}

/// The next part: everything of one kind after a key.
enum Next {
    Events(Position),
    Claims(Option<String>),
    Blobs(Option<String>),
    Groups(Option<String>),
    Pending { number: i64, name: String, after: i64 },
    End,
}

impl Export {
    pub(super) fn begin(shared: &Arc<OpenLog>, groups: Option<&Groups>) -> Result<Export> {
        let begin = |connection: &Connection, sql: &str| -> Result<i64> {
            connection.execute_batch("BEGIN").map_err(fault("export"))?;
            // SQLite begins a transaction with its first read.
            connection.query_row(sql, [], |row| row.get(0)).map_err(fault("export"))
        };
        let log = open_reader(shared.readers.path())?;
        let events = "SELECT coalesce(max(position), 0) FROM events";
        let (head, progress) = match groups {
            None => (begin(&log, events)?, None),
            Some(groups) => {
                let progress = open_reader(groups.path())?;
                let head = groups.halted("export", || {
                    begin(&progress, "SELECT count(*) FROM groups")?;
                    begin(&log, events)
                })?;
                (head, Some(progress))
            }
        };
        let copy = Snapshot { shared: Arc::clone(shared), log, groups: progress, next: Next::Events(0) };
        Ok(Export { head: head as Position, copy: Some(copy) })
    }
}

#[async_trait]
impl LogExport for Export {
    fn head(&self) -> Position {
        self.head
    }

    async fn next(&mut self) -> Result<Vec<LogRecord>> {
        let mut copy = self
            .copy
            .take()
            .ok_or_else(|| DriverError::new(ErrorKind::Unexpected, "export", "an earlier part of the export failed"))?;
        let (copy, records) = off_thread("export", move || {
            let records = copy.step()?;
            Ok((copy, records))
        })
        .await?;
        self.copy = Some(copy);
        Ok(records)
    }
}

impl Snapshot {
    /// The next records; empty only at the end.
    fn step(&mut self) -> Result<Vec<LogRecord>> {
        loop {
            let records = match std::mem::replace(&mut self.next, Next::End) {
                Next::Events(after) => self.events(after)?,
                Next::Claims(after) => self.claims(after).map_err(fault("export"))?,
                Next::Blobs(after) => self.blob(after).map_err(fault("export"))?,
                Next::Groups(after) => self.group(after)?,
                Next::Pending { number, name, after } => self.pending(number, name, after).map_err(fault("export"))?,
                Next::End => return Ok(Vec::new()),
            };
            if !records.is_empty() {
                return Ok(records);
            }
        }
    }

    fn events(&mut self, after: Position) -> Result<Vec<LogRecord>> {
        let (mut records, mut bytes) = (Vec::new(), 0);
        let mut last = None;
        read::each_after(&self.log, &self.shared.names(), after, |event: Event| {
            bytes += 512 + event.data.as_ref().map_or(0, |data| data.len());
            last = Some(event.position);
            records.push(LogRecord::Event(event));
            bytes < EXPORT_BYTES
        })?;
        self.next = last.map_or(Next::Claims(None), Next::Events);
        Ok(records)
    }

    fn claims(&mut self, after: Option<String>) -> rusqlite::Result<Vec<LogRecord>> {
        let (mut records, mut bytes, mut last) = (Vec::new(), 0, None);
        {
            let mut statement = self.log.prepare_cached(
                "SELECT key, model, instance, position, expires, value FROM claims WHERE ?1 IS NULL OR key > ?1
                 ORDER BY key LIMIT ?2",
            )?;
            let mut rows = statement.query(params![after, CLAIMS_MAX])?;
            while bytes < EXPORT_BYTES
                && let Some(row) = rows.next()?
            {
                let key: String = row.get(0)?;
                let stream = Stream { model: row.get(1)?, instance: row.get(2)? };
                bytes += 128 + key.len();
                last = Some(key.clone());
                let position = row.get::<_, i64>(3)? as u64;
                let holder = Holder { stream, position, expires: row.get(4)?, value: row.get(5)? };
                records.push(LogRecord::Claim { key, holder });
            }
        }
        self.next = last.map_or(Next::Blobs(None), |key| Next::Claims(Some(key)));
        Ok(records)
    }

    fn blob(&mut self, after: Option<String>) -> rusqlite::Result<Vec<LogRecord>> {
        let blob: Option<(String, Vec<u8>)> = self
            .log
            .prepare_cached("SELECT sha256, bytes FROM blobs WHERE ?1 IS NULL OR sha256 > ?1 ORDER BY sha256 LIMIT 1")?
            .query_row([after], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        let Some((sha256, bytes)) = blob else {
            self.next = if self.groups.is_some() { Next::Groups(None) } else { Next::End };
            return Ok(Vec::new());
        };
        self.next = Next::Blobs(Some(sha256.clone()));
        Ok(vec![LogRecord::Blob { sha256, bytes }])
    }

    fn group(&mut self, after: Option<String>) -> Result<Vec<LogRecord>> {
        let Some(groups) = &self.groups else { return Ok(Vec::new()) };
        let found: Option<(i64, String, String, i64)> = groups
            .prepare_cached(
                "SELECT number, name, filter, cursor FROM groups WHERE ?1 IS NULL OR name > ?1 ORDER BY name LIMIT 1",
            )
            .and_then(|mut statement| {
                let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?));
                statement.query_row([after], row).optional()
            })
            .map_err(fault("export"))?;
        let Some((number, name, filter, cursor)) = found else {
            self.next = Next::End;
            return Ok(Vec::new());
        };
        let filter = snaphook_driver::json::typed(&filter)
            .map_err(|error| corrupt("export", "a group's filter cannot be read back").because(error))?;
        self.next = Next::Pending { number, name: name.clone(), after: 0 };
        Ok(vec![LogRecord::Group { group: Group { name, filter }, cursor: cursor as Position }])
    }

    fn pending(&mut self, number: i64, name: String, after: i64) -> rusqlite::Result<Vec<LogRecord>> {
        let Some(groups) = &self.groups else { return Ok(Vec::new()) };
        let events: Vec<PendingEvent> = groups
            .prepare_cached(
                "SELECT position, attempt, due, note FROM pending WHERE number = ?1 AND position > ?2
                 ORDER BY position LIMIT ?3",
            )?
            .query_map(params![number, after, PENDING_MAX as i64], |row| {
                let position = row.get::<_, i64>(0)? as Position;
                Ok(PendingEvent { position, attempt: row.get(1)?, due: row.get(2)?, note: row.get(3)? })
            })?
            .collect::<rusqlite::Result<_>>()?;
        let Some(last) = events.last() else {
            self.next = Next::Groups(Some(name));
            return Ok(Vec::new());
        };
        self.next = Next::Pending { number, name: name.clone(), after: last.position as i64 };
        Ok(vec![LogRecord::Pending { group: name, events }])
    }
}
