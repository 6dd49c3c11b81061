//! The common parts of the services: the stores, the state that this node derives from the log, and the threads that
//! write and follow it.
//!
//! The core knows no service. Its methods are the steps that several services need.

use std::sync::Arc;
use std::time::Duration;

use snaphook_driver::{Append, Conflict, Position};
use tokio::runtime::Handle;
use tokio::sync::Mutex;

use super::availability::Availability;
use super::committer::{Committed, Committer, CommitterThread, Draft, lost_answer};
use super::error::{Error, ErrorKind, Result};
use super::group::group_of;
use super::hanging::unanswered;
use super::jobs::Jobs;
use super::lanes::Lanes;
use super::locks::DefinitionLocks;
use super::metrics::Metrics;
use super::models::Models;
use super::projection::Progress;
use super::projector::{Derived, Projector};
use super::rebuild::Rebuild;
use super::stopping::Stopping;
use super::tail::Tail;
use super::troubles::Troubles;
use super::unstoppable::unstoppable;
use super::waiters::Waiters;
use super::workers::Workers;
use crate::config::ConfigHandle;
use crate::drivers::Stores;
use crate::hooks::host::HookHost;
use crate::memory::{MemoryBudget, Share};

/// The state of one server's engine.
pub(super) struct Core {
    pub(super) config: Arc<ConfigHandle>,
    pub(super) stores: Stores,
    pub(super) host: Arc<HookHost>,
    pub(super) models: Arc<Models>,
    pub(super) tail: Arc<Tail>,
    pub(super) committer: Committer,
    pub(super) projector: Arc<Mutex<Projector>>,
    pub(super) lanes: Arc<Lanes>,
    pub(super) waiters: Arc<Waiters>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) rebuild: Arc<Rebuild>,
    pub(super) availability: Arc<Availability>,
    pub(super) memory: Arc<MemoryBudget>,
    /// The engine's own memory for requests: trees of stored data, pages of listeners.
    pub(super) own_memory: Arc<Share>,
    pub(super) workers: Arc<Workers>,
    pub(super) jobs: Jobs,
    pub(super) troubles: Arc<Troubles>,
    pub(super) locks: DefinitionLocks,
    pub(super) stopping: Stopping,
    /// Whether the server is stopping: then responses do not wait for post hooks.
    pub(super) leaving: Stopping,
}

impl Core {
    /// Lets the model store catch up with the log and puts the models in use. `progress` can be watched meanwhile.
    pub(super) async fn open(
        config: Arc<ConfigHandle>,
        stores: Stores,
        host: Arc<HookHost>,
        progress: &Progress,
    ) -> Result<Arc<Core>> {
        let models = Arc::new(Models::default());
        let tail = Arc::new(Tail::new(0));
        let waiters = Arc::new(Waiters::default());
        let metrics = Arc::new(Metrics::default());
        let availability = Arc::new(Availability::default());
        let troubles = Arc::new(Troubles::default());
        let lanes = Arc::new(Lanes::new());
        let rebuild = Arc::new(Rebuild::default());
        let derived = Derived {
            models: Arc::clone(&models),
            tail: Arc::clone(&tail),
            waiters: Arc::clone(&waiters),
            lanes: Arc::clone(&lanes),
            availability: Arc::clone(&availability),
            troubles: Arc::clone(&troubles),
            rebuild: Arc::clone(&rebuild),
        };
        let projector = Projector::open(&stores, derived, Arc::clone(&host), progress).await?;
        let hints = projector.hints();
        let projector = Arc::new(Mutex::new(projector));
        let committer = Committer::start(CommitterThread {
            events: Arc::clone(&stores.event),
            projector: Arc::clone(&projector),
            metrics: Arc::clone(&metrics),
            availability: Arc::clone(&availability),
            troubles: Arc::clone(&troubles),
            tail: Arc::clone(&tail),
            appending: Arc::default(),
            runtime: Handle::current(),
            hints,
            unknown: None,
        })
        .map_err(|error| {
            Error::new(ErrorKind::Storage, format!("the committer's thread cannot be started: {error}"))
        })?;
        let memory = MemoryBudget::new(config.load().server.memory_bytes);
        let workers = Workers::start().map(Arc::new).map_err(|error| {
            Error::new(ErrorKind::Storage, format!("the threads for checks cannot be started: {error}"))
        })?;
        Ok(Arc::new(Core {
            config,
            stores,
            host,
            models,
            tail,
            committer,
            projector,
            lanes,
            waiters,
            metrics,
            rebuild,
            availability,
            own_memory: Arc::new(memory.whole()),
            memory,
            workers,
            jobs: Jobs::default(),
            troubles,
            locks: DefinitionLocks::default(),
            stopping: Stopping::default(),
            leaving: Stopping::default(),
        }))
    }

    /// Waits until this node has applied all that is in the log, and all up to `seen`: a store may show what an event
    /// has claimed a moment before its head includes the event. Returns the position that was reached; `unavailable` if
    /// it takes too long.
    pub(super) async fn catch_up(&self, seen: Position) -> Result<Position> {
        let position = self.stores.event.head().await?.max(seen);
        self.tail.reached_soon(position).await?;
        Ok(position)
    }

    /// Appends one event of the server's own.
    pub(super) async fn append_one(&self, draft: Draft) -> Result<Result<Committed, Conflict>> {
        self.committer.append(vec![draft]).await?.pop().unwrap_or_else(|| Err(lost_answer()))
    }

    /// Appends events of a stuck model: listeners get them, the model store skips them. Returns the position of the
    /// first one, 0 if there is none.
    pub(super) async fn append_for_stuck(&self, appends: Vec<Append>) -> Result<Position> {
        let mut first = None;
        let mut conflict = false;
        for answer in self.committer.append(appends.into_iter().map(Draft::for_stuck).collect()).await? {
            match answer? {
                Ok(committed) => drop(first.get_or_insert(committed.position)),
                Err(_) => conflict = true,
            }
        }
        match conflict {
            false => Ok(first.unwrap_or_default()),
            true => Err(Error::new(ErrorKind::Conflict, "somebody else changed the model meanwhile; try again")),
        }
    }

    /// Completes work that waits for the committer, even if the caller is gone. If an append hangs, the caller gets an
    /// error, and the work continues when the append does.
    pub(super) async fn commit<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        self.committer.answered(unstoppable(work)).await.unwrap_or_else(|| Err(unanswered()))
    }

    /// Waits until this node has applied the conflicting event, so that the next attempt sees its effect.
    pub(super) async fn seen(&self, position: Position) {
        if let Err(error) = self.tail.reached_soon(position).await {
            tracing::warn!(position, "an event that others wrote is not applied yet: {error}");
        }
    }

    /// Waits until a model is available; an error if the server stops first.
    pub(super) async fn until_available(&self, model: &str) -> Result<(), ()> {
        if self.availability.check_model(model).is_ok() {
            return Ok(());
        }
        tokio::select! {
            () = self.availability.wait(model) => Ok(()),
            () = self.stopping.begun() => Err(()),
        }
    }

    /// Waits; an error if the server stops first.
    pub(super) async fn pause(&self, delay: Duration) -> Result<(), ()> {
        tokio::time::timeout(delay, self.stopping.begun()).await.map_or(Ok(()), |()| Err(()))
    }

    /// Stops running a model's post hooks and forgets their pending events.
    pub(super) async fn forget_post_hooks(&self, model: &str) {
        self.lanes.stop(model);
        if let Err(error) = self.stores.event.drop_group(&group_of(model).name).await {
            tracing::error!(model, "the consumer group cannot be dropped: {error}");
        }
    }
}
