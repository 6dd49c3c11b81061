//! The event store: the shared log, this node's copy of it, and the groups.

mod follower;
mod groups;
mod lanes;
mod log;
mod message;
mod nodes;
mod snapshots;
mod transfer;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use snaphook_driver::{
    Append, Appended, Capabilities, Conflict, Delivery, DriverError, ErrorKind, Event, EventPage, EventQuery,
    EventStore, Group, Holder, LogExport, LogRecord, Node, OpenContext, PAGE_BYTES_MAX, Position, Result, Stream,
    new_log_identity,
};
use snaphook_sqlite::replica::{ChangeOutcome, LogChange, Replica};

use self::follower::{Follower, parted, shorter};
use self::groups::Groups;
use self::lanes::Lane;
use self::log::Log;
use self::nodes::Nodes;
use self::snapshots::{Making, Snapshots};
use crate::config::StoreConfig;
use crate::connection::Link;
use crate::parts::Parts;
use crate::streams::{self, Kind};

/// How long an opening node waits without progress while it reads missed messages.
const CATCH_UP_PATIENCE: Duration = Duration::from_secs(30);

/// How long a closing node tries to release its groups.
const GIVE_BACK_TIME: Duration = Duration::from_secs(5);

/// How long a health check waits without progress until the node has judged all messages.
const HEALTH_PATIENCE: Duration = Duration::from_secs(2);

/// How long a read waits without progress until the node has judged the requested messages.
const HEAD_PATIENCE: Duration = Duration::from_secs(5);

/// See the crate's documentation.
pub(crate) struct NatsEventStore {
    identity: String,
    log: Arc<Log>,
    follower: Follower,
    /// A lane for the committer and one for all others, so that these do not delay it.
    appends: Arc<Lane>,
    others: Arc<Lane>,
    groups: Groups,
    nodes: Nodes,
    making: Option<Making>,
    /// Whether the last append failed.
    has_failed: AtomicBool,
    is_closed: AtomicBool,
}

impl NatsEventStore {
    pub(crate) async fn open(context: &OpenContext) -> Result<NatsEventStore> {
        let config = StoreConfig::of(context)?;
        let link = Link::of(&config).await?;
        let name = format!("{}_log", link.config.name);
        let subject = format!("{}.log", link.config.name);
        let stream = streams::ensure(&link, &streams::config(&link, &name, &subject, Kind::Log)).await?;
        let parts = Parts::open(&link, "data", Kind::Log).await?;
        let path = config.path(context);
        let replica = open_replica(&path).await?;
        let snapshots = Snapshots::open(&link, &path).await?;
        let replica = snapshots.begin_with(&stream, replica).await?;
        let log = Arc::new(Log::new(Arc::clone(&link), stream, subject, parts, replica));
        match NatsEventStore::begin(context, &link, &log).await {
            Ok(mut store) => {
                store.making = Some(snapshots.keep_making(&log, config.snapshots));
                Ok(store)
            }
            Err(error) => {
                // Otherwise the file would stay open.
                let _ = log.replica.close().await;
                Err(error)
            }
        }
    }

    async fn begin(context: &OpenContext, link: &Arc<Link>, log: &Arc<Log>) -> Result<NatsEventStore> {
        let mut last = log.last_sequence("open").await?;
        check_same(log, last).await?;
        let follower = Follower::start(log);
        let node = if context.node.is_empty() { log.replica.id() } else { &context.node };
        let (appends, others) = (Arc::new(Lane::new(log, node)), Arc::new(Lane::new(log, node)));
        if last == 0 {
            // If several nodes begin a log, the first one determines its identity.
            let identity = new_log_identity();
            appends.change("open", LogChange::Begin { identity: &identity }).await.map_err(|error| {
                match error.kind() {
                    ErrorKind::Uncertain => error.as_kind(ErrorKind::Unavailable),
                    _ => error,
                }
            })?;
            last = 1;
        }
        let judged = log.judged_up_to("open", last, CATCH_UP_PATIENCE).await;
        let opened = async {
            judged?;
            if !context.resumes_import {
                log.replica.check_whole()?;
            }
            let identity = log.replica.identity();
            let identity = identity.ok_or_else(|| {
                DriverError::new(ErrorKind::Corrupt, "open", "the stream does not begin with a log's identity")
            })?;
            let groups = Groups::open(link, log, &identity).await?;
            Ok((identity, groups, Nodes::open(link).await?))
        };
        match opened.await {
            Ok((identity, groups, nodes)) => Ok(NatsEventStore {
                identity,
                log: Arc::clone(log),
                follower,
                appends,
                others,
                groups,
                nodes,
                making: None,
                has_failed: AtomicBool::new(false),
                is_closed: AtomicBool::new(false),
            }),
            Err(error) => {
                follower.close().await;
                Err(error)
            }
        }
    }

    fn check(&self, operation: &'static str) -> Result<()> {
        match self.is_closed.load(Ordering::Acquire) {
            true => Err(DriverError::new(ErrorKind::Unavailable, operation, "the store is closed")),
            false => Ok(()),
        }
    }

    /// The same for operations that must see the newest state of the log.
    fn check_following(&self, operation: &'static str) -> Result<()> {
        self.check(operation)?;
        self.log.check(operation)
    }
}

/// Opens the node's copy of the log. A damaged copy is recreated.
async fn open_replica(path: &Path) -> Result<Replica> {
    let path = path.to_owned();
    let open = move || match Replica::open(&path) {
        Err(error) if error.kind() == ErrorKind::Corrupt => {
            tracing::warn!(path = %path.display(), %error, "nats: this node's copy of the log is damaged and is rebuilt");
            Replica::remake(&path)
        }
        opened => opened,
    };
    tokio::task::spawn_blocking(open).await.unwrap_or_else(|error| {
        Err(DriverError::new(ErrorKind::Unexpected, "open", "the background task ended early").because(error))
    })
}

/// Rejects a copy of another log, and one with more messages than the stream.
async fn check_same(log: &Log, last: u64) -> Result<()> {
    let sequence = log.replica.sequence();
    if last < sequence {
        return Err(shorter(last, sequence).error("open").as_kind(ErrorKind::Config));
    }
    let Some(known) = log.replica.identity() else { return Ok(()) };
    let found = log.identity_in_stream("open").await?;
    if found != known {
        return Err(DriverError::new(
            ErrorKind::Config,
            "open",
            format!(
                "the file in `path` is a copy of the log `{known}`, the stream contains the log `{found}`; remove the \
                 file, or set another `path` or `name`"
            ),
        ));
    }
    if !log.has_last("open").await? {
        return Err(parted(log.replica.sequence()).error("open").as_kind(ErrorKind::Config));
    }
    Ok(())
}

fn other_answer(operation: &'static str) -> DriverError {
    DriverError::new(ErrorKind::Unexpected, operation, "the log returned an unexpected outcome")
}

#[async_trait]
impl EventStore for NatsEventStore {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            durable: true,
            shared: true,
            atomic_batch: true,
            ordered_claims: true,
            batch_bytes_max: PAGE_BYTES_MAX as u64,
            ..Capabilities::LEAST
        }
    }

    fn identity(&self) -> &str {
        &self.identity
    }

    async fn health(&self) -> Result<()> {
        self.check_following("health")?;
        self.log.link.connected("health").await?;
        if self.has_failed.load(Ordering::Acquire) {
            // Everything sent before this either has its position in the log or never gets one.
            self.appends.change("health", LogChange::Nothing).await?;
            self.has_failed.store(false, Ordering::Release);
        }
        let last = self.log.last_sequence("health").await?;
        self.log.judged_up_to("health", last, HEALTH_PATIENCE).await
    }

    async fn close(&self) -> Result<()> {
        if self.is_closed.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        if let Some(making) = &self.making {
            making.close().await;
        }
        // Groups that are not released in time are taken over slightly later.
        let _ = tokio::time::timeout(GIVE_BACK_TIME, self.groups.close()).await;
        self.follower.close().await;
        self.log.stop(log::Stop::new(ErrorKind::Unavailable, "the store is closed"));
        self.log.replica.close().await
    }

    async fn append(&self, batch: &[Append], atomic: bool) -> Result<Vec<Result<Appended, Conflict>>> {
        self.check_following("append")?;
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        // Stays set if the work is interrupted.
        self.has_failed.store(true, Ordering::Release);
        match self.appends.change("append", LogChange::Append { batch, atomic }).await? {
            ChangeOutcome::Appended(answers) if answers.len() == batch.len() => {
                self.has_failed.store(false, Ordering::Release);
                Ok(answers)
            }
            _ => Err(other_answer("append").as_kind(ErrorKind::Uncertain)),
        }
    }

    async fn read(&self, query: &EventQuery, wait: Option<Duration>) -> Result<EventPage> {
        self.check("read")?;
        self.log.replica.read(query, wait).await
    }

    async fn last(&self, stream: &Stream, at_most: Position) -> Result<Option<Event>> {
        self.check("last")?;
        self.log.replica.last(stream, at_most)
    }

    async fn last_but(&self, stream: &Stream, at_most: Position, skip: u64) -> Result<Option<Event>> {
        self.check("last_but")?;
        self.log.replica.last_but(stream, at_most, skip).await
    }

    async fn head(&self) -> Result<Position> {
        self.check("head")?;
        // The head of the log, not of this node's copy: a client of another node may have seen more.
        let last = self.log.last_sequence("head").await?;
        self.log.judged_up_to("head", last, HEAD_PATIENCE).await?;
        Ok(self.log.replica.head())
    }

    async fn reserve(&self, keys: &[(String, Stream)]) -> Result<Vec<(usize, Holder)>> {
        self.check_following("reserve")?;
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        match self.others.change("reserve", LogChange::Reserve { keys }).await? {
            ChangeOutcome::Reserved(taken) => Ok(taken),
            _ => Err(other_answer("reserve")),
        }
    }

    async fn forget_claims(&self, prefix: &str, limit: u32) -> Result<u64> {
        self.check_following("forget_claims")?;
        match self.others.change("forget_claims", LogChange::Forget { prefix, limit }).await? {
            ChangeOutcome::Forgotten(count) => Ok(count),
            _ => Err(other_answer("forget_claims")),
        }
    }

    async fn next_claim(&self, from: &str) -> Result<Option<String>> {
        self.check("next_claim")?;
        self.log.replica.next_claim(from)
    }

    async fn holder(&self, key: &str) -> Result<Option<Holder>> {
        self.check("holder")?;
        self.log.replica.holder(key)
    }

    async fn create_group(&self, group: &Group, start: Position) -> Result<()> {
        self.check_following("create_group")?;
        self.groups.create(group, start).await
    }

    async fn drop_group(&self, name: &str) -> Result<()> {
        self.check_following("drop_group")?;
        self.groups.remove(name).await
    }

    async fn groups(&self) -> Result<Vec<String>> {
        self.check("groups")?;
        self.groups.names().await
    }

    async fn announce(&self, node: &Node, keep: Duration) -> Result<()> {
        self.nodes.announce(node, keep).await
    }

    async fn nodes(&self) -> Result<Vec<Node>> {
        self.check("nodes")?;
        self.nodes.all().await
    }

    async fn claim(&self, group: &str, limit: u32, lease: Duration) -> Result<Vec<Delivery>> {
        self.check_following("claim")?;
        self.groups.claim(group, limit, lease).await
    }

    async fn ack(&self, group: &str, done: &[(Position, u64)]) -> Result<()> {
        self.check_following("ack")?;
        self.groups.ack(group, done).await
    }

    async fn release(
        &self,
        group: &str,
        position: Position,
        token: u64,
        delay: Duration,
        note: Option<&str>,
    ) -> Result<()> {
        self.check_following("release")?;
        self.groups.release(group, position, token, delay, note).await
    }

    async fn renew(
        &self,
        group: &str,
        position: Position,
        token: u64,
        lease: Duration,
        note: Option<&str>,
    ) -> Result<bool> {
        self.check_following("renew")?;
        self.groups.renew(group, position, token, lease, note).await
    }

    async fn is_done(&self, group: &str, stream: &Stream, position: Position) -> Result<bool> {
        self.check("is_done")?;
        self.groups.is_done(group, stream, position).await
    }

    async fn lag(&self, group: &str) -> Result<(u64, Position)> {
        self.check("lag")?;
        self.groups.lag(group).await
    }

    async fn put_blob(&self, sha256: &str, bytes: &[u8]) -> Result<()> {
        self.check_following("put_blob")?;
        if self.log.replica.get_blob(sha256).await?.is_some() {
            return Ok(());
        }
        self.others.change("put_blob", LogChange::Blob { sha256, bytes }).await.map(drop)
    }

    async fn get_blob(&self, sha256: &str) -> Result<Option<Vec<u8>>> {
        self.check("get_blob")?;
        self.log.replica.get_blob(sha256).await
    }

    async fn export(&self) -> Result<Box<dyn LogExport>> {
        self.check_following("export")?;
        Ok(Box::new(transfer::Export::begin(&self.log, &self.groups).await?))
    }

    async fn import(&self, records: &[LogRecord]) -> Result<()> {
        self.check_following("import")?;
        transfer::import(&self.log, &self.others, &self.groups, records).await
    }

    async fn finish_import(&self) -> Result<()> {
        self.check_following("finish_import")?;
        if !self.log.replica.is_importing()? {
            return Ok(());
        }
        self.others.settle("finish_import").await?;
        self.others.change("finish_import", LogChange::FinishImport).await.map(drop)
    }
}
