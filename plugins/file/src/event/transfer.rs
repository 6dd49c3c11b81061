//! Exports and imports of a log.
//!
//! The log only grows, so a copy is defined by its length at one moment; claims, names of blobs and groups are copied
//! at that moment.

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use snaphook_driver::files::sync_folder;
use snaphook_driver::{DriverError, EXPORT_BYTES, ErrorKind, Holder, LogExport, LogRecord, Position, Result};

use super::groups::Groups;
use super::index::Span;
use super::log::Log;
use super::open_log::OpenLog;
use super::read::Lines;
use super::record::{EventOut, Held, LineBody};
use crate::fault::{fault, unusable};
use crate::folder::{remove_if_there, write_durably};
use crate::task::off_thread;

/// A file that exists while an import is in progress.
pub(super) const IMPORTING: &str = "importing";

/// How many events one step reads at most.
const EVENTS_MAX: u32 = 4096;

pub(super) struct Export {
    head: Position,
    /// `None` while a step uses it, and after a step has failed.
    copy: Option<Snapshot>,
}

struct Snapshot {
    shared: Arc<OpenLog>,
    /// Ordinals of the next event to export and of the first event after the copy.
    next: u32,
    end: u32,
    claims: VecDeque<(Arc<str>, Arc<Holder>)>,
    blobs: VecDeque<String>,
    groups: VecDeque<LogRecord>,
}

impl Export {
    pub(super) fn begin(shared: Arc<OpenLog>, groups: &Groups) -> Result<Export> {
        let (groups, (log, blobs)) = groups.export(|| {
            let log = {
                let log = shared.log();
                (log.index.head(), log.index.count(), log.claims.holders())
            };
            Ok((log, shared.blobs.names("export")?))
        })?;
        let (head, end, holders) = log;
        let claims = holders.iter().map(|(key, holder)| (Arc::clone(key), Arc::clone(holder))).collect();
        let copy = Snapshot { shared, next: 0, end, claims, blobs: blobs.into(), groups: groups.into() };
        Ok(Export { head, copy: Some(copy) })
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
        let (mut records, mut bytes) = (Vec::new(), 0);
        if self.next < self.end {
            let until = self.end.min(self.next + EVENTS_MAX);
            let lines = Lines::new(&self.shared.log().index, self.next..until);
            lines.read("export", |event| {
                bytes += 512 + event.data.as_ref().map_or(0, |data| data.len());
                records.push(LogRecord::Event(event));
                bytes < EXPORT_BYTES
            })?;
            self.next += records.len() as u32;
            return Ok(records);
        }
        while bytes < EXPORT_BYTES
            && let Some((key, holder)) = self.claims.pop_front()
        {
            bytes += 128 + key.len();
            records.push(LogRecord::Claim { key: key.to_string(), holder: Holder::clone(&holder) });
        }
        if records.is_empty()
            && let Some(sha256) = self.blobs.pop_front()
        {
            let bytes = self.shared.blobs.get("export", &sha256)?.ok_or_else(|| {
                DriverError::new(ErrorKind::Corrupt, "export", "a blob is missing").with("sha256", &sha256)
            })?;
            records.push(LogRecord::Blob { sha256, bytes });
        }
        if records.is_empty() {
            records.extend(self.groups.pop_front());
        }
        Ok(records)
    }
}

/// See [`snaphook_driver::EventStore::import`].
pub(super) fn import(shared: &OpenLog, groups: &Groups, records: &[LogRecord]) -> Result<()> {
    let mark = shared.folder.join(IMPORTING);
    shared.writing("import", |writer| {
        if !mark.exists() {
            let holds_data = {
                let log = shared.log();
                log.index.count() > 0 || !log.claims.is_empty() || !shared.blobs.names("import")?.is_empty()
            };
            if holds_data || !groups.is_empty() {
                return Err(DriverError::new(ErrorKind::Conflict, "import", "the log already contains data"));
            }
            write_durably(&mark, b"").map_err(fault("import", &mark))?;
        }
        let mut before = shared.head();
        let mut bodies = Vec::new();
        for record in records {
            match record {
                LogRecord::Event(event) if event.position <= before => {
                    let message = format!("an event at {} after the one at {before}", event.position);
                    return Err(DriverError::new(ErrorKind::Conflict, "import", message));
                }
                LogRecord::Event(event) => {
                    before = event.position;
                    let event = EventOut::new(event, event.position, event.time);
                    bodies.push(LineBody::Event { event, claims: Vec::new(), releases: &[] });
                }
                LogRecord::Claim { key, holder } => bodies.push(LineBody::Held { held: vec![Held::of(key, holder)] }),
                LogRecord::Blob { sha256, bytes } => shared.blobs.put(sha256, bytes)?,
                LogRecord::Group { .. } | LogRecord::Pending { .. } => {}
            }
        }
        if !bodies.is_empty() {
            let spans = shared.write(writer, "import", bodies)?;
            let mut log = shared.log_mut();
            let written =
                records.iter().filter(|record| matches!(record, LogRecord::Event(_) | LogRecord::Claim { .. }));
            written.zip(spans).for_each(|(record, span)| log.take_in(record, span));
        }
        shared.publish(before);
        Ok(())
    })?;
    groups.import(records)
}

/// Finishes an import once its data is in use; no effect without an import.
pub(super) fn finish(folder: &Path, bring_in: impl FnOnce() -> Result<()>) -> Result<()> {
    let mark = folder.join(IMPORTING);
    if !is_part(folder).map_err(fault("finish_import", &mark))? {
        return Ok(());
    }
    bring_in()?;
    remove_if_there(&mark).and_then(|_| sync_folder(folder)).map_err(fault("finish_import", &mark))
}

/// Whether the folder contains an incomplete log.
pub(super) fn is_part(folder: &Path) -> io::Result<bool> {
    folder.join(IMPORTING).try_exists()
}

/// Fails if the log is incomplete.
pub(super) fn check_whole(folder: &Path) -> Result<()> {
    if !is_part(folder).map_err(unusable(folder))? {
        return Ok(());
    }
    Err(DriverError::new(
        ErrorKind::Config,
        "open",
        "the folder contains part of a log, because a copy or a restore was interrupted; run `snaphook copy` again, or \
         remove the files of all configured stores and restore again",
    )
    .with("path", folder.display()))
}

impl Log {
    fn take_in(&mut self, record: &LogRecord, span: Span) {
        match record {
            LogRecord::Event(event) => {
                self.index.time = event.time;
                self.index.push(event.position, event.kind, (&event.model, event.instance.as_deref()), span);
            }
            LogRecord::Claim { key, holder } => self.claims.put(key, holder.clone()),
            _ => {}
        }
    }
}
