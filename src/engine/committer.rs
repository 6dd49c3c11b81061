//! The one thread that writes: takes everything that waits, appends it with one fsync, applies it to the model
//! store, publishes it, answers.
//!
//! Invariants: an answer is sent only after the event store said that the event is durable; events reach the model
//! store, the tail and the answers in the order of their positions; event times never go back.
//!
//! The thread survives its drivers: a panic fails what was in hand and nothing that waits behind it. Where an append's
//! fate is unknown after that, the log is read again before anything else is written ([`Writer::catch_up`]).

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use snaphook_driver::time::{self, Millis};
use snaphook_driver::{
    Append, Conflict, DriverError, ErrorKind as DriverErrorKind, Event, EventFilter, EventQuery, EventStore,
    ModelStore, Position,
};
use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot};
use tokio::task::AbortHandle;

use super::availability::{Availability, Outage};
use super::dispatcher::Dispatcher;
use super::error::{Error, ErrorKind, Result};
use super::gate::Gate;
use super::hanging::{self, Appending};
use super::metrics::Metrics;
use super::models::{Entry, Models};
use super::replay::{self, Replayed};
use super::tail::Tail;
use super::troubles::{Part, Troubles, guarded, panic_message};
use super::waiters::Waiters;
use super::write::stopped;
use crate::hooks::host::HookHost;

/// Commands that may wait; beyond it callers are told to come back. At 40,000 commits a second it is a quarter of a
/// second's work.
const QUEUE_MAX: usize = 10_000;
/// Bytes of data that may wait. What requests wait with is counted in the memory budget already; this bounds what hooks write.
const QUEUE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Appends that share one fsync at most, so that no answer waits for a very large batch.
const BATCH_MAX: usize = 1024;
/// A batch costs nearly the same whatever is in it, so under load it pays to wait for changes that are about to come. It is load
/// if the last batch had so many appends.
const BUSY_FROM: usize = 4;
/// So many appends are enough.
const GATHERED: usize = 32;
/// The longest that an append waits for others.
const GATHER_MAX: Duration = Duration::from_micros(200);
/// Delay before a store that failed is tried again; doubles with each further time.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(10);
/// Events that are read at once to bring listeners up to date.
const PAGE: u32 = 1000;

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
pub(super) struct Queue {
    jobs: Vec<Job>,
    bytes: usize,
    closed: bool,
    /// The thread waits for more appends.
    gathering: bool,
}

pub(super) struct Shared {
    queue: Mutex<Queue>,
    /// Changes that will be submitted.
    preparing: AtomicUsize,
    pub(super) wake: Condvar,
    pub(super) appending: Arc<Appending>,
    pub(super) troubles: Arc<Troubles>,
}

/// The handle to the thread.
pub(super) struct Committer {
    pub(super) shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
    watch: AbortHandle,
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
    pub(super) troubles: Arc<Troubles>,
    pub(super) host: Arc<HookHost>,
    pub(super) dispatcher: Arc<Dispatcher>,
    pub(super) appending: Arc<Appending>,
    pub(super) runtime: Handle,
    /// Time of the last event.
    pub(super) last_time: Millis,
    /// The model store missed events; it must catch up from the log before anything else.
    pub(super) behind: bool,
    /// Whether what was appended last is in the log is unknown.
    pub(super) uncertain: bool,
}

impl Committer {
    pub(super) fn start(writer: Writer) -> std::io::Result<Committer> {
        let (appending, troubles) = (Arc::clone(&writer.appending), Arc::clone(&writer.troubles));
        let (queue, preparing, wake) = (Mutex::default(), AtomicUsize::new(0), Condvar::new());
        let shared = Arc::new(Shared { queue, preparing, wake, appending, troubles });
        let runtime = writer.runtime.clone();
        let thread = std::thread::Builder::new().name("committer".to_owned()).spawn({
            let shared = Arc::clone(&shared);
            move || run(&shared, writer)
        })?;
        let watch = runtime.spawn(hanging::watch(Arc::clone(&shared))).abort_handle();
        Ok(Committer { shared, thread: Mutex::new(Some(thread)), watch })
    }

    /// Queues an append; the answer comes through its channel. `overloaded` if too much waits. `false` if the model's
    /// gate is closed: looked at under the queue's lock, so whatever is queued after a gate was closed finds it closed.
    pub(super) fn submit(&self, pending: Pending, gate: &Gate) -> Result<bool> {
        self.check_append()?;
        let bytes = pending.append.event.data.as_ref().map_or(0, |data| data.len());
        let mut queue = self.lock();
        if queue.closed {
            return Err(stopped());
        }
        if !gate.is_open() {
            return Ok(false);
        }
        if queue.jobs.len() >= QUEUE_MAX || queue.bytes + bytes > QUEUE_BYTES_MAX {
            return Err(Error::new(
                ErrorKind::Overloaded,
                format!("{} changes wait to be written already; try again in a second", queue.jobs.len()),
            ));
        }
        queue.bytes += bytes;
        queue.jobs.push(Job::Append(pending));
        let is_awaited = queue.jobs.len() == 1 || queue.gathering && !self.shared.gathers(&queue);
        drop(queue);
        if is_awaited {
            self.shared.wake.notify_one();
        }
        Ok(true)
    }

    /// Until the guard is dropped, the caller prepares a change that it will submit.
    pub(super) fn preparing(&self) -> Preparing<'_> {
        // Relaxed: a count that is a moment old costs a batch that is smaller, or later.
        self.shared.preparing.fetch_add(1, Ordering::Relaxed);
        Preparing(&self.shared)
    }

    /// Runs `work` on the thread, alone: nothing is appended meanwhile. Waits for it however long it takes; see
    /// [`Committer::answered`].
    pub(super) async fn exclusive<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Writer) -> T + Send + 'static,
    ) -> Result<T> {
        self.check_append()?;
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
        receiver.await.map_err(|_| lost_answer())
    }

    /// Writes what waits, then ends the thread; `false` if it cannot end because an append hangs.
    pub(super) async fn close(&self) -> bool {
        self.lock().closed = true;
        self.shared.wake.notify_one();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        match thread {
            Some(thread) => self.answered(tokio::task::spawn_blocking(move || thread.join())).await.is_some(),
            None => true,
        }
    }

    /// Commands that wait.
    pub(super) fn waiting(&self) -> usize {
        self.lock().jobs.len()
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.shared.lock()
    }
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether more appends are worth waiting for.
    fn gathers(&self, queue: &Queue) -> bool {
        queue.jobs.len() < GATHERED
            && self.preparing.load(Ordering::Relaxed) > 0
            && !queue.closed
            && !matches!(queue.jobs.last(), Some(Job::Exclusive(_)))
    }
}

/// A change that is prepared.
pub(super) struct Preparing<'a>(&'a Shared);

impl Drop for Preparing<'_> {
    fn drop(&mut self) {
        self.0.preparing.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Committer {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

fn run(shared: &Shared, mut writer: Writer) {
    let mut jobs = Vec::new();
    let mut batch = Vec::new();
    let mut delay = RETRY_FIRST;
    let mut last = 0;
    loop {
        {
            let mut queue = shared.lock();
            while queue.jobs.is_empty() {
                if queue.closed {
                    return;
                }
                if writer.works() {
                    delay = RETRY_FIRST;
                    queue = shared.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
                    continue;
                }
                let waited = shared.wake.wait_timeout(queue, delay).unwrap_or_else(PoisonError::into_inner);
                queue = waited.0;
                if waited.1.timed_out() {
                    drop(queue);
                    // Nobody may come who would have it done: what is refused is not even queued.
                    writer.guarded(Writer::recover);
                    delay = (delay * 2).min(RETRY_MAX);
                    queue = shared.lock();
                }
            }
            if last >= BUSY_FROM {
                queue.gathering = true;
                let waited = shared.wake.wait_timeout_while(queue, GATHER_MAX, |queue| shared.gathers(queue));
                queue = waited.unwrap_or_else(PoisonError::into_inner).0;
                queue.gathering = false;
            }
            std::mem::swap(&mut queue.jobs, &mut jobs);
            queue.bytes = 0;
        }
        last = jobs.len();
        for job in jobs.drain(..) {
            match job {
                Job::Append(pending) => {
                    batch.push(pending);
                    if batch.len() == BATCH_MAX {
                        writer.commit_guarded(&mut batch);
                    }
                }
                Job::Exclusive(work) => {
                    writer.commit_guarded(&mut batch);
                    writer.guarded(work);
                }
            }
        }
        writer.commit_guarded(&mut batch);
    }
}

/// For callers whose answer got lost in a panic.
pub(super) fn lost_answer() -> Error {
    Error::new(
        ErrorKind::Storage,
        "the server failed while it wrote this; whether it was written is not known, so read it before you try again",
    )
}

impl Writer {
    /// Runs work on the thread. A panic in it drops what it had in hand, whose callers get [`lost_answer`].
    fn guarded(&mut self, work: impl FnOnce(&mut Writer)) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| work(self))) {
            tracing::error!(
                "the committer panicked, it goes on after reading the log again: {}",
                panic_message(&*panic)
            );
            self.appending.end();
            self.lose_sight();
        }
    }

    fn commit_guarded(&mut self, batch: &mut Vec<Pending>) {
        self.guarded(|writer| writer.commit(batch));
        // Only a panic leaves something in it.
        batch.clear();
    }

    fn works(&self) -> bool {
        !self.behind && !self.troubles.has(Part::Append)
    }

    /// Tries whether the stores work again.
    fn recover(&mut self) {
        // A failure is kept in `troubles`, and this comes again.
        let _ = self.catch_up();
        if self.troubles.has(Part::Append) && self.check_events().is_ok() {
            self.troubles.works(Part::Append);
        }
    }

    fn check_events(&mut self) -> Result<()> {
        let health = self.runtime.block_on(guarded("health", self.events.health()));
        health.map_err(|error| {
            self.troubles.failed(Part::Append, &error);
            Error::from(error).logged()
        })
    }

    /// Whether the last append is in the log is unknown: nothing is written until the log has been read. Nothing of it was
    /// acknowledged, so the model store may be asked meanwhile.
    fn lose_sight(&mut self) {
        self.uncertain = true;
        self.behind = true;
    }

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
        // Those that were prepared before their model became stuck.
        for pending in batch.extract_if(.., |pending| self.availability.stuck(&pending.append.event.model).is_some()) {
            let answer = self.availability.check_model(&pending.append.event.model).and_then(|()| Err(lost_answer()));
            let _ = pending.answer.send(answer);
        }
        if batch.is_empty() {
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
        self.appending.begin();
        let results = self.runtime.block_on(guarded("append", self.events.append(appends, false)));
        self.appending.end();
        let results = match results {
            Ok(results) if results.len() == appends.len() => results,
            Ok(results) => {
                let (found, expected) = (results.len(), appends.len());
                let message = format!("the driver returned {found} results for {expected} events");
                return Err(self.append_failed(DriverError::new(DriverErrorKind::Uncertain, "append", message)));
            }
            Err(error) => return Err(self.append_failed(error)),
        };
        self.troubles.works(Part::Append);
        self.metrics.batch(results.len(), results.iter().filter(|result| result.is_err()).count());
        Ok(results.into_iter().map(|result| result.map(|position| Committed { position, time })).collect())
    }

    fn append_failed(&mut self, error: DriverError) -> Error {
        self.troubles.failed(Part::Append, &error);
        if !matches!(error.kind(), DriverErrorKind::Uncertain | DriverErrorKind::Unexpected) {
            return Error::new(ErrorKind::Storage, format!("the event store failed, nothing was written: {error}"));
        }
        self.lose_sight();
        let detail = format!("the event store failed, whether this was written is not known: {error}");
        Error::new(ErrorKind::Storage, detail)
    }

    /// Brings instance events that are durable to the model store and to listeners. They are acknowledged whatever
    /// happens here: the log can give back what the model store misses.
    pub(super) fn apply(&mut self, events: Vec<Event>) {
        let Some(last) = events.last().map(|event| event.position) else { return };
        let applied = self.runtime.block_on(guarded("apply", self.store.apply(&events, last)));
        self.check_applied(applied);
        self.tail.publish(events.into_iter().map(Arc::new));
    }

    /// Events that are durable reached the model store, or did not. If one of them cannot be applied, only its model
    /// becomes unavailable.
    pub(super) fn check_applied(&mut self, applied: snaphook_driver::Result<()>) {
        let Err(error) = applied else { return };
        self.fell_behind();
        if replay::may_be_the_event(&error) {
            // What is wrong is found, and logged, by applying them again.
            let _ = self.catch_up();
        } else {
            self.troubles.failed(Part::Apply, error);
        }
    }

    /// Lets the model store read what it missed, and listeners too, if what is in the log is not known.
    pub(super) fn catch_up(&mut self) -> Result<()> {
        if !self.behind {
            return Ok(());
        }
        if self.uncertain {
            self.check_events()?;
        }
        let progress = replay::Progress::default();
        let replayed = self.runtime.block_on(replay::run(&self.events, &self.store, &progress));
        let Replayed { models, stuck } = replayed.map_err(|error| {
            self.troubles.failed(Part::Apply, &error);
            error.logged()
        })?;
        if self.uncertain {
            self.runtime.block_on(publish_missed(&*self.events, &self.tail))?;
            let entries = models.into_iter().map(|model| match self.models.get(&model.record.id) {
                Some(same) if same.model.record.position == model.record.position => same,
                old => Arc::new(Entry::new(Arc::new(model), &self.host, old.as_deref(), None)),
            });
            self.models.replace(entries.collect());
            self.runtime.block_on(self.dispatcher.follow(&*self.events, &self.models));
            self.models.all().iter().for_each(|entry| entry.wake.notify_one());
            self.uncertain = false;
            self.troubles.works(Part::Append);
        }
        self.troubles.works(Part::Apply);
        self.availability.set_stuck(stuck);
        self.caught_up();
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

/// Tells listeners of events that are in the log although their append failed.
async fn publish_missed(events: &dyn EventStore, tail: &Tail) -> Result<()> {
    loop {
        let query = EventQuery { after: tail.head(), limit: PAGE, filter: EventFilter::default() };
        let page = events.read(&query, None).await?;
        if page.events.is_empty() {
            return Ok(());
        }
        tail.publish(page.events.into_iter().map(Arc::new));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_is_waited_for_only_while_somebody_prepares_and_there_is_room() {
        let shared = Shared {
            queue: Mutex::default(),
            preparing: AtomicUsize::new(0),
            wake: Condvar::new(),
            appending: Arc::default(),
            troubles: Arc::default(),
        };
        let exclusive = || Job::Exclusive(Box::new(|_: &mut Writer| ()));
        let append = || {
            let event = Event {
                position: 0,
                id: String::new(),
                kind: snaphook_driver::EventKind::InstanceCreated,
                model: "m".into(),
                model_version: 1,
                instance: Some("i".into()),
                revision: 1,
                data: None,
                actor: None,
                cause: None,
                hooks: Vec::new(),
                request_id: None,
                time: 0,
            };
            let expected = snaphook_driver::Expected::New;
            let append = Append { event, expected, requires: Vec::new(), claims: Vec::new(), releases: Vec::new() };
            Job::Append(Pending { append, answer: oneshot::channel().0, wake: None, settled: None })
        };
        let mut queue = Queue { jobs: vec![append()], ..Queue::default() };
        assert!(!shared.gathers(&queue), "nobody prepares");
        shared.preparing.store(1, Ordering::Relaxed);
        let preparing = Preparing(&shared);
        assert!(shared.gathers(&queue));
        queue.jobs.push(exclusive());
        assert!(!shared.gathers(&queue), "what runs alone is waiting");
        queue.jobs = std::iter::repeat_with(append).take(GATHERED).collect();
        assert!(!shared.gathers(&queue), "enough");
        queue.jobs.pop();
        assert!(shared.gathers(&queue));
        queue.closed = true;
        assert!(!shared.gathers(&queue), "it is to end");
        queue.closed = false;
        drop(preparing);
        assert!(!shared.gathers(&queue), "who prepared is done");
    }
}
