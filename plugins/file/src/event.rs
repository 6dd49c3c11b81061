//! The event store: the log as JSON Lines in segments, blobs and the progress of consumer groups beside it.
//!
//! Ground state are the segments ([`record`] says what a line holds) and the blobs. In memory is an index of the events
//! without their data, and all claims; both are made from the segments when the store is opened, which reads and checks
//! every line of them.

mod at;
mod blobs;
mod claims;
mod groups;
mod index;
mod progress;
mod read;
mod record;
mod segment;
mod transfer;
mod writer;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use async_trait::async_trait;
use snaphook_driver::files::FileLock;
use snaphook_driver::judge::{Judged, LogEnd, LogState, Tail, judge};
use snaphook_driver::time::Millis;
use snaphook_driver::{
    Append, Appended, Capabilities, Conflict, Delivery, Event, EventPage, EventQuery, EventStore, Group, Holder,
    LogExport, LogRecord, Node, Nodes, Position, Result, Stream, StreamRef, new_log_identity,
};
use tokio::sync::watch;

use crate::fault::{closed, fault, unusable};
use crate::folder::{LOCK, clear};
use crate::marker;
use crate::task::{locked, off_thread};
use blobs::Blobs;
use claims::Claims;
use groups::Groups;
use index::Index;
use record::Body;
use segment::SEGMENT_BYTES;
use writer::Writer;

/// What the marker of the folder says.
const STORE: &str = "event log";

/// See the crate's documentation.
pub struct FileEventStore {
    identity: String,
    shared: Arc<Shared>,
    groups: Arc<Groups>,
    nodes: Nodes,
    lock: Mutex<Option<FileLock>>,
}

/// What work on other threads needs.
struct Shared {
    folder: PathBuf,
    /// `None` once closed. Taken before `log`.
    writer: Mutex<Option<Writer>>,
    log: RwLock<Log>,
    blobs: Blobs,
    /// Position of the last event that is durable; changes wake those that wait.
    head: watch::Sender<Position>,
    /// An append runs, or the last one failed.
    failed: AtomicBool,
}

/// The log as it is written, without the events' data.
struct Log {
    index: Index,
    claims: Claims,
    /// See [`LogEnd`].
    next_removal: Millis,
}

impl Log {
    fn new() -> Log {
        Log { index: Index::new(), claims: Claims::default(), next_removal: LogEnd::EMPTY.next_removal }
    }

    fn end(&self) -> LogEnd {
        LogEnd { position: self.index.head(), time: self.index.time, next_removal: self.next_removal }
    }

    /// Makes a batch whose lines are written part of what is read.
    fn commit(&mut self, judged: &Judged<'_>, spans: &[writer::Span]) {
        for (row, span) in judged.accepted.iter().zip(spans) {
            row.append.releases.iter().for_each(|key| self.claims.remove(key));
            row.claims().for_each(|(key, holder)| self.claims.put(key, holder.to_holder()));
            let StreamRef { model, instance } = row.stream();
            self.index.time = row.appended.time;
            self.index.push(row.appended.position, row.append.event.kind, (model, instance), *span);
        }
        if let Some(time) = judged.removal {
            let mut end = judged.end;
            end.removed(self.claims.remove_expired(time));
            self.next_removal = end.next_removal;
        }
    }
}

impl LogState for &Log {
    fn tail(&mut self, stream: StreamRef<'_>) -> Result<Tail> {
        Ok(self.index.tail(stream))
    }

    fn last_of_instances(&mut self, model: &str, _since: Position) -> Result<Position> {
        Ok(self.index.last_of_instances(model))
    }

    fn holder(&mut self, key: &str) -> Result<Option<Holder>> {
        Ok(self.claims.get(key).map(|holder| Holder::clone(holder)))
    }
}

impl Shared {
    fn head(&self) -> Position {
        *self.head.borrow()
    }

    fn publish(&self, head: Position) {
        self.head.send_if_modified(|last| std::mem::replace(last, head) != head);
    }

    fn log(&self) -> RwLockReadGuard<'_, Log> {
        self.log.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn log_mut(&self) -> RwLockWriteGuard<'_, Log> {
        self.log.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn writing<T>(&self, operation: &'static str, work: impl FnOnce(&mut Writer) -> Result<T>) -> Result<T> {
        locked(&self.writer).as_mut().map_or_else(|| Err(closed(operation)), work)
    }

    fn append(&self, batch: &[Append], atomic: bool) -> Result<Vec<Result<Appended, Conflict>>> {
        self.writing("append", |writer| {
            let log = self.log();
            let judged = judge(log.end(), batch, atomic, &mut &*log)?;
            drop(log);
            if !judged.accepted.is_empty() {
                let spans = self.write(writer, "append", judged.accepted.iter().map(Body::of).collect())?;
                self.log_mut().commit(&judged, &spans);
                self.publish(judged.end.position);
            }
            Ok(judged.answers)
        })
    }

    fn write(&self, writer: &mut Writer, operation: &'static str, bodies: Vec<Body<'_>>) -> Result<Vec<writer::Span>> {
        let after = self.head();
        writer.write(operation, after, bodies, |tail| self.begin(tail))
    }

    /// Writes what waits for a batch without one, if that is much.
    fn flush(&self, writer: &mut Writer, operation: &'static str) -> Result<()> {
        if writer.is_full() { writer.flush(operation, self.head(), |tail| self.begin(tail)) } else { Ok(()) }
    }

    fn begin(&self, tail: &segment::Tail) {
        let mut log = self.log_mut();
        let first = log.index.count();
        log.index.add_segment(first, tail.path.clone(), Some(Arc::clone(&tail.file)));
    }

    fn reserve(&self, keys: Vec<(String, Stream)>) -> Result<Vec<(usize, Holder)>> {
        self.writing("reserve", |writer| {
            let (mut taken, mut held) = (Vec::new(), Vec::new());
            let mut log = self.log_mut();
            let position = log.index.head();
            for (index, (key, stream)) in keys.into_iter().enumerate() {
                match log.claims.get(&key) {
                    Some(holder) if holder.stream != stream => taken.push((index, Holder::clone(holder))),
                    _ => {
                        let holder = Holder::new(stream, position);
                        log.claims.put(&key, holder.clone());
                        held.push((key, holder));
                    }
                }
            }
            drop(log);
            if !held.is_empty() {
                writer.hold(held);
            }
            self.flush(writer, "reserve")?;
            Ok(taken)
        })
    }

    fn forget_claims(&self, prefix: &str, limit: u32) -> Result<u64> {
        self.writing("forget_claims", |writer| {
            let mut log = self.log_mut();
            let keys = log.claims.from(prefix).take_while(|key| key.starts_with(prefix)).take(limit as usize);
            let keys: Vec<String> = keys.map(str::to_owned).collect();
            keys.iter().for_each(|key| log.claims.remove(key));
            drop(log);
            let count = keys.len() as u64;
            if count > 0 {
                writer.forget(keys);
            }
            self.flush(writer, "forget_claims")?;
            Ok(count)
        })
    }

    fn health(&self) -> Result<()> {
        std::fs::metadata(&self.folder).map_err(fault("health", &self.folder))?;
        if self.failed.load(Ordering::Acquire) {
            // Under the lock of the writer: an append that fails after this says so after this.
            self.writing("health", |writer| {
                writer.recover()?;
                self.failed.store(false, Ordering::Release);
                Ok(())
            })?;
        }
        Ok(())
    }

    fn close(&self) -> Result<()> {
        let Some(mut writer) = locked(&self.writer).take() else { return Ok(()) };
        writer.flush("close", self.head(), |tail| self.begin(tail))
    }
}

impl FileEventStore {
    /// Opens the log in a folder, or makes it.
    pub fn open(folder: &Path) -> Result<Self> {
        FileEventStore::open_as(folder, false)
    }

    /// As [`OpenContext::resumes_import`](snaphook_driver::OpenContext::resumes_import) says.
    pub fn open_as(folder: &Path, resumes_import: bool) -> Result<Self> {
        FileEventStore::open_with(folder, SEGMENT_BYTES, resumes_import)
    }

    fn open_with(folder: &Path, segment_bytes: u64, resumes_import: bool) -> Result<Self> {
        let lock = FileLock::take(&folder.join(LOCK), folder)?;
        let marker = match marker::read(folder, STORE)? {
            Some(marker) => marker,
            None if segment::are_there(folder)? => return Err(segment::missing(folder)),
            None => marker::write(folder, STORE, Some(new_log_identity()))?,
        };
        let identity = marker.identity.unwrap_or_default();
        let files = [marker::FILE, progress::FILE, transfer::IMPORTING, writer::PROBE];
        clear(folder, |name| files.contains(&name)).map_err(unusable(folder))?;
        if !resumes_import {
            transfer::check_whole(folder)?;
        }
        let (log, tail) = segment::open(folder, &identity)?;
        let head = log.index.head();
        let shared = Arc::new(Shared {
            folder: folder.to_owned(),
            writer: Mutex::new(Some(Writer::new(folder, &identity, segment_bytes, tail))),
            log: RwLock::new(log),
            blobs: Blobs::open(folder)?,
            head: watch::Sender::new(head),
            failed: AtomicBool::new(false),
        });
        let groups = Arc::new(Groups::open(folder, &identity, &shared)?);
        Ok(FileEventStore { identity, shared, groups, nodes: Nodes::default(), lock: Mutex::new(Some(lock)) })
    }
}

/// Pages up to this size are read on the caller's thread.
const PAGE_INLINE_MAX: u32 = 128;

#[async_trait]
impl EventStore for FileEventStore {
    fn capabilities(&self) -> Capabilities {
        Capabilities { atomic_batch: true, durable: true, ordered_claims: true, ..Capabilities::LEAST }
    }

    fn identity(&self) -> &str {
        &self.identity
    }

    async fn health(&self) -> Result<()> {
        self.work("health", Shared::health).await
    }

    async fn close(&self) -> Result<()> {
        let groups = Arc::clone(&self.groups);
        let closed = self.work("close", move |shared| shared.close().and(groups.close())).await;
        locked(&self.lock).take();
        closed
    }

    async fn append(&self, batch: &[Append], atomic: bool) -> Result<Vec<Result<Appended, Conflict>>> {
        // Stays if the work panics.
        self.shared.failed.store(true, Ordering::Release);
        let answers = self.shared.append(batch, atomic);
        self.shared.failed.store(answers.is_err(), Ordering::Release);
        answers
    }

    async fn read(&self, query: &EventQuery, wait: Option<Duration>) -> Result<EventPage> {
        let Some(wait) = wait else { return self.page(query).await };
        let deadline = tokio::time::Instant::now() + wait;
        let mut heads = self.shared.head.subscribe();
        let mut query = query.clone();
        loop {
            let page = self.page(&query).await?;
            if !page.events.is_empty() {
                return Ok(page);
            }
            // Nothing up to there matched, so it is not looked at again.
            query.after = query.after.max(page.reached);
            if page.next().is_some() {
                continue;
            }
            let news = heads.wait_for(|head| *head > query.after);
            if !matches!(tokio::time::timeout_at(deadline, news).await, Ok(Ok(_))) {
                return Ok(page);
            }
        }
    }

    async fn last(&self, stream: &Stream, at_most: Position) -> Result<Option<Event>> {
        read::last_but(&self.shared, stream, at_most, 0)
    }

    async fn last_but(&self, stream: &Stream, at_most: Position, skip: u64) -> Result<Option<Event>> {
        read::last_but(&self.shared, stream, at_most, skip)
    }

    async fn head(&self) -> Result<Position> {
        Ok(self.shared.head())
    }

    async fn reserve(&self, keys: &[(String, Stream)]) -> Result<Vec<(usize, Holder)>> {
        let keys = keys.to_owned();
        self.work("reserve", |shared| shared.reserve(keys)).await
    }

    async fn forget_claims(&self, prefix: &str, limit: u32) -> Result<u64> {
        let prefix = prefix.to_owned();
        self.work("forget_claims", move |shared| shared.forget_claims(&prefix, limit)).await
    }

    async fn next_claim(&self, from: &str) -> Result<Option<String>> {
        Ok(self.shared.log().claims.from(from).next().map(str::to_owned))
    }

    async fn holder(&self, key: &str) -> Result<Option<Holder>> {
        Ok(self.shared.log().claims.get(key).map(|holder| Holder::clone(holder)))
    }

    async fn create_group(&self, group: &Group, start: Position) -> Result<()> {
        self.groups.create(group, start)
    }

    async fn drop_group(&self, name: &str) -> Result<()> {
        self.groups.remove(name)
    }

    async fn groups(&self) -> Result<Vec<String>> {
        Ok(self.groups.names())
    }

    async fn announce(&self, node: &Node, keep: Duration) -> Result<()> {
        self.nodes.announce(node, keep);
        Ok(())
    }

    async fn nodes(&self) -> Result<Vec<Node>> {
        Ok(self.nodes.all())
    }

    async fn claim(&self, group: &str, limit: u32, lease: Duration) -> Result<Vec<Delivery>> {
        let limit = limit as usize;
        let deliveries = if self.groups.claims_at_once(group)? {
            self.groups.claim(group, limit, lease)?
        } else {
            let (groups, group) = (Arc::clone(&self.groups), group.to_owned());
            off_thread("claim", move || groups.claim(&group, limit, lease)).await?
        };
        self.compact_groups().await;
        Ok(deliveries)
    }

    async fn ack(&self, group: &str, done: &[(Position, u64)]) -> Result<()> {
        self.groups.ack(group, done)?;
        self.compact_groups().await;
        Ok(())
    }

    async fn release(
        &self,
        group: &str,
        position: Position,
        token: u64,
        delay: Duration,
        note: Option<&str>,
    ) -> Result<()> {
        self.groups.release(group, position, token, delay, note)
    }

    async fn renew(
        &self,
        group: &str,
        position: Position,
        token: u64,
        lease: Duration,
        note: Option<&str>,
    ) -> Result<bool> {
        self.groups.renew(group, position, token, lease, note)
    }

    async fn is_done(&self, group: &str, stream: &Stream, position: Position) -> Result<bool> {
        self.groups.is_done(group, stream, position)
    }

    async fn lag(&self, group: &str) -> Result<(u64, Position)> {
        let (groups, group) = (Arc::clone(&self.groups), group.to_owned());
        off_thread("lag", move || groups.lag(&group)).await
    }

    async fn put_blob(&self, sha256: &str, bytes: &[u8]) -> Result<()> {
        let (sha256, bytes) = (sha256.to_owned(), bytes.to_owned());
        self.work("put_blob", move |shared| shared.blobs.put(&sha256, &bytes)).await
    }

    async fn get_blob(&self, sha256: &str) -> Result<Option<Vec<u8>>> {
        let sha256 = sha256.to_owned();
        self.work("get_blob", move |shared| shared.blobs.get("get_blob", &sha256)).await
    }

    async fn export(&self) -> Result<Box<dyn LogExport>> {
        let (groups, identity) = (Arc::clone(&self.groups), self.identity.clone());
        let shared = Arc::clone(&self.shared);
        off_thread("export", move || {
            // What an import brings is in the file only.
            if transfer::is_part(&shared.folder).map_err(fault("export", &shared.folder))? {
                groups.reload(&shared.folder, &identity)?;
            }
            Ok(Box::new(transfer::Export::begin(shared, &groups)?) as _)
        })
        .await
    }

    async fn import(&self, records: &[LogRecord]) -> Result<()> {
        transfer::import(&self.shared, &self.groups, records)
    }

    async fn finish_import(&self) -> Result<()> {
        transfer::finish(&self.shared.folder, || self.groups.reload(&self.shared.folder, &self.identity))
    }
}

impl FileEventStore {
    async fn page(&self, query: &EventQuery) -> Result<EventPage> {
        let waits = self.shared.head().saturating_sub(query.after);
        if query.limit <= PAGE_INLINE_MAX || waits <= u64::from(PAGE_INLINE_MAX) {
            return read::page(&self.shared, query);
        }
        let query = query.clone();
        self.work("read", move |shared| read::page(shared, &query)).await
    }

    /// Writes the file of the groups anew when it has become long. If that fails, it goes on to be used as it is.
    async fn compact_groups(&self) {
        if self.groups.is_long() {
            let groups = Arc::clone(&self.groups);
            if let Err(error) = off_thread("ack", move || groups.compact()).await {
                tracing::warn!("the progress of post hooks cannot be written anew: {error}");
            }
        }
    }

    /// Work on files off the async threads.
    async fn work<T: Send + 'static>(
        &self,
        operation: &'static str,
        work: impl FnOnce(&Shared) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let shared = Arc::clone(&self.shared);
        off_thread(operation, move || work(&shared)).await
    }
}
