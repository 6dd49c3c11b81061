//! Reads events. The index tells which ones and where they are; adjacent lines are read together and checked again.

use std::fs::File;
use std::sync::Arc;

use snaphook_driver::{
    DriverError, ErrorKind, Event, EventPage, EventQuery, PAGE_BYTES_MAX, Position, Result, SCAN_MAX, Stream,
};

use super::at::read_exact_at;
use super::index::{Index, LineLocation, Segment};
use super::log::Log;
use super::open_log::OpenLog;
use super::record::read_event;
use crate::fault::fault;
use crate::line;

/// How many bytes are read at once, unless a single line is longer.
const RUN_BYTES_MAX: u64 = 1 << 20;

/// Gaps up to this size between two wanted lines are read instead of skipped.
const GAP_BYTES_MAX: u64 = 16 << 10;

/// Lines to read, and their segments.
pub(super) struct Lines {
    places: Vec<(LineLocation, usize)>,
    segments: Vec<Segment>,
}

impl Lines {
    /// The lines of some events, by their ordinals.
    pub(super) fn new(index: &Index, ordinals: impl IntoIterator<Item = u32>) -> Lines {
        let mut lines = Lines { places: Vec::new(), segments: Vec::new() };
        let mut last = None;
        for place in ordinals.into_iter().filter_map(|ordinal| index.place(ordinal)) {
            if last != Some(place.segment) {
                last = Some(place.segment);
                lines.segments.push(index.segments()[place.segment].clone());
            }
            lines.places.push((place, lines.segments.len() - 1));
        }
        lines
    }

    /// Reads the events and passes them to `each` in order, until it returns `false`.
    pub(super) fn read(&self, operation: &'static str, mut each: impl FnMut(Event) -> bool) -> Result<()> {
        let mut open: Option<(usize, Arc<File>)> = None;
        let mut rest = self.places.as_slice();
        let mut bytes = Vec::new();
        while let Some((first, segment)) = rest.first() {
            let path = &self.segments[*segment].path;
            let file = match &open {
                Some((opened, file)) if opened == segment => Arc::clone(file),
                _ => self.segments[*segment].file().map_err(fault(operation, path))?,
            };
            open = Some((*segment, Arc::clone(&file)));
            let mut end = first.offset;
            let fits = |(place, of): &&(LineLocation, usize)| {
                let next = place.offset + place.length as u64;
                let is_near = place.offset <= end + GAP_BYTES_MAX && next - first.offset <= RUN_BYTES_MAX;
                let fits = of == segment && (is_near || place.position == first.position);
                if fits {
                    end = next;
                }
                fits
            };
            let count = rest.iter().take_while(fits).count();
            bytes.resize((end - first.offset) as usize, 0);
            read_exact_at(&file, &mut bytes, first.offset).map_err(fault(operation, path))?;
            for (place, _) in &rest[..count] {
                let start = (place.offset - first.offset) as usize;
                let line = &bytes[start..start + place.length];
                let corrupt = |fault: &dyn std::fmt::Display| {
                    DriverError::new(ErrorKind::Corrupt, operation, format!("an event cannot be read back: {fault}"))
                        .with("file", path.display())
                        .with("offset", place.offset)
                        .with("position", place.position)
                };
                line::check(line).map_err(|mismatch| corrupt(&mismatch))?;
                if !each(read_event(line).map_err(|error| corrupt(&error))?) {
                    return Ok(());
                }
            }
            rest = &rest[count..];
        }
        Ok(())
    }
}

/// One page; see [`snaphook_driver::EventStore::read`].
pub(super) fn page(shared: &OpenLog, query: &EventQuery) -> Result<EventPage> {
    let limit = query.limit as usize;
    let (lines, head, mut reached) = {
        let log = shared.log();
        let head = log.index.head();
        let (mut found, mut reached) = (Vec::new(), query.after.max(head));
        for (passed, (ordinal, entry)) in log.index.candidates(&query.filter, query.after).enumerate() {
            if found.len() >= limit || passed >= SCAN_MAX as usize {
                reached = entry.position - 1;
                break;
            }
            if log.index.matches(&query.filter, entry) {
                found.push(ordinal);
            }
        }
        (Lines::new(&log.index, found), head, reached)
    };
    let (mut events, mut bytes) = (Vec::new(), 0);
    lines.read("read", |event| {
        bytes += event.data.as_ref().map_or(0, |data| data.len());
        if bytes > PAGE_BYTES_MAX && !events.is_empty() {
            reached = event.position - 1;
            return false;
        }
        events.push(event);
        true
    })?;
    Ok(EventPage { events, head, reached })
}

/// See [`snaphook_driver::EventStore::last_but`]. Skipped events are not read.
pub(super) fn last_but(shared: &OpenLog, stream: &Stream, at_most: Position, skip: u64) -> Result<Option<Event>> {
    let find = |log: &Log| {
        let places = log.index.places(&stream.model, stream.instance.as_deref());
        let end = match at_most {
            Position::MAX => log.index.count(),
            position => log.index.ordinal_after(position),
        };
        let count = places.partition_point(|ordinal| *ordinal < end);
        let at = count.checked_sub(usize::try_from(skip).ok()?)?.checked_sub(1)?;
        Some(Lines::new(&log.index, [places[at]]))
    };
    let lines = find(&shared.log());
    let mut found = None;
    if let Some(lines) = lines {
        lines.read("last", |event| {
            found = Some(event);
            false
        })?;
    }
    Ok(found)
}
