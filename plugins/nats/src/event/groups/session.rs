//! The lease of a node for its groups: one key for all of them, which the server removes unless it is renewed.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use snaphook_driver::{Result, new_log_identity};
use tokio::task::JoinHandle;

use crate::bucket::{Bucket, Written};
use crate::event::log::locked;

/// How long the server keeps a lease without renewal.
pub(crate) const LEASE: Duration = Duration::from_secs(10);

/// The interval of renewals.
const RENEWAL: Duration = Duration::from_secs(3);

/// An owner treats its lease as expired earlier than the server does.
const MARGIN: Duration = Duration::from_secs(3);

pub(super) struct Session {
    pub(super) id: String,
    leases: Bucket,
    /// When the request of the last successful renewal was sent.
    renewed: Mutex<Option<Instant>>,
    /// How many times the lease may have expired, so that another node may have taken over this node's groups.
    gaps: AtomicU64,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Session {
    pub(super) fn new(leases: Bucket) -> Session {
        Session {
            id: new_log_identity(),
            leases,
            renewed: Mutex::default(),
            gaps: AtomicU64::new(0),
            task: Mutex::default(),
        }
    }

    /// Whether the lease is certainly still valid.
    pub(super) fn is_live(&self) -> bool {
        locked(&self.renewed).is_some_and(|renewed| renewed.elapsed() < LEASE - MARGIN)
    }

    /// Ensures that the lease is valid. After the first call it is renewed automatically.
    pub(super) async fn hold(self: &Arc<Self>, operation: &'static str) -> Result<()> {
        if !self.is_live() {
            self.renew(operation).await?;
        }
        let mut task = locked(&self.task);
        if task.is_none() {
            let session = Arc::downgrade(self);
            *task = Some(tokio::spawn(async move {
                loop {
                    tokio::time::sleep(RENEWAL).await;
                    let Some(session) = session.upgrade() else { return };
                    if let Err(error) = session.renew("renew").await {
                        tracing::debug!(%error, "nats: the lease of this node's groups was not renewed");
                    }
                }
            }));
        }
        Ok(())
    }

    async fn renew(&self, operation: &'static str) -> Result<()> {
        let started = Instant::now();
        self.leases.put(operation, &self.id, "held".into()).await?;
        let mut renewed = locked(&self.renewed);
        if renewed.is_some_and(|renewed| renewed.elapsed() >= LEASE - MARGIN) {
            self.gaps.fetch_add(1, Ordering::AcqRel);
        }
        *renewed = (*renewed).max(Some(started));
        Ok(())
    }

    /// The gap count: groups owned at a different count may belong to another node now.
    pub(super) fn gaps(&self) -> u64 {
        self.gaps.load(Ordering::Acquire)
    }

    /// Whether another session still has its lease.
    pub(super) async fn is_held(&self, operation: &'static str, id: &str) -> Result<bool> {
        Ok(self.leases.get(operation, id).await?.bytes.is_some())
    }

    /// Releases the lease.
    pub(super) async fn close(&self) {
        let task = locked(&self.task).take();
        if let Some(task) = task {
            task.abort();
            // Only its end matters.
            let _ = task.await;
        }
        if locked(&self.renewed).take().is_some()
            && let Ok(value) = self.leases.get("close", &self.id).await
            && value.bytes.is_some()
        {
            // If this fails, the server removes the lease slightly later.
            let _: Result<Written> = self.leases.set("close", &self.id, None, value.revision).await;
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(task) = locked(&self.task).take() {
            task.abort();
        }
    }
}
