//! Quick calls run where they come in: on a thread of the runtime, without the two switches between threads that cost
//! more than they do.
//!
//! A call that does not return then holds a thread that serves requests. So the server keeps some of its threads in
//! reserve, asleep ([`reserve`]): one of them wakes for each that a library holds, and there are never more such calls
//! than threads in reserve. Only hooks whose calls were quick so far run here.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;

/// A call that takes no longer is quick.
const QUICK_MAX: Duration = Duration::from_micros(200);

/// Quick calls in a row before a hook is trusted to be so.
const QUICK_CALLS: u32 = 8;

/// A call that takes longer is watched as one that holds its thread.
pub(super) const HOLDS_AFTER: Duration = Duration::from_millis(5);

/// Threads in reserve that no call may count on yet.
static FREE: AtomicUsize = AtomicUsize::new(0);

/// Threads in reserve that are to wake.
static CALLED: Mutex<usize> = Mutex::new(0);
static CALL: Condvar = Condvar::new();

/// Puts `count` threads of a runtime to sleep until a library holds others. The runtime must have so many more than it needs.
pub(crate) fn reserve(runtime: &Handle, count: usize) {
    (0..count).for_each(|_| sleep(runtime));
}

/// One more thread in reserve: whichever takes the task.
fn sleep(runtime: &Handle) {
    runtime.spawn(async {
        FREE.fetch_add(1, Ordering::Relaxed);
        let mut called = CALLED.lock().unwrap_or_else(PoisonError::into_inner);
        while *called == 0 {
            called = CALL.wait(called).unwrap_or_else(PoisonError::into_inner);
        }
        *called -= 1;
    });
}

/// A call's right to run on a thread of the runtime.
pub(super) struct Permit(());

impl Permit {
    /// `None`: too many calls do so already.
    pub(super) fn take() -> Option<Permit> {
        let taken = FREE.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |free| free.checked_sub(1));
        taken.is_ok().then_some(Permit(()))
    }

    /// The call returned; `held`: a thread in reserve took its place meanwhile, which this one now takes in turn.
    pub(super) fn give_back(self, held: bool) {
        match held {
            true => sleep(&Handle::current()),
            false => {
                FREE.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// A call holds its thread: one in reserve takes its place.
pub(super) fn call_up() {
    *CALLED.lock().unwrap_or_else(PoisonError::into_inner) += 1;
    CALL.notify_one();
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
        let calls = self.0.load(Ordering::Relaxed);
        let now = match (calls, thrown) {
            (Self::NEVER, _) | (_, true) => Self::NEVER,
            _ if time > QUICK_MAX => 0,
            (calls, _) if calls < QUICK_CALLS => calls + 1,
            _ => return,
        };
        // Calls at once may overwrite each other's count: then it takes one more.
        self.0.store(now, Ordering::Relaxed);
    }
}
