//! The only writer of the log.
//!
//! A batch is one write and one fsync. Claims that are reserved or forgotten without an event wait in memory for the
//! next batch, so the file never contains unsynced bytes, and a failed write is undone by truncating the file to its
//! previous length.

use std::path::{Path, PathBuf};

use snaphook_driver::{DriverError, ErrorKind, Holder, Position, Result};

use super::at::write_all_at;
use super::index::Span;
use super::record::{Held, LineBody, LineOut};
use super::segment::{self, Tail};
use crate::fault::{fault, unwritable};
use crate::folder::{TEMPORARY, remove_if_there};
use crate::line;

pub(super) struct LogWriter {
    folder: PathBuf,
    identity: String,
    /// Size after which a segment is complete.
    segment_bytes: u64,
    /// `None` before the first segment.
    tail: Option<Tail>,
    waiting: Vec<ClaimChange>,
    waiting_bytes: usize,
    state: WriterState,
}

/// The result of the last write.
#[derive(Clone, Copy, Debug, PartialEq)]
enum WriterState {
    Works,
    /// It failed and nothing of it remains; it had this many bytes.
    Failed(usize),
    /// A part of it may follow the end of the log: the disk failed, or the code panicked.
    Unknown(usize),
}

/// A change of claims without an event.
enum ClaimChange {
    Held(Vec<(String, Holder)>),
    Forgotten(Vec<String>),
}

/// If waiting changes exceed this size, they are written without a batch.
const WAITING_BYTES_MAX: usize = 1 << 20;

/// A file that is written to test for free space, and then removed.
pub(super) const PROBE: &str = "probe";

/// Free space that is required before the store counts as working again.
const PROBE_BYTES_MAX: usize = 1 << 20;

impl LogWriter {
    pub(super) fn new(folder: &Path, identity: &str, segment_bytes: u64, tail: Option<Tail>) -> LogWriter {
        LogWriter {
            folder: folder.to_owned(),
            identity: identity.to_owned(),
            segment_bytes,
            tail,
            waiting: Vec::new(),
            waiting_bytes: 0,
            state: WriterState::Works,
        }
    }

    /// Appends bodies to the log durably; `after` is the last position. Waiting changes are written first. A new
    /// segment is passed to `begin`.
    pub(super) fn write(
        &mut self,
        operation: &'static str,
        after: Position,
        bodies: Vec<LineBody<'_>>,
        begin: impl FnOnce(&Tail),
    ) -> Result<Vec<Span>> {
        if let WriterState::Unknown(bytes) = self.state {
            self.cut(operation, bytes)?;
        }
        // A segment is named after its first event, so it is only complete once it has one.
        if self.tail.as_ref().is_none_or(|tail| tail.bytes >= self.segment_bytes && after > tail.after) {
            let created = segment::create(&self.folder, &self.identity, after);
            let tail = created.inspect_err(|_| self.state = WriterState::Failed(PROBE_BYTES_MAX))?;
            begin(&tail);
            self.tail = Some(tail);
        }
        let Some(tail) = &self.tail else { return Ok(Vec::new()) };
        let count = bodies.len();
        let (bytes, spans) = lines(tail, &self.waiting, bodies).map_err(unwritable(operation))?;
        // Stays set if the work panics.
        self.state = WriterState::Unknown(bytes.len());
        let written = write_all_at(&tail.file, &bytes, tail.bytes).and_then(|()| tail.file.sync_data());
        if let Err(error) = written {
            let error = fault(operation, &tail.path)(error);
            return Err(match self.cut(operation, bytes.len()) {
                Ok(()) => error,
                Err(_) => {
                    DriverError::new(ErrorKind::Uncertain, operation, "the disk failed during a write").because(error)
                }
            });
        }
        if let Some(tail) = &mut self.tail {
            tail.bytes += bytes.len() as u64;
            tail.lines += spans.len() as u64;
        }
        self.state = WriterState::Works;
        self.waiting.clear();
        self.waiting_bytes = 0;
        Ok(spans[spans.len() - count..].to_vec())
    }

    /// Keeps claims that were reserved without an event for the next write.
    pub(super) fn hold(&mut self, held: Vec<(String, Holder)>) {
        self.waiting_bytes += held.iter().map(|(key, _)| key.len() + 256).sum::<usize>();
        self.waiting.push(ClaimChange::Held(held));
    }

    /// The same for forgotten claims.
    pub(super) fn forget(&mut self, keys: Vec<String>) {
        self.waiting_bytes += keys.iter().map(String::len).sum::<usize>();
        self.waiting.push(ClaimChange::Forgotten(keys));
    }

    /// Whether enough changes wait that they should be written now.
    pub(super) fn is_full(&self) -> bool {
        self.waiting_bytes > WAITING_BYTES_MAX
    }

    /// Writes the waiting changes.
    pub(super) fn flush(&mut self, operation: &'static str, after: Position, begin: impl FnOnce(&Tail)) -> Result<()> {
        if self.waiting.is_empty() { Ok(()) } else { self.write(operation, after, Vec::new(), begin).map(drop) }
    }

    /// Checks whether writing works again after a failed write; does nothing if none failed.
    pub(super) fn recover(&mut self) -> Result<()> {
        let bytes = match self.state {
            WriterState::Works => return Ok(()),
            WriterState::Failed(bytes) => bytes,
            WriterState::Unknown(bytes) => {
                self.cut("health", bytes)?;
                bytes
            }
        };
        self.probe(bytes.min(PROBE_BYTES_MAX))?;
        self.state = WriterState::Works;
        Ok(())
    }

    /// Writes to another file from now on, so that a test can make writing fail.
    #[cfg(test)]
    pub(super) fn replace_file(&mut self, file: std::sync::Arc<std::fs::File>) -> std::sync::Arc<std::fs::File> {
        std::mem::replace(&mut self.tail.as_mut().expect("a segment").file, file)
    }

    /// Truncates the file to the end of the log.
    fn cut(&mut self, operation: &'static str, bytes: usize) -> Result<()> {
        if let Some(tail) = &self.tail {
            let cut = tail.file.set_len(tail.bytes).and_then(|()| tail.file.sync_all());
            cut.map_err(fault(operation, &tail.path))?;
        }
        self.state = WriterState::Failed(bytes);
        Ok(())
    }

    /// Tests whether this many bytes can be written.
    fn probe(&self, bytes: usize) -> Result<()> {
        let path = self.folder.join(format!("{PROBE}{TEMPORARY}"));
        let written = std::fs::write(&path, vec![b' '; bytes]).and_then(|()| std::fs::File::open(&path)?.sync_all());
        let removed = remove_if_there(&path);
        written.and(removed.map(drop)).map_err(fault("health", &path))
    }
}

/// The bytes of one write, and the spans of its lines.
fn lines(tail: &Tail, waiting: &[ClaimChange], bodies: Vec<LineBody<'_>>) -> serde_json::Result<(Vec<u8>, Vec<Span>)> {
    let changes = waiting.iter().map(|change| match change {
        ClaimChange::Held(held) => {
            LineBody::Held { held: held.iter().map(|(key, holder)| Held::of(key, holder)).collect() }
        }
        ClaimChange::Forgotten(forgotten) => LineBody::Forgotten { forgotten },
    });
    let count = waiting.len() + bodies.len();
    let (mut bytes, mut spans) = (Vec::new(), Vec::with_capacity(count));
    for (index, body) in changes.chain(bodies).enumerate() {
        let start = bytes.len();
        line::push(&mut bytes, &LineOut { line: tail.lines + 1 + index as u64, left: count - 1 - index, body })?;
        let too_long = |_| serde::ser::Error::custom("a segment cannot exceed 4 GiB");
        let offset = u32::try_from(tail.bytes + start as u64).map_err(too_long)?;
        spans.push((offset, u32::try_from(bytes.len() - 1 - start).map_err(too_long)?));
    }
    Ok((bytes, spans))
}
