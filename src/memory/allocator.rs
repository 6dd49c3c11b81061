//! Returns free memory to the system.
//!
//! The allocator keeps freed memory per thread, and returns it only when the thread allocates again. On an idle server
//! that may never happen, so large work signals its end, and each thread returns its memory before it sleeps.
#![expect(unsafe_code, reason = "functions of the allocators that no crate wraps")]

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mimalloc as _;
use tokio::runtime::Handle;
use tokio::sync::Notify;

/// Pause after the end of work, which covers further work in that time.
const PAUSE: Duration = Duration::from_millis(500);

/// How often all threads of the runtime are woken, and the interval: a busy thread returns its memory when it becomes
/// idle.
const ROUNDS: usize = 4;
const ROUND: Duration = Duration::from_millis(50);

/// Counts requests.
static ASKED: AtomicU64 = AtomicU64::new(0);
static LARGE_WORK: Notify = Notify::const_new();

thread_local! {
    static DONE: Cell<u64> = const { Cell::new(0) };
}

/// Signals the end of large work.
pub fn large_work_done() {
    LARGE_WORK.notify_one();
}

/// Called by a thread that is about to sleep.
pub fn before_sleep() {
    // Relaxed: a thread that sees it late returns its memory at its next sleep.
    let asked = ASKED.load(Ordering::Relaxed);
    if DONE.replace(asked) != asked {
        give_back();
    }
}

/// Returns memory after each large work. Never returns itself. `threads`: the number of threads of its runtime.
pub async fn keep_giving_back(threads: usize) {
    loop {
        LARGE_WORK.notified().await;
        tokio::time::sleep(PAUSE).await;
        ASKED.fetch_add(1, Ordering::Relaxed);
        for _ in 0..ROUNDS {
            // Each wakes a sleeping thread, which then sleeps again.
            for _ in 0..threads {
                Handle::current().spawn(async {});
            }
            tokio::time::sleep(ROUND).await;
        }
        give_back_of_libraries();
    }
}

unsafe extern "C" {
    /// mimalloc's function that returns unused memory of the calling thread and of ended threads.
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
