//! The one thread that writes: takes everything that waits, appends it with one fsync, applies it to the model
//! store, publishes it, answers.
//!
//! Invariants: an answer is sent only after the event store said that the event is durable; events reach the model
//! store, the tail and the answers in the order of their positions; event times never go back.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use snaphook_driver::time::{self, Millis};
use snaphook_driver::{Append, Conflict, Event, EventStore, ModelStore, Position};
use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot};

use super::availability::{Availability, Outage};
use super::error::{Error, ErrorKind, Result};
use super::metrics::Metrics;
use super::models::Models;
use super::replay;
use super::tail::Tail;
use super::waiters::Waiters;
use super::write::stopped;

/// Commands that may wait; beyond it callers are told to come back. At 40,000 commits a second it is a quarter of a
/// second's work.
const QUEUE_MAX: usize = 10_000;
/// Bytes of data that may wait. What requests wait with is counted in the memory budget already; this bounds what hooks write.
const QUEUE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Appends that share one fsync at most, so that no answer waits for a very large batch.
const BATCH_MAX: usize = 1024;
/// Delay before a model store that failed is tried again; doubles with each further time.
const CATCH_UP_FIRST: Duration = Duration::from_millis(100);
const CATCH_UP_MAX: Duration = Duration::from_secs(10);

/// What the caller of an append learns.
pub(super) type Answer = Result<std::result::Result<Committed, Conflict>>;

/// An event that is durable.
#[derive(Clone, Copy, Debug)]
pub(super) struct Committed {
    pub(super) position: Position,
    pub(super) time: Millis,
}

/// An append that waits.
pub(super) struct Pending {
    pub(super) append: Append,
    pub(super) answer: oneshot::Sender<Answer>,
    /// The consumer group of the model, if it has post hooks for this event.
    pub(super) wake: Option<Arc<Notify>>,
    /// Told when the post hooks of the event ended.
    pub(super) settled: Option<oneshot::Sender<()>>,
}

type Exclusive = Box<dyn FnOnce(&mut Writer) + Send>;

#[expect(clippy::large_enum_variant, reason = "nearly every job is an append: boxing it would cost each commit")]
enum Job {
    Append(Pending),
    Exclusive(Exclusive),
}

#[derive(Default)]
struct Queue {
    jobs: Vec<Job>,
    bytes: usize,
    closed: bool,
}

struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
}

/// The handle to the thread.
pub(super) struct Committer {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What the thread works on.
pub(super) struct Writer {
    pub(super) events: Arc<dyn EventStore>,
    pub(super) store: Arc<dyn ModelStore>,
    pub(super) models: Arc<Models>,
    pub(super) tail: Arc<Tail>,
    pub(super) waiters: Arc<Waiters>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) availability: Arc<Availability>,
    pub(super) runtime: Handle,
    /// Time of the last event.
    pub(super) last_time: Millis,
    /// The model store missed events; it must catch up from the log before anything else.
    pub(super) behind: bool,
}

impl Committer {
    pub(super) fn start(writer: Writer) -> std::io::Result<Committer> {
        let shared = Arc::new(Shared { queue: Mutex::default(), wake: Condvar::new() });
        let thread = std::thread::Builder::new().name("committer".to_owned()).spawn({
            let shared = Arc::clone(&shared);
            move || run(&shared, writer)
        })?;
        Ok(Committer { shared, thread: Mutex::new(Some(thread)) })
    }

    /// Queues an append; the answer comes through its channel. `overloaded` if too much waits.
    pub(super) fn submit(&self, pending: Pending) -> Result<()> {
        let bytes = pending.append.event.data.as_ref().map_or(0, |data| data.len());
        let mut queue = self.lock();
        if queue.closed {
            return Err(stopped());
        }
        if queue.jobs.len() >= QUEUE_MAX || queue.bytes + bytes > QUEUE_BYTES_MAX {
            return Err(Error::new(
                ErrorKind::Overloaded,
                format!("{} changes wait to be written already; try again in a second", queue.jobs.len()),
            ));
        }
        queue.bytes += bytes;
        queue.jobs.push(Job::Append(pending));
        let first = queue.jobs.len() == 1;
        drop(queue);
        if first {
            self.shared.wake.notify_one();
        }
        Ok(())
    }

    /// Runs `work` on the thread, alone: nothing is appended meanwhile.
    pub(super) async fn exclusive<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Writer) -> T + Send + 'static,
    ) -> Result<T> {
        let (sender, receiver) = oneshot::channel();
        {
            let mut queue = self.lock();
            if queue.closed {
                return Err(stopped());
            }
            queue.jobs.push(Job::Exclusive(Box::new(move |writer| {
                let _ = sender.send(work(writer));
            })));
        }
        self.shared.wake.notify_one();
        receiver.await.map_err(|_| stopped())
    }

    /// Writes what waits, then ends the thread.
    pub(super) async fn close(&self) {
        self.lock().closed = true;
        self.shared.wake.notify_one();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }

    /// Commands that wait.
    pub(super) fn waiting(&self) -> usize {
        self.lock().jobs.len()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Queue> {
        self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn run(shared: &Shared, mut writer: Writer) {
    let mut jobs = Vec::new();
    let mut batch = Vec::new();
    let mut delay = CATCH_UP_FIRST;
    loop {
        {
            let mut queue = shared.queue.lock().unwrap_or_else(PoisonError::into_inner);
            while queue.jobs.is_empty() {
                if queue.closed {
                    return;
                }
                if !writer.behind {
                    delay = CATCH_UP_FIRST;
                    queue = shared.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
                    continue;
                }
                let waited = shared.wake.wait_timeout(queue, delay).unwrap_or_else(PoisonError::into_inner);
                queue = waited.0;
                if waited.1.timed_out() {
                    drop(queue);
                    // Nobody may come who would have it done: what is refused is not even queued.
                    if let Err(error) = writer.catch_up() {
                        tracing::error!("the model store cannot catch up yet: {error}");
                    }
                    delay = (delay * 2).min(CATCH_UP_MAX);
                    queue = shared.queue.lock().unwrap_or_else(PoisonError::into_inner);
                }
            }
            std::mem::swap(&mut queue.jobs, &mut jobs);
            queue.bytes = 0;
        }
        for job in jobs.drain(..) {
            match job {
                Job::Append(pending) => {
                    batch.push(pending);
                    if batch.len() == BATCH_MAX {
                        writer.commit(&mut batch);
                    }
                }
                Job::Exclusive(work) => {
                    writer.commit(&mut batch);
                    work(&mut writer);
                }
            }
        }
        writer.commit(&mut batch);
    }
}

impl Writer {
    /// Appends a batch and tells everybody. Empties `batch`.
    fn commit(&mut self, batch: &mut Vec<Pending>) {
        if batch.is_empty() {
            return;
        }
        // A caller that went away before its command was looked at has not been answered: nothing needs to happen.
        batch.retain(|pending| !pending.answer.is_closed());
        if let Err(error) = self.catch_up() {
            let detail = error.detail;
            for pending in batch.drain(..) {
                let _ = pending.answer.send(Err(Error::new(ErrorKind::Storage, detail.clone())));
            }
            return;
        }
        let mut appends = Vec::with_capacity(batch.len());
        let mut callers = Vec::with_capacity(batch.len());
        for pending in batch.drain(..) {
            appends.push(pending.append);
            callers.push((pending.answer, pending.wake, pending.settled));
        }
        match self.append(&mut appends) {
            Err(error) => {
                for (answer, ..) in callers {
                    let _ = answer.send(Err(Error::new(ErrorKind::Storage, error.detail.clone())));
                }
            }
            Ok(results) => {
                let mut events = Vec::with_capacity(appends.len());
                for ((append, result), (_, _, settled)) in appends.into_iter().zip(&results).zip(&mut callers) {
                    if let Ok(committed) = result {
                        // Before anybody can see the event, so that its end cannot be missed.
                        if let Some(settled) = settled.take() {
                            self.waiters.add(committed.position, settled);
                        }
                        events.push(Event { position: committed.position, ..append.event });
                    }
                }
                self.apply(events);
                for ((answer, wake, _), result) in callers.into_iter().zip(results) {
                    if result.is_ok()
                        && let Some(wake) = wake
                    {
                        wake.notify_one();
                    }
                    let _ = answer.send(Ok(result));
                }
            }
        }
    }

    /// Stamps and appends; each row succeeds or fails for itself.
    pub(super) fn append(&mut self, appends: &mut [Append]) -> Result<Vec<std::result::Result<Committed, Conflict>>> {
        self.last_time = self.last_time.max(time::now());
        for append in appends.iter_mut() {
            append.event.time = self.last_time;
        }
        let time = self.last_time;
        let results = self.runtime.block_on(self.events.append(appends, false)).inspect_err(|error| {
            tracing::error!(events = appends.len(), "the event store failed: {error}");
        })?;
        self.metrics.batch(results.len(), results.iter().filter(|result| result.is_err()).count());
        Ok(results.into_iter().map(|result| result.map(|position| Committed { position, time })).collect())
    }

    /// Brings instance events that are durable to the model store and to listeners. They are acknowledged whatever
    /// happens here: the log can give back what the model store misses.
    pub(super) fn apply(&mut self, events: Vec<Event>) {
        let Some(last) = events.last().map(|event| event.position) else { return };
        if let Err(error) = self.runtime.block_on(self.store.apply(&events, last)) {
            tracing::error!("the model store failed, it will catch up from the log: {error}");
            self.fell_behind();
        }
        self.tail.publish(events.into_iter().map(Arc::new));
    }

    /// Lets the model store read what it missed.
    pub(super) fn catch_up(&mut self) -> Result<()> {
        if self.behind {
            let progress = replay::Progress::default();
            self.runtime.block_on(replay::run(&self.events, &self.store, &progress))?;
            self.caught_up();
            tracing::info!("the model store has caught up");
        }
        Ok(())
    }

    /// The model store misses events: nobody may ask it until it has caught up.
    pub(super) fn fell_behind(&mut self) {
        self.behind = true;
        self.availability.begin(Outage::Behind);
    }

    /// The model store has everything that is durable.
    pub(super) fn caught_up(&mut self) {
        self.behind = false;
        self.availability.end(Outage::Behind);
    }
}
