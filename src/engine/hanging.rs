//! Appends that take too long: reported, and after a while nobody waits for them.
//!
//! A driver may hang in the middle of an append: a lost network, a disk that does not respond. Callers that wait for
//! the committer then get an error that the outcome of their change is unknown; later requests are rejected. Everything
//! continues when the driver returns.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::error::{Error, ErrorKind};

/// An append that takes this long is reported as a fault of the event store.
const APPEND_SLOW: Duration = Duration::from_secs(2);
/// An append that takes this long hangs: nobody waits for it any longer.
const APPEND_MAX: Duration = Duration::from_secs(5);
/// How often the watch checks whether an append hangs.
const LOOK: Duration = Duration::from_secs(1);

/// The running append. Waiters have no timers of their own: one watch serves all of them.
pub(super) struct Appending {
    start: Instant,
    /// Since when the event store has been appending, in milliseconds after `start`; 0: it is not.
    since: AtomicU64,
    /// Whether the watch is running; otherwise the next append wakes it.
    is_watched: AtomicBool,
    begun: Notify,
    /// Notified repeatedly while an append hangs.
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
        // Sequentially consistent with the watch, which marks itself asleep and then checks here, so that one of the
        // two sees the other.
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

    /// The same, if it is too long.
    pub(super) fn stalled(&self) -> Option<Duration> {
        self.time().filter(|time| *time >= APPEND_SLOW)
    }

    /// The same, if the append hangs.
    pub(super) fn hanging(&self) -> Option<Duration> {
        self.time().filter(|time| *time >= APPEND_MAX)
    }

    /// Waits for something that depends on appends; `None` if an append hangs.
    pub(super) async fn answered<T>(&self, answer: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            answer = answer => Some(answer),
            () = self.hangs.notified() => None,
        }
    }
}

/// Notifies waiters when an append hangs. Never returns; sleeps between appends.
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

/// For requests that are rejected while an append hangs.
pub(super) fn hanging() -> Error {
    Error::new(
        ErrorKind::Storage,
        "the event store does not return from an append; this request wrote nothing, an earlier one may still be \
         written",
    )
}

/// For callers whose append hangs.
pub(super) fn unanswered() -> Error {
    Error::new(
        ErrorKind::Storage,
        format!(
            "the event store has not responded for {} s, so whether this was written is not known, and it may still be \
             written later; read it before you try again, or try again with the same `Idempotency-Key`",
            APPEND_MAX.as_secs()
        ),
    )
}
