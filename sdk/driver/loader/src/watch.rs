//! A thread that monitors the calls in progress: their deadlines, and runtime threads that are blocked in a call.
//!
//! It uses no timer of the runtime: those stop while the thread that drives them runs a library's function.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, Once, PoisonError};
use std::time::{Duration, Instant};

use crate::{calls, inline};

/// How late a missed deadline may be noticed.
const TICK: Duration = Duration::from_millis(50);

/// How many ticks without a call pass before the thread sleeps.
const IDLE_TICKS: u32 = 20;

static ASLEEP: AtomicBool = AtomicBool::new(false);
static LOCK: Mutex<()> = Mutex::new(());
static WOKEN: Condvar = Condvar::new();

/// Wakes the thread because a call was added to the table.
pub(crate) fn wake() {
    static STARTED: Once = Once::new();
    STARTED.call_once(|| {
        let started = std::thread::Builder::new().name("plugin-watch".into()).spawn(watch);
        if let Err(error) = started {
            tracing::error!(
                "calls of plugins have no deadline, because the watchdog thread cannot be started: {error}"
            );
        }
    });
    if ASLEEP.load(Ordering::SeqCst) {
        let _guard = LOCK.lock().unwrap_or_else(PoisonError::into_inner);
        ASLEEP.store(false, Ordering::SeqCst);
        WOKEN.notify_one();
    }
}

fn watch() {
    let mut idle = 0;
    loop {
        std::thread::sleep(TICK);
        idle = if calls::is_empty() { idle + 1 } else { 0 };
        calls::sweep(Instant::now());
        inline::compensate(TICK);
        if idle >= IDLE_TICKS {
            sleep();
            idle = 0;
        }
    }
}

/// Sleeps until there is a call. A call that begins at the same moment either sees that this thread sleeps, or this
/// thread sees the call.
fn sleep() {
    let mut guard = LOCK.lock().unwrap_or_else(PoisonError::into_inner);
    ASLEEP.store(true, Ordering::SeqCst);
    while ASLEEP.load(Ordering::SeqCst) {
        if !calls::is_empty() {
            ASLEEP.store(false, Ordering::SeqCst);
            break;
        }
        guard = WOKEN.wait(guard).unwrap_or_else(PoisonError::into_inner);
    }
}
