//! Limits how many calls of one hook run at once, and how many may wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{Semaphore, SemaphorePermit};

use super::context::{Failure, FailureCause};

/// How many calls of one hook may wait, as a multiple of those that may run.
pub(super) const QUEUE_PER_CALL: usize = 16;

/// Permits for the concurrent calls of one hook, and a limit on those that wait.
pub(super) struct Places {
    pub(super) semaphore: Semaphore,
    /// The current number of permits; follows the configuration.
    pub(super) count: AtomicUsize,
    pub(super) waiting: AtomicUsize,
}

impl Default for Places {
    fn default() -> Self {
        Places { semaphore: Semaphore::new(0), count: AtomicUsize::new(0), waiting: AtomicUsize::new(0) }
    }
}

impl Places {
    /// Waits for a permit, or fails at once if too many calls wait already.
    pub(super) async fn take(&self, concurrency: usize) -> Result<SemaphorePermit<'_>, Failure> {
        if self.count.load(Ordering::Relaxed) != concurrency {
            self.resize(concurrency);
        }
        if let Ok(place) = self.semaphore.try_acquire() {
            return Ok(place);
        }
        let queue = concurrency.saturating_mul(QUEUE_PER_CALL);
        let _waiting = QueuedCall::enter(&self.waiting);
        if self.waiting.load(Ordering::Relaxed) > queue {
            return Err(Failure {
                cause: FailureCause::Overloaded,
                message: format!("{concurrency} calls of this hook are running and {queue} are already waiting"),
                limit: Some(format!("concurrency {concurrency}")),
            });
        }
        self.semaphore.acquire().await.map_err(|_| Failure {
            // Nobody closes it.
            cause: FailureCause::Internal,
            message: "the hook is gone".to_owned(),
            limit: None,
        })
    }

    /// The same with shared ownership.
    pub(super) async fn take_owned(self: &Arc<Self>, concurrency: usize) -> Result<OwnedPlace, Failure> {
        self.take(concurrency).await?.forget();
        Ok(OwnedPlace(Arc::clone(self)))
    }

    /// Applies a changed configuration. Permits in use can only be removed later.
    pub(super) fn resize(&self, concurrency: usize) {
        let count = self.count.load(Ordering::Relaxed);
        let reached = match concurrency.min(Semaphore::MAX_PERMITS) {
            more if more > count => more,
            less => count - self.semaphore.forget_permits(count - less),
        };
        let swapped = self.count.compare_exchange(count, reached, Ordering::Relaxed, Ordering::Relaxed);
        match (swapped, reached > count) {
            (Ok(_), true) => self.semaphore.add_permits(reached - count),
            // Another call was faster; restore the permits that this one removed.
            (Err(_), false) => self.semaphore.add_permits(count - reached),
            _ => {}
        }
    }
}

/// A permit in use; released when this is dropped.
pub(super) struct OwnedPlace(Arc<Places>);

impl Drop for OwnedPlace {
    fn drop(&mut self) {
        self.0.semaphore.add_permits(1);
    }
}

/// One call in the queue; leaves the queue when this is dropped, including when the caller is dropped.
struct QueuedCall<'a>(&'a AtomicUsize);

impl<'a> QueuedCall<'a> {
    fn enter(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        QueuedCall(count)
    }
}

impl Drop for QueuedCall<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
