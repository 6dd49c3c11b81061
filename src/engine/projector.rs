//! The projector follows the log, whoever wrote it. It alone changes the state that this node derives from the log: the
//! model store, the models in use, the tail, the waiters for post hooks, the tasks that run post hooks.
//!
//! Events of this node come from the committer in memory; if they do not directly follow the applied part, the log is
//! read instead. [`follow`] finds events of other nodes. The start, a rebuild, and recovery after a fault read the log
//! too, and the same code applies everything ([`super::projection`]).

use std::sync::Arc;
use std::time::Duration;

use snaphook_driver::{Event, EventFilter, EventQuery, EventStore, Position};
use tokio::sync::{Mutex, Notify, oneshot};

use super::availability::{Availability, Outage};
use super::error::Result;
use super::group::group_of;
use super::lanes::Lanes;
use super::models::{LiveModel, Models};
use super::projection::{Changes, Hints, LogPage, Progress, Projection};
use super::rebuild::Rebuild;
use super::tail::Tail;
use super::troubles::{Part, Troubles, guarded, unpanicked};
use super::waiters::Waiters;
use crate::drivers::Stores;
use crate::hooks::host::HookHost;

/// How long one read waits for events of other nodes.
const WAIT: Duration = Duration::from_secs(5);
/// Delay before the first retry of a failed model store; doubles with each further one.
const MEND_FIRST: Duration = Duration::from_millis(100);
const MEND_MAX: Duration = Duration::from_secs(10);
/// Delay before a failed log is read again.
const RETRY: Duration = Duration::from_millis(500);

/// The state derived from the log, for its readers.
pub(super) struct Derived {
    pub(super) models: Arc<Models>,
    pub(super) tail: Arc<Tail>,
    pub(super) waiters: Arc<Waiters>,
    pub(super) lanes: Arc<Lanes>,
    pub(super) availability: Arc<Availability>,
    pub(super) troubles: Arc<Troubles>,
    pub(super) rebuild: Arc<Rebuild>,
}

/// Durable events of this node, in order.
#[derive(Default)]
pub(super) struct Own {
    /// The position that they follow in the log without a gap. `None`: they may have gaps, or only the log has them.
    pub(super) after: Option<Position>,
    pub(super) events: Vec<Event>,
    /// Notified when the post hooks of an event have ended.
    pub(super) settled: Vec<(Position, oneshot::Sender<()>)>,
}

/// One node's projector.
pub(super) struct Projector {
    events: Arc<dyn EventStore>,
    projection: Projection,
    derived: Derived,
    host: Arc<HookHost>,
    /// The model store failed and misses events.
    is_behind: bool,
    /// Notified when this begins.
    fell_behind: Arc<Notify>,
}

impl Projector {
    /// Brings the model store up to the end of the log and puts its models in use.
    pub(super) async fn open(
        stores: &Stores,
        derived: Derived,
        host: Arc<HookHost>,
        progress: &Progress,
    ) -> Result<Projector> {
        let projection = Projection::open(&stores.event, &stores.model).await?;
        let events = Arc::clone(&stores.event);
        let mut projector =
            Projector { events, projection, derived, host, is_behind: false, fell_behind: Arc::default() };
        projector.projection.replay(progress).await?;
        projector.publish_models().await;
        projector.derived.tail.jump(projector.projection.at());
        Ok(projector)
    }

    /// Takes the committer's events. Even if this fails, the log has them.
    pub(super) async fn take(&mut self, own: Own) {
        let Own { after, events, settled } = own;
        // Before the events are applied, so that no notification is missed.
        for (position, settled) in settled {
            self.derived.waiters.add(position, settled);
        }
        let taken = match after.filter(|after| !self.is_behind && *after == self.projection.at()) {
            Some(after) => self.step(LogPage::own(after, events)).await,
            // Another node wrote events before it, or the store failed.
            None => self.advance().await,
        };
        if taken.is_err() {
            // Readers must not miss acknowledged events that are not applied.
            self.fall_behind();
        }
    }

    /// Applies the log up to its end, page by page, while others read. If the model store fails, it is unavailable
    /// until it has caught up.
    async fn advance(&mut self) -> Result<()> {
        if self.is_behind {
            return self.recover().await;
        }
        loop {
            let page = unpanicked(LogPage::read(&*self.events, self.projection.at())).await?;
            let is_last = page.is_last;
            self.step(page).await?;
            if is_last {
                return Ok(());
            }
        }
    }

    /// Applies events that the model store missed, if any.
    pub(super) async fn recover(&mut self) -> Result<()> {
        if !self.is_behind {
            return Ok(());
        }
        let projection = &mut self.projection;
        let replayed = unpanicked(async {
            projection.resume().await?;
            projection.replay(&Progress::default()).await
        });
        let replayed = replayed.await;
        self.end_replay(replayed).await
    }

    /// A model store that went back is unavailable until it has caught up. While events arrive, the next one detects
    /// this.
    async fn look_back(&mut self) {
        // A store that fails here fails again, with a report, when it is used.
        if !self.is_behind && unpanicked(self.projection.went_back()).await.unwrap_or(false) {
            tracing::warn!("the model store has less than this node has applied; it catches up");
            self.fall_behind();
        }
    }

    /// Rebuilds the model store; the models in use stay in use until it is done.
    pub(super) async fn rebuild(&mut self, progress: &Progress) -> Result<()> {
        let projection = &mut self.projection;
        let rebuilt = unpanicked(async {
            projection.reset().await?;
            projection.replay(progress).await
        });
        let rebuilt = rebuilt.await;
        self.end_replay(rebuilt).await
    }

    /// Where this node puts what it knows of definitions before it appends them.
    pub(super) fn hints(&self) -> Arc<Hints> {
        Arc::clone(self.projection.hints())
    }

    /// The position up to which everything is applied.
    pub(super) fn at(&self) -> Position {
        self.projection.at()
    }

    async fn end_replay(&mut self, replayed: Result<()>) -> Result<()> {
        match replayed {
            Ok(()) => {
                self.publish_models().await;
                self.publish_missed().await;
                self.derived.models.all().iter().for_each(|entry| entry.wake.notify_one());
                self.derived.troubles.works(Part::Apply);
                self.is_behind = false;
                self.derived.availability.end(Outage::Behind);
                if self.projection.wants_rebuild() {
                    self.derived.rebuild.want();
                }
                Ok(())
            }
            Err(error) => {
                self.derived.troubles.failed(Part::Apply, &error);
                self.fall_behind();
                Err(error.logged())
            }
        }
    }

    async fn step(&mut self, page: LogPage) -> Result<()> {
        // Requests may see applied events before listeners get them.
        page.events.last().iter().for_each(|event| self.derived.tail.becomes_visible(event.position));
        if let Err(error) = unpanicked(self.projection.step(&page)).await {
            self.derived.troubles.failed(Part::Apply, &error);
            self.fall_behind();
            // Listeners and responses do not wait for the model store, because the events are durable.
            self.derived.tail.publish(page.events.into_iter().map(Arc::new));
            return Err(error.logged());
        }
        self.publish_models().await;
        self.publish(page.events);
        if self.projection.wants_rebuild() {
            self.derived.rebuild.want();
        }
        Ok(())
    }

    /// The model store misses events: it is unavailable until it has caught up.
    fn fall_behind(&mut self) {
        self.is_behind = true;
        self.derived.availability.begin(Outage::Behind);
        self.fell_behind.notify_one();
    }

    /// Puts the models in use whose definitions changed, and the others out of use.
    async fn publish_models(&mut self) {
        let Some(Changes { models, stuck, held_back }) = self.projection.take_changes() else { return };
        self.derived.availability.set_stuck(stuck);
        let mut entries = Vec::new();
        // Models that get post hooks, with the position, and models that no longer have any.
        let (mut served, mut stopped, mut replaced) = (Vec::new(), Vec::new(), Vec::new());
        for (id, ready) in models {
            let old = self.derived.models.get(&id);
            let reacted = old.as_ref().is_some_and(|old| old.reacts_since().is_some());
            let entry = match self.projection.models().get(&id) {
                Some(model) if old.as_ref().is_some_and(|old| old.model.record.position == model.record.position) => {
                    continue;
                }
                Some(model) => {
                    Some(Arc::new(LiveModel::new(Arc::clone(model), &self.host, old.as_deref(), ready.as_ref())))
                }
                None => None,
            };
            match entry.as_ref().and_then(|entry| entry.reacts_since()) {
                Some(since) if !reacted => served.push((id.clone(), since)),
                None if reacted => stopped.push(id.clone()),
                _ => {}
            }
            entries.push((id, entry));
        }
        if entries.is_empty() {
            return;
        }
        for (id, entry) in &entries {
            if let (Some(entry), Some(within)) = (entry, held_back.get(id)) {
                entry.gate.hold_back(*within);
            }
            if let Some(old) = self.derived.models.get(id) {
                replaced.push(old);
            }
        }
        self.derived.models.change(entries);
        // Waiters at the old gate look up the version in use.
        replaced.iter().for_each(|old| old.gate.let_go());
        stopped.iter().for_each(|id| self.derived.lanes.stop(id));
        for (id, since) in served {
            if let Err(error) = guarded("create_group", self.events.create_group(&group_of(&id), since)).await {
                // The model's task creates it at the next claim.
                tracing::error!(model = id, "the consumer group cannot be created yet, post hooks wait: {error}");
            }
            self.derived.lanes.serve(&id);
        }
    }

    /// Publishes events that were applied while publishing was not possible.
    async fn publish_missed(&self) {
        let (tail, at) = (&self.derived.tail, self.projection.at());
        while tail.head() < at {
            let head = tail.head();
            if let Ok(page) = unpanicked(LogPage::read(&*self.events, head)).await {
                // More may be in the log by now.
                let applied = page.events.into_iter().take_while(|event| event.position <= at);
                tail.publish(applied.map(Arc::new));
            }
            if tail.head() == head {
                // Then they read the log themselves.
                tail.jump(at);
            }
        }
    }

    /// Publishes applied events to listeners and consumers.
    fn publish(&self, events: Vec<Event>) {
        let models = self.derived.models.in_use();
        let mut woken: Option<&Arc<LiveModel>> = None;
        for event in &events {
            let is_known = |entry: &&Arc<LiveModel>| entry.model.record.id == event.model;
            let Some(entry) = woken.filter(is_known).or_else(|| models.get(&event.model)) else { continue };
            if entry.reacts_to(event.kind, event.position) {
                entry.wake.notify_one();
            }
            woken = Some(entry);
        }
        self.derived.tail.publish(events.into_iter().map(Arc::new));
    }
}

/// Recovers the model store after failures. Never returns; needed because no request may come that would trigger it.
pub(super) async fn mend(projector: Arc<Mutex<Projector>>) {
    let fell_behind = Arc::clone(&projector.lock().await.fell_behind);
    loop {
        fell_behind.notified().await;
        let mut delay = MEND_FIRST;
        loop {
            tokio::time::sleep(delay).await;
            // A failure is recorded in `troubles`.
            if projector.lock().await.recover().await.is_ok() {
                break;
            }
            delay = (delay * 2).min(MEND_MAX);
        }
    }
}

/// Follows events of other nodes in a shared log. Never returns.
pub(super) async fn follow(events: Arc<dyn EventStore>, projector: Arc<Mutex<Projector>>, troubles: Arc<Troubles>) {
    let mut after = projector.lock().await.at();
    loop {
        let query = EventQuery { after, limit: 1, filter: EventFilter::default() };
        match guarded("read", events.read(&query, Some(WAIT))).await {
            Ok(page) if page.events.is_empty() => {
                troubles.works(Part::Follow);
                after = after.max(page.reached);
                projector.lock().await.look_back().await;
            }
            Ok(_) => {
                troubles.works(Part::Follow);
                let mut projector = projector.lock().await;
                // Events of this node may be applied already.
                if projector.at() <= after && projector.advance().await.is_err() {
                    drop(projector);
                    tokio::time::sleep(RETRY).await;
                    continue;
                }
                after = projector.at();
            }
            Err(error) => {
                troubles.failed(Part::Follow, error);
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}
