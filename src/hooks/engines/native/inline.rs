//! Quick calls run directly on the runtime thread that makes them, which saves two thread switches; those would cost
//! more than the call.
//!
//! A call that does not return then blocks a thread that serves requests. So only hooks whose calls have been quick so
//! far run here, on at most half of the runtime's threads at once: the other threads continue, and further calls run on
//! the engine's own threads.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::runtime::Handle;

/// A call that takes at most this long is quick.
pub(super) const QUICK_MAX: Duration = Duration::from_micros(200);

/// How many calls in a row must be quick before a hook counts as quick.
const QUICK_CALLS: u32 = 8;

/// The calls of all hooks that are running on runtime threads.
static RUNNING: AtomicUsize = AtomicUsize::new(0);

/// A permit for a call to run on a thread of the runtime until it returns.
pub(super) struct Permit(());

impl Permit {
    /// `None` if the maximum number of calls already does.
    pub(super) fn take() -> Option<Permit> {
        let max = Handle::current().metrics().num_workers() / 2;
        let taken = RUNNING
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |running| (running < max).then_some(running + 1));
        // Only created in this case, because dropping a permit releases it.
        taken.is_ok().then(|| Permit(()))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        RUNNING.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How quick a hook's calls have been so far.
#[derive(Default)]
pub(super) struct Pace(AtomicU32);

impl Pace {
    /// The hook threw an exception: the state it left on its thread makes it unsuitable for threads that serve
    /// requests.
    const NEVER: u32 = u32::MAX;

    pub(super) fn is_quick(&self) -> bool {
        let calls = self.0.load(Ordering::Relaxed);
        calls >= QUICK_CALLS && calls != Self::NEVER
    }

    pub(super) fn took(&self, time: Duration, thrown: bool) {
        // An error only means that the value does not change.
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |calls| match (calls, thrown) {
            (Self::NEVER, _) => None,
            (_, true) => Some(Self::NEVER),
            _ if time > QUICK_MAX => Some(0),
            (calls, _) if calls < QUICK_CALLS => Some(calls + 1),
            _ => None,
        });
    }
}
