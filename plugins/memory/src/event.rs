//! The log as a list, with lists of indexes by stream and by model.
//!
//! Invariant: the event at index `i` has position `i + 1`.

mod transfer;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use snaphook_driver::judge::{Judged, LogEnd, LogState, Tail, judge};
use snaphook_driver::time::Millis;
use snaphook_driver::{
    Append, Appended, Capabilities, Conflict, Delivery, DriverError, ErrorKind, Event, EventFilter, EventPage,
    EventQuery, EventStore, Group, GroupState, Holder, LogExport, LogRecord, Node, Nodes, PAGE_BYTES_MAX, Position,
    Result, SCAN_MAX, Stream, StreamRef, new_log_identity,
};
use tokio::sync::watch;

use crate::locked;

/// See the crate's documentation.
pub struct MemoryEventStore {
    identity: String,
    log: Mutex<Log>,
    /// Taken before `log` where both are needed.
    groups: Mutex<BTreeMap<String, Member>>,
    blobs: Mutex<BTreeMap<String, Vec<u8>>>,
    importing: Mutex<bool>,
    nodes: Nodes,
    /// Position of the last event; a change wakes waiting readers.
    head: watch::Sender<Position>,
}

impl Default for MemoryEventStore {
    fn default() -> Self {
        MemoryEventStore {
            identity: new_log_identity(),
            log: Mutex::default(),
            groups: Mutex::default(),
            blobs: Mutex::default(),
            importing: Mutex::default(),
            nodes: Nodes::default(),
            head: watch::Sender::new(0),
        }
    }
}

#[derive(Default)]
struct Log {
    events: Vec<Arc<Event>>,
    streams: HashMap<Stream, Vec<Position>>,
    models: HashMap<String, Vec<Position>>,
    definitions: Vec<Position>,
    claims: BTreeMap<String, Holder>,
    /// See [`LogEnd`].
    next_removal: Millis,
}

struct Member {
    filter: EventFilter,
    state: GroupState,
}

#[async_trait]
impl EventStore for MemoryEventStore {
    fn capabilities(&self) -> Capabilities {
        Capabilities { atomic_batch: true, durable: false, ordered_claims: true, ..Capabilities::LEAST }
    }

    fn identity(&self) -> &str {
        &self.identity
    }

    async fn health(&self) -> Result<()> {
        Ok(())
    }

    async fn close(&self) -> Result<()> {
        Ok(())
    }

    async fn append(&self, batch: &[Append], atomic: bool) -> Result<Vec<Result<Appended, Conflict>>> {
        let mut log = locked(&self.log);
        let judged = judge(log.end(), batch, atomic, &mut &*log)?;
        log.write(&judged);
        let head = log.head();
        drop(log);
        self.head.send_if_modified(|last| std::mem::replace(last, head) != head);
        Ok(judged.answers)
    }

    async fn read(&self, query: &EventQuery, wait: Option<Duration>) -> Result<EventPage> {
        let deadline = tokio::time::Instant::now() + wait.unwrap_or_default();
        let mut heads = self.head.subscribe();
        let mut after = query.after;
        loop {
            let page = locked(&self.log).page(&query.filter, after, query.limit as usize);
            if !page.events.is_empty() || wait.is_none() {
                return Ok(page);
            }
            after = after.max(page.reached);
            if page.reached < page.head {
                tokio::task::yield_now().await;
                continue;
            }
            let news = heads.wait_for(|head| *head > after);
            if !matches!(tokio::time::timeout_at(deadline, news).await, Ok(Ok(_))) {
                return Ok(page);
            }
        }
    }

    async fn last(&self, stream: &Stream, at_most: Position) -> Result<Option<Event>> {
        let log = locked(&self.log);
        let Some(places) = log.streams.get(stream) else { return Ok(None) };
        let index = places.partition_point(|position| *position <= at_most);
        Ok(index.checked_sub(1).and_then(|index| log.at(places[index])).map(|event| Event::clone(event)))
    }

    async fn last_but(&self, stream: &Stream, at_most: Position, skip: u64) -> Result<Option<Event>> {
        let log = locked(&self.log);
        let Some(places) = log.streams.get(stream) else { return Ok(None) };
        let count = places.partition_point(|position| *position <= at_most);
        let index = usize::try_from(skip).ok().and_then(|skip| count.checked_sub(skip)?.checked_sub(1));
        Ok(index.and_then(|index| log.at(places[index])).map(|event| Event::clone(event)))
    }

    async fn head(&self) -> Result<Position> {
        Ok(*self.head.borrow())
    }

    async fn reserve(&self, keys: &[(String, Stream)]) -> Result<Vec<(usize, Holder)>> {
        let mut log = locked(&self.log);
        let position = log.head();
        let mut taken = Vec::new();
        for (index, (key, stream)) in keys.iter().enumerate() {
            match log.claims.get(key) {
                Some(holder) if holder.stream != *stream => taken.push((index, holder.clone())),
                _ => drop(log.claims.insert(key.clone(), Holder::new(stream.clone(), position))),
            }
        }
        Ok(taken)
    }

    async fn forget_claims(&self, prefix: &str, limit: u32) -> Result<u64> {
        let mut log = locked(&self.log);
        let keys = log.claims.range(prefix.to_owned()..).take(limit as usize).map(|(key, _)| key);
        let keys: Vec<String> = keys.take_while(|key| key.starts_with(prefix)).cloned().collect();
        keys.iter().for_each(|key| drop(log.claims.remove(key)));
        Ok(keys.len() as u64)
    }

    async fn next_claim(&self, from: &str) -> Result<Option<String>> {
        Ok(locked(&self.log).claims.range(from.to_owned()..).next().map(|(key, _)| key.clone()))
    }

    async fn holder(&self, key: &str) -> Result<Option<Holder>> {
        Ok(locked(&self.log).claims.get(key).cloned())
    }

    async fn create_group(&self, group: &Group, start: Position) -> Result<()> {
        let mut groups = locked(&self.groups);
        let log = locked(&self.log);
        match groups.get_mut(&group.name) {
            Some(member) => member.refilter(&group.filter, &log),
            None => {
                let member = Member { filter: group.filter.clone(), state: GroupState::new(start, 0) };
                groups.insert(group.name.clone(), member);
            }
        }
        Ok(())
    }

    async fn drop_group(&self, name: &str) -> Result<()> {
        locked(&self.groups).remove(name);
        Ok(())
    }

    async fn groups(&self) -> Result<Vec<String>> {
        Ok(locked(&self.groups).keys().cloned().collect())
    }

    async fn announce(&self, node: &Node, keep: Duration) -> Result<()> {
        self.nodes.announce(node, keep);
        Ok(())
    }

    async fn nodes(&self) -> Result<Vec<Node>> {
        Ok(self.nodes.all())
    }

    async fn claim(&self, group: &str, limit: u32, lease: Duration) -> Result<Vec<Delivery>> {
        self.with_group("claim", group, |member, log| {
            let (now, limit) = (Instant::now(), limit as usize);
            member.state.expire(now);
            let mut scanned = false;
            if member.state.ready_count() < limit {
                scanned = true;
                for event in log.after(&member.filter, member.state.cursor()) {
                    member.state.offer(event.position, event.stream());
                    if member.state.ready_count() >= limit {
                        scanned = false;
                        break;
                    }
                }
            }
            if scanned {
                member.state.advance(log.head());
            }
            let taken = member.state.take(limit, now, lease);
            // No state is kept elsewhere.
            member.state.progress(now);
            taken
                .into_iter()
                .filter_map(|taken| {
                    let event = Event::clone(log.at(taken.position)?);
                    let note = taken.note.as_deref().map(str::to_owned);
                    Some(Delivery { event, attempt: taken.attempt, token: taken.token, note })
                })
                .collect()
        })
    }

    async fn ack(&self, group: &str, done: &[(Position, u64)]) -> Result<()> {
        self.with_group("ack", group, |member, log| {
            for (position, token) in done {
                if let Some(stream) = member.state.ack(*position, *token) {
                    member.follow(*position, stream, log);
                }
            }
        })
    }

    async fn release(
        &self,
        group: &str,
        position: Position,
        token: u64,
        delay: Duration,
        note: Option<&str>,
    ) -> Result<()> {
        self.with_group("release", group, |member, _| {
            member.state.release(position, token, Instant::now(), delay, note);
        })
    }

    async fn renew(
        &self,
        group: &str,
        position: Position,
        token: u64,
        lease: Duration,
        note: Option<&str>,
    ) -> Result<bool> {
        self.with_group("renew", group, |member, _| member.state.renew(position, token, Instant::now(), lease, note))
    }

    async fn is_done(&self, group: &str, stream: &Stream, position: Position) -> Result<bool> {
        self.with_group("is_done", group, |member, _| member.state.is_done(stream, position))
    }

    async fn lag(&self, group: &str) -> Result<(u64, Position)> {
        self.with_group("lag", group, |member, log| {
            let cursor = member.state.cursor();
            let mut count = log.after(&member.filter, cursor).count();
            for (position, stream, more) in member.state.active() {
                count += 1;
                if more {
                    let events = log.of_stream(stream, position).take_while(|event| event.position <= cursor);
                    count += events.filter(|event| member.filter.matches(event)).count();
                }
            }
            (count as u64, if count == 0 { log.head() } else { member.state.floor() })
        })
    }

    async fn put_blob(&self, sha256: &str, bytes: &[u8]) -> Result<()> {
        locked(&self.blobs).entry(sha256.to_owned()).or_insert_with(|| bytes.to_owned());
        Ok(())
    }

    async fn get_blob(&self, sha256: &str) -> Result<Option<Vec<u8>>> {
        Ok(locked(&self.blobs).get(sha256).cloned())
    }

    async fn export(&self) -> Result<Box<dyn LogExport>> {
        Ok(Box::new(self.copy()))
    }

    async fn import(&self, records: &[LogRecord]) -> Result<()> {
        self.take_in(records)
    }

    async fn finish_import(&self) -> Result<()> {
        *locked(&self.importing) = false;
        Ok(())
    }
}

impl MemoryEventStore {
    fn with_group<T>(
        &self,
        operation: &'static str,
        name: &str,
        work: impl FnOnce(&mut Member, &Log) -> T,
    ) -> Result<T> {
        let mut groups = locked(&self.groups);
        let Some(member) = groups.get_mut(name) else {
            return Err(DriverError::new(
                ErrorKind::Invalid,
                operation,
                format!("there is no group `{name}`, create it first"),
            ));
        };
        Ok(work(member, &locked(&self.log)))
    }
}

impl Member {
    /// When the oldest event of a stream is done, its next event becomes the oldest.
    fn follow(&mut self, after: Position, stream: Stream, log: &Log) {
        let cursor = self.state.cursor();
        let next = log
            .of_stream(&stream, after)
            .take_while(|event| event.position <= cursor)
            .find(|event| self.filter.matches(event))
            .map(|event| event.position);
        if let Some(next) = next {
            self.state.follow(next, stream);
        }
    }

    /// Drops pending events that a new filter excludes.
    fn refilter(&mut self, filter: &EventFilter, log: &Log) {
        self.filter = filter.clone();
        let active: Vec<Position> = self.state.active().map(|(position, ..)| position).collect();
        for position in active {
            let wanted = log.at(position).is_some_and(|event| filter.matches(event));
            if !wanted && let Some(stream) = self.state.forget(position) {
                self.follow(position, stream, log);
            }
        }
    }
}

impl Log {
    fn head(&self) -> Position {
        self.events.len() as Position
    }

    fn at(&self, position: Position) -> Option<&Arc<Event>> {
        let index = usize::try_from(position.checked_sub(1)?).ok()?;
        self.events.get(index)
    }

    /// See [`EventStore::read`].
    fn page(&self, filter: &EventFilter, after: Position, limit: usize) -> EventPage {
        let head = self.head();
        let (mut events, mut bytes, mut reached) = (Vec::new(), 0, after.max(head));
        for (passed, event) in self.candidates(filter, after).enumerate() {
            let matches = filter.matches(event);
            if matches {
                bytes += event.data.as_ref().map_or(0, |data| data.len());
            }
            if events.len() >= limit || passed >= SCAN_MAX as usize || (bytes > PAGE_BYTES_MAX && !events.is_empty()) {
                reached = event.position - 1;
                break;
            }
            if matches {
                events.push(Event::clone(event));
            }
        }
        EventPage { events, head, reached }
    }

    /// Matching events after a position, in order.
    fn after<'a>(&'a self, filter: &'a EventFilter, after: Position) -> impl Iterator<Item = &'a Arc<Event>> + 'a {
        self.candidates(filter, after).filter(|event| filter.matches(event))
    }

    /// Events after a position that may match according to the lists, in order.
    fn candidates<'a>(
        &'a self,
        filter: &'a EventFilter,
        after: Position,
    ) -> Box<dyn Iterator<Item = &'a Arc<Event>> + 'a> {
        let places: Option<&[Position]> = match (&filter.model, &filter.instance) {
            (Some(model), Some(instance)) => {
                Some(self.streams.get(&Stream::of_instance(model, instance)).map_or(&[], Vec::as_slice))
            }
            (Some(model), None) => Some(self.models.get(model).map_or(&[], Vec::as_slice)),
            (None, _) if filter.definitions_only => Some(&self.definitions),
            (None, _) => None,
        };
        match places {
            Some(places) => {
                let start = places.partition_point(|position| *position <= after);
                Box::new(places[start..].iter().filter_map(|position| self.at(*position)))
            }
            None => {
                let start = usize::try_from(after).map_or(self.events.len(), |after| after.min(self.events.len()));
                Box::new(self.events[start..].iter())
            }
        }
    }

    /// Events of one stream after a position.
    fn of_stream(&self, stream: &Stream, after: Position) -> impl Iterator<Item = &Arc<Event>> {
        let places = self.streams.get(stream).map_or(&[][..], Vec::as_slice);
        let start = places.partition_point(|position| *position <= after);
        places[start..].iter().filter_map(|position| self.at(*position))
    }

    fn end(&self) -> LogEnd {
        let time = self.events.last().map_or(LogEnd::EMPTY.time, |last| last.time);
        LogEnd { position: self.head(), time, next_removal: self.next_removal }
    }

    fn write(&mut self, judged: &Judged<'_>) {
        for row in &judged.accepted {
            let Appended { position, time, .. } = row.appended;
            self.push(Event { position, time, ..row.append.event.clone() });
        }
        for (key, holder) in judged.claims() {
            match holder {
                Some(holder) => drop(self.claims.insert(key.to_owned(), holder.to_holder())),
                None => drop(self.claims.remove(key)),
            }
        }
        if let Some(time) = judged.removal {
            // All of them, because removing a claim does not wait for a disk.
            self.claims.retain(|_, holder| !holder.has_expired(time));
            let mut end = judged.end;
            end.removed(0);
            self.next_removal = end.next_removal;
        }
    }

    /// Adds the next event.
    fn push(&mut self, event: Event) {
        let position = event.position;
        self.models.entry(event.model.clone()).or_default().push(position);
        if event.instance.is_none() {
            self.definitions.push(position);
        }
        self.streams.entry(event.stream()).or_default().push(position);
        self.events.push(Arc::new(event));
    }
}

impl LogState for &Log {
    fn tail(&mut self, stream: StreamRef<'_>) -> Result<Tail> {
        let last = self.streams.get(&stream.to_stream()).and_then(|places| self.at(*places.last()?));
        Ok(last.map_or(Tail::NONE, |event| Tail { position: event.position, ended: event.kind.ends_stream() }))
    }

    fn last_of_instances(&mut self, model: &str, since: Position) -> Result<Position> {
        let places = self.models.get(model).map_or(&[][..], Vec::as_slice);
        let later = places.iter().rev().take_while(|position| **position > since);
        let is_instance = |position: &Position| self.at(*position).is_some_and(|event| event.instance.is_some());
        Ok(later.copied().find(is_instance).unwrap_or(0))
    }

    fn holder(&mut self, key: &str) -> Result<Option<Holder>> {
        Ok(self.claims.get(key).cloned())
    }
}
