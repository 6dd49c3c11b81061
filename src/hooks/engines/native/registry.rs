//! The running calls, by number, and the thread that enforces their timeouts.
//!
//! A library only knows the number of a call. A call that is over is not found, so a library that keeps its number
//! cannot access freed data.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, Thread};
use std::time::Duration;

use super::call::Call;
use super::threads;

/// Time between two checks of the running calls.
const TICK: Duration = Duration::from_millis(2);

/// How many ticks without a running call pass before the thread sleeps; this avoids a wake-up per call under steady
/// load.
const LINGER_TICKS: u32 = 100;

/// Shards, so that calls on different cores rarely wait for each other.
const PARTS: usize = 16;

static CALLS: [Mutex<BTreeMap<u64, Arc<Call>>>; PARTS] = [const { Mutex::new(BTreeMap::new()) }; PARTS];
static RUNNING: AtomicUsize = AtomicUsize::new(0);
static GIVEN_UP: AtomicBool = AtomicBool::new(false);
static PARKED: AtomicBool = AtomicBool::new(false);
static WATCHDOG: OnceLock<Thread> = OnceLock::new();

/// Registers a running call until [`leave`].
pub(super) fn enter(call: &Arc<Call>) {
    part(call.id).insert(call.id, Arc::clone(call));
    // Pairs with `watch`: either it sees the count before it parks, or this code sees the flag.
    RUNNING.fetch_add(1, Ordering::SeqCst);
    if PARKED.load(Ordering::SeqCst)
        && let Some(watchdog) = WATCHDOG.get()
    {
        watchdog.unpark();
    }
}

/// Removes a call that has returned or whose thread is given up.
pub(super) fn leave(call: &Call) {
    if part(call.id).remove(&call.id).is_some() {
        RUNNING.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Finds a running call.
pub(super) fn find(id: u64) -> Option<Arc<Call>> {
    part(id).get(&id).cloned()
}

/// Whether a thread is running a library's function that did not return in time.
pub(super) fn has_given_up() -> bool {
    GIVEN_UP.load(Ordering::Relaxed)
}

/// Starts the watchdog of this process, without which no library is loaded.
pub(super) fn start() -> Result<(), String> {
    static STARTING: Mutex<()> = Mutex::new(());
    let _one = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
    if WATCHDOG.get().is_none() {
        let started = thread::Builder::new().name("hook-native-time".into()).spawn(watch);
        let thread = started.map_err(|error| format!("the thread for time limits cannot be started: {error}"))?;
        let _ = WATCHDOG.set(thread.thread().clone());
    }
    Ok(())
}

fn part(id: u64) -> MutexGuard<'static, BTreeMap<u64, Arc<Call>>> {
    // What holds it leaves nothing half done.
    CALLS[id as usize % PARTS].lock().unwrap_or_else(PoisonError::into_inner)
}

fn watch() {
    let mut idle_ticks = 0;
    loop {
        thread::sleep(TICK);
        if RUNNING.load(Ordering::SeqCst) > 0 {
            idle_ticks = 0;
            look();
            continue;
        }
        idle_ticks += 1;
        if idle_ticks < LINGER_TICKS {
            continue;
        }
        PARKED.store(true, Ordering::SeqCst);
        while RUNNING.load(Ordering::SeqCst) == 0 {
            thread::park();
        }
        PARKED.store(false, Ordering::SeqCst);
        idle_ticks = 0;
    }
}

/// Fails the calls that have timed out, and makes sure that no other call blocks the server.
fn look() {
    for index in 0..PARTS {
        let calls: Vec<Arc<Call>> = part(index as u64).values().cloned().collect();
        for call in &calls {
            call.make_way();
            if !call.expire() {
                continue;
            }
            leave(call);
            GIVEN_UP.store(true, Ordering::Relaxed);
            if call.inline {
                tracing::warn!(
                    "a native hook blocks a thread that serves requests; the server continues with the others, restart \
                     it once the library is fixed"
                );
            } else {
                threads::gave_up();
            }
        }
    }
}
