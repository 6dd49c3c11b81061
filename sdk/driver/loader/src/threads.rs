//! The threads that run those functions of a plugin that are not known to be quick: started as needed, kept for a
//! while, and replaced when a function does not return.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How many threads may serve calls at once; further calls wait.
pub(crate) const SERVING_MAX: usize = 16;

/// The same, including threads whose function did not return.
const ALL_MAX: usize = 64;

/// How many calls may wait for a thread; each keeps its request in memory.
const WAITING_MAX: usize = 1024;

/// A thread without work ends after this time.
const IDLE_MAX: Duration = Duration::from_secs(10);

/// The stack size of a program's main thread, which libraries usually expect.
const STACK_BYTES: usize = 8 << 20;

type Work = Box<dyn FnOnce() + Send>;

/// The threads of one plugin.
#[derive(Clone, Default)]
pub(crate) struct Threads(Arc<WorkQueue>);

#[derive(Default)]
struct WorkQueue {
    state: Mutex<WorkState>,
    more: Condvar,
}

#[derive(Default)]
struct WorkState {
    work: VecDeque<Work>,
    all: usize,
    idle: usize,
    /// Calls that did not return in time, on threads of this plugin or of the runtime.
    lost: usize,
}

/// Why there is no thread for some work, as a clause.
#[derive(Debug)]
pub(crate) struct NoThread(pub(crate) String);

impl Threads {
    /// Runs `work` on one of the threads as soon as one is free.
    pub(crate) fn run(&self, work: impl FnOnce() + Send + 'static) -> Result<(), NoThread> {
        let mut state = self.lock();
        if state.lost >= ALL_MAX {
            return Err(NoThread(format!("{} of its calls did not return, so it gets no more threads", state.lost)));
        }
        if state.work.len() >= WAITING_MAX {
            return Err(NoThread(format!("{WAITING_MAX} of its calls are already waiting for a thread")));
        }
        if state.idle <= state.work.len() && state.all < SERVING_MAX + state.lost && state.all < ALL_MAX {
            self.start(&mut state)?;
        }
        state.work.push_back(Box::new(work));
        self.0.more.notify_one();
        Ok(())
    }

    /// Records that a call did not return in time.
    pub(crate) fn lost(&self) {
        let mut state = self.lock();
        state.lost += 1;
        if !state.work.is_empty() && state.all < ALL_MAX {
            // If this fails, the waiting calls still have their own deadlines.
            let _ = self.start(&mut state);
        }
    }

    /// Records that one of them has returned after all.
    pub(crate) fn came_back(&self) {
        let mut state = self.lock();
        state.lost = state.lost.saturating_sub(1);
    }

    /// Calls that did not return.
    pub(crate) fn lost_count(&self) -> usize {
        self.lock().lost
    }

    fn start(&self, state: &mut WorkState) -> Result<(), NoThread> {
        let threads = self.clone();
        let builder = std::thread::Builder::new().name("plugin".into()).stack_size(STACK_BYTES);
        match builder.spawn(move || threads.serve()) {
            Ok(_) => {
                state.all += 1;
                Ok(())
            }
            Err(_) if state.all > state.lost => Ok(()),
            Err(error) => Err(NoThread(format!("no thread can be started for it: {error}"))),
        }
    }

    fn serve(&self) {
        let mut state = self.lock();
        loop {
            if let Some(work) = state.work.pop_front() {
                drop(state);
                work();
                state = self.lock();
                continue;
            }
            state.idle += 1;
            let (guard, wait) = self.0.more.wait_timeout(state, IDLE_MAX).unwrap_or_else(PoisonError::into_inner);
            state = guard;
            state.idle -= 1;
            if wait.timed_out() && state.work.is_empty() {
                break;
            }
        }
        state.all -= 1;
    }

    fn lock(&self) -> MutexGuard<'_, WorkState> {
        // Code that holds this lock never leaves the state inconsistent.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
