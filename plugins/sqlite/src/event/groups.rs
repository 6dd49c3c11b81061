//! Consumer groups: their progress is in a second file, so that acknowledging never waits for the log's fsync.
//!
//! The state of a group is in memory ([`GroupState`]); changes are written before `claim`, `ack` and `release` return,
//! without fsync. Concurrent callers share a transaction. After a power failure the file may be slightly older than the
//! log: then events are delivered again.

mod file;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use rusqlite::{Connection, params};
use snaphook_driver::{
    Delivery, DriverError, ErrorKind, Event, EventFilter, Group, GroupState, LogRecord, Position, Result, Stream, time,
};

use super::open_log::OpenLog;
use super::read;
use crate::checkpoint::Checkpointer;
use crate::database::{locked, open_writer};
use crate::fault::fault;
use crate::lock::beside;

/// How many events one claim scans before it releases the group's lock.
const SCAN_MAX: usize = 512;

/// A backlog up to this size is scanned on the caller's thread.
const BACKLOG_INLINE_MAX: u64 = 64;

/// A number of changes that is never reached.
const DROPPED: u64 = u64::MAX;

pub(super) struct Groups {
    path: PathBuf,
    shared: Arc<OpenLog>,
    groups: RwLock<HashMap<String, Arc<Member>>>,
    /// Taken before a group's state where both are needed.
    file: Mutex<Option<File>>,
}

/// One group.
struct Member {
    number: i64,
    state: Mutex<MemberState>,
    /// [`GroupState::changes`] as of the last write; [`DROPPED`] once nothing may be written any more.
    written: Mutex<u64>,
}

struct MemberState {
    filter: EventFilter,
    group: GroupState,
}

struct File {
    connection: Connection,
    checkpointer: Checkpointer,
}

impl Groups {
    pub(super) fn open(log: &Path, shared: &Arc<OpenLog>, identity: &str) -> Result<Groups> {
        let path = beside(log, "-groups");
        let mut connection = open_writer(&path, &file::FORMAT)?;
        file::check_log(&connection, identity).map_err(|error| error.with("path", path.display()))?;
        file::add_notes(&connection).map_err(fault("open"))?;
        let checkpointer = Checkpointer::start(&path, &mut connection, &file::FORMAT)?;
        let groups = load(&connection, shared)?;
        let file = Mutex::new(Some(File { connection, checkpointer }));
        Ok(Groups { path, shared: Arc::clone(shared), groups: RwLock::new(groups), file })
    }

    pub(super) fn close(&self) {
        locked(&self.file).take();
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Runs work while nothing can be acknowledged.
    pub(super) fn halted<T>(&self, operation: &'static str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        match &*locked(&self.file) {
            Some(_) => work(),
            None => Err(DriverError::new(ErrorKind::Unavailable, operation, "the store is closed")),
        }
    }

    /// `Conflict` if there were groups before an import. During an import, groups are only in the file.
    pub(super) fn check_empty_before_import(&self) -> Result<()> {
        if self.all().is_empty() {
            return Ok(());
        }
        Err(DriverError::new(ErrorKind::Conflict, "import", "the log already has consumer groups"))
    }

    pub(super) fn import(&self, records: &[LogRecord]) -> Result<()> {
        self.writing("import", |file| file::put(file, records))
    }

    /// Removes the groups from memory: during an import they are only in the file.
    pub(super) fn set_aside(&self) {
        self.groups.write().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Reloads the groups from the file.
    pub(super) fn reload(&self) -> Result<()> {
        let mut groups = self.groups.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = &*locked(&self.file) {
            *groups = load(&file.connection, &self.shared)?;
        }
        Ok(())
    }

    pub(super) fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.all().keys().cloned().collect();
        names.sort();
        names
    }

    pub(super) fn create(&self, group: &Group, start: Position) -> Result<()> {
        let filter = serde_json::to_string(&group.filter).map_err(|error| {
            DriverError::new(ErrorKind::Invalid, "create_group", "the filter cannot be written as JSON").because(error)
        })?;
        // Locked until the end: a group that is dropped in the meantime would free its number for another.
        let mut groups = self.groups.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(member) = groups.get(&group.name) {
            self.writing("create_group", |file| {
                file.execute("UPDATE groups SET filter = ?2 WHERE number = ?1", params![member.number, filter])
            })?;
            self.refilter(member, &group.filter)?;
            return self.write(member);
        }
        let number = self.writing("create_group", |file| {
            file.execute(
                "INSERT INTO groups(name, filter, cursor) VALUES (?1, ?2, ?3)",
                params![group.name, filter, start as i64],
            )?;
            Ok(file.last_insert_rowid())
        })?;
        let state = MemberState { filter: group.filter.clone(), group: GroupState::new(start, token_base()) };
        groups.insert(group.name.clone(), Arc::new(Member::new(number, state)));
        Ok(())
    }

    pub(super) fn remove(&self, name: &str) -> Result<()> {
        let mut groups = self.groups.write().unwrap_or_else(PoisonError::into_inner);
        let Some(member) = groups.get(name) else { return Ok(()) };
        self.writing("drop_group", |file| {
            let transaction = file.unchecked_transaction()?;
            transaction.execute("DELETE FROM pending WHERE number = ?1", [member.number])?;
            transaction.execute("DELETE FROM groups WHERE number = ?1", [member.number])?;
            transaction.commit()?;
            // Other calls may still use the group, and the next new group may get its number.
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
        let mut deliveries = Vec::new();
        loop {
            let now = Instant::now();
            let mut state = locked(&member.state);
            state.group.expire(now);
            let mut fresh = HashMap::new();
            if state.group.ready_count() < limit - deliveries.len() && state.group.cursor() < head {
                fresh = self.scan(&mut state, limit - deliveries.len(), head)?;
            }
            for taken in state.group.take(limit - deliveries.len(), now, lease) {
                let event = match fresh.remove(&taken.position) {
                    Some(event) => Some(event),
                    None => read::at(&self.shared, taken.position)?,
                };
                match event {
                    Some(event) => {
                        let note = taken.note.as_deref().map(str::to_owned);
                        deliveries.push(Delivery { event, attempt: taken.attempt, token: taken.token, note });
                    }
                    // This only happens if somebody changed the files by hand.
                    None => drop(state.group.forget(taken.position)),
                }
            }
            if deliveries.len() == limit || state.group.cursor() >= head {
                break;
            }
        }
        if !deliveries.is_empty() {
            self.write(&member)?;
        }
        Ok(deliveries)
    }

    /// Scans the next events of the log; returns those that may be delivered.
    fn scan(&self, state: &mut MemberState, wanted: usize, head: Position) -> Result<HashMap<Position, Event>> {
        let MemberState { filter, group } = state;
        let mut fresh = HashMap::new();
        let (mut seen, after) = (0, group.cursor());
        read::scan(&self.shared, filter, after, head, SCAN_MAX, |event| {
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

    pub(super) fn ack(&self, name: &str, done: &[(Position, u64)]) -> Result<()> {
        let member = self.member("ack", name)?;
        {
            let mut state = locked(&member.state);
            for (position, token) in done {
                if let Some(stream) = state.group.ack(*position, *token) {
                    self.follow(&mut state, *position, stream)?;
                }
            }
        }
        self.write(&member)
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
        self.write(&member)
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
            self.write(&member)?;
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
        let (filter, cursor, floor, active) = {
            let state = locked(&member.state);
            let active: Vec<(Position, Stream, bool)> =
                state.group.active().map(|(position, stream, more)| (position, stream.clone(), more)).collect();
            (state.filter.clone(), state.group.cursor(), state.group.floor(), active)
        };
        let head = self.shared.head();
        let mut count = read::count(&self.shared, &filter, cursor, head)?;
        for (position, stream, more) in &active {
            count += 1;
            if *more {
                count += read::count(&self.shared, &within(&filter, stream), *position, cursor)?;
            }
        }
        // If all matching events are acknowledged, progress reaches the end of the log.
        Ok((count, if count == 0 { head } else { floor }))
    }

    /// When the oldest event of a stream is done, its next event becomes the oldest.
    fn follow(&self, state: &mut MemberState, after: Position, stream: Stream) -> Result<()> {
        let MemberState { filter, group } = state;
        let filter = within(filter, &stream);
        let mut next = None;
        read::scan(&self.shared, &filter, after, group.cursor(), 1, |event| {
            next = Some(event.position);
            false
        })?;
        if let Some(position) = next {
            group.follow(position, stream);
        }
        Ok(())
    }

    /// Drops pending events that a new filter excludes.
    fn refilter(&self, member: &Member, filter: &EventFilter) -> Result<()> {
        let mut state = locked(&member.state);
        state.filter = filter.clone();
        let active: Vec<Position> = state.group.active().map(|(position, ..)| position).collect();
        for position in active {
            let wanted = read::at(&self.shared, position)?.is_some_and(|event| filter.matches(&event));
            if !wanted && let Some(stream) = state.group.forget(position) {
                self.follow(&mut state, position, stream)?;
            }
        }
        Ok(())
    }

    /// Writes a group's changes, unless another caller has written them in the meantime.
    fn write(&self, member: &Member) -> Result<()> {
        let wanted = locked(&member.state).group.changes();
        self.writing("ack", |file| {
            if *locked(&member.written) >= wanted {
                return Ok(());
            }
            let (progress, changes) = {
                let mut state = locked(&member.state);
                (state.group.progress(Instant::now()), state.group.changes())
            };
            match file::keep(file, member.number, &progress) {
                Ok(()) => *locked(&member.written) = changes,
                Err(error) => {
                    locked(&member.state).group.unkept(&progress);
                    return Err(error);
                }
            }
            Ok(())
        })
    }

    fn writing<T>(&self, operation: &'static str, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T> {
        let mut file = locked(&self.file);
        let Some(File { connection, checkpointer }) = file.as_mut() else {
            return Err(DriverError::new(ErrorKind::Unavailable, operation, "the store is closed"));
        };
        let result = work(connection).map_err(fault(operation));
        checkpointer.after_commit(connection);
        result
    }

    fn member(&self, operation: &'static str, name: &str) -> Result<Arc<Member>> {
        self.all().get(name).cloned().ok_or_else(|| {
            DriverError::new(ErrorKind::Invalid, operation, format!("there is no group `{name}`, create it first"))
        })
    }

    fn all(&self) -> std::sync::RwLockReadGuard<'_, HashMap<String, Arc<Member>>> {
        self.groups.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Member {
    fn new(number: i64, state: MemberState) -> Self {
        let written = Mutex::new(state.group.changes());
        Member { number, state: Mutex::new(state), written }
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

fn load(connection: &Connection, shared: &OpenLog) -> Result<HashMap<String, Arc<Member>>> {
    let mut groups = HashMap::new();
    for (number, name, filter, cursor) in file::groups(connection).map_err(fault("open"))? {
        let filter = snaphook_driver::json::typed(&filter).map_err(|error| {
            DriverError::new(ErrorKind::Corrupt, "open", "a group's filter cannot be read back")
                .with("group", &name)
                .because(error)
        })?;
        // A power failure never truncates the log while this file survives; but somebody may have replaced the log with
        // an older copy.
        let cursor = (cursor as Position).min(shared.head());
        let mut state = GroupState::new(cursor, token_base());
        for kept in file::pending(connection, number).map_err(fault("open"))? {
            if let Some(event) = read::at(shared, kept.position)?.filter(|event| event.position <= cursor) {
                state.restore(event.stream(), kept);
            }
        }
        groups.insert(name, Arc::new(Member::new(number, MemberState { filter, group: state })));
    }
    Ok(groups)
}

/// Tokens are greater than those of all earlier opens of the store: they start at the time in microseconds, and fewer
/// claims are made than microseconds pass.
fn token_base() -> u64 {
    time::now().unsigned_abs() * 1000
}

#[cfg(test)]
mod tests {
    use super::super::SqliteEventStore;
    use super::*;

    fn group(name: &str) -> Group {
        Group { name: name.into(), filter: EventFilter::default() }
    }

    #[test]
    fn a_dropped_group_writes_nothing_more() {
        let folder = tempfile::TempDir::new().unwrap();
        let store = SqliteEventStore::open(&folder.path().join("events.db")).unwrap();
        let groups = &store.groups;
        groups.create(&group("old"), 5).unwrap();
        // The group as another caller has it that is acknowledging an event at this moment.
        let old = groups.member("ack", "old").unwrap();
        groups.remove("old").unwrap();
        groups.create(&group("new"), 7).unwrap();
        assert_eq!(groups.member("ack", "new").unwrap().number, old.number);
        {
            let mut state = locked(&old.state);
            state.group.offer(9, Stream::of_instance("m", "i"));
            state.group.take(1, Instant::now(), Duration::from_secs(60));
        }
        groups.write(&old).unwrap();
        let file = locked(&groups.file);
        let number =
            |sql: &str| file.as_ref().unwrap().connection.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
        assert_eq!(number("SELECT cursor FROM groups"), 7);
        assert_eq!(number("SELECT count(*) FROM pending"), 0);
    }
}
