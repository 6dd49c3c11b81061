//! A thread that looks after the calls under way: their deadlines, and threads of the runtime that do not come back.
//!
//! It uses no timer of the runtime: those stand still while the thread that drives them runs a library's function.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, Once, PoisonError};
use std::time::{Duration, Instant};

use crate::{calls, inline};

/// How late a deadline may be noticed.
const TICK: Duration = Duration::from_millis(50);

/// Ticks without a call until the thread sleeps.
const IDLE_TICKS: u32 = 20;

static ASLEEP: AtomicBool = AtomicBool::new(false);
static LOCK: Mutex<()> = Mutex::new(());
static WOKEN: Condvar = Condvar::new();

/// A call was put into the table.
pub(crate) fn wake() {
    static STARTED: Once = Once::new();
    STARTED.call_once(|| {
        let started = std::thread::Builder::new().name("plugin-watch".into()).spawn(watch);
        if let Err(error) = started {
            tracing::error!("calls of plugins have no deadline, because no thread can be started: {error}");
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

/// Until there is a call. One that begins just now sees that this thread sleeps, or this thread sees the call.
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
