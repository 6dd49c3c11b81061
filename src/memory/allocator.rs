//! Memory that is free, back to the system.
//!
//! The allocator keeps what a thread freed for that thread, and gives it back when the thread allocates again. After large
//! work on an idle server that is never: so large work says that it is done, and each thread gives back before it sleeps.
#![expect(unsafe_code, reason = "functions of the allocators that no crate wraps")]

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mimalloc as _;
use tokio::runtime::Handle;
use tokio::sync::Notify;

/// After work was done; what else is done in that time is covered too.
const PAUSE: Duration = Duration::from_millis(500);

/// How often all threads of the runtime are woken, and the time between: a thread that is busy sees to it when it is not.
const ROUNDS: usize = 4;
const ROUND: Duration = Duration::from_millis(50);

/// Counts what was asked for.
static ASKED: AtomicU64 = AtomicU64::new(0);
static LARGE_WORK: Notify = Notify::const_new();

thread_local! {
    static DONE: Cell<u64> = const { Cell::new(0) };
}

/// Large work is done: much may be free now.
pub fn large_work_done() {
    LARGE_WORK.notify_one();
}

/// For a thread that is about to sleep.
pub fn before_sleep() {
    // Relaxed: a thread that sees it late gives back at its next sleep.
    let asked = ASKED.load(Ordering::Relaxed);
    if DONE.replace(asked) != asked {
        give_back();
    }
}

/// Gives back after each large work, for ever. `threads`: of the runtime that it runs on.
pub async fn keep_giving_back(threads: usize) {
    loop {
        LARGE_WORK.notified().await;
        tokio::time::sleep(PAUSE).await;
        ASKED.fetch_add(1, Ordering::Relaxed);
        for _ in 0..ROUNDS {
            // Each wakes a thread that sleeps, which sleeps again.
            for _ in 0..threads {
                Handle::current().spawn(async {});
            }
            tokio::time::sleep(ROUND).await;
        }
        give_back_of_libraries();
    }
}

unsafe extern "C" {
    /// Of mimalloc: gives back what the calling thread does not need, and what threads that ended left.
    fn mi_collect(force: bool);
}

fn give_back() {
    // SAFETY: mimalloc is linked into every binary of this crate, and this function of it takes no pointer and may be called
    // from any thread at any time.
    unsafe { mi_collect(true) };
}

/// SQLite and other C code use the system's allocator.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn give_back_of_libraries() {
    // SAFETY: it takes no pointer and may be called from any thread at any time.
    unsafe { libc::malloc_trim(0) };
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn give_back_of_libraries() {}
