//! Post hooks: run from the log through consumer groups, at least once, in order per instance.
//!
//! Each model with post hooks has a group and a task that serves it. An event is acknowledged when every hook of its
//! phase ended, well or in the error store ([`super::delivery`]). What a crash interrupts is delivered again. While the
//! model store, or the model, is unavailable no event is taken.

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

/// Events of one model that are worked on at once.
const DELIVERIES_PER_MODEL: usize = 32;
/// Events of all models that are worked on at once.
const DELIVERIES_MAX: usize = 256;
/// A delivery that takes longer waits for something outside, such as a slow receiver: it gives its place to others, as long as
/// there are no more than so many of these.
const LONG: Duration = Duration::from_secs(1);
const LONG_MAX: usize = 1024;

/// Serves every model that has post hooks, and each that gets some.
pub(in crate::engine) fn start(core: &Arc<Core>) {
    let places = Places { short: Arc::new(Semaphore::new(DELIVERIES_MAX)), long: Arc::new(Semaphore::new(LONG_MAX)) };
    let weak = Arc::downgrade(core);
    core.lanes.start(move |model, signals| {
        // Nothing is begun for an engine that is gone.
        let is_there = weak.strong_count() > 0;
        is_there.then(|| tokio::spawn(serve(Weak::clone(&weak), model.to_owned(), places.clone(), signals)))
    });
    let models = core.models.all();
    models
        .iter()
        .filter(|entry| entry.reacts_since().is_some())
        .for_each(|entry| core.lanes.serve(&entry.model.record.id));
}

/// What deliveries of all models share.
#[derive(Clone)]
struct Places {
    short: Arc<Semaphore>,
    long: Arc<Semaphore>,
}

impl Places {
    /// Does the work of one delivery, which has a place of the short ones.
    async fn hold(self, place: Option<OwnedSemaphorePermit>, work: impl Future<Output = ()>) {
        let mut work = pin!(work);
        if tokio::time::timeout(LONG, &mut work).await.is_ok() {
            return;
        }
        // Where there are too many of the long ones, it stays among the short ones.
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

/// One model's loop: claims, runs side by side, waits.
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
        // Taken first: an event that is claimed must not wait for a place while its lease runs.
        let taken =
            u32::try_from(free).ok().and_then(|free| Arc::clone(&places.short).try_acquire_many_owned(free).ok());
        // There was none, or others were quicker.
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
        let crowded = full && running.len() < DELIVERIES_PER_MODEL;
        tokio::select! {
            () = entry.wake.notified(), if !full => {}
            () = again.notified() => {}
            _ = running.join_next(), if !running.is_empty() => {}
            // Other models have all places: the first that is free again is asked for, and given back at once.
            _ = places.short.acquire(), if crowded => {}
            () = tokio::time::sleep(LOOK_AGAIN) => {}
            _ = stop.wait_for(|stop| *stop) => break,
            _ = stopping.wait_for(|stop| *stop) => break,
        }
    }
    while running.join_next().await.is_some() {}
}
