//! Quick calls run where they come in: on a thread of the runtime, without the two switches between threads that cost
//! more than they do.
//!
//! A function that does not return then holds a thread that serves requests. So only methods that returned quickly so far
//! run here, and never more at once than half of the runtime's threads; the others go on, and what is called meanwhile
//! runs on threads of the plugin's own (threads.rs).

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use snaphook_driver::wire::Method;
use tokio::runtime::Handle;

/// A call that takes no longer is quick.
const QUICK_MAX: Duration = Duration::from_micros(200);

/// Quick calls in a row before a method is trusted to be so.
const QUICK_CALLS: u32 = 8;

/// Calls on threads of runtimes, of all plugins.
static RUNNING: Mutex<Vec<Running>> = Mutex::new(Vec::new());

struct Running {
    permit: u64,
    since: Instant,
    runtime: Handle,
    is_compensated: bool,
}

/// The right to run foreign code on a thread of this runtime, until it returns.
#[derive(Debug)]
pub struct Permit(u64);

impl Permit {
    /// `None`: as many pieces of foreign code run on the runtime's threads already as may, or this is no runtime's thread.
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

/// Wakes a thread of each runtime of which a thread did not come back for so long: if that one drove the runtime's timers
/// and sockets, another one does so from now on.
pub(crate) fn compensate(after: Duration) {
    for running in running().iter_mut().filter(|running| running.since.elapsed() > after && !running.is_compensated) {
        running.is_compensated = true;
        running.runtime.spawn(async {});
    }
}

fn running() -> MutexGuard<'static, Vec<Running>> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How quick the methods of one store were.
pub(crate) struct Paces(Vec<AtomicU32>);

impl Paces {
    /// It did not return, or threw something: what that left behind on its thread is no good for requests.
    const NEVER: u32 = u32::MAX;

    pub(crate) fn new() -> Paces {
        Paces(Method::ALL.iter().map(|_| AtomicU32::new(0)).collect())
    }

    pub(crate) fn is_quick(&self, method: Method) -> bool {
        let calls = self.of(method).load(Ordering::Relaxed);
        calls >= QUICK_CALLS && calls != Self::NEVER
    }

    pub(crate) fn took(&self, method: Method, time: Duration) {
        // An error says that nothing changes.
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
