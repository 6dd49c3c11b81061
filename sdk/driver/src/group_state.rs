//! The state of one consumer group, for drivers that keep the state in memory.
//!
//! The state is small regardless of the backlog: it has only the oldest unacknowledged event of each stream. Everything
//! at or before the cursor is acknowledged, except these events and later ones of their streams. So a group's progress
//! is its cursor and these positions; for a log of a million undelivered events, it is only a cursor.
//!
//! The driver adds matching events in order ([`GroupState::offer`]) and looks up the next event of a stream when its
//! oldest one was acknowledged ([`GroupState::follow`]).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::event::{Position, Stream};

/// State of one group. The driver guards it with a lock and stores [`Progress`] durably.
#[derive(Debug)]
pub struct GroupState {
    cursor: Position,
    /// The oldest unacknowledged event of each stream that has one at or before the cursor.
    active: BTreeMap<Position, Active>,
    streams: HashMap<Stream, Position>,
    /// Positions that may be delivered.
    ready: BTreeSet<Position>,
    /// When leases and delays end.
    timers: BTreeSet<(Instant, Position)>,
    token_last: u64,
    /// Positions whose progress changed since it was last taken, and positions that are stored outside.
    changed: BTreeSet<Position>,
    kept: BTreeSet<Position>,
    changes: u64,
}

#[derive(Debug)]
struct Active {
    stream: Stream,
    attempt: u32,
    token: u64,
    until: Until,
    note: Option<Arc<str>>,
    /// Whether the stream may have later events at or before the cursor.
    more: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Until {
    Ready,
    Leased(Instant),
    Delayed(Instant),
}

impl Active {
    fn kept(&self, position: Position, now: Instant) -> Kept {
        Kept { position, attempt: self.attempt, delay: self.until.delay(now), note: self.note.clone() }
    }
}

impl Until {
    /// The delay that survives the process; a lease does not.
    fn delay(self, now: Instant) -> Duration {
        match self {
            Until::Delayed(until) => until.saturating_duration_since(now),
            Until::Ready | Until::Leased(_) => Duration::ZERO,
        }
    }
}

/// A delivered event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    pub position: Position,
    pub attempt: u32,
    pub token: u64,
    pub note: Option<Arc<str>>,
}

/// The state of an unacknowledged event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    pub position: Position,
    /// How often it was claimed.
    pub attempt: u32,
    /// The remaining delay.
    pub delay: Duration,
    pub note: Option<Arc<str>>,
}

/// Changes to be stored: the cursor, and for each position its new state.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Progress {
    pub cursor: Position,
    pub put: Vec<Kept>,
    pub remove: Vec<Position>,
}

impl GroupState {
    /// A group for which everything up to `cursor` is done. `token_base` is greater than any token from an earlier
    /// opening of the store, such as a clock value.
    pub fn new(cursor: Position, token_base: u64) -> Self {
        GroupState {
            cursor,
            active: BTreeMap::new(),
            streams: HashMap::new(),
            ready: BTreeSet::new(),
            timers: BTreeSet::new(),
            token_last: token_base,
            changed: BTreeSet::new(),
            kept: BTreeSet::new(),
            changes: 0,
        }
    }

    /// Restores an event that was stored outside; in order of position, before any other call.
    pub fn restore(&mut self, stream: Stream, kept: Kept) {
        let Kept { position, attempt, delay, note } = kept;
        self.kept.insert(position);
        if self.streams.contains_key(&stream) {
            self.changed.insert(position);
            return;
        }
        let until = if delay.is_zero() { Until::Ready } else { Until::Delayed(Instant::now() + delay) };
        self.insert(position, Active { stream, attempt, token: 0, until, note, more: true });
    }

    /// The position up to which matching events were offered.
    pub fn cursor(&self) -> Position {
        self.cursor
    }

    /// Position up to which all matching events are acknowledged.
    pub fn floor(&self) -> Position {
        self.active.first_key_value().map_or(self.cursor, |(position, _)| position - 1)
    }

    /// The oldest unacknowledged event of each stream, and whether later ones may follow at or before the cursor.
    pub fn active(&self) -> impl Iterator<Item = (Position, &Stream, bool)> {
        self.active.iter().map(|(position, active)| (*position, &active.stream, active.more))
    }

    /// The oldest unacknowledged event of each stream, for [`GroupState::restore`].
    pub fn pending(&self, now: Instant) -> impl Iterator<Item = Kept> {
        self.active.iter().map(move |(position, active)| active.kept(*position, now))
    }

    /// Whether a matching event of a stream was acknowledged.
    pub fn is_done(&self, stream: &Stream, position: Position) -> bool {
        position <= self.cursor && self.streams.get(stream).is_none_or(|oldest| *oldest > position)
    }

    /// How many events [`GroupState::take`] would currently return.
    pub fn ready_count(&self) -> usize {
        self.ready.len()
    }

    /// Adds the next matching event of the log. Returns `true` if it can be delivered immediately, `false` if it waits
    /// for an earlier event of its stream.
    pub fn offer(&mut self, position: Position, stream: Stream) -> bool {
        self.advance(position);
        if let Some(oldest) = self.streams.get(&stream) {
            if let Some(active) = self.active.get_mut(oldest) {
                active.more = true;
            }
            return false;
        }
        self.changed.insert(position);
        self.insert(position, Active { stream, attempt: 0, token: 0, until: Until::Ready, note: None, more: false });
        true
    }

    /// Reports that no further event matches up to `position`.
    pub fn advance(&mut self, position: Position) {
        if position > self.cursor {
            self.cursor = position;
            self.changes += 1;
        }
    }

    /// Takes up to `limit` events, oldest first, each for the time `lease`.
    pub fn take(&mut self, limit: usize, now: Instant, lease: Duration) -> Vec<Taken> {
        self.expire(now);
        let mut taken = Vec::new();
        while taken.len() < limit {
            let Some(position) = self.ready.pop_first() else { break };
            let Some(active) = self.active.get_mut(&position) else { continue };
            self.token_last += 1;
            active.attempt += 1;
            active.token = self.token_last;
            active.until = Until::Leased(now + lease);
            self.timers.insert((now + lease, position));
            self.changed.insert(position);
            self.changes += 1;
            let note = active.note.clone();
            taken.push(Taken { position, attempt: active.attempt, token: active.token, note });
        }
        taken
    }

    /// Makes events that are due available to [`GroupState::take`].
    pub fn expire(&mut self, now: Instant) {
        while let Some(&(at, position)) = self.timers.first() {
            if at > now {
                break;
            }
            self.timers.pop_first();
            if let Some(active) = self.active.get_mut(&position) {
                active.until = Until::Ready;
                self.ready.insert(position);
            }
        }
    }

    /// Acknowledges an event; no effect if the token is old. Returns `Some` if the stream has, or may have, later
    /// events at or before the cursor; the driver then finds the first matching one and calls [`GroupState::follow`].
    pub fn ack(&mut self, position: Position, token: u64) -> Option<Stream> {
        if self.active.get(&position).is_none_or(|active| active.token != token || token == 0) {
            return None;
        }
        self.forget(position)
    }

    /// Drops an event regardless of its token, as if it were acknowledged.
    pub fn forget(&mut self, position: Position) -> Option<Stream> {
        let active = self.active.remove(&position)?;
        self.clear_timer(position, active.until);
        self.ready.remove(&position);
        self.streams.remove(&active.stream);
        self.changed.insert(position);
        self.changes += 1;
        active.more.then_some(active.stream)
    }

    /// Adds the next matching event of a stream, after the acknowledged one and at or before the cursor.
    pub fn follow(&mut self, position: Position, stream: Stream) {
        self.changed.insert(position);
        self.changes += 1;
        self.insert(position, Active { stream, attempt: 0, token: 0, until: Until::Ready, note: None, more: true });
    }

    /// Releases an event, to be delivered again after `delay`. No effect if the token is old.
    pub fn release(&mut self, position: Position, token: u64, now: Instant, delay: Duration, note: Option<&str>) {
        let Some(active) = self.active.get_mut(&position).filter(|active| active.token == token && token != 0) else {
            return;
        };
        let old = active.until;
        active.token = 0;
        active.note = note.map(Arc::from).or(active.note.take());
        active.until = if delay.is_zero() { Until::Ready } else { Until::Delayed(now + delay) };
        let until = active.until;
        self.clear_timer(position, old);
        self.ready.remove(&position);
        self.schedule(position, until);
        self.changed.insert(position);
        self.changes += 1;
    }

    /// Extends a lease; `false` if the lease ended or the token is old.
    pub fn renew(&mut self, position: Position, token: u64, now: Instant, lease: Duration, note: Option<&str>) -> bool {
        let Some(active) = self.active.get_mut(&position).filter(|active| active.token == token && token != 0) else {
            return false;
        };
        let Until::Leased(until) = active.until else { return false };
        if until <= now {
            return false;
        }
        active.until = Until::Leased(now + lease);
        if let Some(note) = note {
            active.note = Some(Arc::from(note));
            self.changed.insert(position);
            self.changes += 1;
        }
        self.timers.remove(&(until, position));
        self.timers.insert((now + lease, position));
        true
    }

    /// Counts changes; if the number is the same, there is nothing to store.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// Takes the changes since the last call, for storing them. If storing them fails, pass them to
    /// [`GroupState::unkept`].
    pub fn progress(&mut self, now: Instant) -> Progress {
        let mut progress = Progress { cursor: self.cursor, ..Progress::default() };
        for position in std::mem::take(&mut self.changed) {
            if let Some(active) = self.active.get(&position) {
                self.kept.insert(position);
                progress.put.push(active.kept(position, now));
            } else if self.kept.remove(&position) {
                progress.remove.push(position);
            }
        }
        progress
    }

    /// Takes back changes that could not be stored.
    pub fn unkept(&mut self, progress: &Progress) {
        self.changed.extend(progress.put.iter().map(|kept| kept.position));
        for position in &progress.remove {
            self.kept.insert(*position);
            self.changed.insert(*position);
        }
        self.changes += 1;
    }

    fn insert(&mut self, position: Position, active: Active) {
        self.streams.insert(active.stream.clone(), position);
        let until = active.until;
        self.active.insert(position, active);
        self.schedule(position, until);
    }

    fn schedule(&mut self, position: Position, until: Until) {
        match until {
            Until::Ready => {
                self.ready.insert(position);
            }
            Until::Leased(at) | Until::Delayed(at) => {
                self.timers.insert((at, position));
            }
        }
    }

    fn clear_timer(&mut self, position: Position, until: Until) {
        if let Until::Leased(at) | Until::Delayed(at) = until {
            self.timers.remove(&(at, position));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(10);

    fn stream(name: &str) -> Stream {
        Stream::of_instance("m", name)
    }

    #[test]
    fn one_event_of_a_stream_at_a_time() {
        let now = Instant::now();
        let mut state = GroupState::new(0, 0);
        assert!(state.offer(1, stream("a")));
        assert!(!state.offer(2, stream("a")));
        assert!(state.offer(3, stream("b")));
        let taken = state.take(10, now, LEASE);
        assert_eq!(taken.iter().map(|taken| taken.position).collect::<Vec<_>>(), [1, 3]);
        assert_eq!(state.floor(), 0);
        assert_eq!(state.ack(1, taken[0].token), Some(stream("a")));
        state.follow(2, stream("a"));
        assert_eq!(state.floor(), 1);
        assert_eq!(state.ack(3, taken[1].token), None);
        let taken = state.take(10, now, LEASE);
        assert_eq!(taken[0].position, 2);
        state.ack(2, taken[0].token);
        assert_eq!(state.floor(), 3);
    }

    #[test]
    fn an_old_token_does_nothing() {
        let now = Instant::now();
        let mut state = GroupState::new(0, 0);
        state.offer(1, stream("a"));
        let first = state.take(1, now, LEASE).remove(0);
        let second = state.take(1, now + LEASE, LEASE).remove(0);
        assert_eq!((first.attempt, second.attempt), (1, 2));
        assert!(!state.renew(1, first.token, now, LEASE, Some("late")));
        state.release(1, first.token, now, Duration::ZERO, Some("late"));
        state.ack(1, first.token);
        assert_eq!(state.floor(), 0);
        assert!(state.renew(1, second.token, now + LEASE, LEASE, None));
        assert_eq!(state.pending(now).next().unwrap().note, None);
        state.ack(1, second.token);
        assert_eq!(state.floor(), 1);
    }

    #[test]
    fn progress_is_what_changed() {
        let now = Instant::now();
        let mut state = GroupState::new(0, 0);
        state.offer(1, stream("a"));
        state.offer(2, stream("b"));
        let taken = state.take(1, now, LEASE);
        state.ack(1, taken[0].token);
        let progress = state.progress(now);
        let kept = |attempt, note| Kept { position: 2, attempt, delay: Duration::ZERO, note };
        assert_eq!(progress, Progress { cursor: 2, put: vec![kept(0, None)], remove: vec![] });
        let taken = state.take(1, now, LEASE);
        assert!(state.renew(2, taken[0].token, now, LEASE, Some("half")));
        assert_eq!(state.progress(now).put, [kept(1, Some("half".into()))]);
        assert!(!state.is_done(&stream("b"), 2) && state.is_done(&stream("a"), 1) && !state.is_done(&stream("c"), 3));
        state.ack(2, taken[0].token);
        assert!(state.is_done(&stream("b"), 2));
        assert_eq!(state.progress(now), Progress { cursor: 2, put: vec![], remove: vec![2] });
        assert_eq!(state.progress(now), Progress { cursor: 2, ..Progress::default() });
    }
}
