//! Snapshots of a node's file, so that new nodes need not judge the whole log.
//!
//! From time to time, one node makes a copy and stores it beside the log; a value names the newest copy. A node with an
//! empty file starts with it. A faulty copy only costs time: the log is then read from its start.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_nats::jetstream::stream::Stream;
use prost::Message as _;
use snaphook_driver::{DriverError, ErrorKind, Result, judge};
use snaphook_sqlite::replica::Replica;
use tokio::task::JoinHandle;

use super::log::{Log, has_last_of, identity_of, locked};
use super::message::FORMAT;
use crate::bucket::{Bucket, Written};
use crate::connection::Link;
use crate::fault::{corrupt, unavailable};
use crate::parts::{Parts, Reference};
use crate::streams::Kind;

/// The key of the newest copy, and of the lease for making one.
const NEWEST: &str = "newest";
const TURN: &str = "turn";

/// After this time another node may make the copy instead.
const TURN_TIME: Duration = Duration::from_secs(15 * 60);

/// Pause before a retry, or before checking whether another node has made it.
const PAUSE: Duration = Duration::from_secs(60);

/// A copy.
#[derive(Clone, PartialEq, prost::Message)]
struct Snapshot {
    /// The log's identity.
    #[prost(string, tag = "1")]
    log: String,
    /// The last judged message.
    #[prost(uint64, tag = "2")]
    sequence: u64,
    /// The version of the rules by which it was judged.
    #[prost(uint32, tag = "3")]
    rules: u32,
    #[prost(uint32, tag = "4")]
    format: u32,
    #[prost(message, optional, tag = "5")]
    parts: Option<Reference>,
}

/// The stored copies.
pub(crate) struct Snapshots {
    newest: Bucket,
    turns: Bucket,
    parts: Parts,
    /// This node's file, beside which a copy in progress is written.
    path: PathBuf,
    beside: PathBuf,
}

impl Snapshots {
    pub(crate) async fn open(link: &Arc<Link>, path: &Path) -> Result<Snapshots> {
        let mut beside = path.as_os_str().to_owned();
        beside.push("-snapshot");
        Ok(Snapshots {
            newest: Bucket::open(link, "snapshots", Kind::Bucket).await?,
            turns: Bucket::open(link, "snapshot_turns", Kind::Leases(TURN_TIME)).await?,
            parts: Parts::open(link, "snapshot_parts", Kind::Parts).await?,
            path: path.to_owned(),
            beside: beside.into(),
        })
    }

    /// Opens the node's file; if it is empty, replaces it by the newest copy.
    pub(crate) async fn begin_with(&self, stream: &Stream<()>, replica: Replica) -> Result<Replica> {
        if replica.sequence() > 0 {
            return Ok(replica);
        }
        let fetched = match self.fetch(stream).await {
            Ok(fetched) => fetched,
            Err(error) => {
                tracing::warn!(%error, "nats: the newest snapshot cannot be used; the log is read from its start");
                None
            }
        };
        let Some(sequence) = fetched else { return Ok(replica) };
        replica.close().await?;
        let (path, copy) = (self.path.clone(), self.beside.clone());
        let adopt = move || match Replica::adopt(&path, &copy) {
            Ok(replica) if replica.sequence() == sequence => Ok(replica),
            other => {
                let error = other.err().map(|error| error.to_string()).unwrap_or_default();
                tracing::warn!(error, "nats: the newest snapshot cannot be used; the log is read from its start");
                Replica::remake(&path)
            }
        };
        let mut replica = blocking(adopt).await?;
        if !has_last_of(stream, &replica, "open").await? {
            tracing::warn!(
                "nats: the newest snapshot covers messages that the stream has lost; the log is read from its start"
            );
            replica.close().await?;
            let path = self.path.clone();
            replica = blocking(move || Replica::remake(&path)).await?;
        }
        tracing::info!(sequence = replica.sequence(), "nats: this node starts from a snapshot");
        Ok(replica)
    }

    /// Downloads the newest copy of the stream's log, if there is one.
    async fn fetch(&self, stream: &Stream<()>) -> Result<Option<u64>> {
        let fault = unavailable("open", "the stream of the log");
        let last = stream.get_info().await.map_err(fault)?.state.last_sequence;
        let (Some(newest), _) = self.newest().await? else { return Ok(None) };
        let is_known = newest.rules == judge::VERSION && newest.format == FORMAT;
        if last == 0 || newest.sequence > last || !is_known || newest.log != identity_of(stream, "open").await? {
            return Ok(None);
        }
        let parts = newest.parts.ok_or_else(|| corrupt("open", "a snapshot has no content"))?;
        self.parts.get_file("open", &parts, &self.beside).await?;
        Ok(Some(newest.sequence))
    }

    async fn newest(&self) -> Result<(Option<Snapshot>, u64)> {
        let value = self.newest.get("snapshot", NEWEST).await?;
        let Some(bytes) = value.bytes else { return Ok((None, value.revision)) };
        match Snapshot::decode(bytes) {
            Ok(snapshot) => Ok((Some(snapshot), value.revision)),
            Err(error) => {
                Err(corrupt("snapshot", "the description of the newest snapshot cannot be read").because(error))
            }
        }
    }

    /// Makes a copy after every `every` messages, until it is dropped.
    pub(crate) fn keep_making(self, log: &Arc<Log>, every: u64) -> Making {
        let task = (every > 0).then(|| {
            let log = Arc::clone(log);
            tokio::spawn(async move {
                loop {
                    let made = self.make_when_due(&log, every).await;
                    match made {
                        Ok(true) => continue,
                        Ok(false) => {}
                        Err(error) => tracing::warn!(%error, "nats: no snapshot was made, retrying"),
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            })
        });
        Making(Mutex::new(task))
    }

    /// Waits until a copy is due, and makes it.
    async fn make_when_due(&self, log: &Arc<Log>, every: u64) -> Result<bool> {
        let identity = log.replica.identity();
        let newest = self.newest().await?.0.filter(|newest| Some(&newest.log) == identity.as_ref());
        let due = newest.map_or(0, |newest| newest.sequence).saturating_add(every);
        // The sender lives in the log.
        let _ = log.judged.subscribe().wait_for(|judged| *judged >= due).await.map(drop);
        self.make(log, due).await
    }

    /// Makes a copy unless there already is one; `false` if it is another node's turn.
    async fn make(&self, log: &Arc<Log>, due: u64) -> Result<bool> {
        let turn = self.turns.get("snapshot", TURN).await?;
        if turn.bytes.is_some() {
            return Ok(false);
        }
        let Written::At(turn) = self.turns.set("snapshot", TURN, Some("taken".into()), turn.revision).await? else {
            return Ok(false);
        };
        let made = self.make_in_turn(log, due).await;
        // If this fails, the turn expires.
        let _: Result<Written> = self.turns.set("snapshot", TURN, None, turn).await;
        made.map(|()| true)
    }

    async fn make_in_turn(&self, log: &Arc<Log>, due: u64) -> Result<()> {
        let (old, revision) = self.newest().await?;
        let identity = log.replica.identity().unwrap_or_default();
        if log.replica.is_importing()? || old.as_ref().is_some_and(|old| old.log == identity && old.sequence >= due) {
            return Ok(());
        }
        let (own, path) = (Arc::clone(log), self.beside.clone());
        let copied = blocking(move || {
            // Remove the remains of an interrupted copy.
            let _ = std::fs::remove_file(&path);
            own.replica.copy_to(&path)
        });
        let sequence = copied.await?;
        let parts = self.parts.put_file("snapshot", &self.beside).await;
        let _ = tokio::fs::remove_file(&self.beside).await;
        let parts = parts?;
        let snapshot =
            Snapshot { log: identity, sequence, rules: judge::VERSION, format: FORMAT, parts: Some(parts.clone()) };
        let written = self.newest.set("snapshot", NEWEST, Some(snapshot.encode_to_vec().into()), revision).await;
        let obsolete = match &written {
            Ok(Written::At(_)) => old.and_then(|old| old.parts),
            Ok(Written::Conflict) => Some(parts),
            Err(_) => None,
        };
        if let Some(parts) = obsolete {
            self.parts.remove(&parts.id).await;
        }
        tracing::debug!(sequence, "nats: a snapshot was made");
        written.map(drop)
    }
}

/// The task that makes copies, until it is dropped or closed.
pub(crate) struct Making(Mutex<Option<JoinHandle<()>>>);

impl Making {
    pub(crate) async fn close(&self) {
        let task = locked(&self.0).take();
        if let Some(task) = task {
            task.abort();
            // Only its end matters.
            let _ = task.await;
        }
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        if let Some(task) = locked(&self.0).take() {
            task.abort();
        }
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
        Err(DriverError::new(ErrorKind::Unexpected, "snapshot", "the background task ended early").because(error))
    })
}
