//! Quick calls run where they come in: on a thread of the runtime, without the two switches between threads that cost
//! more than they do.
//!
//! A call that does not return then holds a thread that serves requests. So only hooks whose calls were quick so far run
//! here, and never more at once than half of the runtime's threads: the others serve on, and what is called meanwhile
//! runs on threads of the engine's own.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::runtime::Handle;

/// A call that takes no longer is quick.
pub(super) const QUICK_MAX: Duration = Duration::from_micros(200);

/// Quick calls in a row before a hook is trusted to be so.
const QUICK_CALLS: u32 = 8;

/// Calls on threads of the runtime, of all hooks.
static RUNNING: AtomicUsize = AtomicUsize::new(0);

/// A call's right to run on a thread of the runtime, until it returns.
pub(super) struct Permit(());

impl Permit {
    /// `None`: as many calls do so already as there may be.
    pub(super) fn take() -> Option<Permit> {
        let max = Handle::current().metrics().num_workers() / 2;
        let taken = RUNNING
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |running| (running < max).then_some(running + 1));
        // Made only then: one that is dropped gives its place back.
        taken.is_ok().then(|| Permit(()))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        RUNNING.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How quick a hook's calls were.
#[derive(Default)]
pub(super) struct Pace(AtomicU32);

impl Pace {
    /// It threw something: what that left behind on its thread is no good for requests.
    const NEVER: u32 = u32::MAX;

    pub(super) fn is_quick(&self) -> bool {
        let calls = self.0.load(Ordering::Relaxed);
        calls >= QUICK_CALLS && calls != Self::NEVER
    }

    pub(super) fn took(&self, time: Duration, thrown: bool) {
        // An error says that nothing changes.
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |calls| match (calls, thrown) {
            (Self::NEVER, _) => None,
            (_, true) => Some(Self::NEVER),
            _ if time > QUICK_MAX => Some(0),
            (calls, _) if calls < QUICK_CALLS => Some(calls + 1),
            _ => None,
        });
    }
}
