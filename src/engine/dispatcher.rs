//! Post hooks: run from the log through consumer groups, at least once, in order per instance.
//!
//! Each model with post hooks has a group and a task that serves it. An event is acknowledged when every hook of its
//! phase ended, well or in the error store. What a crash interrupts is delivered again.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use snaphook_driver::{Delivery, ErrorRecord, Event, Position, time};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::{JoinHandle, JoinSet};

use super::Engine;
use super::bindings::group_of;
use super::command::phases;
use super::models::Entry;
use crate::config::Phase;
use crate::hooks::context::{Context, EventRef, Failure, FailureCause, Outcome, Run};
use crate::hooks::host::BoundHook;

/// Longest chain of causes.
pub(super) const DEPTH_MAX: u32 = 8;
/// Events of one model that are worked on at once.
const DELIVERIES_PER_MODEL: usize = 32;
/// Events of all models that are worked on at once.
const DELIVERIES_MAX: usize = 256;
/// How long a delivery is this node's before another may take it. Renewed between the hooks of a chain.
const LEASE: Duration = Duration::from_secs(120);
/// Delay before the second try; doubles with each further one.
const BACKOFF_FIRST: Duration = Duration::from_millis(200);
const BACKOFF_MAX: Duration = Duration::from_secs(60);
/// How often a group is looked at although nothing woke it: leases that ran out elsewhere, delays of an earlier run.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// The tasks that serve the groups.
pub(super) struct Dispatcher {
    engine: Mutex<Weak<Engine>>,
    lanes: Mutex<HashMap<String, Lane>>,
    places: Arc<Semaphore>,
    stopping: watch::Sender<bool>,
}

struct Lane {
    task: JoinHandle<()>,
    stop: watch::Sender<bool>,
}

/// What is known of an event between its tries. Lost in a crash: then its chain runs from the start.
#[derive(Clone, Copy, Default)]
struct Tries {
    /// Hooks of the chain that ended.
    done: usize,
    /// Tries of the next one.
    failed: u32,
}

impl Dispatcher {
    pub(super) fn new() -> Dispatcher {
        Dispatcher {
            engine: Mutex::new(Weak::new()),
            lanes: Mutex::default(),
            places: Arc::new(Semaphore::new(DELIVERIES_MAX)),
            stopping: watch::Sender::new(false),
        }
    }

    /// Serves every model that has post hooks.
    pub(super) async fn start(&self, engine: &Arc<Engine>) {
        *self.engine.lock().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(engine);
        for entry in engine.models.all() {
            let Some(since) = entry.reacts_since() else { continue };
            let id = &entry.model.record.id;
            // Makes the group if a crash came between the binding and this; otherwise its progress stays.
            if let Err(error) = engine.stores.event.create_group(&group_of(id), since).await {
                tracing::error!(model = id, "the consumer group cannot be opened, post hooks wait: {error}");
            }
            self.serve(id);
        }
    }

    /// Serves a model from now on; nothing happens if it is served.
    pub(super) fn serve(&self, model: &str) {
        let engine = self.engine.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        if *self.stopping.borrow() || lanes.get(model).is_some_and(|lane| !lane.task.is_finished()) {
            return;
        }
        let stop = watch::Sender::new(false);
        let task = tokio::spawn(serve(
            engine,
            model.to_owned(),
            Arc::clone(&self.places),
            stop.subscribe(),
            self.stopping.subscribe(),
        ));
        lanes.insert(model.to_owned(), Lane { task, stop });
    }

    /// Stops serving a model and forgets what its hooks had not seen.
    pub(super) async fn forget(&self, model: &str) {
        let lane = self.lanes.lock().unwrap_or_else(PoisonError::into_inner).remove(model);
        if let Some(lane) = lane {
            lane.stop.send_replace(true);
            // Hooks that run finish; a hook that waits for this very call must not be waited for.
            drop(lane.task);
        }
        let engine = self.engine.lock().unwrap_or_else(PoisonError::into_inner).upgrade();
        if let Some(engine) = engine
            && let Err(error) = engine.stores.event.drop_group(&group_of(model).name).await
        {
            tracing::error!(model, "the consumer group cannot be dropped: {error}");
        }
    }

    /// Takes no more events; hooks that run get `within` to finish. What they did not acknowledge comes again.
    pub(super) async fn close(&self, within: Duration) {
        self.stopping.send_replace(true);
        let lanes = std::mem::take(&mut *self.lanes.lock().unwrap_or_else(PoisonError::into_inner));
        let all = futures::future::join_all(lanes.into_values().map(|lane| async move {
            let mut task = lane.task;
            if tokio::time::timeout(within, &mut task).await.is_err() {
                task.abort();
                let _ = task.await;
            }
        }));
        all.await;
    }
}

/// One model's loop: claims, runs side by side, waits.
async fn serve(
    engine: Weak<Engine>,
    model: String,
    places: Arc<Semaphore>,
    mut stop: watch::Receiver<bool>,
    mut stopping: watch::Receiver<bool>,
) {
    let group = group_of(&model).name;
    let tries: Arc<Mutex<HashMap<Position, Tries>>> = Arc::default();
    let again = Arc::new(Notify::new());
    let mut running = JoinSet::new();
    loop {
        while running.try_join_next().is_some() {}
        let Some(owner) = engine.upgrade() else { break };
        let Some(entry) = owner.models.get(&model) else { break };
        let free = DELIVERIES_PER_MODEL.saturating_sub(running.len()).min(places.available_permits());
        let mut claimed = 0;
        if free > 0 {
            match owner.stores.event.claim(&group, free as u32, LEASE).await {
                Ok(deliveries) => {
                    claimed = deliveries.len();
                    for delivery in deliveries {
                        let place = Arc::clone(&places).acquire_owned().await;
                        let task = deliver(
                            Arc::clone(&owner),
                            group.clone(),
                            delivery,
                            Arc::clone(&tries),
                            Arc::clone(&again),
                        );
                        running.spawn(async move {
                            task.await;
                            drop(place);
                        });
                    }
                }
                Err(error) => tracing::error!(model, "events cannot be claimed for post hooks: {error}"),
            }
        }
        drop(owner);
        if claimed > 0 && claimed == free {
            continue;
        }
        let full = free == 0;
        let crowded = full && running.len() < DELIVERIES_PER_MODEL;
        tokio::select! {
            () = entry.wake.notified(), if !full => {}
            () = again.notified() => {}
            _ = running.join_next(), if !running.is_empty() => {}
            // Other models have all places: the first that is free again is asked for, and given back at once.
            _ = places.acquire(), if crowded => {}
            () = tokio::time::sleep(LOOK_AGAIN) => {}
            _ = stop.wait_for(|stop| *stop) => break,
            _ = stopping.wait_for(|stop| *stop) => break,
        }
    }
    while running.join_next().await.is_some() {}
}

/// One event: the hooks of its phase, in order.
async fn deliver(
    engine: Arc<Engine>,
    group: String,
    delivery: Delivery,
    tries: Arc<Mutex<HashMap<Position, Tries>>>,
    again: Arc<Notify>,
) {
    let Delivery { event, attempt, token } = delivery;
    let position = event.position;
    engine.metrics.deliveries.fetch_add(1, Ordering::Relaxed);
    let known = tries.lock().unwrap_or_else(PoisonError::into_inner).get(&position).copied();
    // After a restart only the number of deliveries is known.
    let mut state = known.unwrap_or(Tries { done: 0, failed: attempt - 1 });
    let outcome = run_chain(&engine, &group, &event, token, &mut state).await;
    let stored = match outcome {
        Ended::Done => {
            tries.lock().unwrap_or_else(PoisonError::into_inner).remove(&position);
            let acknowledged = engine.stores.event.ack(&group, &[(position, token)]).await;
            engine.waiters.settle(position);
            acknowledged
        }
        Ended::Again(delay) => {
            tries.lock().unwrap_or_else(PoisonError::into_inner).insert(position, state);
            let released = engine.stores.event.release(&group, position, token, delay).await;
            tokio::spawn(async move {
                tokio::time::sleep(delay).await;
                again.notify_one();
            });
            released
        }
    };
    if let Err(error) = stored {
        // The lease ends by itself and the event is delivered again.
        tracing::error!(position, "the progress of a post hook could not be kept, it will run again: {error}");
    }
}

enum Ended {
    Done,
    Again(Duration),
}

async fn run_chain(engine: &Engine, group: &str, event: &Event, token: u64, state: &mut Tries) -> Ended {
    let Some((_, phase)) = phases(event.kind) else { return Ended::Done };
    // The log has an event a moment before the model store; a hook must find what it was started for.
    engine.tail.reached(event.position).await;
    let Some(entry) = engine.models.get(&event.model) else { return Ended::Done };
    if !entry.reacts_to(event.kind, event.position) {
        return Ended::Done;
    }
    let before = match engine.before(event).await {
        Ok(before) => before,
        Err(error) => {
            tracing::error!(position = event.position, "an event's past cannot be read, its hooks wait: {error}");
            return Ended::Again(backoff(state.failed + 1));
        }
    };
    let attempts_max = engine.config.load().hooks.attempts_max;
    let chain = entry.chain(phase);
    while let Some(hook) = chain.get(state.done) {
        let context = engine.post_context(&entry, phase, event, before.clone(), state.failed + 1);
        let run = engine.host.run(hook, &context).await;
        if let Some(failure) = failure_of(&run, &context) {
            engine.metrics.post_failures.fetch_add(1, Ordering::Relaxed);
            if failure.cause == FailureCause::Overloaded {
                // It did not run: that is no try.
                return Ended::Again(backoff(state.failed + 1));
            }
            state.failed += 1;
            if state.failed < attempts_max && failure.cause != FailureCause::Depth {
                return Ended::Again(backoff(state.failed));
            }
            if let Err(error) = engine.give_up(hook, event, failure, &run, state.failed).await {
                tracing::error!(hook = hook.label(), "a failed hook cannot be recorded, it will run again: {error}");
                state.failed = attempts_max.saturating_sub(1);
                return Ended::Again(backoff(attempts_max));
            }
        }
        *state = Tries { done: state.done + 1, failed: 0 };
        if state.done < chain.len() {
            let _ = engine.stores.event.renew(group, event.position, token, LEASE).await;
        }
    }
    Ended::Done
}

/// Exponential, with half of it left to chance so that those who failed together do not come back together.
fn backoff(failed: u32) -> Duration {
    let full = BACKOFF_FIRST.saturating_mul(1 << failed.saturating_sub(1).min(16)).min(BACKOFF_MAX);
    // The low bits of a UUIDv7 are random.
    let random = uuid::Uuid::now_v7().as_u128() as u32;
    full / 2 + (full / 2).mul_f64(f64::from(random) / f64::from(u32::MAX))
}

/// What of a run counts as a failure of a post hook.
fn failure_of(run: &Run, context: &Context) -> Option<Failure> {
    let mut failure = match &run.outcome {
        Outcome::Accept | Outcome::Amend(_) => return None,
        Outcome::Reject(rejection) => {
            Failure { cause: FailureCause::Exception, message: rejection.message.clone(), limit: None }
        }
        Outcome::Failed(failure) => failure.clone(),
    };
    // At the end of the longest chain a write is refused; trying again would be refused again.
    if context.depth >= DEPTH_MAX && run.asked.iter().any(|asked| asked.capability == "write") {
        failure.cause = FailureCause::Depth;
        failure.limit = Some(format!("depth {DEPTH_MAX}"));
    }
    Some(failure)
}

impl Engine {
    /// The data before an event.
    async fn before(&self, event: &Event) -> super::Result<Option<snaphook_driver::Json>> {
        if event.revision <= 1 {
            return Ok(None);
        }
        let earlier = self.stores.event.last(&event.stream(), event.position - 1).await?;
        Ok(earlier.and_then(|earlier| earlier.data))
    }

    fn post_context(
        &self,
        entry: &Entry,
        phase: Phase,
        event: &Event,
        before: Option<snaphook_driver::Json>,
        attempt: u32,
    ) -> Context {
        Context {
            phase,
            model: event.model.clone(),
            model_version: entry.model.record.version,
            instance: event.instance.clone().unwrap_or_default(),
            before,
            after: event.data.clone(),
            actor: event.actor.clone(),
            request_id: event.request_id.clone(),
            time: event.time,
            event: Some(EventRef { position: event.position, id: event.id.clone() }),
            attempt,
            depth: event.cause.as_ref().map_or(0, |cause| cause.depth),
        }
    }

    /// Runs one hook of one event, outside the group; for retries by hand.
    pub(super) async fn run_post_hook(
        &self,
        hook: &BoundHook,
        entry: &Entry,
        event: &Event,
        attempt: u32,
    ) -> super::Result<(Run, Option<Failure>)> {
        let phase = hook.binding().id.phase;
        let before = self.before(event).await?;
        let context = self.post_context(entry, phase, event, before, attempt);
        let run = self.host.run(hook, &context).await;
        let failure = failure_of(&run, &context);
        Ok((run, failure))
    }

    /// Hands a failed hook to the error store.
    async fn give_up(
        &self,
        hook: &BoundHook,
        event: &Event,
        failure: Failure,
        run: &Run,
        attempts: u32,
    ) -> snaphook_driver::Result<()> {
        let record = error_record(hook, event, failure, run, attempts);
        tracing::warn!(
            hook = hook.label(),
            position = event.position,
            attempts,
            error = record.id,
            "a post hook failed for good: {}",
            record.message
        );
        self.stores.error.record(&record).await?;
        self.metrics.given_up.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

/// What the error store keeps of a failed run.
pub(super) fn error_record(hook: &BoundHook, event: &Event, failure: Failure, run: &Run, attempts: u32) -> ErrorRecord {
    let binding = hook.binding();
    ErrorRecord {
        id: uuid::Uuid::now_v7().to_string(),
        time: time::now(),
        model: binding.id.model.clone(),
        phase: binding.id.phase.as_str().to_owned(),
        hook: binding.id.name.clone(),
        engine: binding.engine.clone(),
        artifact: binding.id.artifact.clone(),
        event: event.clone(),
        attempts,
        cause: failure.cause.as_str().to_owned(),
        message: failure.message,
        limit: failure.limit,
        log: run.log.iter().map(|line| format!("{} {}", line.level.as_str(), line.message)).collect(),
    }
}
