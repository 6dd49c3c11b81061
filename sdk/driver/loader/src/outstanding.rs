//! Calls that continue although nobody waits for them.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// Calls of one store that have not ended although nobody waits for them any longer.
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

    /// Waits until none is left.
    pub(crate) async fn ended(&self) {
        while !self.is_empty() {
            let mut ended = pin!(self.ended.notified());
            // Enable before checking the count again, so that no notification is missed.
            ended.as_mut().enable();
            if !self.is_empty() {
                ended.await;
            }
        }
    }
}

/// One such call; dropping this marks the call as ended.
pub(crate) struct Ending(Arc<Outstanding>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Ordering::SeqCst);
        self.0.ended.notify_waiters();
    }
}
