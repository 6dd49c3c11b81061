//! A module's threads, for hooks that may block or are not known to be quick. They are started when needed and kept for
//! a while.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{Instant, timeout_at};

use crate::fault::Fault;
use crate::health::Standing;

/// Maximum number of threads of one module.
const THREADS_MAX: usize = 64;

/// How long a thread without work is kept.
const IDLE_MAX: Duration = Duration::from_secs(10);

/// The stack size of a main thread. Libraries are not written for smaller stacks.
const STACK_BYTES: usize = 8 << 20;

/// Number of hooks, of all modules, that did not return in time and still run.
static LATE: AtomicUsize = AtomicUsize::new(0);

/// Whether a thread is stuck in a module: then the process must not wait for its threads to end.
pub fn has_late_threads() -> bool {
    LATE.load(Ordering::SeqCst) > 0
}

/// Called when a hook did not return in time, on whichever thread it runs.
pub(crate) fn one_is_late() {
    LATE.fetch_add(1, Ordering::SeqCst);
}

/// Called when such a hook has returned after all.
pub(crate) fn one_came_back() {
    LATE.fetch_sub(1, Ordering::SeqCst);
}

type Work = Box<dyn FnOnce() + Send>;

/// The threads of one module.
pub(crate) struct Threads {
    module: Arc<Standing>,
    shared: Arc<WorkQueue>,
    /// One for each possible thread; work holds one until it returns.
    permits: Arc<Semaphore>,
}

#[derive(Default)]
struct WorkQueue {
    state: Mutex<WorkState>,
    more: Condvar,
}

#[derive(Default)]
struct WorkState {
    work: VecDeque<Work>,
    idle: usize,
}

impl WorkQueue {
    fn lock(&self) -> MutexGuard<'_, WorkState> {
        // Code that holds this lock never leaves the state inconsistent.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Threads {
    pub(crate) fn new(module: Arc<Standing>) -> Threads {
        Threads { module, shared: Arc::default(), permits: Arc::new(Semaphore::new(THREADS_MAX)) }
    }

    /// Runs `work` on a thread, for at most `limit`. Waiting for a free thread may take as long again.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        limit: Duration,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Fault> {
        let permit = timeout_at(Instant::now() + limit, Arc::clone(&self.permits).acquire_owned()).await;
        let permit = match permit {
            Ok(Ok(permit)) => permit,
            _ => return Err(Fault::NoThread(format!("all of its {THREADS_MAX} threads are busy"))),
        };
        let (sender, receiver) = oneshot::channel();
        let ended = Arc::new(AtomicUsize::new(0));
        let theirs = Arc::clone(&ended);
        self.start(Box::new(move || {
            let done = work();
            drop(permit);
            if theirs.swap(2, Ordering::SeqCst) == 1 {
                one_came_back();
            }
            // Nobody waits any more if the work is late or the client is gone.
            let _ = sender.send(done);
        }))?;
        let running = Running { receiver, ended, deadline: Instant::now() + limit, limit };
        let mut wait = Wait { running: Some(running), module: Arc::clone(&self.module) };
        let returned = match &mut wait.running {
            Some(running) => running.returned().await,
            None => Err(Fault::Lost),
        };
        wait.running = None;
        returned
    }

    fn start(&self, work: Work) -> Result<(), Fault> {
        let mut state = self.shared.lock();
        state.work.push_back(work);
        if state.idle >= state.work.len() {
            self.shared.more.notify_one();
            return Ok(());
        }
        let shared = Arc::clone(&self.shared);
        let builder = std::thread::Builder::new().name("module".into()).stack_size(STACK_BYTES);
        match builder.spawn(move || serve(&shared)) {
            Ok(_) => Ok(()),
            Err(error) => {
                state.work.pop_back();
                Err(Fault::NoThread(format!("no thread can be started for it: {error}")))
            }
        }
    }
}

/// Work that runs on a thread.
struct Running<T> {
    receiver: oneshot::Receiver<T>,
    /// 1: late; 2: returned. Whichever comes second sees the other's value.
    ended: Arc<AtomicUsize>,
    deadline: Instant,
    limit: Duration,
}

impl<T> Running<T> {
    /// The result of the work, if it returns in time.
    async fn returned(&mut self) -> Result<T, Fault> {
        match timeout_at(self.deadline, &mut self.receiver).await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(_)) => Err(Fault::Lost),
            Err(_) => {
                if self.ended.swap(1, Ordering::SeqCst) == 2 {
                    // It returned at the last moment.
                    return (&mut self.receiver).await.map_err(|_| Fault::Lost);
                }
                one_is_late();
                Err(Fault::Late(self.limit))
            }
        }
    }
}

/// Waits for work. If this is dropped early because the client is gone, a task continues to wait: work that does not
/// return still occupies its thread and counts as a failure.
struct Wait<T: Send + 'static> {
    /// `None` once the wait has ended.
    running: Option<Running<T>>,
    module: Arc<Standing>,
}

impl<T: Send + 'static> Drop for Wait<T> {
    fn drop(&mut self) {
        if let Some(mut running) = self.running.take()
            && let Ok(runtime) = Handle::try_current()
        {
            let module = Arc::clone(&self.module);
            drop(runtime.spawn(async move {
                if let Err(fault) = running.returned().await {
                    module.strike(&fault);
                }
            }));
        }
    }
}

fn serve(shared: &WorkQueue) {
    let mut state = shared.lock();
    loop {
        if let Some(work) = state.work.pop_front() {
            drop(state);
            work();
            state = shared.lock();
            continue;
        }
        state.idle += 1;
        let (guard, wait) = shared.more.wait_timeout(state, IDLE_MAX).unwrap_or_else(PoisonError::into_inner);
        state = guard;
        state.idle -= 1;
        if wait.timed_out() && state.work.is_empty() {
            break;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn threads() -> Threads {
        Threads::new(Arc::new(Standing::new("m".to_owned(), false)))
    }

    #[tokio::test]
    async fn work_that_nobody_waits_for_is_given_up_too() {
        let threads = threads();
        let (sender, receiver) = std::sync::mpsc::channel::<()>();
        {
            let mut run = Box::pin(threads.run(Duration::from_millis(20), move || receiver.recv().is_ok()));
            assert!(futures::poll!(&mut run).is_pending());
        }
        let late = || threads.module.health.counts().any(|count| count == ("timeout", 1));
        while !late() {
            tokio::task::yield_now().await;
        }
        drop(sender);
    }

    #[tokio::test]
    async fn work_that_does_not_return_is_given_up() {
        let threads = threads();
        assert_eq!(threads.run(Duration::from_secs(60), || 7).await.unwrap(), 7);
        let (sender, receiver) = std::sync::mpsc::channel::<()>();
        let limit = Duration::from_millis(20);
        let late = threads.run(limit, move || receiver.recv().is_ok()).await;
        assert!(matches!(late, Err(Fault::Late(_))), "{late:?}");
        assert!(has_late_threads());
        drop(sender);
        while has_late_threads() {
            tokio::task::yield_now().await;
        }
        assert_eq!(threads.run(Duration::from_secs(60), || 8).await.unwrap(), 8);
    }
}
