//! The lease by which a node owns its groups: one key for all of them, which the server removes unless it is renewed.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use snaphook_driver::{Result, new_log_identity};
use tokio::task::JoinHandle;

use crate::bucket::{Bucket, Written};
use crate::event::log::locked;

/// How long the server keeps a lease that is not renewed.
pub(crate) const LEASE: Duration = Duration::from_secs(10);

/// How often it is renewed.
const RENEWAL: Duration = Duration::from_secs(3);

/// An owner counts on its lease for less time than the server does.
const MARGIN: Duration = Duration::from_secs(3);

pub(super) struct Session {
    pub(super) id: String,
    leases: Bucket,
    /// When the request of the last renewal that succeeded was sent.
    renewed: Mutex<Option<Instant>>,
    /// How often the lease may have ended meanwhile, so that another node may have taken what this one owns.
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

    /// Whether others let this session's groups alone for a while.
    pub(super) fn is_live(&self) -> bool {
        locked(&self.renewed).is_some_and(|renewed| renewed.elapsed() < LEASE - MARGIN)
    }

    /// Makes sure of that. From the first time on the lease is renewed by itself.
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

    /// What was owned at another count may be another node's now.
    pub(super) fn gaps(&self) -> u64 {
        self.gaps.load(Ordering::Acquire)
    }

    /// Whether another session still holds its lease.
    pub(super) async fn is_held(&self, operation: &'static str, id: &str) -> Result<bool> {
        Ok(self.leases.get(operation, id).await?.bytes.is_some())
    }

    /// Gives the lease back.
    pub(super) async fn close(&self) {
        let task = locked(&self.task).take();
        if let Some(task) = task {
            task.abort();
            // Its end is all that matters.
            let _ = task.await;
        }
        if locked(&self.renewed).take().is_some()
            && let Ok(value) = self.leases.get("close", &self.id).await
            && value.bytes.is_some()
        {
            // If it fails the server removes the lease a little later.
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
