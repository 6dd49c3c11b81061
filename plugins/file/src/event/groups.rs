//! Consumer groups: their state is in memory, and changes go to a separate file, so that acknowledging never waits for
//! the log's fsync.
//!
//! The index tells which events match, so only delivered events are read.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use snaphook_driver::{
    Delivery, DriverError, ErrorKind, Event, EventFilter, Group, GroupState, LogRecord, PENDING_MAX, Position, Result,
    Stream, time,
};

use super::log::Log;
use super::open_log::OpenLog;
use super::progress::{ProgressFile, ProgressLine, Stored, kept_of, pending_of};
use super::read::Lines;
use crate::fault::closed;
use crate::task::locked;

/// How many events are scanned before the locks of the group and the log are released.
const SCAN_MAX: usize = 4096;

/// A backlog up to this size is scanned on the caller's thread.
const BACKLOG_INLINE_MAX: u64 = 64;

/// A number of changes that is never reached.
const DROPPED: u64 = u64::MAX;

pub(super) struct Groups {
    shared: Arc<OpenLog>,
    groups: RwLock<BTreeMap<String, Arc<Member>>>,
    /// `None` once closed. Taken before a group's state where both are needed.
    file: Mutex<Option<ProgressFile>>,
}

/// One group.
struct Member {
    name: String,
    state: Mutex<MemberState>,
    /// [`GroupState::changes`] as of the last write; [`DROPPED`] once nothing may be written any more.
    written: Mutex<u64>,
}

struct MemberState {
    filter: EventFilter,
    group: GroupState,
}

impl Groups {
    pub(super) fn open(folder: &Path, identity: &str, shared: &Arc<OpenLog>) -> Result<Groups> {
        let (file, stored) = ProgressFile::open(folder, identity)?;
        let groups = load(&shared.log(), stored);
        Ok(Groups { shared: Arc::clone(shared), groups: RwLock::new(groups), file: Mutex::new(Some(file)) })
    }

    pub(super) fn close(&self) -> Result<()> {
        locked(&self.file).take().map_or(Ok(()), |file| file.sync("close"))
    }

    /// The records of all groups and the result of `work`, taken together while nothing can be acknowledged.
    pub(super) fn export<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<(Vec<LogRecord>, T)> {
        let groups: Vec<Arc<Member>> = self.all().values().cloned().collect();
        let file = locked(&self.file);
        if file.is_none() {
            return Err(closed("export"));
        }
        let mut records = Vec::new();
        for member in groups {
            let state = locked(&member.state);
            let group = Group { name: member.name.clone(), filter: state.filter.clone() };
            records.push(LogRecord::Group { group, cursor: state.group.cursor() });
            let pending: Vec<_> = state.group.pending(Instant::now()).map(|kept| pending_of(&kept)).collect();
            let parts = pending.chunks(PENDING_MAX);
            records
                .extend(parts.map(|events| LogRecord::Pending { group: member.name.clone(), events: events.to_vec() }));
        }
        // The log is read last, so it contains all acknowledged events.
        Ok((records, work()?))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all().is_empty()
    }

    /// Writes imported groups to the file. They take effect with [`Groups::reload`].
    pub(super) fn import(&self, records: &[LogRecord]) -> Result<()> {
        let changes: Vec<ProgressLine> = records
            .iter()
            .filter_map(|record| match record {
                LogRecord::Group { group, cursor } => Some(ProgressLine::filter(&group.name, &group.filter, *cursor)),
                LogRecord::Pending { group, events } => Some(ProgressLine::pending(group, events.clone())),
                _ => None,
            })
            .collect();
        if changes.is_empty() {
            return Ok(());
        }
        self.writing("import", |file| {
            file.write("import", &changes)?;
            file.sync("import")
        })
    }

    /// Reloads the groups from the file.
    pub(super) fn reload(&self, folder: &Path, identity: &str) -> Result<()> {
        let mut groups = self.groups.write().unwrap_or_else(PoisonError::into_inner);
        self.writing("finish_import", |file| {
            let (opened, stored) = ProgressFile::open(folder, identity)?;
            *groups = load(&self.shared.log(), stored);
            *file = opened;
            Ok(())
        })
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.all().keys().cloned().collect()
    }

    pub(super) fn create(&self, group: &Group, start: Position) -> Result<()> {
        // Locked until the end, so that nobody else creates or drops a group in the meantime.
        let mut groups = self.groups.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(member) = groups.get(&group.name) {
            self.refilter(member, &group.filter);
            return self.writing("create_group", |file| {
                let changes = {
                    let state = locked(&member.state);
                    [ProgressLine::filter(&group.name, &state.filter, state.group.cursor())]
                };
                file.write("create_group", &changes)?;
                keep(file, "create_group", member)
            });
        }
        let state = MemberState { filter: group.filter.clone(), group: GroupState::new(start, token_base()) };
        let change = ProgressLine::filter(&group.name, &group.filter, start);
        self.writing("create_group", |file| file.write("create_group", &[change]))?;
        groups.insert(group.name.clone(), Arc::new(Member::new(&group.name, state)));
        Ok(())
    }

    pub(super) fn remove(&self, name: &str) -> Result<()> {
        let mut groups = self.groups.write().unwrap_or_else(PoisonError::into_inner);
        let Some(member) = groups.get(name) else { return Ok(()) };
        self.writing("drop_group", |file| {
            file.write("drop_group", &[ProgressLine::dropped(name)])?;
            // Other calls may still use the group, and a new group may get its name.
            *locked(&member.written) = DROPPED;
            Ok(())
        })?;
        groups.remove(name);
        Ok(())
    }

    /// Whether a claim is quick enough for an async thread.
    pub(super) fn claims_at_once(&self, name: &str) -> Result<bool> {
        let member = self.member("claim", name)?;
        let cursor = locked(&member.state).group.cursor();
        Ok(self.shared.head().saturating_sub(cursor) <= BACKLOG_INLINE_MAX)
    }

    pub(super) fn claim(&self, name: &str, limit: usize, lease: Duration) -> Result<Vec<Delivery>> {
        let member = self.member("claim", name)?;
        let head = self.shared.head();
        let mut taken = Vec::new();
        loop {
            let now = Instant::now();
            let mut state = locked(&member.state);
            state.group.expire(now);
            if state.group.ready_count() < limit - taken.len() && state.group.cursor() < head {
                scan(&mut state, &self.shared.log(), limit - taken.len(), head);
            }
            taken.extend(state.group.take(limit - taken.len(), now, lease));
            if taken.len() == limit || state.group.cursor() >= head {
                break;
            }
        }
        if taken.is_empty() {
            return Ok(Vec::new());
        }
        self.write("claim", &member)?;
        taken.sort_by_key(|taken| taken.position);
        let lines = {
            let log = self.shared.log();
            let ordinals: Vec<u32> = taken.iter().filter_map(|taken| log.index.ordinal_at(taken.position)).collect();
            Lines::new(&log.index, ordinals)
        };
        let mut events: HashMap<Position, Event> = HashMap::with_capacity(taken.len());
        lines.read("claim", |event| events.insert(event.position, event).is_none())?;
        let delivery = |taken: snaphook_driver::Taken| {
            let event = events.remove(&taken.position)?;
            let note = taken.note.as_deref().map(str::to_owned);
            Some(Delivery { event, attempt: taken.attempt, token: taken.token, note })
        };
        Ok(taken.into_iter().filter_map(delivery).collect())
    }

    pub(super) fn ack(&self, name: &str, done: &[(Position, u64)]) -> Result<()> {
        let member = self.member("ack", name)?;
        {
            let mut state = locked(&member.state);
            for (position, token) in done {
                if let Some(stream) = state.group.ack(*position, *token) {
                    follow(&mut state, &self.shared.log(), *position, stream);
                }
            }
        }
        self.write("ack", &member)
    }

    pub(super) fn release(
        &self,
        name: &str,
        position: Position,
        token: u64,
        delay: Duration,
        note: Option<&str>,
    ) -> Result<()> {
        let member = self.member("release", name)?;
        locked(&member.state).group.release(position, token, Instant::now(), delay, note);
        self.write("release", &member)
    }

    pub(super) fn renew(
        &self,
        name: &str,
        position: Position,
        token: u64,
        lease: Duration,
        note: Option<&str>,
    ) -> Result<bool> {
        let member = self.member("renew", name)?;
        let renewed = locked(&member.state).group.renew(position, token, Instant::now(), lease, note);
        if renewed && note.is_some() {
            self.write("renew", &member)?;
        }
        Ok(renewed)
    }

    pub(super) fn is_done(&self, name: &str, stream: &Stream, position: Position) -> Result<bool> {
        let member = self.member("is_done", name)?;
        let is_done = locked(&member.state).group.is_done(stream, position);
        Ok(is_done)
    }

    pub(super) fn lag(&self, name: &str) -> Result<(u64, Position)> {
        let member = self.member("lag", name)?;
        // A snapshot, so that counting needs no lock that claims and appends wait for.
        let (filter, cursor, floor, active) = {
            let state = locked(&member.state);
            let active = state.group.active().map(|(position, stream, more)| (position, more.then(|| stream.clone())));
            (state.filter.clone(), state.group.cursor(), state.group.floor(), active.collect::<Vec<_>>())
        };
        let head = self.shared.head();
        let mut count = active.len() as u64 + self.count(&filter, &filter, cursor, head);
        for (position, stream) in active {
            if let Some(stream) = stream {
                count += self.count(&only(&stream), &filter, position, cursor);
            }
        }
        // If all matching events are acknowledged, progress reaches the end of the log.
        Ok((count, if count == 0 { head } else { floor }))
    }

    /// How many events between two positions match two filters. The log is locked for only a part of them at a time.
    fn count(&self, within: &EventFilter, filter: &EventFilter, mut after: Position, until: Position) -> u64 {
        let mut count = 0;
        loop {
            let log = self.shared.log();
            let some = log.index.candidates(within, after).map(|(_, entry)| entry).take(SCAN_MAX);
            let mut passed = 0;
            for entry in some.take_while(|entry| entry.position <= until) {
                (after, passed) = (entry.position, passed + 1);
                count += u64::from(log.index.matches(filter, entry));
            }
            if passed < SCAN_MAX {
                return count;
            }
        }
    }

    /// Whether the file should be rewritten, which [`Groups::compact`] does.
    pub(super) fn is_long(&self) -> bool {
        locked(&self.file).as_ref().is_some_and(ProgressFile::is_long)
    }

    pub(super) fn compact(&self) -> Result<()> {
        let groups = self.groups.read().unwrap_or_else(PoisonError::into_inner);
        self.writing("ack", |file| {
            if !file.is_long() {
                return Ok(());
            }
            let mut changes = Vec::new();
            let mut written = Vec::new();
            for member in groups.values() {
                let mut state = locked(&member.state);
                let now = Instant::now();
                // The rewrite includes all changes that the groups have not written yet.
                written.push((member, state.group.progress(now)));
                changes.push(ProgressLine::filter(&member.name, &state.filter, state.group.cursor()));
                changes.push(ProgressLine::pending(
                    &member.name,
                    state.group.pending(now).map(|kept| pending_of(&kept)).collect(),
                ));
            }
            file.rewrite("ack", &changes).inspect_err(|_| {
                written.iter().for_each(|(member, progress)| locked(&member.state).group.unkept(progress));
            })
        })
    }

    /// Drops pending events that a new filter excludes.
    fn refilter(&self, member: &Member, filter: &EventFilter) {
        let mut state = locked(&member.state);
        let log = self.shared.log();
        state.filter = filter.clone();
        let active: Vec<Position> = state.group.active().map(|(position, ..)| position).collect();
        for position in active {
            let entry = log.index.ordinal_at(position).and_then(|ordinal| log.index.entry(ordinal));
            let wanted = entry.is_some_and(|entry| log.index.matches(filter, entry));
            if !wanted && let Some(stream) = state.group.forget(position) {
                follow(&mut state, &log, position, stream);
            }
        }
    }

    /// Writes a group's changes, unless another caller has written them in the meantime.
    fn write(&self, operation: &'static str, member: &Member) -> Result<()> {
        let wanted = locked(&member.state).group.changes();
        self.writing(operation, |file| {
            let written = *locked(&member.written);
            if written >= wanted { Ok(()) } else { keep(file, operation, member) }
        })
    }

    fn writing<T>(&self, operation: &'static str, work: impl FnOnce(&mut ProgressFile) -> Result<T>) -> Result<T> {
        match locked(&self.file).as_mut() {
            Some(file) => work(file),
            None => Err(closed(operation)),
        }
    }

    fn member(&self, operation: &'static str, name: &str) -> Result<Arc<Member>> {
        self.all().get(name).cloned().ok_or_else(|| {
            DriverError::new(ErrorKind::Invalid, operation, format!("there is no group `{name}`, create it first"))
        })
    }

    fn all(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<String, Arc<Member>>> {
        self.groups.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Member {
    fn new(name: &str, state: MemberState) -> Self {
        let written = Mutex::new(state.group.changes());
        Member { name: name.to_owned(), state: Mutex::new(state), written }
    }
}

fn keep(file: &mut ProgressFile, operation: &'static str, member: &Member) -> Result<()> {
    let (progress, changes) = {
        let mut state = locked(&member.state);
        (state.group.progress(Instant::now()), state.group.changes())
    };
    match file.write(operation, &[ProgressLine::progress(&member.name, &progress)]) {
        Ok(()) => *locked(&member.written) = changes,
        Err(error) => {
            locked(&member.state).group.unkept(&progress);
            return Err(error);
        }
    }
    Ok(())
}

/// Scans the next events of the log and offers those that match.
fn scan(state: &mut MemberState, log: &Log, wanted: usize, head: Position) {
    let MemberState { filter, group } = state;
    for (passed, (_, entry)) in log.index.candidates(filter, group.cursor()).enumerate() {
        if entry.position > head {
            break;
        }
        if passed >= SCAN_MAX || group.ready_count() >= wanted {
            group.advance(entry.position - 1);
            return;
        }
        if log.index.matches(filter, entry) {
            group.offer(entry.position, log.index.stream(entry));
        }
    }
    group.advance(head);
}

/// When the oldest event of a stream is done, its next event becomes the oldest.
fn follow(state: &mut MemberState, log: &Log, after: Position, stream: Stream) {
    let next = of_stream(log, &state.filter, &stream, after, state.group.cursor()).next();
    if let Some(position) = next {
        state.group.follow(position, stream);
    }
}

/// The positions of a stream's matching events between two positions.
fn of_stream<'a>(
    log: &'a Log,
    filter: &'a EventFilter,
    stream: &Stream,
    after: Position,
    until: Position,
) -> impl Iterator<Item = Position> + 'a {
    log.index
        .candidates(&only(stream), after)
        .map(|(_, entry)| entry)
        .take_while(move |entry| entry.position <= until)
        .filter(|entry| log.index.matches(filter, entry))
        .map(|entry| entry.position)
}

/// A filter for the events of one stream.
fn only(stream: &Stream) -> EventFilter {
    EventFilter {
        model: Some(stream.model.clone()),
        instance: stream.instance.clone(),
        definitions_only: stream.instance.is_none(),
        kinds: Vec::new(),
    }
}

fn load(log: &Log, stored: BTreeMap<String, Stored>) -> BTreeMap<String, Arc<Member>> {
    let mut groups = BTreeMap::new();
    for (name, stored) in stored {
        // Somebody may have replaced the log with an older copy.
        let cursor = stored.cursor.min(log.index.head());
        let mut group = GroupState::new(cursor, token_base());
        for (position, pending) in stored.pending {
            let entry = log.index.ordinal_at(position).and_then(|ordinal| log.index.entry(ordinal));
            if let Some(entry) = entry.filter(|entry| entry.position <= cursor) {
                group.restore(log.index.stream(entry), kept_of(pending));
            }
        }
        let state = MemberState { filter: stored.filter, group };
        groups.insert(name.clone(), Arc::new(Member::new(&name, state)));
    }
    groups
}

/// Tokens are greater than those of all earlier opens of the store: they start at the time in microseconds, and fewer
/// claims are made than microseconds pass.
fn token_base() -> u64 {
    time::now().unsigned_abs() * 1000
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use snaphook_driver::{EventStore as _, Group};
    use snaphook_driver_testkit::sample::{any, append_all, append_one};

    use super::super::FileEventStore;
    use super::*;

    /// More events than are counted under one lock.
    #[tokio::test]
    async fn a_long_lag_is_counted_in_parts() {
        let folder = tempfile::tempdir().unwrap();
        let store = FileEventStore::open(folder.path()).unwrap();
        let filter = EventFilter { model: Some("m".into()), ..EventFilter::default() };
        store.create_group(&Group { name: "g".into(), filter }, 0).await.unwrap();
        let events = 2 * SCAN_MAX as u64 + 1;
        let batch: Vec<_> = (0..events).flat_map(|_| [any("m", "i"), any("other", "i")]).collect();
        append_all(&store, &batch, false).await;
        assert_eq!(store.lag("g").await.unwrap(), (events, 0));
        // The rest of the claimed event's stream up to the group's cursor, and all events after the cursor.
        let claimed = store.claim("g", 10, Duration::from_secs(60)).await.unwrap();
        assert_eq!((claimed.len(), store.lag("g").await.unwrap()), (1, (events, 0)));
        store.ack("g", &[(claimed[0].event.position, claimed[0].token)]).await.unwrap();
        assert_eq!(store.lag("g").await.unwrap(), (events - 1, 2));
    }

    /// If rewriting the file fails, the next call writes the changes that a claim has not written yet.
    #[tokio::test]
    async fn a_rewrite_that_fails_loses_no_event() {
        let folder = tempfile::tempdir().unwrap();
        let store = FileEventStore::open(folder.path()).unwrap();
        for instance in ["a", "b"] {
            append_one(&store, any("m", instance)).await;
        }
        for name in ["g", "long"] {
            store.create_group(&Group { name: name.into(), filter: EventFilter::default() }, 0).await.unwrap();
        }
        // Prevents the new file from being created.
        std::fs::create_dir_all(folder.path().join("groups.jsonl.new/x")).unwrap();
        let note = "n".repeat(60_000);
        for _ in 0..20 {
            let claimed = store.claim("long", 1, Duration::from_secs(60)).await.unwrap();
            let (position, token) = (claimed[0].event.position, claimed[0].token);
            store.release("long", position, token, Duration::ZERO, Some(&note)).await.unwrap();
        }
        assert!(store.groups.is_long());
        let member = store.groups.member("claim", "g").unwrap();
        scan(&mut locked(&member.state), &store.shared.log(), 10, 2);
        store.groups.compact().unwrap_err();
        store.ack("g", &[]).await.unwrap();
        // As if the process had been killed.
        drop((member, store));
        std::fs::remove_dir_all(folder.path().join("groups.jsonl.new")).unwrap();
        let store = FileEventStore::open(folder.path()).unwrap();
        let claimed = store.claim("g", 10, Duration::from_secs(60)).await.unwrap();
        assert_eq!(claimed.iter().map(|delivery| delivery.event.position).collect::<Vec<_>>(), [1, 2]);
    }
}
