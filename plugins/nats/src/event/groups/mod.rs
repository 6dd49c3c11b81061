//! Consumer groups: one owner at a time, progress in one value per group.
//!
//! The value names the session that owns the group. Another node takes over when that session released the group or its
//! lease expired. The owner has the group's state in memory, and before it returns from a call it writes the value with
//! compare-and-set. So an owner that was replaced without noticing delivers and acknowledges nothing.

mod group_values;
mod owned;
mod record;
mod session;
mod transfer;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use snaphook_driver::{Delivery, DriverError, ErrorKind, Group, LogRecord, Position, Result, Stream};

use self::group_values::{GroupValues, contended, key};
use self::owned::Owned;
use self::record::Record;
use self::session::{LEASE, Session};
use super::log::{Log, locked};
use crate::bucket::{Bucket, Written};
use crate::connection::Link;
use crate::streams::Kind;

/// How long to wait until this node's copy has caught up with the events that another node has delivered.
const BEHIND_TIME: Duration = Duration::from_secs(10);

pub(crate) struct Groups {
    log: Arc<Log>,
    kept: GroupValues,
    session: Arc<Session>,
    members: Mutex<HashMap<String, Arc<Member>>>,
}

/// One group.
struct Member {
    name: String,
    key: String,
    /// This node's state of the group.
    state: Mutex<Ownership>,
    /// One caller writes at a time, on behalf of all that wait.
    writing: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Ownership {
    owned: Option<Owned>,
    /// The value that another node wrote, for read-only access.
    viewed: Option<Arc<Owned>>,
}

/// The outcome of a write by the owner.
enum Turn {
    Done,
    /// Another node owns the group.
    Lost,
}

impl Groups {
    pub(crate) async fn open(link: &Arc<Link>, log: &Arc<Log>, identity: &str) -> Result<Groups> {
        let kept = GroupValues::open(link, identity).await?;
        let leases = Bucket::open(link, "leases", Kind::Leases(LEASE)).await?;
        Ok(Groups { log: Arc::clone(log), kept, session: Arc::new(Session::new(leases)), members: Mutex::default() })
    }

    /// Releases all groups.
    pub(crate) async fn close(&self) {
        let members: Vec<Arc<Member>> = locked(&self.members).drain().map(|(_, member)| member).collect();
        for member in members {
            let _turn = member.writing.lock().await;
            let Some(owned) = locked(&member.state).owned.take() else { continue };
            // A group that cannot be released is taken over slightly later.
            if let Err(error) = self.give_back(&member, &owned).await {
                tracing::debug!(%error, "nats: a group was not released");
            }
        }
        self.session.close().await;
    }

    async fn give_back(&self, member: &Member, owned: &Owned) -> Result<()> {
        let Some((mut record, revision)) = self.kept.read("close", &member.key).await? else { return Ok(()) };
        if record.owner != self.session.id {
            return Ok(());
        }
        record.owner.clear();
        record.cursor = owned.group.cursor();
        let (pending, long) = owned.pending();
        record.pending = self.kept.with_notes("close", pending, &long, &owned.notes).await?.0;
        self.kept.set("close", &member.key, &record, revision).await.map(drop)
    }

    pub(crate) async fn create(&self, group: &Group, start: Position) -> Result<()> {
        let key = key(&group.name);
        for _ in 0..group_values::LOST_MAX {
            let (record, revision) = match self.kept.value("create_group", &key).await? {
                (Some(record), revision) => (record, revision),
                (None, revision) => {
                    let record = Record::new(self.kept.identity(), &group.name, &group.filter, start);
                    match self.kept.set("create_group", &key, &record, revision).await? {
                        Written::At(_) => return Ok(()),
                        Written::Conflict => continue,
                    }
                }
            };
            if record.filter()? == group.filter {
                return Ok(());
            }
            let mut changed = record;
            changed.set_filter(&group.filter);
            if let Written::At(_) = self.kept.set("create_group", &key, &changed, revision).await? {
                // The owner notices with its next write; if it is this node, at once.
                let member = self.member(&group.name);
                let is_owned = locked(&member.state).owned.is_some();
                return if is_owned { self.write("create_group", &member, true).await.map(drop) } else { Ok(()) };
            }
        }
        Err(contended("create_group"))
    }

    pub(crate) async fn remove(&self, name: &str) -> Result<()> {
        let key = key(name);
        for _ in 0..group_values::LOST_MAX {
            let (record, revision) = self.kept.value("drop_group", &key).await?;
            let Some(record) = record else {
                locked(&self.members).remove(name);
                return Ok(());
            };
            if let Written::At(_) = self.kept.remove("drop_group", &key, revision).await? {
                locked(&self.members).remove(name);
                self.kept.forget_notes(record.pending.into_iter().filter_map(|pending| pending.note_parts)).await;
                return Ok(());
            }
        }
        Err(contended("drop_group"))
    }

    pub(crate) async fn names(&self) -> Result<Vec<String>> {
        Ok(self.kept.records("groups").await?.into_iter().map(|record| record.name).collect())
    }

    pub(crate) async fn claim(&self, name: &str, limit: u32, lease: Duration) -> Result<Vec<Delivery>> {
        let member = self.member(name);
        if !self.acquire("claim", name, &member).await? {
            return Ok(Vec::new());
        }
        let (limit, mut deliveries, mut may_follow) = (limit as usize, Vec::new(), true);
        // In steps, so that others can access the group in between.
        while may_follow {
            let wanted = limit - deliveries.len();
            let claimed = self.on_owned("claim", &member, move |log, owned| owned.claim(&log.replica, wanted, lease));
            match claimed.await {
                Ok(Some((taken, more))) => {
                    deliveries.extend(taken);
                    may_follow = more;
                }
                Ok(None) => return Ok(Vec::new()),
                Err(error) if deliveries.is_empty() => return Err(error),
                // Deliver what was claimed; the next claim reports the error.
                Err(_) => may_follow = false,
            }
        }
        if deliveries.is_empty() {
            return Ok(deliveries);
        }
        match self.write("claim", &member, false).await {
            Ok(Turn::Done) => Ok(deliveries),
            Ok(Turn::Lost) => Ok(Vec::new()),
            Err(error) => {
                // Nobody has them, so they are delivered again at once.
                if let Some(owned) = &mut locked(&member.state).owned {
                    for delivery in &deliveries {
                        let (position, now) = (delivery.event.position, Instant::now());
                        owned.group.release(position, delivery.token, now, Duration::ZERO, None);
                    }
                }
                Err(error)
            }
        }
    }

    pub(crate) async fn ack(&self, name: &str, done: &[(Position, u64)]) -> Result<()> {
        let (member, done) = (self.owner_of("ack", name).await?, done.to_owned());
        let Some(member) = member else { return Ok(()) };
        let acknowledged = self.on_owned("ack", &member, move |log, owned| owned.ack(&log.replica, &done)).await?;
        if acknowledged.is_some() { self.write("ack", &member, false).await.map(drop) } else { Ok(()) }
    }

    pub(crate) async fn release(
        &self,
        name: &str,
        position: Position,
        token: u64,
        delay: Duration,
        note: Option<&str>,
    ) -> Result<()> {
        let Some(member) = self.owner_of("release", name).await? else { return Ok(()) };
        if let Some(owned) = &mut locked(&member.state).owned {
            owned.group.release(position, token, Instant::now(), delay, note);
        }
        self.write("release", &member, false).await.map(drop)
    }

    pub(crate) async fn renew(
        &self,
        name: &str,
        position: Position,
        token: u64,
        lease: Duration,
        note: Option<&str>,
    ) -> Result<bool> {
        let Some(member) = self.owner_of("renew", name).await? else { return Ok(false) };
        // Another node may have claimed the event by now.
        if !self.acquire("renew", name, &member).await? {
            return Ok(false);
        }
        let is_renewed = match &mut locked(&member.state).owned {
            Some(owned) => owned.group.renew(position, token, Instant::now(), lease, note),
            None => false,
        };
        if is_renewed && note.is_some() {
            return Ok(matches!(self.write("renew", &member, false).await?, Turn::Done));
        }
        Ok(is_renewed)
    }

    pub(crate) async fn is_done(&self, name: &str, stream: &Stream, position: Position) -> Result<bool> {
        let stream = stream.clone();
        self.look("is_done", name, move |owned| owned.group.is_done(&stream, position)).await
    }

    pub(crate) async fn lag(&self, name: &str) -> Result<(u64, Position)> {
        let backlog = self.look("lag", name, Owned::backlog).await?;
        let log = Arc::clone(&self.log);
        blocking("lag", move || backlog.count(&log.replica)).await
    }

    /// All groups as records of an export, and the position up to which the log must be available.
    pub(crate) async fn export(&self) -> Result<(Vec<LogRecord>, Position)> {
        transfer::export(&self.kept).await
    }

    /// Whether there are no groups.
    pub(crate) async fn is_empty(&self) -> Result<bool> {
        Ok(self.kept.records("import").await?.is_empty())
    }

    /// Imports the groups of an export.
    pub(crate) async fn import(&self, records: &[LogRecord]) -> Result<()> {
        transfer::import(&self.kept, records).await
    }

    /// Makes this node the owner of a group if no other node is.
    async fn acquire(&self, operation: &'static str, name: &str, member: &Member) -> Result<bool> {
        let is_owned = || {
            let owned = |owned: &Owned| owned.gaps == self.session.gaps();
            locked(&member.state).owned.as_ref().is_some_and(owned)
        };
        if self.session.is_live() && is_owned() {
            return Ok(true);
        }
        self.session.hold(operation).await?;
        if is_owned() {
            return Ok(true);
        }
        let _turn = member.writing.lock().await;
        if is_owned() {
            return Ok(true);
        }
        let gaps = self.session.gaps();
        let Some((mut record, revision)) = self.kept.read(operation, &member.key).await? else {
            return Err(unknown(operation, name));
        };
        if let Some(owned) = &mut locked(&member.state).owned
            && record.owner == self.session.id
            && owned.revision == revision
        {
            // Nobody owned it while the lease was lost.
            owned.gaps = gaps;
            return Ok(true);
        }
        locked(&member.state).owned = None;
        let copy = self.log.replica.id();
        let is_free = record.owner.is_empty() || record.owner == self.session.id || record.copy == copy;
        if !is_free && self.session.is_held(operation, &record.owner).await? {
            return Ok(false);
        }
        record.owner.clone_from(&self.session.id);
        copy.clone_into(&mut record.copy);
        let Written::At(revision) = self.kept.set(operation, &member.key, &record, revision).await? else {
            return Ok(false);
        };
        let owned = Owned { gaps, ..self.restore(operation, record, revision).await? };
        locked(&member.state).owned = Some(owned);
        Ok(true)
    }

    /// Returns the group if this node owns it. An error if there is no such group.
    async fn owner_of(&self, operation: &'static str, name: &str) -> Result<Option<Arc<Member>>> {
        let member = self.member(name);
        if locked(&member.state).owned.is_some() {
            return Ok(Some(member));
        }
        match self.kept.read(operation, &member.key).await? {
            Some(_) => Ok(None),
            None => Err(unknown(operation, name)),
        }
    }

    /// Reads a group, whichever node owns it.
    async fn look<T: Send + 'static>(
        &self,
        operation: &'static str,
        name: &str,
        look: impl Fn(&Owned) -> T + Send + Sync + 'static,
    ) -> Result<T> {
        let (member, look) = (self.member(name), Arc::new(look));
        if self.session.is_live() {
            let own = Arc::clone(&look);
            if let Some(seen) = self.on_owned(operation, &member, move |_, owned| Ok(own(owned))).await? {
                return Ok(seen);
            }
        }
        let Some((record, revision)) = self.kept.read(operation, &member.key).await? else {
            return Err(unknown(operation, name));
        };
        let known = locked(&member.state).viewed.clone().filter(|viewed| viewed.revision == revision);
        let viewed = match known {
            Some(viewed) => viewed,
            None => {
                let viewed = Arc::new(self.restore(operation, record, revision).await?);
                locked(&member.state).viewed = Some(Arc::clone(&viewed));
                viewed
            }
        };
        Ok(look(&viewed))
    }

    /// Works with the state of a group that this node owns; `None` if it does not own it. Reads of the log may take a
    /// while.
    async fn on_owned<T: Send + 'static>(
        &self,
        operation: &'static str,
        member: &Arc<Member>,
        work: impl FnOnce(&Log, &mut Owned) -> Result<T> + Send + 'static,
    ) -> Result<Option<T>> {
        let (log, member) = (Arc::clone(&self.log), Arc::clone(member));
        blocking(operation, move || match &mut locked(&member.state).owned {
            Some(owned) => work(&log, owned).map(Some),
            None => Ok(None),
        })
        .await
    }

    /// Stores the changes of a group that this node owns, unless another caller has stored them in the meantime.
    /// `is_forced` means that this node changed the value in another way.
    async fn write(&self, operation: &'static str, member: &Arc<Member>, is_forced: bool) -> Result<Turn> {
        let Some(wanted) = locked(&member.state).owned.as_ref().map(|owned| owned.group.changes()) else {
            return Ok(Turn::Lost);
        };
        let _turn = member.writing.lock().await;
        let mut is_forced = is_forced;
        for _ in 0..group_values::LOST_MAX {
            let (pending, long, notes, changes, cursor, filter, revision) = match &locked(&member.state).owned {
                None => return Ok(Turn::Lost),
                Some(owned) if owned.written >= wanted && !is_forced => return Ok(Turn::Done),
                Some(owned) => {
                    let (pending, long) = owned.pending();
                    let changes = owned.group.changes();
                    let known = owned.notes.clone();
                    (pending, long, known, changes, owned.group.cursor(), owned.filter.clone(), owned.revision)
                }
            };
            let (pending, kept_notes) = self.kept.with_notes(operation, pending, &long, &notes).await?;
            let mut record = Record::new(self.kept.identity(), &member.name, &filter, cursor);
            record.owner.clone_from(&self.session.id);
            self.log.replica.id().clone_into(&mut record.copy);
            record.pending = pending;
            let written = self.kept.set(operation, &member.key, &record, revision).await;
            // No caller waits to learn whether it happens later: the next write shows it.
            let written = written.map_err(|error| match error.kind() {
                ErrorKind::Uncertain => error.as_kind(ErrorKind::Unavailable),
                _ => error,
            })?;
            if let Written::At(revision) = written {
                let old = {
                    let mut state = locked(&member.state);
                    let Some(owned) = &mut state.owned else { return Ok(Turn::Lost) };
                    (owned.revision, owned.written) = (revision, changes);
                    // The whole group is stored, so the list of changes is not needed.
                    let _ = owned.group.progress(Instant::now());
                    std::mem::replace(&mut owned.notes, kept_notes.clone())
                };
                let gone = old.into_iter().filter(|(position, (_, parts))| {
                    kept_notes.get(position).is_none_or(|(_, kept)| kept.id != parts.id)
                });
                self.kept.forget_notes(gone.map(|(_, (_, parts))| parts)).await;
                return Ok(Turn::Done);
            }
            let found = self.kept.read(operation, &member.key).await?;
            if found.as_ref().is_none_or(|(record, _)| record.owner != self.session.id) {
                locked(&member.state).owned = None;
            }
            let Some((record, revision)) = found else { return Err(unknown(operation, &member.name)) };
            if record.owner != self.session.id {
                return Ok(Turn::Lost);
            }
            // Another node changed the group's filter, or an earlier write of this node succeeded after all.
            let filter = record.filter()?;
            let taken = self.on_owned(operation, member, move |log, owned| {
                owned.revision = revision;
                if owned.filter != filter {
                    owned.refilter(&log.replica, &filter)?;
                }
                Ok(())
            });
            if taken.await?.is_none() {
                return Ok(Turn::Lost);
            }
            is_forced = true;
        }
        Err(contended(operation))
    }

    /// Restores a group in memory from its value.
    async fn restore(&self, operation: &'static str, record: Record, revision: u64) -> Result<Owned> {
        let reached = self.log.replica.reached(record.cursor);
        if tokio::time::timeout(BEHIND_TIME, reached).await.is_err() {
            let message = format!("this node does not have the log up to event {} yet", record.cursor);
            return Err(DriverError::new(ErrorKind::Unavailable, operation, message));
        }
        let mut notes = BTreeMap::new();
        for pending in &record.pending {
            if let Some(parts) = &pending.note_parts {
                notes.insert(pending.position, (self.kept.note(operation, parts).await?, parts.clone()));
            }
        }
        let log = Arc::clone(&self.log);
        blocking(operation, move || Owned::restore(&log.replica, &record, notes, revision)).await
    }

    fn member(&self, name: &str) -> Arc<Member> {
        let mut members = locked(&self.members);
        if let Some(member) = members.get(name) {
            return Arc::clone(member);
        }
        let member = Arc::new(Member {
            name: name.to_owned(),
            key: key(name),
            state: Mutex::default(),
            writing: tokio::sync::Mutex::new(()),
        });
        members.insert(name.to_owned(), Arc::clone(&member));
        member
    }
}

fn unknown(operation: &'static str, name: &str) -> DriverError {
    DriverError::new(ErrorKind::Invalid, operation, format!("there is no group `{name}`, create it first"))
}

async fn blocking<T: Send + 'static>(
    operation: &'static str,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
        Err(DriverError::new(ErrorKind::Unexpected, operation, "the background task ended early").because(error))
    })
}
