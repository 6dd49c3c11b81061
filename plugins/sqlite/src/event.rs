//! The event store: the log, its claims and blobs in one file, the consumer groups in another.

mod append;
mod groups;
mod kind;
mod names;
mod read;
pub(crate) mod replica;
mod replicate;
mod reserve;
mod tails;
mod transfer;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension as _, params};
use snaphook_driver::files::FileLock;
use snaphook_driver::{
    Append, Appended, Capabilities, Conflict, Delivery, DriverError, ErrorKind, Event, EventPage, EventQuery,
    EventStore, Group, Holder, LogExport, LogRecord, Node, Nodes, Position, Result, Stream, new_log_identity,
};
use tokio::sync::{Semaphore, watch};

use crate::database::{Format, Readers, locked, off_thread};
use crate::fault::fault;
use crate::lock::lock;
use append::Writer;
use groups::Groups;
use names::Names;

/// Events, claims and blobs. `events_stream` serves both a stream's last event and its history, `events_model` a
/// model's events in order, `events_definitions` the start of the server.
///
/// `log` has one row, the log's identity; it is made when a file without it is opened.
///
/// `models` turns a model's id into a small number. `instance` and `id` hold 16 bytes for a UUID, else text;
/// columns that are long or rarely read come last.
const FORMAT: Format = Format {
    name: "event log",
    id: 0x534e_4845, // "SNHE"
    version: 1,
    schema: EVENTS,
    synchronous: "FULL",
    cache_kib: 16 * 1024,
    log_pages: 16384,
    settles: false,
    derived: false,
};

const EVENTS: &str = "
    CREATE TABLE models(number INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
    CREATE TABLE events(
        position INTEGER PRIMARY KEY,
        model INTEGER NOT NULL,
        instance,
        kind INTEGER NOT NULL,
        model_version INTEGER NOT NULL,
        revision INTEGER NOT NULL,
        time INTEGER NOT NULL,
        id NOT NULL,
        request_id, actor TEXT, cause TEXT, hooks TEXT, data TEXT, trace TEXT);
    CREATE INDEX events_stream ON events(model, instance);
    CREATE INDEX events_model ON events(model);
    CREATE INDEX events_definitions ON events(position) WHERE instance IS NULL;
    CREATE TABLE claims(
        key TEXT PRIMARY KEY, model TEXT NOT NULL, instance TEXT, position INTEGER NOT NULL,
        expires INTEGER, value TEXT) WITHOUT ROWID;
    CREATE INDEX claims_expires ON claims(expires) WHERE expires IS NOT NULL;
    CREATE TABLE blobs(sha256 TEXT PRIMARY KEY, bytes BLOB NOT NULL);";

const LOG: &str = "CREATE TABLE IF NOT EXISTS log(one INTEGER PRIMARY KEY CHECK (one = 1), identity TEXT NOT NULL)";

/// See the crate's documentation.
pub struct SqliteEventStore {
    identity: String,
    shared: Arc<Shared>,
    groups: Arc<Groups>,
    nodes: Nodes,
    lock: Mutex<Option<FileLock>>,
}

/// What work on other threads needs.
struct Shared {
    /// `None` once closed. Readers never take it.
    writer: Mutex<Option<Writer>>,
    readers: Readers,
    /// As committed; replaced as a whole when an event is the first of its model.
    names: RwLock<Arc<Names>>,
    /// Position of the last committed event; changes wake those that wait.
    head: watch::Sender<Position>,
    /// An append runs, or the last one failed.
    failed: AtomicBool,
    /// Places of pages that look at many events: no more at once than there are cores.
    scans: Arc<Semaphore>,
}

impl Shared {
    fn head(&self) -> Position {
        *self.head.borrow()
    }

    fn publish(&self, head: Position) {
        self.head.send_if_modified(|last| std::mem::replace(last, head) != head);
    }

    /// See [`Writer::recover`].
    fn recover(&self) -> Result<()> {
        self.writing("health", |writer| {
            self.recover_with(writer)?;
            self.failed.store(false, Ordering::Release);
            Ok(())
        })
    }

    fn recover_with(&self, writer: &mut Writer) -> Result<()> {
        let recovered = writer.recover();
        // Also if it failed: what the file holds may be known again.
        *self.names.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(writer.names());
        self.publish(writer.head());
        recovered
    }

    fn writing<T>(&self, operation: &'static str, work: impl FnOnce(&mut Writer) -> Result<T>) -> Result<T> {
        match locked(&self.writer).as_mut() {
            Some(writer) => {
                if writer.is_unknown() {
                    self.recover_with(writer)?;
                }
                work(writer)
            }
            None => Err(DriverError::new(ErrorKind::Unavailable, operation, "the store is closed")),
        }
    }
}

impl SqliteEventStore {
    /// Opens the log at `path`, or makes it.
    pub fn open(path: &Path) -> Result<Self> {
        SqliteEventStore::open_as(path, false)
    }

    /// As [`OpenContext::resumes_import`](snaphook_driver::OpenContext::resumes_import) says.
    pub fn open_as(path: &Path, resumes_import: bool) -> Result<Self> {
        let lock = lock(path)?;
        let mut writer = Writer::open(path, &FORMAT)?;
        writer.with(add_expiry).map_err(fault("open"))?;
        let is_whole = writer.with(|connection| Ok(transfer::check_whole(connection))).map_err(fault("open"))?;
        let is_part = is_whole.is_err();
        if !resumes_import {
            is_whole.map_err(|error| error.with("path", path.display()))?;
        }
        let identity = writer.with(identity).map_err(fault("open"))?;
        let (head, names) = (writer.head(), Arc::clone(writer.names()));
        let shared = Arc::new(Shared {
            writer: Mutex::new(Some(writer)),
            readers: Readers::new(path),
            names: RwLock::new(names),
            head: watch::Sender::new(head),
            failed: AtomicBool::new(false),
            scans: Arc::new(Semaphore::new(std::thread::available_parallelism().map_or(1, usize::from))),
        });
        let groups = Arc::new(Groups::open(path, &shared, &identity)?);
        if is_part {
            groups.set_aside();
        }
        Ok(SqliteEventStore { identity, shared, groups, nodes: Nodes::default(), lock: Mutex::new(Some(lock)) })
    }
}

/// Files that were made before claims could expire get the columns; an older program does not see them.
fn add_expiry(connection: &Connection) -> rusqlite::Result<()> {
    let found: bool =
        connection.query_row("SELECT count(*) FROM pragma_table_info('claims') WHERE name = 'expires'", [], |row| {
            row.get(0)
        })?;
    if found {
        return Ok(());
    }
    connection.execute_batch(
        "BEGIN IMMEDIATE;
         ALTER TABLE claims ADD COLUMN expires INTEGER;
         ALTER TABLE claims ADD COLUMN value TEXT;
         CREATE INDEX claims_expires ON claims(expires) WHERE expires IS NOT NULL;
         COMMIT;",
    )
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
            writer.map_or(Ok(()), Writer::close)
        })
        .await;
        locked(&self.lock).take();
        closed
    }

    async fn append(&self, batch: &[Append], atomic: bool) -> Result<Vec<Result<Appended, Conflict>>> {
        let shared = &self.shared;
        // Stays if the work panics.
        shared.failed.store(true, Ordering::Release);
        let answers = shared.writing("append", |writer| {
            let answers = writer.append(batch, atomic, &shared.names);
            // The names are published by now: who sees the new head can read up to it.
            shared.publish(writer.head());
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
                writer.unsynced(|connection| reserve::reserve(connection, &keys, head)).map_err(fault("reserve"))
            })
        })
        .await
    }

    async fn forget_claims(&self, prefix: &str, limit: u32) -> Result<u64> {
        let (shared, prefix) = (Arc::clone(&self.shared), prefix.to_owned());
        off_thread("forget_claims", move || {
            shared.writing("forget_claims", |writer| {
                writer
                    .unsynced(|connection| reserve::forget(connection, &prefix, limit))
                    .map_err(fault("forget_claims"))
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
                writer.with(|connection| put_blob(connection, &sha256, &bytes)).map_err(fault("put_blob"))
            })
        })
        .await
    }

    async fn get_blob(&self, sha256: &str) -> Result<Option<Vec<u8>>> {
        self.shared.get_blob(sha256).await
    }

    async fn export(&self) -> Result<Box<dyn LogExport>> {
        let (shared, groups) = (Arc::clone(&self.shared), Arc::clone(&self.groups));
        off_thread("export", move || Ok(Box::new(transfer::Export::begin(&shared, Some(&groups))?) as _)).await
    }

    async fn import(&self, records: &[LogRecord]) -> Result<()> {
        let shared = &self.shared;
        self.groups.check_empty_before_import()?;
        shared.writing("import", |writer| {
            writer.import(records, &shared.names)?;
            let head = writer.head();
            shared.head.send_if_modified(|last| std::mem::replace(last, head) != head);
            Ok(())
        })?;
        self.groups.import(records)
    }

    async fn finish_import(&self) -> Result<()> {
        let is_part = self.shared.writing("finish_import", |writer| {
            writer.with(|connection| Ok(transfer::check_whole(connection).is_err())).map_err(fault("finish_import"))
        })?;
        if !is_part {
            return Ok(());
        }
        self.groups.reload()?;
        self.shared
            .writing("finish_import", |writer| writer.with(transfer::finish_import).map_err(fault("finish_import")))
    }
}

/// Pages up to this size are read on the caller's thread.
const PAGE_INLINE_MAX: u32 = 128;

/// Events of a stream that are passed over on the caller's thread.
const SKIP_INLINE_MAX: u64 = 2000;

impl Shared {
    /// See [`EventStore::read`].
    async fn read(self: &Arc<Self>, query: &EventQuery, wait: Option<Duration>) -> Result<EventPage> {
        let Some(wait) = wait else { return self.page(query.clone()).await };
        let deadline = tokio::time::Instant::now() + wait;
        let mut heads = self.head.subscribe();
        let mut query = query.clone();
        loop {
            let page = self.page(query.clone()).await?;
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

    /// See [`EventStore::last_but`].
    async fn last_but(self: &Arc<Self>, stream: &Stream, at_most: Position, skip: u64) -> Result<Option<Event>> {
        if skip <= SKIP_INLINE_MAX {
            return read::last_but(self, stream, at_most, skip);
        }
        let (shared, stream) = (Arc::clone(self), stream.clone());
        off_thread("last_but", move || read::last_but(&shared, &stream, at_most, skip)).await
    }

    /// See [`EventStore::next_claim`].
    fn next_claim(&self, from: &str) -> Result<Option<String>> {
        self.readers.with(|connection| {
            connection
                .prepare_cached("SELECT key FROM claims WHERE key >= ?1 ORDER BY key LIMIT 1")
                .and_then(|mut statement| statement.query_row([from], |row| row.get(0)).optional())
                .map_err(fault("next_claim"))
        })
    }

    /// See [`EventStore::holder`].
    fn holder(&self, key: &str) -> Result<Option<Holder>> {
        self.readers.with(|connection| append::holder_of(connection, key).map_err(fault("holder")))
    }

    /// See [`EventStore::get_blob`].
    async fn get_blob(self: &Arc<Self>, sha256: &str) -> Result<Option<Vec<u8>>> {
        let (shared, sha256) = (Arc::clone(self), sha256.to_owned());
        off_thread("get_blob", move || {
            shared.readers.with(|connection| {
                connection
                    .query_row("SELECT bytes FROM blobs WHERE sha256 = ?1", [&sha256], |row| row.get(0))
                    .optional()
                    .map_err(fault("get_blob"))
            })
        })
        .await
    }

    async fn page(self: &Arc<Self>, query: EventQuery) -> Result<EventPage> {
        let head = self.head();
        let short = query.limit <= PAGE_INLINE_MAX && query.filter.kinds.is_empty();
        if short || head.saturating_sub(query.after) <= u64::from(PAGE_INLINE_MAX) {
            return read::page(self, &query);
        }
        // Never closed.
        let place = Arc::clone(&self.scans).acquire_owned().await;
        let shared = Arc::clone(self);
        off_thread("read", move || {
            let _place = place;
            read::page(&shared, &query)
        })
        .await
    }
}

fn put_blob(connection: &Connection, sha256: &str, bytes: &[u8]) -> rusqlite::Result<()> {
    connection
        .prepare_cached("INSERT INTO blobs(sha256, bytes) VALUES (?1, ?2) ON CONFLICT DO NOTHING")?
        .execute(params![sha256, bytes])?;
    Ok(())
}

/// The log's identity, which a new log gets now.
fn identity(connection: &Connection) -> rusqlite::Result<String> {
    connection.execute_batch(LOG)?;
    connection.execute("INSERT INTO log(one, identity) VALUES (1, ?1) ON CONFLICT DO NOTHING", [new_log_identity()])?;
    connection.query_row("SELECT identity FROM log", [], |row| row.get(0))
}

/// The models' numbers as they are now.
fn names(shared: &Shared) -> Arc<Names> {
    Arc::clone(&shared.names.read().unwrap_or_else(PoisonError::into_inner))
}
