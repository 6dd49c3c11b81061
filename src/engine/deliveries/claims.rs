//! Instances whose recorded errors somebody retries or drops.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use snaphook_driver::Stream;
use tokio::sync::Notify;

/// Instances whose records somebody works on.
#[derive(Debug, Default)]
pub(super) struct Claims {
    taken: Mutex<HashSet<Stream>>,
    released: Notify,
}

/// Given back when it is dropped.
pub(super) struct Claim<'a> {
    claims: &'a Claims,
    stream: Stream,
}

impl Claims {
    /// `None` if somebody has it.
    pub(super) fn take(&self, stream: &Stream) -> Option<Claim<'_>> {
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner).insert(stream.clone());
        taken.then(|| Claim { claims: self, stream: stream.clone() })
    }

    /// Waits until nobody has it.
    pub(super) async fn wait(&self, stream: &Stream) -> Claim<'_> {
        loop {
            let released = self.released.notified();
            tokio::pin!(released);
            // From here on no release is missed.
            released.as_mut().enable();
            if let Some(claim) = self.take(stream) {
                return claim;
            }
            released.await;
        }
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.claims.taken.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.stream);
        self.claims.released.notify_waiters();
    }
}
