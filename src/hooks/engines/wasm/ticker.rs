//! The clock of epoch interruption: one thread that ticks while calls run and sleeps otherwise.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, Thread};
use std::time::Duration;

use wasmtime::Engine;

/// Time between two ticks: how long guest code may run before the host checks it.
pub(super) const TICK: Duration = Duration::from_millis(1);

/// How many ticks without a running call pass before the thread sleeps; this avoids a wake-up per call under steady
/// load.
const LINGER_TICKS: u32 = 100;

/// Counts running calls and keeps the thread awake for them.
pub(super) struct Ticker {
    shared: Arc<TickerState>,
    thread: Thread,
}

#[derive(Default)]
struct TickerState {
    running: AtomicUsize,
    parked: AtomicBool,
}

impl Ticker {
    pub(super) fn start(engine: Engine) -> std::io::Result<Self> {
        let shared = Arc::new(TickerState::default());
        let seen = shared.clone();
        let handle = thread::Builder::new().name("hook-epoch".into()).spawn(move || tick(&engine, &seen))?;
        Ok(Ticker { shared, thread: handle.thread().clone() })
    }

    /// Keeps the clock ticking until the guard is dropped.
    pub(super) fn enter(&self) -> Running {
        // Pairs with `tick`: either it sees the count before it parks, or this code sees the flag.
        self.shared.running.fetch_add(1, Ordering::SeqCst);
        if self.shared.parked.load(Ordering::SeqCst) {
            self.thread.unpark();
        }
        Running(self.shared.clone())
    }
}

/// One running call.
pub(super) struct Running(Arc<TickerState>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}

fn tick(engine: &Engine, shared: &TickerState) {
    let mut idle_ticks = 0;
    loop {
        thread::sleep(TICK);
        engine.increment_epoch();
        if shared.running.load(Ordering::SeqCst) > 0 {
            idle_ticks = 0;
            continue;
        }
        idle_ticks += 1;
        if idle_ticks < LINGER_TICKS {
            continue;
        }
        shared.parked.store(true, Ordering::SeqCst);
        while shared.running.load(Ordering::SeqCst) == 0 {
            thread::park();
        }
        shared.parked.store(false, Ordering::SeqCst);
        idle_ticks = 0;
    }
}
