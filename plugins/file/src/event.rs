//! The event store: the log as JSON Lines in segments, with blobs and the progress of consumer groups beside it.
//!
//! The source of truth are the segments ([`record`] describes their lines) and the blobs. Memory contains an index of
//! the events without their data, and all claims; both are built from the segments when the store is opened, which
//! reads and checks every line.

mod at;
mod blobs;
mod claims;
mod groups;
mod index;
mod log;
mod open_log;
mod progress;
mod read;
mod record;
mod segment;
mod transfer;
mod writer;

#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use snaphook_driver::files::FileLock;
use snaphook_driver::{
    Append, Appended, Capabilities, Conflict, Delivery, Event, EventPage, EventQuery, EventStore, Group, Holder,
    LogExport, LogRecord, Node, Nodes, Position, Result, Stream, new_log_identity,
};
use tokio::sync::watch;

use crate::fault::{fault, unusable};
use crate::folder::{LOCK, clear};
use crate::marker;
use crate::task::{locked, off_thread};
use blobs::Blobs;
use groups::Groups;
use open_log::OpenLog;
use segment::SEGMENT_BYTES;
use writer::LogWriter;

/// The store type in the folder's marker.
const STORE: &str = "event log";

/// See the crate's documentation.
pub struct FileEventStore {
    identity: String,
    shared: Arc<OpenLog>,
    groups: Arc<Groups>,
    nodes: Nodes,
    lock: Mutex<Option<FileLock>>,
}

impl FileEventStore {
    /// Opens the log in a folder, or creates it.
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
        let shared = Arc::new(OpenLog {
            folder: folder.to_owned(),
            writer: Mutex::new(Some(LogWriter::new(folder, &identity, segment_bytes, tail))),
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
        self.work("health", OpenLog::health).await
    }

    async fn close(&self) -> Result<()> {
        let groups = Arc::clone(&self.groups);
        let closed = self.work("close", move |shared| shared.close().and(groups.close())).await;
        locked(&self.lock).take();
        closed
    }

    async fn append(&self, batch: &[Append], atomic: bool) -> Result<Vec<Result<Appended, Conflict>>> {
        // Stays set if the work panics.
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
            // Nothing matched up to this position, so it is not scanned again.
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
            // Imported data is only in the file.
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

    /// Rewrites the file of the groups when it has become long. If that fails, the old file stays in use.
    async fn compact_groups(&self) {
        if self.groups.is_long() {
            let groups = Arc::clone(&self.groups);
            if let Err(error) = off_thread("ack", move || groups.compact()).await {
                tracing::warn!("the file with the progress of post hooks cannot be compacted: {error}");
            }
        }
    }

    /// Runs file work off the async threads.
    async fn work<T: Send + 'static>(
        &self,
        operation: &'static str,
        work: impl FnOnce(&OpenLog) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let shared = Arc::clone(&self.shared);
        off_thread(operation, move || work(&shared)).await
    }
}
