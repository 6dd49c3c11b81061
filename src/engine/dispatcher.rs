//! Post hooks: run from the log through consumer groups, at least once, in order per instance.
//!
//! Each model with post hooks has a group and a task that serves it. An event is acknowledged when every hook of its
//! phase ended, well or in the error store ([`super::delivery`]). What a crash interrupts is delivered again. While the
//! model store, or the model, is unavailable no event is taken.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use snaphook_driver::ErrorKind;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::{JoinHandle, JoinSet};

use super::Engine;
use super::bindings::group_of;
use super::delivery::{LEASE, deliver};
use super::troubles::Part;

/// Events of one model that are worked on at once.
const DELIVERIES_PER_MODEL: usize = 32;
/// Events of all models that are worked on at once.
const DELIVERIES_MAX: usize = 256;
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
    pub(super) fn start(&self, engine: &Arc<Engine>) {
        *self.engine.lock().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(engine);
        let models = engine.models.all();
        models
            .iter()
            .filter(|entry| entry.reacts_since().is_some())
            .for_each(|entry| self.serve(&entry.model.record.id));
    }

    /// Serves a model from now on; nothing happens if it is served.
    pub(super) fn serve(&self, model: &str) {
        let engine = self.engine.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        if *self.stopping.borrow()
            || engine.strong_count() == 0
            || lanes.get(model).is_some_and(|lane| !lane.task.is_finished())
        {
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

    /// Stops serving a model.
    pub(super) fn stop(&self, model: &str) {
        let lane = self.lanes.lock().unwrap_or_else(PoisonError::into_inner).remove(model);
        if let Some(lane) = lane {
            lane.stop.send_replace(true);
            // Hooks that run finish; a hook that waits for this very call must not be waited for.
            drop(lane.task);
        }
    }

    /// Stops serving a model and forgets what its hooks had not seen.
    pub(super) async fn forget(&self, model: &str) {
        self.stop(model);
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
    let again = Arc::new(Notify::new());
    let mut running = JoinSet::new();
    loop {
        while running.try_join_next().is_some() {}
        let Some(owner) = engine.upgrade() else { break };
        let Some(entry) = owner.models.get(&model) else { break };
        if owner.availability.check_model(&model).is_err() {
            tokio::select! {
                () = owner.availability.wait(&model) => {}
                _ = stop.wait_for(|stop| *stop) => break,
                _ = stopping.wait_for(|stop| *stop) => break,
            }
        }
        let free = DELIVERIES_PER_MODEL.saturating_sub(running.len()).min(places.available_permits());
        // Taken first: an event that is claimed must not wait for a place while its lease runs.
        let taken = u32::try_from(free).ok().and_then(|free| Arc::clone(&places).try_acquire_many_owned(free).ok());
        let mut claimed = 0;
        if free > 0
            && let Some(mut taken) = taken
        {
            match owner.stores.event.claim(&group, free as u32, LEASE).await {
                Ok(deliveries) => {
                    owner.troubles.works(Part::Groups);
                    claimed = deliveries.len();
                    for delivery in deliveries {
                        let place = taken.split(1);
                        let task =
                            deliver(Arc::clone(&owner), group.clone(), delivery, Arc::clone(&again), stop.clone());
                        running.spawn(async move {
                            task.await;
                            drop(place);
                        });
                    }
                }
                // With its hooks the group is gone: nobody would ever say that it works again.
                Err(_) if *stop.borrow() => break,
                Err(error) => {
                    // It is made with the binding, unless the store failed just then, or another node was about to drop it.
                    // One that is there keeps its progress.
                    if let Some(since) = entry.reacts_since().filter(|_| error.kind() == ErrorKind::Invalid) {
                        let _ = owner.stores.event.create_group(&group_of(&model), since).await;
                    }
                    owner.troubles.failed(Part::Groups, error);
                }
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
