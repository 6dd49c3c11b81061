//! The threads that a plugin's functions run on where they are not known to be quick: as many as are needed, kept for a
//! while, replaced when they do not come back.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Threads that may serve at once; more calls wait.
const SERVING_MAX: usize = 16;

/// The same with those that did not come back.
pub(crate) const ALL_MAX: usize = 64;

/// Calls that wait for a thread; each holds its request.
const WAITING_MAX: usize = 1024;

/// A thread without work ends after so long.
const IDLE_MAX: Duration = Duration::from_secs(10);

/// As much as a program's main thread has: libraries are not written for less.
const STACK_BYTES: usize = 8 << 20;

type Work = Box<dyn FnOnce() + Send>;

/// The threads of one plugin.
#[derive(Clone, Default)]
pub(crate) struct Threads(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    more: Condvar,
}

#[derive(Default)]
struct State {
    work: VecDeque<Work>,
    all: usize,
    idle: usize,
    /// Calls that did not return in time, on threads of this plugin's or of the runtime.
    lost: usize,
}

/// Why there is no thread for a piece of work, as a clause.
#[derive(Debug)]
pub(crate) struct NoThread(pub(crate) String);

impl Threads {
    /// Runs `work` on one of the threads, soon.
    pub(crate) fn run(&self, work: impl FnOnce() + Send + 'static) -> Result<(), NoThread> {
        let mut state = self.lock();
        if state.lost >= ALL_MAX {
            return Err(NoThread(format!("{} of its calls did not return, so it gets no more threads", state.lost)));
        }
        if state.work.len() >= WAITING_MAX {
            return Err(NoThread(format!("{WAITING_MAX} of its calls wait for a thread")));
        }
        if state.idle <= state.work.len() && state.all < SERVING_MAX + state.lost && state.all < ALL_MAX {
            self.start(&mut state)?;
        }
        state.work.push_back(Box::new(work));
        self.0.more.notify_one();
        Ok(())
    }

    /// A call did not return in time.
    pub(crate) fn lost(&self) {
        let mut state = self.lock();
        state.lost += 1;
        if !state.work.is_empty() && state.all < ALL_MAX {
            // What waits has its own deadline if this fails.
            let _ = self.start(&mut state);
        }
    }

    /// One of them returned after all.
    pub(crate) fn came_back(&self) {
        let mut state = self.lock();
        state.lost = state.lost.saturating_sub(1);
    }

    /// Calls that did not return.
    pub(crate) fn lost_count(&self) -> usize {
        self.lock().lost
    }

    fn start(&self, state: &mut State) -> Result<(), NoThread> {
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

    fn lock(&self) -> MutexGuard<'_, State> {
        // What holds it leaves nothing half done.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
