//! The file of the consumer groups' progress: one line per change, none of them synced.
//!
//! After a power failure the file may be slightly older than the log: then events are delivered again. When it has
//! become much longer than its contents require, it is rewritten.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use snaphook_driver::files::sync_folder;
use snaphook_driver::time::{self, Millis};
use snaphook_driver::{DriverError, ErrorKind, EventFilter, Kept, PendingEvent, Position, Progress, Result, json};

use crate::fault::{fault, unusable, unwritable};
use crate::folder::{remove_if_there, temporary, write_durably};
use crate::line::{self, Tail};

/// Its name in the folder of the log.
pub(super) const FILE: &str = "groups.jsonl";

/// A file up to this length is not rewritten.
const SHORT_BYTES: u64 = 1 << 20;

/// A file is rewritten when it is this many times as long as after the last rewrite.
const GROWTH: u64 = 4;

pub(super) struct ProgressFile {
    path: PathBuf,
    file: File,
    bytes: u64,
    /// Its length after the last rewrite.
    compact_bytes: u64,
    identity: String,
    /// Whether bytes of a failed write may follow its end.
    torn: bool,
}

/// The state of one group in the file.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) filter: EventFilter,
    pub(super) cursor: Position,
    pub(super) pending: BTreeMap<Position, PendingEvent>,
}

/// One line.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct ProgressLine {
    /// Only in the first line: the log to which the groups belong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    log: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    group: Option<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    dropped: bool,
    /// A new group, or a new filter of a group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    filter: Option<EventFilter>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cursor: Option<Position>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    put: Vec<PendingEvent>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    remove: Vec<Position>,
}

impl ProgressLine {
    /// The change that creates a group or sets its filter.
    pub(super) fn filter(group: &str, filter: &EventFilter, cursor: Position) -> ProgressLine {
        let (filter, cursor) = (Some(filter.clone()), Some(cursor));
        ProgressLine { group: Some(group.to_owned()), filter, cursor, ..ProgressLine::default() }
    }

    pub(super) fn progress(group: &str, progress: &Progress) -> ProgressLine {
        ProgressLine {
            group: Some(group.to_owned()),
            cursor: Some(progress.cursor),
            put: progress.put.iter().map(pending_of).collect(),
            remove: progress.remove.clone(),
            ..ProgressLine::default()
        }
    }

    pub(super) fn pending(group: &str, put: Vec<PendingEvent>) -> ProgressLine {
        ProgressLine { group: Some(group.to_owned()), put, ..ProgressLine::default() }
    }

    pub(super) fn dropped(group: &str) -> ProgressLine {
        ProgressLine { group: Some(group.to_owned()), dropped: true, ..ProgressLine::default() }
    }
}

impl ProgressFile {
    /// Opens the file of a log, or creates it.
    pub(super) fn open(log: &Path, identity: &str) -> Result<(ProgressFile, BTreeMap<String, Stored>)> {
        let path = log.join(FILE);
        let mut groups = BTreeMap::new();
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(unusable(&path)(error)),
        };
        let mut owner = None;
        let end = line::walk(&path, &bytes, Tail::Writes, |line| {
            let change: ProgressLine = json::typed_bytes(line.bytes).map_err(|error| error.to_string())?;
            if line.number == 1 {
                owner = change.log.clone();
            }
            apply(&mut groups, change)
                .ok_or("expected a change of an existing group, found one of an unknown group")?;
            Ok(true)
        })
        .map_err(|error| error.with("remedy", "remove the file; the post hooks of all events then run again"))?;
        if end.lines > 0 && owner.as_deref() != Some(identity) {
            return Err(DriverError::new(
                ErrorKind::Config,
                "open",
                format!(
                    "the file contains the progress of consumer groups of the log `{}`, expected the log `{identity}`; \
                     restore the right file, or remove this one (the post hooks of all events then run again)",
                    owner.unwrap_or_default()
                ),
            )
            .with("file", path.display()));
        }
        if end.torn > 0 {
            tracing::warn!(
                file = %path.display(),
                bytes = end.torn,
                "the last write to the progress of post hooks was interrupted; its {} bytes are discarded",
                end.torn
            );
        }
        if end.lines == 0 {
            write_durably(&path, &header(identity)?).map_err(fault("open", &path))?;
        }
        let file = OpenOptions::new().append(true).open(&path).map_err(unusable(&path))?;
        let bytes = if end.lines == 0 { header(identity)?.len() as u64 } else { end.bytes };
        let identity = identity.to_owned();
        let mut file = ProgressFile { path, file, bytes, compact_bytes: 0, identity, torn: end.torn > 0 };
        file.cut().map_err(unusable(&file.path.clone()))?;
        Ok((file, groups))
    }

    pub(super) fn write(&mut self, operation: &'static str, changes: &[ProgressLine]) -> Result<()> {
        let mut bytes = Vec::new();
        for change in changes {
            line::push(&mut bytes, change).map_err(unwritable(operation))?;
        }
        self.cut().map_err(fault(operation, &self.path))?;
        self.torn = true;
        if let Err(error) = self.file.write_all(&bytes) {
            // If that fails too, it is retried before the next write.
            let _ = self.cut();
            return Err(fault(operation, &self.path)(error));
        }
        self.torn = false;
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    /// Whether the file should be rewritten.
    pub(super) fn is_long(&self) -> bool {
        self.bytes > SHORT_BYTES.max(self.compact_bytes * GROWTH)
    }

    /// Rewrites the file with only these changes.
    pub(super) fn rewrite(&mut self, operation: &'static str, changes: &[ProgressLine]) -> Result<()> {
        let mut bytes = header(&self.identity)?;
        for change in changes {
            line::push(&mut bytes, change).map_err(unwritable(operation))?;
        }
        let temporary = temporary(&self.path);
        let write = || -> io::Result<File> {
            remove_if_there(&temporary)?;
            let mut file = OpenOptions::new().append(true).create_new(true).open(&temporary)?;
            file.write_all(&bytes)?;
            file.sync_all()?;
            std::fs::rename(&temporary, &self.path)?;
            Ok(file)
        };
        // From the rename on, this is the file, even if the rest fails.
        self.file = write().map_err(fault(operation, &self.path))?;
        (self.bytes, self.compact_bytes, self.torn) = (bytes.len() as u64, bytes.len() as u64, false);
        sync_folder(self.path.parent().unwrap_or(Path::new(""))).map_err(fault(operation, &self.path))
    }

    /// Syncs the file.
    pub(super) fn sync(&self, operation: &'static str) -> Result<()> {
        self.file.sync_all().map_err(fault(operation, &self.path))
    }

    fn cut(&mut self) -> io::Result<()> {
        if self.torn {
            self.file.set_len(self.bytes)?;
            self.torn = false;
        }
        Ok(())
    }
}

/// The state of an event, with a time instead of a delay.
pub(super) fn pending_of(kept: &Kept) -> PendingEvent {
    let due = if kept.delay.is_zero() { 0 } else { time::now() + kept.delay.as_millis() as Millis };
    PendingEvent { position: kept.position, attempt: kept.attempt, due, note: kept.note.as_deref().map(str::to_owned) }
}

/// The inverse conversion.
pub(super) fn kept_of(pending: PendingEvent) -> Kept {
    let PendingEvent { position, attempt, due, note } = pending;
    let delay = Duration::from_millis(due.saturating_sub(time::now()).max(0) as u64);
    Kept { position, attempt, delay, note: note.map(Arc::from) }
}

fn header(identity: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let change = ProgressLine { log: Some(identity.to_owned()), ..ProgressLine::default() };
    line::push(&mut bytes, &change).map_err(unwritable("open"))?;
    Ok(bytes)
}

/// `None` if the change does not fit the current state.
fn apply(groups: &mut BTreeMap<String, Stored>, change: ProgressLine) -> Option<()> {
    let Some(name) = change.group else { return change.log.map(drop) };
    if change.dropped {
        return groups.remove(&name).map(drop);
    }
    if let Some(filter) = change.filter {
        let cursor = change.cursor?;
        match groups.entry(name) {
            // The cursor is only valid together with the pending events: alone, it would skip events.
            Entry::Occupied(mut stored) => stored.get_mut().filter = filter,
            Entry::Vacant(new) => drop(new.insert(Stored { filter, cursor, pending: BTreeMap::new() })),
        }
        return Some(());
    }
    let stored = groups.get_mut(&name)?;
    stored.cursor = change.cursor.unwrap_or(stored.cursor);
    for pending in change.put {
        stored.pending.insert(pending.position, pending);
    }
    for position in change.remove {
        stored.pending.remove(&position);
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A group's stored cursor is consistent with its pending events, so a new filter alone does not skip events.
    #[test]
    fn a_new_filter_leaves_the_cursor() {
        let mut groups = BTreeMap::new();
        let filter = EventFilter::default();
        for cursor in [3, 100] {
            apply(&mut groups, ProgressLine::filter("g", &filter, cursor)).unwrap();
        }
        assert_eq!(groups["g"].cursor, 3);
        apply(&mut groups, ProgressLine::dropped("g")).unwrap();
        apply(&mut groups, ProgressLine::filter("g", &filter, 100)).unwrap();
        assert_eq!(groups["g"].cursor, 100);
    }
}
