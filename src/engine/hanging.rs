//! Appends that take too long: shown, and after a while not waited for any more.
//!
//! A driver may hang in the middle of an append: a network that is gone, a disk that does not answer. Whoever waits for the
//! committer then learns that nobody knows what became of its change; who comes later is not let in. Nothing has to be
//! done when the driver comes back.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::committer::Committer;
use super::error::{Error, ErrorKind, Result};
use super::troubles::Part;

/// An append that takes so long is shown as a fault of the event store.
const APPEND_SLOW: Duration = Duration::from_secs(2);
/// One that takes so long hangs: nobody waits for it any more.
const APPEND_MAX: Duration = Duration::from_secs(5);
/// How often those who wait look whether it hangs.
const LOOK: Duration = Duration::from_secs(1);

/// Since when the event store has been appending, in milliseconds after `start`; 0: it is not.
#[derive(Clone)]
pub(super) struct Appending {
    start: Instant,
    since: Arc<AtomicU64>,
}

impl Default for Appending {
    fn default() -> Self {
        Appending { start: Instant::now(), since: Arc::default() }
    }
}

impl Appending {
    pub(super) fn begin(&self) {
        self.since.store(self.now(), Ordering::Relaxed);
    }

    pub(super) fn end(&self) {
        self.since.store(0, Ordering::Relaxed);
    }

    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX).max(1)
    }
}

impl Committer {
    /// Waits for something that depends on the thread, but not for an append that hangs: `None` then.
    pub(super) async fn answered<T>(&self, answer: impl Future<Output = T>) -> Option<T> {
        let mut answer = std::pin::pin!(answer);
        loop {
            if let Ok(answer) = tokio::time::timeout(LOOK, &mut answer).await {
                return Some(answer);
            }
            if self.hangs() {
                return None;
            }
        }
    }

    /// Refuses what would only wait behind an append that hangs.
    pub(super) fn check_append(&self) -> Result<()> {
        if self.hangs() { Err(hanging()) } else { Ok(()) }
    }

    /// Whether the event store does not come back from an append.
    fn hangs(&self) -> bool {
        let Some(time) = self.appending_for().filter(|time| *time >= APPEND_MAX) else { return false };
        self.troubles.failed(Part::Append, format!("it has been appending for {} s", time.as_secs()));
        // If it came back at this very moment, the thread must see that there is something to recover from.
        let _queue = self.lock();
        self.shared.wake.notify_one();
        true
    }

    /// How long the event store has been appending, if that is too long.
    pub(super) fn stalled(&self) -> Option<Duration> {
        self.appending_for().filter(|time| *time >= APPEND_SLOW)
    }

    fn appending_for(&self) -> Option<Duration> {
        let appending = &self.shared.appending;
        let since = appending.since.load(Ordering::Relaxed);
        (since > 0).then(|| Duration::from_millis(appending.now().saturating_sub(since)))
    }
}

/// For callers that are not let in while an append hangs.
pub(super) fn hanging() -> Error {
    Error::new(
        ErrorKind::Storage,
        "the event store does not come back from an append; this request wrote nothing, an earlier one may still be written",
    )
}

/// For callers whose append hangs.
pub(super) fn unanswered() -> Error {
    Error::new(
        ErrorKind::Storage,
        format!(
            "the event store has not answered for {} s, so whether this was written is not known, and it may still be \
             written later; read it before you try again, or try again with the same `Idempotency-Key`",
            APPEND_MAX.as_secs()
        ),
    )
}
