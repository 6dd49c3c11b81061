//! Calls that continue although nobody waits for them.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// Calls of one store that nobody waits for any more and that have not ended yet.
#[derive(Default)]
pub(crate) struct Outstanding {
    count: AtomicUsize,
    ended: Notify,
}

impl Outstanding {
    pub(crate) fn add(self: &Arc<Self>) -> Ending {
        self.count.fetch_add(1, Ordering::SeqCst);
        Ending(Arc::clone(self))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count.load(Ordering::SeqCst) == 0
    }

    /// Waits until there are none.
    pub(crate) async fn ended(&self) {
        while !self.is_empty() {
            let mut ended = pin!(self.ended.notified());
            // Enabled before the count is checked again, so that no end is missed.
            ended.as_mut().enable();
            if !self.is_empty() {
                ended.await;
            }
        }
    }
}

/// Stands for such a call; dropping it marks the call as ended.
pub(crate) struct Ending(Arc<Outstanding>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Ordering::SeqCst);
        self.0.ended.notify_waiters();
    }
}
