//! Locks on instances whose recorded errors are being retried or dropped.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use snaphook_driver::Stream;
use tokio::sync::Notify;

/// The instances with a claim.
#[derive(Debug, Default)]
pub(super) struct Claims {
    taken: Mutex<HashSet<Stream>>,
    released: Notify,
}

/// Released when it is dropped.
pub(super) struct Claim<'a> {
    claims: &'a Claims,
    stream: Stream,
}

impl Claims {
    /// `None` if it is taken.
    pub(super) fn take(&self, stream: &Stream) -> Option<Claim<'_>> {
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner).insert(stream.clone());
        taken.then(|| Claim { claims: self, stream: stream.clone() })
    }

    /// Waits until it is free.
    pub(super) async fn wait(&self, stream: &Stream) -> Claim<'_> {
        loop {
            let released = self.released.notified();
            tokio::pin!(released);
            // Registered before the check, so no release is missed.
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
