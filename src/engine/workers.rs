//! Threads for checks that could block a request thread for too long: documents and schemas whose cost their sender
//! decides.
//!
//! They use at most half of the cores and have a low priority. Models take turns, so a client that sends such documents
//! to one model delays only that model. Work ends when nobody waits for it.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::error::{Error, ErrorKind, Result};
use crate::catalog::Effort;
use crate::telemetry::trace::scope;

/// Maximum number of waiting checks, of all models and of one.
const WAITING_MAX: usize = 256;
const WAITING_OF_ONE_MAX: usize = 64;
/// Maximum time of a check, including its wait.
const WAIT_MAX: Duration = Duration::from_secs(4);
/// The niceness of the threads.
const NICE: i32 = 5;

type Job = Box<dyn FnOnce() + Send>;

/// The threads and their queue. They end when it is dropped.
pub(super) struct Workers {
    queue: Arc<Queue>,
}

#[derive(Default)]
struct Queue {
    waiting: Mutex<WaitingJobs>,
    changed: Condvar,
}

#[derive(Default)]
struct WaitingJobs {
    by_model: HashMap<String, VecDeque<Job>>,
    /// Models with jobs; the first is next.
    turns: VecDeque<String>,
    count: usize,
    stopped: bool,
}

/// Signals to a job that nobody waits for it.
struct Gone(Arc<AtomicBool>);

impl Drop for Gone {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Workers {
    pub(super) fn start() -> std::io::Result<Workers> {
        let workers = Workers { queue: Arc::default() };
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        for _ in 0..(cores / 2).max(1) {
            let queue = Arc::clone(&workers.queue);
            std::thread::Builder::new()
                .name("checks".to_owned())
                .stack_size(Effort::STACK_BYTES)
                .spawn(move || queue.serve())?;
        }
        Ok(workers)
    }

    /// Runs `work` when it is the model's turn. The work must respect the given effort.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        model: &str,
        work: impl FnOnce(&Effort) -> T + Send + 'static,
    ) -> Result<T> {
        let (sender, receiver) = oneshot::channel();
        let gone = Gone(Arc::default());
        let cancelled = Arc::clone(&gone.0);
        let until = Instant::now() + WAIT_MAX;
        let scope = scope::current();
        self.queue.push(
            model,
            Box::new(move || {
                if !cancelled.load(Ordering::Relaxed) {
                    let effort = Effort::whole(Some(until), Some(cancelled));
                    let _ = sender.send(scope::on_thread(scope, || work(&effort)));
                }
            }),
        )?;
        // A job checks its own deadline, but only once it has its turn.
        let result = tokio::time::timeout_at(until.into(), receiver).await.map_err(|_| late())?;
        result.map_err(|_| Error::new(ErrorKind::Storage, "a check ended without a result; try again"))
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        let mut waiting = self.queue.lock();
        waiting.stopped = true;
        waiting.by_model.clear();
        drop(waiting);
        self.queue.changed.notify_all();
    }
}

/// The error of a check that ran out of time.
pub(super) fn late() -> Error {
    Error::new(
        ErrorKind::Overloaded,
        format!("the check was not done within {} ms, since many others wait; try again later", WAIT_MAX.as_millis()),
    )
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, WaitingJobs> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, model: &str, job: Job) -> Result<()> {
        let mut waiting = self.lock();
        let full = |count: usize, of: &str| {
            Err(Error::new(
                ErrorKind::Overloaded,
                format!("{count} checks of large documents{of} are already waiting; try again later"),
            ))
        };
        if waiting.count >= WAITING_MAX {
            return full(waiting.count, "");
        }
        match waiting.by_model.get_mut(model) {
            Some(jobs) if jobs.len() >= WAITING_OF_ONE_MAX => return full(jobs.len(), &format!(" of `{model}`")),
            Some(jobs) => jobs.push_back(job),
            None => {
                waiting.by_model.insert(model.to_owned(), VecDeque::from([job]));
                waiting.turns.push_back(model.to_owned());
            }
        }
        waiting.count += 1;
        drop(waiting);
        self.changed.notify_one();
        Ok(())
    }

    /// The next job; `None` at the end.
    fn next(&self) -> Option<Job> {
        let mut waiting = self.lock();
        loop {
            if waiting.stopped {
                return None;
            }
            if let Some(model) = waiting.turns.pop_front() {
                waiting.count -= 1;
                let jobs = waiting.by_model.get_mut(&model)?;
                let job = jobs.pop_front();
                if jobs.is_empty() {
                    waiting.by_model.remove(&model);
                } else {
                    waiting.turns.push_back(model);
                }
                return job;
            }
            waiting = self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn serve(&self) {
        // On Linux the priority applies to the thread.
        let _ = rustix::process::nice(NICE);
        while let Some(job) = self.next() {
            // A panic ends only the job; its caller gets no result.
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(job));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Workers with one thread that is held until the sender sends.
    async fn held() -> (Arc<Workers>, std::sync::mpsc::Sender<()>, tokio::task::JoinHandle<()>) {
        let workers = Arc::new(Workers { queue: Arc::default() });
        let queue = Arc::clone(&workers.queue);
        std::thread::spawn(move || queue.serve());
        let (release, wait) = std::sync::mpsc::channel::<()>();
        let (started, has_started) = oneshot::channel();
        let holder = Arc::clone(&workers);
        let holding = tokio::spawn(async move {
            let work = move |_: &Effort| {
                let _ = started.send(());
                let _ = wait.recv();
            };
            holder.run("held", work).await.unwrap();
        });
        has_started.await.unwrap();
        (workers, release, holding)
    }

    #[tokio::test]
    async fn models_take_turns() {
        let (workers, release, holding) = held().await;
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut waiting = Vec::new();
        for model in ["a", "a", "a", "b", "c", "b"] {
            let order = Arc::clone(&order);
            let (queue, before) = (Arc::clone(&workers), workers.queue.lock().count);
            waiting.push(tokio::spawn(async move {
                queue.run(model, move |_| order.lock().unwrap().push(model)).await.unwrap();
            }));
            while workers.queue.lock().count == before {
                tokio::task::yield_now().await;
            }
        }
        release.send(()).unwrap();
        holding.await.unwrap();
        for task in waiting {
            task.await.unwrap();
        }
        assert_eq!(*order.lock().unwrap(), ["a", "b", "c", "a", "b", "a"]);
    }

    #[tokio::test]
    async fn what_nobody_waits_for_is_not_begun() {
        let (workers, release, holding) = held().await;
        let ran = Arc::new(AtomicBool::new(false));
        let (queue, flag) = (Arc::clone(&workers), Arc::clone(&ran));
        let gone = tokio::spawn(async move { queue.run("a", move |_| flag.store(true, Ordering::SeqCst)).await });
        while workers.queue.lock().count == 0 {
            tokio::task::yield_now().await;
        }
        gone.abort();
        assert!(gone.await.unwrap_err().is_cancelled());
        release.send(()).unwrap();
        holding.await.unwrap();
        workers.run("b", |_| ()).await.unwrap();
        assert!(!ran.load(Ordering::SeqCst));
    }

    #[tokio::test]
    async fn the_queue_has_an_end_and_panics_end_nothing() {
        let (workers, release, holding) = held().await;
        let mut waiting = Vec::new();
        for _ in 0..WAITING_OF_ONE_MAX {
            let queue = Arc::clone(&workers);
            waiting.push(tokio::spawn(async move { queue.run("a", |_| ()).await }));
        }
        while workers.queue.lock().count < WAITING_OF_ONE_MAX {
            tokio::task::yield_now().await;
        }
        let full = workers.run("a", |_| ()).await.unwrap_err();
        assert_eq!((full.kind, full.detail.contains("of `a` are already waiting")), (ErrorKind::Overloaded, true));
        let queue = Arc::clone(&workers);
        let panics = tokio::spawn(async move {
            queue.run("b", |_| std::panic::resume_unwind(Box::new("a panic that is meant"))).await
        });
        release.send(()).unwrap();
        holding.await.unwrap();
        assert_eq!(panics.await.unwrap().unwrap_err().kind, ErrorKind::Storage);
        for task in waiting {
            task.await.unwrap().unwrap();
        }
        workers.run("a", |_| ()).await.unwrap();
    }
}
