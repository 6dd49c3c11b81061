//! Exports and imports of a log.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use snaphook_driver::{
    DriverError, ErrorKind, Event, GroupState, Kept, LogExport, LogRecord, PENDING_MAX, PendingEvent, Position, Result,
    time,
};

use super::{Log, Member, MemoryEventStore};
use crate::locked;

/// How many records one call returns; they are in memory in any case.
const RECORDS_MAX: usize = 100;

struct Snapshot {
    head: Position,
    records: VecDeque<LogRecord>,
}

#[async_trait]
impl LogExport for Snapshot {
    fn head(&self) -> Position {
        self.head
    }

    async fn next(&mut self) -> Result<Vec<LogRecord>> {
        let count = self.records.len().min(RECORDS_MAX);
        Ok(self.records.drain(..count).collect())
    }
}

impl MemoryEventStore {
    pub(super) fn copy(&self) -> impl LogExport + use<> {
        // The locks are always taken in this order, and held until the end, so that the copy is consistent.
        let (groups, log, blobs) = (locked(&self.groups), locked(&self.log), locked(&self.blobs));
        let mut records: VecDeque<LogRecord> =
            log.events.iter().map(|event| LogRecord::Event(Event::clone(event))).collect();
        let mut claims: Vec<_> = log.claims.iter().collect();
        claims.sort_by_key(|(key, _)| *key);
        records.extend(
            claims.into_iter().map(|(key, holder)| LogRecord::Claim { key: key.clone(), holder: holder.clone() }),
        );
        records.extend(
            blobs.iter().map(|(sha256, bytes)| LogRecord::Blob { sha256: sha256.clone(), bytes: bytes.clone() }),
        );
        let (now, clock) = (Instant::now(), time::now());
        for (name, member) in &*groups {
            let group = snaphook_driver::Group { name: name.clone(), filter: member.filter.clone() };
            records.push_back(LogRecord::Group { group, cursor: member.state.cursor() });
            let due = |delay: Duration| if delay.is_zero() { 0 } else { clock + delay.as_millis() as i64 };
            let pending = member.state.pending(now);
            let kept = |kept: Kept| PendingEvent {
                position: kept.position,
                attempt: kept.attempt,
                due: due(kept.delay),
                note: kept.note.as_deref().map(str::to_owned),
            };
            let events: Vec<_> = pending.map(kept).collect();
            for events in events.chunks(PENDING_MAX) {
                records.push_back(LogRecord::Pending { group: name.clone(), events: events.to_vec() });
            }
        }
        Snapshot { head: log.head(), records }
    }

    pub(super) fn take_in(&self, records: &[LogRecord]) -> Result<()> {
        let (mut groups, mut log, mut blobs) = (locked(&self.groups), locked(&self.log), locked(&self.blobs));
        let mut importing = locked(&self.importing);
        let holds_data = log.head() > 0 || !log.claims.is_empty() || !blobs.is_empty() || !groups.is_empty();
        if holds_data && !*importing {
            return Err(conflict("the log already contains data".to_owned()));
        }
        *importing = true;
        for record in records {
            match record {
                LogRecord::Event(event) => log.put(event)?,
                LogRecord::Claim { key, holder } => {
                    log.claims.insert(key.clone(), holder.clone());
                }
                LogRecord::Blob { sha256, bytes } => {
                    blobs.insert(sha256.clone(), bytes.clone());
                }
                LogRecord::Group { group, cursor } => {
                    let member = Member { filter: group.filter.clone(), state: GroupState::new(*cursor, 0) };
                    groups.insert(group.name.clone(), member);
                }
                LogRecord::Pending { group, events } => {
                    let member = groups.get_mut(group).ok_or_else(|| conflict(format!("no group `{group}`")))?;
                    let clock = time::now();
                    for PendingEvent { position, attempt, due, note } in events {
                        let event = log.at(*position).ok_or_else(|| conflict(format!("no event at {position}")))?;
                        let delay = Duration::from_millis(due.saturating_sub(clock).max(0) as u64);
                        let note = note.as_deref().map(Arc::from);
                        let kept = Kept { position: *position, attempt: *attempt, delay, note };
                        member.state.restore(event.stream(), kept);
                    }
                }
            }
        }
        let head = log.head();
        self.head.send_if_modified(|last| std::mem::replace(last, head) != head);
        Ok(())
    }
}

impl Log {
    /// Adds an event with its existing position.
    fn put(&mut self, event: &Event) -> Result<()> {
        if event.position != self.head() + 1 {
            let message = format!("an event at {} after {}, and this store has no gaps", event.position, self.head());
            return Err(DriverError::new(ErrorKind::Unsupported, "import", message));
        }
        self.push(event.clone());
        Ok(())
    }
}

fn conflict(message: String) -> DriverError {
    DriverError::new(ErrorKind::Conflict, "import", message)
}
