//! Quick calls run directly on the runtime thread that makes them, which saves two thread switches; those would cost
//! more than the call.
//!
//! A function that does not return then blocks a thread that serves requests. So only methods that have returned
//! quickly so far run here, on at most half of the runtime's threads at once. The other threads continue, and further
//! calls run on the plugin's own threads (threads.rs).

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use snaphook_driver::wire::Method;
use tokio::runtime::Handle;

/// A call that takes at most this long is quick.
const QUICK_MAX: Duration = Duration::from_micros(200);

/// How many calls in a row must be quick before a method counts as quick.
const QUICK_CALLS: u32 = 8;

/// The calls of all plugins that are running on runtime threads.
static RUNNING: Mutex<Vec<Running>> = Mutex::new(Vec::new());

struct Running {
    permit: u64,
    since: Instant,
    runtime: Handle,
    is_compensated: bool,
}

/// A permit to run foreign code on a thread of this runtime until the code returns.
#[derive(Debug)]
pub struct Permit(u64);

impl Permit {
    /// `None` if the maximum number of runtime threads already runs foreign code, or if this is not a runtime thread.
    pub fn take() -> Option<Permit> {
        static PERMITS: AtomicU64 = AtomicU64::new(0);
        let runtime = Handle::try_current().ok()?;
        let max = runtime.metrics().num_workers() / 2;
        let mut running = running();
        if running.len() >= max {
            return None;
        }
        let permit = PERMITS.fetch_add(1, Ordering::Relaxed);
        running.push(Running { permit, since: Instant::now(), runtime, is_compensated: false });
        Some(Permit(permit))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut running = running();
        if let Some(index) = running.iter().position(|running| running.permit == self.0) {
            running.swap_remove(index);
        }
    }
}

/// Wakes a thread of each runtime that has a thread blocked for longer than `after`: if the blocked thread was driving
/// the runtime's timers and sockets, another thread takes over.
pub(crate) fn compensate(after: Duration) {
    for running in running().iter_mut().filter(|running| running.since.elapsed() > after && !running.is_compensated) {
        running.is_compensated = true;
        running.runtime.spawn(async {});
    }
}

fn running() -> MutexGuard<'static, Vec<Running>> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How quick the methods of one store have been so far.
pub(crate) struct Paces(Vec<AtomicU32>);

impl Paces {
    /// The method did not return in time or threw an exception: the state it left on its thread makes it unsuitable for
    /// threads that serve requests.
    const NEVER: u32 = u32::MAX;

    pub(crate) fn new() -> Paces {
        Paces(Method::ALL.iter().map(|_| AtomicU32::new(0)).collect())
    }

    pub(crate) fn is_quick(&self, method: Method) -> bool {
        let calls = self.of(method).load(Ordering::Relaxed);
        calls >= QUICK_CALLS && calls != Self::NEVER
    }

    pub(crate) fn took(&self, method: Method, time: Duration) {
        // An error only means that the value does not change.
        let _ = self.of(method).fetch_update(Ordering::Relaxed, Ordering::Relaxed, |calls| match calls {
            Self::NEVER => None,
            _ if time > QUICK_MAX => Some(0),
            calls if calls < QUICK_CALLS => Some(calls + 1),
            _ => None,
        });
    }

    pub(crate) fn never_again(&self, method: Method) {
        self.of(method).store(Self::NEVER, Ordering::Relaxed);
    }

    fn of(&self, method: Method) -> &AtomicU32 {
        &self.0[method as usize]
    }
}
