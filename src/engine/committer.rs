//! The only thread that appends: it takes everything in the queue, appends it with one fsync, passes the events to the
//! projector, and responds.
//!
//! Invariants: a caller gets its result only after the event store has made the event durable, and after this node has
//! applied it, or is unavailable until it has; events reach the projector in the order of their positions.
//!
//! The thread survives panics of drivers: a panic fails the current batch, but nothing in the queue. If the outcome of
//! an append is unknown, the thread finds it in the log before it writes anything else and before it responds to the
//! callers ([`CommitterThread::learn`]).

mod callers;
mod whole;

use std::collections::{HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use snaphook_driver::time;
use snaphook_driver::{
    Append, Appended, Conflict, DriverError, ErrorKind as DriverErrorKind, EventFilter, EventQuery, EventStore,
    Position,
};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

pub(super) use self::callers::{AppendResult, Committed, Whole, WholeAnswer};
use self::callers::{Caller, Callers};
use super::availability::Availability;
use super::error::{Error, ErrorKind, Result, stopped};
use super::gate::Gate;
use super::hanging::{self, Appending, hanging};
use super::metrics::Metrics;
use super::projection::{Hint, Hints};
use super::projector::{Own, Projector};
use super::tail::Tail;
use super::troubles::{Part, Troubles, guarded, panic_message};
use crate::telemetry::trace::{Span, SpanKind};

/// Capacity of the queue; beyond it callers get `overloaded`. At 40,000 commits a second this is a quarter of a
/// second's work.
const QUEUE_MAX: usize = 10_000;
/// Bytes of data in the queue. Data of requests already counts in the memory budget; this limits the writes of hooks.
const QUEUE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Maximum number of appends per fsync, so that no caller waits for a very large batch.
const BATCH_MAX: usize = 1024;
/// A batch costs nearly the same regardless of its size, so under load it pays to wait for changes that are about to
/// arrive. The server is under load if the last batch had at least this many appends.
const BUSY_FROM: usize = 4;
/// With this many appends the thread stops waiting for more.
const GATHERED: usize = 32;
/// The longest that an append waits for others.
const GATHER_MAX: Duration = Duration::from_micros(200);
/// Delay before the first retry of a failed store; doubles with each further one.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(10);
/// Events per page when the thread checks which events of a batch are in the log.
const PAGE: u32 = 1000;

/// An append in the queue.
pub(super) struct Pending {
    pub(super) append: Append,
    /// For a definition: what is already known about it.
    pub(super) hint: Option<Box<Hint>>,
    /// Whether it is for a model that is stuck.
    pub(super) is_for_stuck: bool,
    pub(super) answer: oneshot::Sender<AppendResult>,
    /// Notified when the post hooks of the event have ended.
    pub(super) settled: Option<oneshot::Sender<()>>,
    /// Ends when the result is known.
    pub(super) span: Span,
}

#[expect(clippy::large_enum_variant, reason = "nearly every job is an append: boxing it would cost each commit")]
enum Job {
    Append(Pending),
    /// Appends that are written atomically.
    Whole(Whole),
    /// Notified when everything before it is written and applied.
    Barrier(oneshot::Sender<Result<()>>),
}

#[derive(Default)]
struct Queue {
    jobs: Vec<Job>,
    /// Appends beyond one for each job.
    more: usize,
    bytes: usize,
    closed: bool,
    /// Whether the thread is waiting for more appends.
    gathering: bool,
}

struct CommitterState {
    queue: Mutex<Queue>,
    /// The number of changes that will be submitted soon.
    preparing: AtomicUsize,
    wake: Condvar,
    appending: Arc<Appending>,
    troubles: Arc<Troubles>,
}

/// An append of the server's own.
pub(super) struct Draft {
    pub(super) append: Append,
    /// As in [`Pending`].
    pub(super) hint: Option<Box<Hint>>,
    /// As in [`Pending`].
    pub(super) is_for_stuck: bool,
}

impl Draft {
    pub(super) fn new(append: Append) -> Draft {
        Draft { append, hint: None, is_for_stuck: false }
    }

    /// One for a model that is stuck.
    pub(super) fn for_stuck(append: Append) -> Draft {
        Draft { append, hint: None, is_for_stuck: true }
    }
}

/// The handle to the thread.
pub(super) struct Committer {
    shared: Arc<CommitterState>,
    thread: Mutex<Option<JoinHandle<()>>>,
    watch: AbortHandle,
}

/// The state of the thread.
pub(super) struct CommitterThread {
    pub(super) events: Arc<dyn EventStore>,
    pub(super) projector: Arc<tokio::sync::Mutex<Projector>>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) availability: Arc<Availability>,
    pub(super) troubles: Arc<Troubles>,
    pub(super) appending: Arc<Appending>,
    pub(super) tail: Arc<Tail>,
    pub(super) runtime: Handle,
    /// What is already known about definitions that are being appended.
    pub(super) hints: Arc<Hints>,
    /// The batch whose outcome is unknown.
    pub(super) unknown: Option<Unknown>,
}

/// A batch whose outcome is unknown.
pub(super) struct Unknown {
    /// The end of the log before the batch.
    after: Position,
    /// The ids of its events, in order. Empty after a panic.
    ids: Vec<String>,
    callers: Callers,
    reason: String,
}

impl Committer {
    pub(super) fn start(writer: CommitterThread) -> std::io::Result<Committer> {
        let (appending, troubles) = (Arc::clone(&writer.appending), Arc::clone(&writer.troubles));
        let shared = Arc::new(CommitterState::new(appending, troubles));
        let runtime = writer.runtime.clone();
        let thread = std::thread::Builder::new().name("committer".to_owned()).spawn({
            let shared = Arc::clone(&shared);
            move || run(&shared, writer)
        })?;
        let watched = Arc::clone(&shared);
        let watch = hanging::watch(Arc::clone(&shared.appending), move || watched.hangs());
        let watch = runtime.spawn(watch).abort_handle();
        Ok(Committer { shared, thread: Mutex::new(Some(thread)), watch })
    }

    /// Queues an append; the result comes through its channel. `overloaded` if the queue is full. `false` if the
    /// model's gate is closed: checked under the queue's lock, so nothing is queued after the gate was closed.
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
        queue.take(1, bytes)?;
        queue.jobs.push(Job::Append(pending));
        let is_awaited = queue.jobs.len() == 1 || queue.gathering && !self.shared.gathers(&queue);
        drop(queue);
        if is_awaited {
            self.shared.wake.notify_one();
        }
        Ok(true)
    }

    /// Announces that the caller is preparing a change that it will submit, until the guard is dropped.
    pub(super) fn preparing(&self) -> Preparing<'_> {
        // Relaxed: an outdated count only makes a batch smaller, or later.
        self.shared.preparing.fetch_add(1, Ordering::Relaxed);
        Preparing(&self.shared)
    }

    /// Appends the server's own events even if the queue is full, in this order and beside others' changes; each row
    /// succeeds or fails alone. Waits for the results without a time limit; see [`Committer::answered`].
    pub(super) async fn append(&self, drafts: Vec<Draft>) -> Result<Vec<AppendResult>> {
        self.check_append()?;
        let mut receivers = Vec::with_capacity(drafts.len());
        let mut jobs = Vec::with_capacity(drafts.len());
        for Draft { append, hint, is_for_stuck } in drafts {
            let (answer, receiver) = oneshot::channel();
            receivers.push(receiver);
            jobs.push(Job::Append(Pending { append, hint, is_for_stuck, answer, settled: None, span: commit_span() }));
        }
        self.push(jobs)?;
        let answers = futures::future::join_all(receivers).await;
        Ok(answers.into_iter().map(|answer| answer.unwrap_or_else(|_| Err(lost_answer()))).collect())
    }

    /// Waits until everything that was submitted before is written and applied.
    pub(super) async fn barrier(&self) -> Result<()> {
        self.check_append()?;
        let (sender, receiver) = oneshot::channel();
        self.push(vec![Job::Barrier(sender)])?;
        receiver.await.map_err(|_| lost_answer())?
    }

    fn push(&self, jobs: Vec<Job>) -> Result<()> {
        let mut queue = self.lock();
        if queue.closed {
            return Err(stopped());
        }
        queue.jobs.extend(jobs);
        drop(queue);
        self.shared.wake.notify_one();
        Ok(())
    }

    /// Writes the queue, then ends the thread; `false` if it cannot end because an append hangs.
    pub(super) async fn close(&self) -> bool {
        self.lock().closed = true;
        self.shared.wake.notify_one();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        match thread {
            Some(thread) => self.answered(tokio::task::spawn_blocking(move || thread.join())).await.is_some(),
            None => true,
        }
    }

    /// Waits for something that depends on the thread; `None` if an append hangs.
    pub(super) async fn answered<T>(&self, answer: impl Future<Output = T>) -> Option<T> {
        self.shared.appending.answered(answer).await
    }

    /// Rejects appends that would only wait behind one that hangs.
    fn check_append(&self) -> Result<()> {
        if self.shared.hangs() { Err(hanging()) } else { Ok(()) }
    }

    /// How long the event store has been appending, if that is too long.
    pub(super) fn stalled(&self) -> Option<Duration> {
        self.shared.appending.stalled()
    }

    /// The number of commands in the queue.
    pub(super) fn waiting(&self) -> usize {
        self.lock().jobs.len()
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.shared.lock()
    }
}

impl Queue {
    /// Reserves space in the queue for a job with this many appends and bytes of data.
    fn take(&mut self, appends: usize, bytes: usize) -> Result<()> {
        let waiting = self.jobs.len() + self.more;
        if waiting + appends > QUEUE_MAX || self.bytes + bytes > QUEUE_BYTES_MAX {
            return Err(Error::new(
                ErrorKind::Overloaded,
                format!("{waiting} changes are already waiting to be written; try again in a second"),
            ));
        }
        self.bytes += bytes;
        self.more += appends - 1;
        Ok(())
    }
}

impl CommitterState {
    fn new(appending: Arc<Appending>, troubles: Arc<Troubles>) -> Self {
        Self { queue: Mutex::default(), preparing: AtomicUsize::new(0), wake: Condvar::new(), appending, troubles }
    }

    /// Whether an append hangs in the event store.
    fn hangs(&self) -> bool {
        let Some(time) = self.appending.hanging() else { return false };
        self.troubles.failed(Part::Append, format!("it has been appending for {} s", time.as_secs()));
        // If the append returns at this moment, the thread must see that there is something to recover from.
        let _queue = self.lock();
        self.wake.notify_one();
        true
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether more appends are worth waiting for.
    fn gathers(&self, queue: &Queue) -> bool {
        queue.jobs.len() < GATHERED
            && self.preparing.load(Ordering::Relaxed) > 0
            && !queue.closed
            && !matches!(queue.jobs.last(), Some(Job::Barrier(_)))
    }
}

/// A change that is prepared.
pub(super) struct Preparing<'a>(&'a CommitterState);

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

fn run(shared: &CommitterState, mut writer: CommitterThread) {
    let mut jobs = Vec::new();
    let (mut batch, mut wholes) = (Vec::new(), Vec::new());
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
                // Wake-ups for other reasons do not extend the wait.
                let rests = |queue: &mut Queue| queue.jobs.is_empty() && !queue.closed;
                let waited = shared.wake.wait_timeout_while(queue, delay, rests);
                let waited = waited.unwrap_or_else(PoisonError::into_inner);
                queue = waited.0;
                if waited.1.timed_out() {
                    drop(queue);
                    // New requests may never trigger it, because rejected ones are not even queued.
                    writer.guarded(CommitterThread::recover);
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
            (queue.bytes, queue.more) = (0, 0);
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
                // After the single appends, which share one call regardless of their order with this one.
                Job::Whole(whole) => wholes.push(whole),
                Job::Barrier(told) => {
                    writer.commit_guarded(&mut batch);
                    wholes.drain(..).for_each(|whole| writer.guarded(|writer| writer.commit_whole(whole)));
                    writer.guarded(|writer| drop(told.send(writer.ready().map(drop))));
                }
            }
        }
        writer.commit_guarded(&mut batch);
        wholes.drain(..).for_each(|whole| writer.guarded(|writer| writer.commit_whole(whole)));
    }
}

/// The span of a change that waits to be written.
pub(super) fn commit_span() -> Span {
    Span::begin("commit", SpanKind::Internal)
}

/// Each change of a batch has the append that they share as a part of its commit.
fn append_span(commit: &Span, started: Instant, events: usize) {
    let Some(scope) = commit.scope() else { return };
    let mut span = Span::of(&scope, "event append", SpanKind::Client);
    span.began_at(started);
    span.note("snaphook.batch.size", || events as u64);
}

/// For callers whose result was lost in a panic.
pub(super) fn lost_answer() -> Error {
    Error::new(
        ErrorKind::Storage,
        "the server failed while it wrote this; whether it was written is not known, so read it before you try again",
    )
}

impl CommitterThread {
    /// Runs work on the thread. A panic drops the current jobs, whose callers get [`lost_answer`].
    fn guarded(&mut self, work: impl FnOnce(&mut CommitterThread)) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| work(self))) {
            let message = panic_message(&*panic);
            tracing::error!("the committer panicked, it continues after reading the log again: {message}");
            let after = self.runtime.block_on(async { self.projector.lock().await.at() });
            let callers = Callers::Each(Vec::new());
            self.unknown = Some(Unknown { after, ids: Vec::new(), callers, reason: message.to_owned() });
        }
    }

    fn commit_guarded(&mut self, batch: &mut Vec<Pending>) {
        self.guarded(|writer| writer.commit(batch));
        // It is empty unless there was a panic.
        batch.clear();
    }

    fn works(&self) -> bool {
        self.unknown.is_none() && !self.troubles.has(Part::Append)
    }

    /// Checks whether the stores work again.
    fn recover(&mut self) {
        // A failure is recorded in `troubles`, and this is retried.
        if self.ready().is_ok() && self.troubles.has(Part::Append) && self.check_events().is_ok() {
            self.troubles.works(Part::Append);
        }
    }

    /// Nothing is written while the outcome of the last batch is unknown, or while the model store misses events.
    /// Returns the applied position.
    fn ready(&mut self) -> Result<Position> {
        if self.unknown.is_some() {
            self.learn()?;
        }
        self.runtime.block_on(async {
            let mut projector = self.projector.lock().await;
            projector.recover().await?;
            Ok(projector.at())
        })
    }

    fn check_events(&mut self) -> Result<()> {
        let health = self.runtime.block_on(guarded("health", self.events.health()));
        health.map_err(|error| {
            self.troubles.failed(Part::Append, &error);
            Error::from(error).logged()
        })
    }

    /// Appends a batch and notifies all callers. Empties `batch`.
    fn commit(&mut self, batch: &mut Vec<Pending>) {
        if batch.is_empty() {
            return;
        }
        // A caller that left before its command was processed has no result: nothing needs to happen.
        batch.retain(|pending| !pending.answer.is_closed());
        let known = match self.ready() {
            Ok(known) => known,
            Err(error) => {
                let detail = format!("nothing was written: {}", error.detail);
                for pending in batch.drain(..) {
                    let _ = pending.answer.send(Err(Error::new(ErrorKind::Storage, detail.clone())));
                }
                return;
            }
        };
        // Those that were prepared before their model became stuck.
        let is_stuck = |pending: &mut Pending| {
            !pending.is_for_stuck && self.availability.stuck(&pending.append.event.model).is_some()
        };
        for pending in batch.extract_if(.., is_stuck) {
            let answer = self.availability.check_model(&pending.append.event.model).and_then(|()| Err(lost_answer()));
            let _ = pending.answer.send(answer);
        }
        if batch.is_empty() {
            return;
        }
        let mut appends = Vec::with_capacity(batch.len());
        let mut callers = Vec::with_capacity(batch.len());
        // The store guarantees that times never go back in the log.
        let now = time::now();
        for Pending { mut append, hint, answer, settled, span, .. } in batch.drain(..) {
            append.event.time = now;
            if let Some(hint) = hint {
                // Before anybody can read the event from the log.
                self.hints.put(&append.event.id, *hint);
            }
            appends.push(append);
            callers.push(Caller { answer, settled, span });
        }
        self.appending.begin();
        let started = Instant::now();
        let results = self.runtime.block_on(guarded("append", self.events.append(&appends, false)));
        let took = started.elapsed();
        callers.iter().for_each(|caller| append_span(&caller.span, started, appends.len()));
        let results = match results {
            Ok(results) if results.len() == appends.len() => results,
            Ok(results) => {
                let (found, expected) = (results.len(), appends.len());
                let message = format!("the driver returned {found} results for {expected} events");
                let error = DriverError::new(DriverErrorKind::Uncertain, "append", message);
                return self.append_failed(&error, known, appends, Callers::Each(callers));
            }
            Err(error) => return self.append_failed(&error, known, appends, Callers::Each(callers)),
        };
        self.appending.end();
        self.troubles.works(Part::Append);
        self.metrics.batch(results.len(), results.iter().filter(|result| result.is_err()).count(), took);
        self.project(appends, &results, callers.iter_mut().map(|caller| caller.settled.take()));
        // A conflict may be reported to a client, too, before this node has applied the event that caused it.
        let told = |result: &std::result::Result<Appended, Conflict>| match result {
            Ok(appended) => appended.position,
            Err(conflict) => conflict.position(),
        };
        results.iter().map(told).max().iter().for_each(|position| self.tail.becomes_visible(*position));
        for (Caller { answer, span, .. }, result) in callers.into_iter().zip(results) {
            // Before the request that waits for the answer can end.
            drop(span);
            let _ = answer.send(Ok(result.map(Committed::from)));
        }
    }

    /// Passes durable events to the projector.
    fn project(
        &mut self,
        appends: Vec<Append>,
        results: &[std::result::Result<Appended, Conflict>],
        settled: impl Iterator<Item = Option<oneshot::Sender<()>>>,
    ) {
        let mut own = Own { events: Vec::with_capacity(appends.len()), ..Own::default() };
        let (mut last, mut definitions) = (None, Vec::new());
        for ((append, result), settled) in appends.into_iter().zip(results).zip(settled) {
            let Ok(Appended { position, time, after }) = *result else {
                self.forget_hint(&append);
                continue;
            };
            // Others may have written events between two rows of the batch.
            own.after = if last.is_none_or(|last| own.after.is_some() && last == after) {
                own.after.or(Some(after))
            } else {
                None
            };
            last = Some(position);
            let mut event = append.event;
            (event.position, event.time) = (position, time);
            if !event.kind.is_instance() {
                definitions.push(event.id.clone());
            }
            own.events.push(event);
            own.settled.extend(settled.map(|settled| (position, settled)));
        }
        if own.events.is_empty() {
            return;
        }
        self.runtime.block_on(async { self.projector.lock().await.take(own).await });
        // Definitions of stuck models were skipped.
        definitions.iter().for_each(|id| drop(self.hints.take(id)));
    }

    /// An event of a definition that is not written needs no hint.
    fn forget_hint(&self, append: &Append) {
        if !append.event.kind.is_instance() {
            self.hints.take(&append.event.id);
        }
    }

    fn append_failed(&mut self, error: &DriverError, known: Position, appends: Vec<Append>, callers: Callers) {
        self.troubles.failed(Part::Append, error);
        if !matches!(error.kind(), DriverErrorKind::Uncertain | DriverErrorKind::Unexpected) {
            self.appending.end();
            appends.iter().for_each(|append| self.forget_hint(append));
            callers.fail(&format!("the event store failed, nothing was written: {error}"));
            return;
        }
        // Its callers wait until its outcome is known.
        let ids = appends.into_iter().map(|append| append.event.id).collect();
        self.unknown = Some(Unknown { after: known, ids, callers, reason: error.to_string() });
        // If that fails now, it is retried later.
        let _ = self.learn();
    }

    /// Finds the outcome of the last batch in the log, applies the log up to it, and responds to its callers.
    fn learn(&mut self) -> Result<()> {
        // From here on the log has the outcome of the append.
        self.check_events()?;
        let Some(Unknown { after, ids, .. }) = &self.unknown else { return Ok(()) };
        let mut found = self.runtime.block_on(find(&*self.events, *after, ids))?;
        let Some(Unknown { ids, mut callers, reason, .. }) = self.unknown.take() else { return Ok(()) };
        let committed: Vec<_> = ids.iter().map(|id| found.remove(id)).collect();
        let settled = callers.settled();
        let settled = committed.iter().zip(settled).filter_map(|(committed, settled)| {
            let Committed { position, .. } = (*committed)?;
            Some((position, settled?))
        });
        let own = Own { settled: settled.collect(), ..Own::default() };
        self.runtime.block_on(async { self.projector.lock().await.take(own).await });
        // Nobody took the hints of events that were not written, or of stuck models.
        ids.iter().for_each(|id| drop(self.hints.take(id)));
        self.appending.end();
        self.troubles.works(Part::Append);
        let last = committed.iter().flatten().map(|committed| committed.position).max();
        last.iter().for_each(|position| self.tail.becomes_visible(*position));
        callers.learned(&committed, &format!("the event store failed, nothing was written: {reason}"));
        Ok(())
    }
}

/// Which of these events the log has after a position, by their ids.
async fn find(events: &dyn EventStore, after: Position, wanted: &[String]) -> Result<HashMap<String, Committed>> {
    let mut query = EventQuery { after, limit: PAGE, filter: EventFilter::default() };
    let ids: HashSet<&str> = wanted.iter().map(String::as_str).collect();
    let mut found = HashMap::new();
    while found.len() < ids.len() {
        let page = events.read(&query, None).await?;
        for event in page.events.iter().filter(|event| ids.contains(&*event.id)) {
            found.insert(event.id.clone(), Committed { position: event.position, time: event.time });
        }
        match page.next() {
            Some(next) => query.after = next,
            None => break,
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_is_waited_for_only_while_somebody_prepares_and_there_is_room() {
        let shared = CommitterState::new(Arc::default(), Arc::default());
        let barrier = || Job::Barrier(oneshot::channel().0);
        let append = || {
            let event = snaphook_driver::Event {
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
                trace: None,
                time: 0,
            };
            let expected = snaphook_driver::Expected::New;
            let append = Append::new(event, expected);
            let answer = oneshot::channel().0;
            Job::Append(Pending {
                append,
                hint: None,
                is_for_stuck: false,
                answer,
                settled: None,
                span: Span::default(),
            })
        };
        let mut queue = Queue { jobs: vec![append()], ..Queue::default() };
        assert!(!shared.gathers(&queue), "nobody prepares");
        shared.preparing.store(1, Ordering::Relaxed);
        let preparing = Preparing(&shared);
        assert!(shared.gathers(&queue));
        queue.jobs.push(barrier());
        assert!(!shared.gathers(&queue), "somebody waits for what is there");
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
