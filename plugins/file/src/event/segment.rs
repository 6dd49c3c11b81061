//! The files of the log: their names, and how the index is built from them when a log is opened.
//!
//! A segment is a file of lines, named after the position of its first event. Only the last segment grows; the others
//! are complete. Each begins with a line that names the log and the position before it, so that a file of another log,
//! or a missing one, is detected.

use std::borrow::Cow;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use snaphook_driver::files::sync_folder;
use snaphook_driver::{DriverError, ErrorKind, Position, Result, json, time};

use super::at::write_all_at;
use super::log::Log;
use super::record::{Head, LineBody, LineOut, Scanned, Segment};
use crate::fault::{fault, unusable, unwritable};
use crate::folder::names_in;
use crate::line::{self, End, Line, damaged};

/// Suffix of the names of segments.
const SUFFIX: &str = ".jsonl";

/// Size after which a segment is complete. A write is never split, so a segment may become larger.
pub(super) const SEGMENT_BYTES: u64 = 64 << 20;

/// The end of the last segment.
pub(super) struct Tail {
    pub(super) path: PathBuf,
    pub(super) file: Arc<File>,
    pub(super) bytes: u64,
    pub(super) lines: u64,
    /// The position before its first event.
    pub(super) after: Position,
}

/// The file of the segment that follows a position.
pub(super) fn path(folder: &Path, after: Position) -> PathBuf {
    folder.join(format!("{:020}{SUFFIX}", after + 1))
}

/// Whether a folder contains segments.
pub(super) fn are_there(folder: &Path) -> Result<bool> {
    Ok(!list(folder)?.is_empty())
}

/// Reads the log of a folder; the tail is `None` if there is no segment yet. Truncates a torn tail.
pub(super) fn open(folder: &Path, identity: &str) -> Result<(Log, Option<Tail>)> {
    let mut log = Log::new();
    let mut paths = list(folder)?.into_iter().peekable();
    let mut tail = None;
    while let Some(path) = paths.next() {
        let (first, after, grows) = (log.index.count(), log.index.head(), paths.peek().is_none());
        let bytes = fs::read(&path).map_err(unusable(&path))?;
        let end = scan(&path, &bytes, grows, identity, &mut log)?;
        if end.torn > 0 {
            tracing::warn!(
                file = %path.display(),
                bytes = end.torn,
                "the last write to the log was interrupted before it was acknowledged; its {} bytes are discarded",
                end.torn
            );
        }
        if end.lines == 0 {
            // The first line is synced before anything follows it, so a longer file was damaged.
            if !grows || bytes.len() > first_line(identity, after)?.len() {
                return Err(damaged(&path, 1, 0, "expected the first line of a segment, found none"));
            }
            fs::remove_file(&path).map_err(unusable(&path))?;
            continue;
        }
        let mut file = None;
        if grows {
            let opened = Arc::new(open_to_write(&path, end).map_err(unusable(&path))?);
            file = Some(Arc::clone(&opened));
            tail = Some(Tail { path: path.clone(), file: opened, bytes: end.bytes, lines: end.lines, after });
        }
        log.index.add_segment(first, path, file);
    }
    Ok((log, tail))
}

/// Creates the segment that follows a position, with its first line. If this fails, nothing of it remains.
pub(super) fn create(folder: &Path, identity: &str, after: Position) -> Result<Tail> {
    let path = path(folder, after);
    let bytes = first_line(identity, after)?;
    let make = || -> io::Result<File> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path)?;
        write_all_at(&file, &bytes, 0)?;
        file.sync_all()?;
        sync_folder(folder)?;
        Ok(file)
    };
    match make() {
        Ok(file) => Ok(Tail { file: Arc::new(file), bytes: bytes.len() as u64, lines: 1, after, path }),
        Err(error) => {
            let _ = fs::remove_file(&path);
            Err(fault("append", &path)(error))
        }
    }
}

fn first_line(identity: &str, after: Position) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let segment = Segment { log: identity.into(), after };
    let line = LineOut { line: 1, left: 0, body: LineBody::Segment { segment } };
    line::push(&mut bytes, &line).map_err(unwritable("append"))?;
    Ok(bytes)
}

fn open_to_write(path: &Path, end: End) -> io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    if end.torn > 0 {
        file.set_len(end.bytes)?;
        file.sync_all()?;
    }
    Ok(file)
}

/// The segments of a folder, in order.
fn list(folder: &Path) -> Result<Vec<PathBuf>> {
    let names = names_in(folder).map_err(unusable(folder))?;
    let is_segment = |name: &String| {
        name.strip_suffix(SUFFIX).is_some_and(|stem| stem.len() == 20 && stem.bytes().all(|byte| byte.is_ascii_digit()))
    };
    Ok(names.into_iter().filter(is_segment).map(|name| folder.join(name)).collect())
}

/// Adds the lines of a segment to the log.
fn scan(path: &Path, bytes: &[u8], grows: bool, identity: &str, log: &mut Log) -> Result<End> {
    // Lines of a write that is not complete yet.
    let mut waiting: Vec<(Scanned<'_>, (u32, u32))> = Vec::new();
    let tail = if grows { line::Tail::LastWrite } else { line::Tail::Whole };
    line::walk(path, bytes, tail, |line: Line<'_>| {
        let scanned: Scanned<'_> =
            json::typed_bytes(line.bytes).map_err(|error| format!("expected a line of the log, found {error}"))?;
        if scanned.line != line.number {
            return Err(format!("expected line {}, found line {}", line.number, scanned.line));
        }
        if let Some((before, _)) = waiting.last()
            && before.left != scanned.left + 1
        {
            return Err(format!("expected {} more lines of the same write, found {}", before.left - 1, scanned.left));
        }
        check_order(&scanned, line.number, identity, &waiting, log)?;
        let place = (u32::try_from(line.offset), u32::try_from(line.bytes.len()));
        let (Ok(offset), Ok(length)) = place else { return Err("expected a segment of at most 4 GiB".into()) };
        let is_last = scanned.left == 0;
        waiting.push((scanned, (offset, length)));
        if is_last {
            waiting.drain(..).try_for_each(|(scanned, place)| log.put(scanned, place))?;
        }
        Ok(is_last)
    })
}

/// Checks that a line continues the log.
fn check_order(
    scanned: &Scanned<'_>,
    number: u64,
    identity: &str,
    waiting: &[(Scanned<'_>, (u32, u32))],
    log: &Log,
) -> Result<(), String> {
    if number == 1 {
        let expected = Segment { log: Cow::Borrowed(identity), after: log.index.head() };
        return match &scanned.segment {
            Some(found) if *found == expected => Ok(()),
            found => Err(format!(
                "expected a segment of the log {identity} that follows position {}, found {}",
                expected.after,
                found.as_ref().map_or("none".into(), |found| format!("{} after {}", found.log, found.after))
            )),
        };
    }
    if let Some(Head { position, .. }) = &scanned.event {
        let before = waiting.iter().rev().find_map(|(scanned, _)| scanned.event.as_ref());
        let before = before.map_or(log.index.head(), |head| head.position);
        if *position <= before {
            return Err(format!("expected a position after {before}, found {position}"));
        }
    }
    Ok(())
}

impl Log {
    fn put(&mut self, scanned: Scanned<'_>, place: (u32, u32)) -> Result<(), String> {
        for key in &scanned.releases {
            self.claims.remove(key);
        }
        let mut stream = None;
        if let Some(head) = &scanned.event {
            let Head { position, time, kind, model, instance } = head;
            self.index.time = time::parse(time).ok_or_else(|| format!("expected a time, found `{time}`"))?;
            // In a long log, most of the claims that expire have already expired.
            self.claims.remove_expired(self.index.time);
            self.index.push(*position, *kind, (model, instance.as_deref()), place);
            stream =
                Some((snaphook_driver::Stream { model: model.to_string(), instance: instance.clone() }, *position));
        }
        for held in scanned.claims.into_iter().chain(scanned.held) {
            let of_event = stream.as_ref().map(|(stream, position)| (stream, *position));
            let (key, holder) = held.into_holder(of_event).ok_or("expected a claim with a holder, found none")?;
            self.claims.put(&key, holder);
        }
        for key in &scanned.forgotten {
            self.claims.remove(key);
        }
        Ok(())
    }
}

/// The error for a log whose files are missing except for the marker.
pub(super) fn missing(folder: &Path) -> DriverError {
    DriverError::new(ErrorKind::Corrupt, "open", "the folder contains segments of a log, but no `store.json`")
        .with("path", folder.display())
}
