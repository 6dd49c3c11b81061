//! A group in memory: the owner's state, or a read-only view of other nodes.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use snaphook_driver::{Delivery, Event, EventFilter, GroupState, Kept, Position, Result, Stream, time};
use snaphook_sqlite::replica::Replica;

use super::group_values::Notes;
use super::record::{NOTE_INLINE_BYTES, Pending, Record};

/// How many events one step of a claim scans.
const SCAN_MAX: usize = 512;

/// Limit of streams with an unacknowledged event, beyond which no further streams are started: each is part of the
/// stored value.
const PENDING_MAX: usize = 1000;

pub(super) struct Owned {
    pub(super) filter: EventFilter,
    pub(super) group: GroupState,
    /// The revision of the stored value.
    pub(super) revision: u64,
    /// [`GroupState::changes`] at that revision.
    pub(super) written: u64,
    /// The session's gap count when it was last certain that no other node owned the group.
    pub(super) gaps: u64,
    /// The locations of long notes.
    pub(super) notes: Notes,
}

impl Owned {
    /// Restores a stored group. The long notes of its pending events are passed in.
    pub(super) fn restore(replica: &Replica, record: &Record, mut notes: Notes, revision: u64) -> Result<Owned> {
        let filter = record.filter()?;
        // Tokens of this owner are greater than all earlier ones, because revisions are unique.
        let mut group = GroupState::new(record.cursor, (revision & 0xffff_ffff) << 32);
        let now = time::now();
        for pending in &record.pending {
            let Some(event) = replica.at(pending.position)?.filter(|event| event.position <= record.cursor) else {
                continue;
            };
            let note = match notes.get(&pending.position) {
                Some((note, _)) => Some(Arc::clone(note)),
                None => pending.note.as_deref().map(Arc::from),
            };
            let delay = Duration::from_millis(pending.due.saturating_sub(now).max(0).unsigned_abs());
            group.restore(event.stream(), Kept { position: pending.position, attempt: pending.attempt, delay, note });
        }
        notes.retain(|position, _| record.pending.iter().any(|pending| pending.position == *position));
        let mut owned = Owned { filter: filter.clone(), group, revision, written: 0, gaps: 0, notes };
        owned.written = owned.group.changes();
        owned.refilter(replica, &filter)?;
        Ok(owned)
    }

    /// The pending events in their stored form, without long notes.
    pub(super) fn pending(&self) -> (Vec<Pending>, BTreeMap<Position, Arc<str>>) {
        let (now, mut long) = (time::now(), BTreeMap::new());
        let pending = self.group.pending(Instant::now()).map(|kept| {
            let due = if kept.delay.is_zero() { 0 } else { now.saturating_add(kept.delay.as_millis() as i64) };
            let mut pending = Pending { position: kept.position, attempt: kept.attempt, due, ..Pending::default() };
            match kept.note {
                Some(note) if note.len() > NOTE_INLINE_BYTES => drop(long.insert(kept.position, note)),
                note => pending.note = note.map(|note| note.to_string()),
            }
            pending
        });
        (pending.collect(), long)
    }

    /// One step of [`EventStore::claim`](snaphook_driver::EventStore::claim), which scans a limited number of events:
    /// returns the claimed events, and whether there may be more.
    pub(super) fn claim(&mut self, replica: &Replica, wanted: usize, lease: Duration) -> Result<(Vec<Delivery>, bool)> {
        let (head, now) = (replica.head(), Instant::now());
        self.group.expire(now);
        let places = PENDING_MAX.saturating_sub(self.group.active().count());
        let has_place = places > 0;
        let mut fresh = HashMap::new();
        if self.group.ready_count() < wanted && self.group.cursor() < head && has_place {
            fresh = self.scan(replica, wanted.min(self.group.ready_count() + places), head)?;
        }
        let mut deliveries = Vec::new();
        for taken in self.group.take(wanted, now, lease) {
            let event = match fresh.remove(&taken.position) {
                Some(event) => Some(event),
                None => replica.at(taken.position)?,
            };
            match event {
                Some(event) => {
                    let note = taken.note.as_deref().map(str::to_owned);
                    deliveries.push(Delivery { event, attempt: taken.attempt, token: taken.token, note });
                }
                // This only happens if somebody changed the file by hand.
                None => drop(self.group.forget(taken.position)),
            }
        }
        let may_follow = deliveries.len() < wanted && self.group.cursor() < head && has_place;
        Ok((deliveries, may_follow))
    }

    /// Scans the next events of the log; returns those that may be delivered.
    fn scan(&mut self, replica: &Replica, wanted: usize, head: Position) -> Result<HashMap<Position, Event>> {
        let Owned { filter, group, .. } = self;
        let mut fresh = HashMap::new();
        let (mut seen, after) = (0, group.cursor());
        replica.scan(filter, after, head, SCAN_MAX, |event| {
            seen += 1;
            if group.offer(event.position, event.stream()) {
                fresh.insert(event.position, event);
            }
            group.ready_count() < wanted
        })?;
        // If neither the wanted number nor the limit ended the scan, nothing else matches.
        if seen < SCAN_MAX && group.ready_count() < wanted {
            group.advance(head);
        }
        Ok(fresh)
    }

    /// See [`EventStore::ack`](snaphook_driver::EventStore::ack).
    pub(super) fn ack(&mut self, replica: &Replica, done: &[(Position, u64)]) -> Result<()> {
        for (position, token) in done {
            if let Some(stream) = self.group.ack(*position, *token) {
                self.follow(replica, *position, stream)?;
            }
        }
        Ok(())
    }

    /// The data for counting a group's backlog.
    pub(super) fn backlog(&self) -> Backlog {
        let active = self.group.active().map(|(position, stream, more)| (position, more.then(|| stream.clone())));
        Backlog {
            filter: self.filter.clone(),
            cursor: self.group.cursor(),
            floor: self.group.floor(),
            active: active.collect(),
        }
    }

    /// Drops pending events that a new filter excludes.
    pub(super) fn refilter(&mut self, replica: &Replica, filter: &EventFilter) -> Result<()> {
        self.filter = filter.clone();
        let active: Vec<Position> = self.group.active().map(|(position, ..)| position).collect();
        for position in active {
            let is_wanted = replica.at(position)?.is_some_and(|event| filter.matches(&event));
            if !is_wanted && let Some(stream) = self.group.forget(position) {
                self.follow(replica, position, stream)?;
            }
        }
        Ok(())
    }

    /// When the oldest event of a stream is done, its next event becomes the oldest.
    fn follow(&mut self, replica: &Replica, after: Position, stream: Stream) -> Result<()> {
        let filter = within(&self.filter, &stream);
        let mut next = None;
        replica.scan(&filter, after, self.group.cursor(), 1, |event| {
            next = Some(event.position);
            false
        })?;
        if let Some(position) = next {
            self.group.follow(position, stream);
        }
        Ok(())
    }
}

/// The progress of a group, detached from its state, because counting may take a while.
pub(super) struct Backlog {
    filter: EventFilter,
    cursor: Position,
    floor: Position,
    /// The oldest unacknowledged event of each stream, and the stream if later ones may follow before the cursor.
    active: Vec<(Position, Option<Stream>)>,
}

impl Backlog {
    /// See [`EventStore::lag`](snaphook_driver::EventStore::lag).
    pub(super) fn count(&self, replica: &Replica) -> Result<(u64, Position)> {
        let head = replica.head();
        let mut count = replica.count(&self.filter, self.cursor, head)? + self.active.len() as u64;
        for (position, stream) in &self.active {
            if let Some(stream) = stream {
                count += replica.count(&within(&self.filter, stream), *position, self.cursor)?;
            }
        }
        // If all matching events are acknowledged, progress reaches the end of the log.
        Ok((count, if count == 0 { head } else { self.floor }))
    }
}

/// A group's filter, restricted to one stream.
fn within(filter: &EventFilter, stream: &Stream) -> EventFilter {
    EventFilter {
        model: Some(stream.model.clone()),
        instance: stream.instance.clone(),
        definitions_only: stream.instance.is_none(),
        kinds: filter.kinds.clone(),
    }
}
