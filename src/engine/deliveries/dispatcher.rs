//! Post hooks: run from the log through consumer groups, at least once, in order per instance.
//!
//! Each model with post hooks has a group and a task that serves it. An event is acknowledged when every hook of its
//! phase has ended, successfully or in the error store ([`super::delivery`]). Events interrupted by a crash are
//! delivered again. No events are taken while the model store, or the model, is unavailable.

use std::pin::pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

use snaphook_driver::ErrorKind;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::delivery::{LEASE, LOOK_AGAIN, deliver};
use crate::engine::core::Core;
use crate::engine::group::group_of;
use crate::engine::lanes::Signals;
use crate::engine::troubles::Part;

/// Concurrent deliveries per model.
const DELIVERIES_PER_MODEL: usize = 32;
/// Concurrent deliveries of all models.
const DELIVERIES_MAX: usize = 256;
/// A delivery that takes longer waits for something external, such as a slow receiver: it releases its permit to others
/// and takes one of the permits for long deliveries.
const LONG: Duration = Duration::from_secs(1);
const LONG_MAX: usize = 1024;

/// Runs the post hooks of all models, also of those that get their first one later.
pub(in crate::engine) fn start(core: &Arc<Core>) {
    let places = Places { short: Arc::new(Semaphore::new(DELIVERIES_MAX)), long: Arc::new(Semaphore::new(LONG_MAX)) };
    let weak = Arc::downgrade(core);
    core.lanes.start(move |model, signals| {
        // Do not start anything for an engine that was dropped.
        let is_there = weak.strong_count() > 0;
        is_there.then(|| tokio::spawn(serve(Weak::clone(&weak), model.to_owned(), places.clone(), signals)))
    });
    let models = core.models.all();
    models
        .iter()
        .filter(|entry| entry.reacts_since().is_some())
        .for_each(|entry| core.lanes.serve(&entry.model.record.id));
}

/// The permits shared by the deliveries of all models.
#[derive(Clone)]
struct Places {
    short: Arc<Semaphore>,
    long: Arc<Semaphore>,
}

impl Places {
    /// Performs one delivery, which holds a permit for short ones.
    async fn hold(self, place: Option<OwnedSemaphorePermit>, work: impl Future<Output = ()>) {
        let mut work = pin!(work);
        if tokio::time::timeout(LONG, &mut work).await.is_ok() {
            return;
        }
        // If all permits for long deliveries are taken, it keeps its permit for short ones.
        let _held = match self.long.try_acquire_owned() {
            Ok(long) => {
                drop(place);
                Some(long)
            }
            Err(_) => place,
        };
        work.await;
    }
}

/// The loop of one model: claims events, runs them concurrently, waits.
async fn serve(core: Weak<Core>, model: String, places: Places, Signals { mut stop, mut stopping }: Signals) {
    let group = group_of(&model).name;
    let again = Arc::new(Notify::new());
    let mut running = JoinSet::new();
    loop {
        while running.try_join_next().is_some() {}
        let Some(owner) = core.upgrade() else { break };
        let Some(entry) = owner.models.get(&model) else { break };
        if owner.availability.check_model(&model).is_err() {
            tokio::select! {
                () = owner.availability.wait(&model) => {}
                _ = stop.wait_for(|stop| *stop) => break,
                _ = stopping.wait_for(|stop| *stop) => break,
            }
        }
        let free = DELIVERIES_PER_MODEL.saturating_sub(running.len()).min(places.short.available_permits());
        // Taken before the claim: a claimed event must not wait for a permit while its lease runs.
        let taken =
            u32::try_from(free).ok().and_then(|free| Arc::clone(&places.short).try_acquire_many_owned(free).ok());
        // There was no event, or other nodes were faster.
        let full = free == 0 || taken.is_none();
        let mut claimed = 0;
        if free > 0
            && let Some(mut taken) = taken
        {
            let began = Instant::now();
            match owner.stores.event.claim(&group, free as u32, LEASE).await {
                Ok(deliveries) => {
                    owner.troubles.works(Part::Groups);
                    claimed = deliveries.len();
                    for delivery in deliveries {
                        let place = taken.split(1);
                        let again = Arc::clone(&again);
                        let work = deliver(Arc::clone(&owner), group.clone(), delivery, again, began, stop.clone());
                        running.spawn(places.clone().hold(place, work));
                    }
                }
                // The group was removed with the hooks: nothing would ever report that it works again.
                Err(_) if *stop.borrow() => break,
                Err(error) => {
                    // The group is created with the binding, unless the store failed at that moment, or another node
                    // was dropping it. An existing group keeps its progress.
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
        let crowded = full && running.len() < DELIVERIES_PER_MODEL;
        tokio::select! {
            () = entry.wake.notified(), if !full => {}
            () = again.notified() => {}
            _ = running.join_next(), if !running.is_empty() => {}
            // All permits are taken by other models: wait until one is free, release it, and loop.
            _ = places.short.acquire(), if crowded => {}
            () = tokio::time::sleep(LOOK_AGAIN) => {}
            _ = stop.wait_for(|stop| *stop) => break,
            _ = stopping.wait_for(|stop| *stop) => break,
        }
    }
    while running.join_next().await.is_some() {}
}
