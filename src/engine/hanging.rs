//! Appends that take too long: shown, and after a while not waited for any more.
//!
//! A driver may hang in the middle of an append: a network that is gone, a disk that does not answer. Whoever waits for the
//! committer then learns that nobody knows what became of its change; who comes later is not let in. Nothing has to be
//! done when the driver comes back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::error::{Error, ErrorKind};

/// An append that takes so long is shown as a fault of the event store.
const APPEND_SLOW: Duration = Duration::from_secs(2);
/// One that takes so long hangs: nobody waits for it any more.
const APPEND_MAX: Duration = Duration::from_secs(5);
/// How often it is looked at whether an append hangs.
const LOOK: Duration = Duration::from_secs(1);

/// The append that runs. Those who wait for one have no timer of their own: one watch has it for all of them.
pub(super) struct Appending {
    start: Instant,
    /// Since when the event store has been appending, in milliseconds after `start`; 0: it is not.
    since: AtomicU64,
    /// The watch looks by itself; else the next append wakes it.
    is_watched: AtomicBool,
    begun: Notify,
    /// Told again and again while an append hangs.
    hangs: Notify,
}

impl Default for Appending {
    fn default() -> Self {
        Appending {
            start: Instant::now(),
            since: AtomicU64::new(0),
            is_watched: AtomicBool::new(false),
            begun: Notify::new(),
            hangs: Notify::new(),
        }
    }
}

impl Appending {
    pub(super) fn begin(&self) {
        // In the same order as the watch goes to sleep and then looks here, so that one of the two sees the other.
        self.since.store(self.now(), Ordering::SeqCst);
        if !self.is_watched.swap(true, Ordering::SeqCst) {
            self.begun.notify_one();
        }
    }

    pub(super) fn end(&self) {
        self.since.store(0, Ordering::SeqCst);
    }

    /// Whether the watch may sleep until the next append begins.
    fn may_rest(&self) -> bool {
        self.is_watched.store(false, Ordering::SeqCst);
        self.since.load(Ordering::SeqCst) == 0 || self.is_watched.swap(true, Ordering::SeqCst)
    }

    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX).max(1)
    }

    /// How long the event store has been appending.
    fn time(&self) -> Option<Duration> {
        let since = self.since.load(Ordering::Relaxed);
        (since > 0).then(|| Duration::from_millis(self.now().saturating_sub(since)))
    }

    /// The same, if that is too long.
    pub(super) fn stalled(&self) -> Option<Duration> {
        self.time().filter(|time| *time >= APPEND_SLOW)
    }

    /// The same, if it does not come back.
    pub(super) fn hanging(&self) -> Option<Duration> {
        self.time().filter(|time| *time >= APPEND_MAX)
    }

    /// Waits for something that depends on appends, but not for one that hangs: `None` then.
    pub(super) async fn answered<T>(&self, answer: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            answer = answer => Some(answer),
            () = self.hangs.notified() => None,
        }
    }
}

/// Tells those who wait when an append hangs, for ever. Between appends it sleeps.
pub(super) async fn watch(appending: Arc<Appending>, hangs: impl Fn() -> bool + Send) {
    loop {
        appending.begun.notified().await;
        loop {
            tokio::time::sleep(LOOK).await;
            if hangs() {
                appending.hangs.notify_waiters();
            } else if appending.may_rest() {
                break;
            }
        }
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
