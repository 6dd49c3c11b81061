//! Quick hooks run directly on a thread of the runtime, because two thread switches would cost more than the hook.
//!
//! A hook that does not return then blocks that thread forever. So only hooks that have returned quickly so far run
//! here, and at most as many at once as the runtime has spare threads in addition to the configured ones
//! ([`spare_threads`]): a blocked thread only reduces the spare ones. A watchdog thread in this file notifies waiters
//! of timeouts, because timers of the runtime may stop while their thread is blocked.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, Once, PoisonError};
use std::time::{Duration, Instant};

use crate::fault::Fault;
use crate::health::Standing;
use crate::task::Guard;
use crate::threads;

/// A hook that takes at most this long is quick.
const QUICK_MAX: Duration = Duration::from_micros(200);

/// How many calls in a row must be quick before a hook counts as quick.
const QUICK_CALLS: u32 = 8;

/// How many times to try to take a slot. This takes a microsecond or two, longer than most hooks run; switching to one
/// of the module's threads costs ten times as much.
const LOOKS: u32 = 100;

/// Time between two checks of the running hooks.
const TICK: Duration = Duration::from_millis(5);

/// After this many checks without a running hook the watchdog sleeps.
const IDLE_TICKS: u32 = 200;

/// Maximum number of spare threads, and so of hooks that run inline at once.
const SPARE_MAX: usize = 16;

static SLOTS: [Slot; SPARE_MAX] =
    [const { Slot { is_taken: AtomicBool::new(false), call: Mutex::new(None) } }; SPARE_MAX];
/// How many slots may be taken.
static SPARE: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// The slot that this thread took last.
    static LAST: Cell<usize> = const { Cell::new(0) };
}

/// Returns how many threads the runtime should have in addition to `workers`. From then on, that many hooks may run
/// inline at once.
pub fn spare_threads(workers: usize) -> usize {
    let spare = workers.div_ceil(2).min(SPARE_MAX);
    SPARE.store(spare, Ordering::Relaxed);
    spare
}

/// Has separate cache lines, because mostly the same thread uses it.
#[repr(align(128))]
struct Slot {
    is_taken: AtomicBool,
    call: Mutex<Option<Running>>,
}

struct Running {
    since: Instant,
    limit: Duration,
    guard: Arc<Guard>,
    module: Arc<Standing>,
    /// Whether another thread of the runtime was woken to take over this one's work.
    made_way: bool,
    is_late: bool,
}

impl Slot {
    fn call(&self) -> MutexGuard<'_, Option<Running>> {
        // Code that holds this lock never leaves the state inconsistent.
        self.call.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn take_slot(spare: usize) -> Option<&'static Slot> {
    let first = LAST.get().min(spare);
    let index = (first..spare).chain(0..first).find(|index| {
        let is_taken = &SLOTS[*index].is_taken;
        !is_taken.load(Ordering::Relaxed)
            && is_taken.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_ok()
    })?;
    LAST.set(index);
    Some(&SLOTS[index])
}

/// A permit to run one hook on this thread of the runtime.
pub(crate) struct Permit {
    slot: &'static Slot,
    since: Instant,
}

impl Permit {
    /// `None` if the maximum number of hooks already runs inline. If the hook takes longer than `limit`, the waiter of
    /// `guard` is notified and the module gets a strike.
    pub(crate) fn take(guard: &Arc<Guard>, module: &Arc<Standing>, limit: Duration) -> Option<Permit> {
        let spare = SPARE.load(Ordering::Relaxed);
        guard.runtime.as_ref()?;
        // Without spare threads, no slot will ever be free.
        let looks = if spare == 0 { 0 } else { LOOKS };
        let slot = (0..looks).find_map(|look| {
            if look > 0 {
                std::hint::spin_loop();
            }
            take_slot(spare)
        })?;
        let since = Instant::now();
        let (guard, module) = (Arc::clone(guard), Arc::clone(module));
        *slot.call() = Some(Running { since, limit, guard, module, made_way: false, is_late: false });
        watch();
        Some(Permit { slot, since })
    }

    /// Called when the hook has returned; returns its duration. `None` if it was late, so that the waiter was already
    /// notified.
    pub(crate) fn end(self) -> Option<Duration> {
        let took = self.since.elapsed();
        let was_late = self.slot.call().take().is_some_and(|running| running.is_late);
        if was_late {
            threads::one_came_back();
        }
        (!was_late).then_some(took)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.slot.is_taken.store(false, Ordering::Release);
    }
}

/// How quick the calls of a hook have been so far.
#[derive(Default)]
pub(crate) struct Pace(AtomicU32);

impl Pace {
    pub(crate) fn is_quick(&self) -> bool {
        self.0.load(Ordering::Relaxed) >= QUICK_CALLS
    }

    pub(crate) fn took(&self, time: Duration) {
        // An error only means that the value does not change.
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |calls| match calls {
            0 if time > QUICK_MAX => None,
            _ if time > QUICK_MAX => Some(0),
            calls if calls < QUICK_CALLS => Some(calls + 1),
            _ => None,
        });
    }
}

static IS_ASLEEP: AtomicBool = AtomicBool::new(false);
static LOCK: Mutex<()> = Mutex::new(());
static WOKEN: Condvar = Condvar::new();

/// Starts or wakes the watchdog thread.
fn watch() {
    static STARTED: Once = Once::new();
    STARTED.call_once(|| {
        let started = std::thread::Builder::new().name("module-watch".into()).spawn(look_forever);
        if let Err(error) = started {
            // Without the watchdog, waiting for a hook that does not return would never end.
            SPARE.store(0, Ordering::Relaxed);
            tracing::error!(
                "modules run only on their own threads, because the watchdog thread cannot be started: {error}"
            );
        }
    });
    // Pairs with the fence in `sleep`: either `sleep` sees the taken slot, or this sees that the watchdog sleeps.
    std::sync::atomic::fence(Ordering::SeqCst);
    if IS_ASLEEP.load(Ordering::SeqCst) {
        let _guard = LOCK.lock().unwrap_or_else(PoisonError::into_inner);
        IS_ASLEEP.store(false, Ordering::SeqCst);
        WOKEN.notify_one();
    }
}

fn look_forever() {
    let mut idle = 0;
    loop {
        std::thread::sleep(TICK);
        idle = if look() { 0 } else { idle + 1 };
        if idle >= IDLE_TICKS {
            sleep();
            idle = 0;
        }
    }
}

/// Checks the running hooks. Returns whether there are any.
fn look() -> bool {
    let mut is_any = false;
    for slot in &SLOTS {
        if !slot.is_taken.load(Ordering::Relaxed) {
            continue;
        }
        is_any = true;
        let mut call = slot.call();
        let Some(running) = &mut *call else { continue };
        let time = running.since.elapsed();
        if time > QUICK_MAX && !running.made_way {
            running.made_way = true;
            // Wakes another thread: the runtime does not do so for the sockets and timers that the blocked thread
            // polled.
            if let Some(runtime) = &running.guard.runtime {
                drop(runtime.spawn(async {}));
            }
        }
        if time > running.limit && !running.is_late {
            running.is_late = true;
            threads::one_is_late();
            running.module.distrust();
            running.module.strike(&Fault::Late(running.limit));
            running.guard.give_up();
        }
    }
    is_any
}

fn sleep() {
    let mut guard = LOCK.lock().unwrap_or_else(PoisonError::into_inner);
    IS_ASLEEP.store(true, Ordering::SeqCst);
    std::sync::atomic::fence(Ordering::SeqCst);
    while IS_ASLEEP.load(Ordering::SeqCst) {
        if SLOTS.iter().any(|slot| slot.is_taken.load(Ordering::SeqCst)) {
            IS_ASLEEP.store(false, Ordering::SeqCst);
            break;
        }
        guard = WOKEN.wait(guard).unwrap_or_else(PoisonError::into_inner);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hook_is_trusted_while_it_is_quick() {
        let pace = Pace::default();
        for _ in 0..QUICK_CALLS {
            assert!(!pace.is_quick());
            pace.took(Duration::ZERO);
        }
        assert!(pace.is_quick());
        pace.took(QUICK_MAX * 2);
        assert!(!pace.is_quick());
        (0..QUICK_CALLS).for_each(|_| pace.took(QUICK_MAX));
        assert!(pace.is_quick());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn who_waits_for_a_late_hook_is_told() {
        assert_eq!(spare_threads(1), 1);
        let (guard, module) = (Guard::new(None), Arc::new(Standing::new("m".to_owned(), false)));
        let permit = Permit::take(&guard, &module, Duration::from_millis(20)).unwrap();
        assert!(Permit::take(&guard, &module, Duration::from_secs(9)).is_none(), "there is one spare thread");
        guard.given_up().await;
        assert!(permit.end().is_none() && !module.is_trusted());
        let permit = Permit::take(&guard, &module, Duration::from_secs(60)).unwrap();
        assert!(permit.end().is_some());
    }
}
