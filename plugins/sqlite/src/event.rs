//! The event store: the log, its claims and its blobs are in one file, the consumer groups in another.

mod append;
mod blobs;
pub(crate) mod change;
mod claims;
mod export;
mod format;
mod groups;
mod import;
mod kind;
mod names;
mod offload;
mod open_log;
mod read;
pub(crate) mod replica;
mod replicate;
mod tails;
mod writer;

use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use rusqlite::OptionalExtension as _;
use snaphook_driver::files::FileLock;
use snaphook_driver::{
    Append, Appended, Capabilities, Conflict, Delivery, Event, EventPage, EventQuery, EventStore, Group, Holder,
    LogExport, LogRecord, Node, Nodes, Position, Result, Stream,
};

use crate::database::{locked, off_thread};
use crate::fault::fault;
use crate::lock::lock;
use export::Export;
use format::FORMAT;
use groups::Groups;
use open_log::OpenLog;
use writer::LogWriter;

/// See the crate's documentation.
pub struct SqliteEventStore {
    identity: String,
    shared: Arc<OpenLog>,
    groups: Arc<Groups>,
    nodes: Nodes,
    lock: Mutex<Option<FileLock>>,
}

impl SqliteEventStore {
    /// Opens the log at `path`, or creates it.
    pub fn open(path: &Path) -> Result<Self> {
        SqliteEventStore::open_as(path, false)
    }

    /// As [`OpenContext::resumes_import`](snaphook_driver::OpenContext::resumes_import) says.
    pub fn open_as(path: &Path, resumes_import: bool) -> Result<Self> {
        let lock = lock(path)?;
        let mut writer = LogWriter::open(path, &FORMAT)?;
        writer.with(format::add_expiry).map_err(fault("open"))?;
        let is_whole = writer.with(|connection| Ok(import::check_whole(connection))).map_err(fault("open"))?;
        let is_part = is_whole.is_err();
        if !resumes_import {
            is_whole.map_err(|error| error.with("path", path.display()))?;
        }
        let identity = writer.with(format::identity).map_err(fault("open"))?;
        let shared = OpenLog::new(path, writer);
        let groups = Arc::new(Groups::open(path, &shared, &identity)?);
        if is_part {
            groups.set_aside();
        }
        Ok(SqliteEventStore { identity, shared, groups, nodes: Nodes::default(), lock: Mutex::new(Some(lock)) })
    }
}

#[async_trait]
impl EventStore for SqliteEventStore {
    fn capabilities(&self) -> Capabilities {
        Capabilities { atomic_batch: true, durable: true, ordered_claims: true, ..Capabilities::LEAST }
    }

    fn identity(&self) -> &str {
        &self.identity
    }

    async fn health(&self) -> Result<()> {
        self.shared.readers.with(|connection| {
            connection.query_row("SELECT 1 FROM models LIMIT 1", [], |_| Ok(())).optional().map_err(fault("health"))?;
            Ok(())
        })?;
        if !self.shared.failed.load(Ordering::Acquire) {
            return Ok(());
        }
        let shared = Arc::clone(&self.shared);
        off_thread("health", move || shared.recover()).await
    }

    async fn close(&self) -> Result<()> {
        let (groups, shared) = (Arc::clone(&self.groups), Arc::clone(&self.shared));
        let closed = off_thread("close", move || {
            let writer = locked(&shared.writer).take();
            groups.close();
            shared.readers.close();
            writer.map_or(Ok(()), LogWriter::close)
        })
        .await;
        locked(&self.lock).take();
        closed
    }

    async fn append(&self, batch: &[Append], atomic: bool) -> Result<Vec<Result<Appended, Conflict>>> {
        let shared = &self.shared;
        // Stays set if the work panics.
        shared.failed.store(true, Ordering::Release);
        let answers = shared.writing("append", |writer| {
            let answers = writer.append(batch, atomic, &shared.names);
            // The names are already published, so whoever sees the new head can read up to it.
            shared.publish(writer.head());
            // May take as long as a commit, and others can see this one.
            writer.after_append();
            answers
        });
        shared.failed.store(answers.is_err(), Ordering::Release);
        answers
    }

    async fn read(&self, query: &EventQuery, wait: Option<Duration>) -> Result<EventPage> {
        self.shared.read(query, wait).await
    }

    async fn last(&self, stream: &Stream, at_most: Position) -> Result<Option<Event>> {
        read::last(&self.shared, stream, at_most)
    }

    async fn last_but(&self, stream: &Stream, at_most: Position, skip: u64) -> Result<Option<Event>> {
        self.shared.last_but(stream, at_most, skip).await
    }

    async fn head(&self) -> Result<Position> {
        Ok(self.shared.head())
    }

    async fn reserve(&self, keys: &[(String, Stream)]) -> Result<Vec<(usize, Holder)>> {
        let (shared, keys) = (Arc::clone(&self.shared), keys.to_owned());
        off_thread("reserve", move || {
            shared.writing("reserve", |writer| {
                let head = writer.head();
                writer.unsynced(|connection| claims::reserve(connection, &keys, head)).map_err(fault("reserve"))
            })
        })
        .await
    }

    async fn forget_claims(&self, prefix: &str, limit: u32) -> Result<u64> {
        let (shared, prefix) = (Arc::clone(&self.shared), prefix.to_owned());
        off_thread("forget_claims", move || {
            shared.writing("forget_claims", |writer| {
                writer.unsynced(|connection| claims::forget(connection, &prefix, limit)).map_err(fault("forget_claims"))
            })
        })
        .await
    }

    async fn next_claim(&self, from: &str) -> Result<Option<String>> {
        self.shared.next_claim(from)
    }

    async fn holder(&self, key: &str) -> Result<Option<Holder>> {
        self.shared.holder(key)
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
        if self.groups.claims_at_once(group)? {
            return self.groups.claim(group, limit, lease);
        }
        let (groups, group) = (Arc::clone(&self.groups), group.to_owned());
        off_thread("claim", move || groups.claim(&group, limit, lease)).await
    }

    async fn ack(&self, group: &str, done: &[(Position, u64)]) -> Result<()> {
        self.groups.ack(group, done)
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
        let (shared, sha256, bytes) = (Arc::clone(&self.shared), sha256.to_owned(), bytes.to_owned());
        off_thread("put_blob", move || {
            shared.writing("put_blob", |writer| {
                writer.with(|connection| blobs::put(connection, &sha256, &bytes)).map_err(fault("put_blob"))
            })
        })
        .await
    }

    async fn get_blob(&self, sha256: &str) -> Result<Option<Vec<u8>>> {
        self.shared.get_blob(sha256).await
    }

    async fn export(&self) -> Result<Box<dyn LogExport>> {
        let (shared, groups) = (Arc::clone(&self.shared), Arc::clone(&self.groups));
        off_thread("export", move || Ok(Box::new(Export::begin(&shared, Some(&groups))?) as _)).await
    }

    async fn import(&self, records: &[LogRecord]) -> Result<()> {
        let shared = &self.shared;
        self.groups.check_empty_before_import()?;
        shared.writing("import", |writer| {
            writer.import(records, &shared.names)?;
            shared.publish(writer.head());
            Ok(())
        })?;
        self.groups.import(records)
    }

    async fn finish_import(&self) -> Result<()> {
        let is_part = self.shared.writing("finish_import", |writer| {
            writer.with(|connection| Ok(import::check_whole(connection).is_err())).map_err(fault("finish_import"))
        })?;
        if !is_part {
            return Ok(());
        }
        self.groups.reload()?;
        self.shared.writing("finish_import", |writer| writer.with(import::finish).map_err(fault("finish_import")))
    }
}
