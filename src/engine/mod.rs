//! The commit path, the dispatcher, rebuild and publishing: the only place that knows the order of steps.
//!
//! The engine does no HTTP and does not know which drivers or hook engines exist. Ground state is the event log
//! alone; models in use, model store, tail and consumer groups are derived from it.

pub mod backtest;
pub mod command;
pub mod error;
pub mod replay;

mod access;
mod apply;
mod artifacts;
mod availability;
mod backup;
mod bindings;
mod change;
mod committer;
mod definitions;
mod delivery;
mod discard;
mod dispatcher;
mod failures;
mod fit;
mod gate;
mod hanging;
mod history;
mod idempotency;
mod import;
mod import_order;
pub mod input;
mod jobs;
mod metrics;
mod models;
mod prehooks;
mod projection;
mod projector;
mod queries;
mod rebuild;
mod runs;
mod secrets;
pub mod skip;
mod stuck;
mod tail;
mod troubles;
mod unstoppable;
mod waiters;
mod workers;
mod write;

#[cfg(test)]
mod cluster_tests;
#[cfg(test)]
mod committer_tests;
#[cfg(test)]
mod delivery_tests;
#[cfg(test)]
mod stuck_tests;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;
use snaphook_driver::{ErrorQuery, Instance};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use self::access::EngineAccess;
use self::artifacts::StoredArtifacts;
use self::availability::Availability;
use self::committer::{Committer, Writer};
use self::definitions::DefinitionLocks;
use self::dispatcher::Dispatcher;
pub use self::error::{Error, ErrorKind, Result};
pub use self::history::At;
pub use self::import::Line;
pub use self::jobs::JobInfo;
use self::jobs::Jobs;
use self::metrics::Metrics;
use self::models::{Entry, Models};
use self::projector::{Derived, Projector};
use self::rebuild::Rebuild;
pub use self::stuck::Stuck;
use self::tail::Tail;
use self::troubles::{Troubles, guarded};
use self::waiters::Waiters;
use self::workers::Workers;
pub use crate::catalog::query::{FilterValue, QueryInput};
use crate::catalog::{Model, query};
use crate::config::ConfigHandle;
use crate::drivers::Stores;
use crate::hooks::host::HookHost;
use crate::memory::{MemoryBudget, Share};

/// A store that takes longer to say that it works does not.
const HEALTH_MAX: Duration = Duration::from_secs(2);

/// One server's engine.
pub struct Engine {
    config: Arc<ConfigHandle>,
    stores: Stores,
    host: Arc<HookHost>,
    models: Arc<Models>,
    tail: Arc<Tail>,
    committer: Committer,
    projector: Arc<tokio::sync::Mutex<Projector>>,
    dispatcher: Arc<Dispatcher>,
    waiters: Arc<Waiters>,
    metrics: Arc<Metrics>,
    rebuild: Arc<Rebuild>,
    availability: Arc<Availability>,
    memory: Arc<MemoryBudget>,
    /// What the engine itself holds on behalf of requests: trees of stored data, pages of listeners.
    own_memory: Arc<Share>,
    workers: Arc<Workers>,
    jobs: Jobs,
    /// Instances whose recorded errors somebody retries or drops.
    claims: failures::Claims,
    /// One backup at a time: each keeps the stores from letting go of what others overwrite.
    backing_up: Arc<tokio::sync::Semaphore>,
    troubles: Arc<Troubles>,
    definitions: DefinitionLocks,
    /// Each of them may compile for seconds, on all cores.
    preparing: tokio::sync::Semaphore,
    stopping: watch::Sender<bool>,
    /// What runs as long as the engine is open.
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

/// What does not work now; nothing, if all is well.
#[derive(Clone, Debug, PartialEq)]
pub struct Readiness {
    /// At most one row for each store.
    pub stores: Vec<StoreFault>,
    pub models: Vec<Stuck>,
}

/// Why a store does not work.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StoreFault {
    pub store: &'static str,
    pub reason: String,
}

impl Engine {
    /// Lets the model store catch up with the log, puts the models in use, and starts to serve post hooks. `progress`
    /// can be watched meanwhile.
    pub async fn open(
        config: Arc<ConfigHandle>,
        stores: Stores,
        host: Arc<HookHost>,
        progress: &replay::Progress,
    ) -> Result<Arc<Engine>> {
        let models = Arc::new(Models::default());
        let tail = Arc::new(Tail::new(0));
        let waiters = Arc::new(Waiters::default());
        let metrics = Arc::new(Metrics::default());
        let availability = Arc::new(Availability::default());
        let troubles = Arc::new(Troubles::default());
        let dispatcher = Arc::new(Dispatcher::new());
        let rebuild = Arc::new(Rebuild::default());
        let derived = Derived {
            models: Arc::clone(&models),
            tail: Arc::clone(&tail),
            waiters: Arc::clone(&waiters),
            dispatcher: Arc::clone(&dispatcher),
            availability: Arc::clone(&availability),
            troubles: Arc::clone(&troubles),
            rebuild: Arc::clone(&rebuild),
        };
        let projector = Projector::open(&stores, derived, Arc::clone(&host), progress).await?;
        let hints = projector.hints();
        let projector = Arc::new(tokio::sync::Mutex::new(projector));
        let committer = Committer::start(Writer {
            events: Arc::clone(&stores.event),
            projector: Arc::clone(&projector),
            metrics: Arc::clone(&metrics),
            availability: Arc::clone(&availability),
            troubles: Arc::clone(&troubles),
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
        let engine = Arc::new(Engine {
            config,
            stores,
            host,
            models,
            tail,
            committer,
            projector,
            dispatcher,
            waiters,
            metrics,
            rebuild,
            availability,
            own_memory: Arc::new(memory.whole()),
            memory,
            workers,
            jobs: Jobs::default(),
            claims: failures::Claims::default(),
            backing_up: Arc::new(tokio::sync::Semaphore::new(1)),
            troubles,
            definitions: DefinitionLocks::default(),
            preparing: tokio::sync::Semaphore::new(bindings::PREPARING_MAX),
            stopping: watch::Sender::new(false),
            tasks: Mutex::default(),
        });
        engine.host.attach(
            Arc::new(EngineAccess(Arc::downgrade(&engine))),
            Arc::new(StoredArtifacts(Arc::clone(&engine.stores.event))),
        );
        for hook in engine.models.all().iter().flat_map(|entry| entry.hooks()) {
            engine.host.load_library(hook).await;
        }
        definitions::sweep(&engine.stores.event, &engine.models, &engine.tail).await?;
        engine.dispatcher.start(&engine);
        let mut tasks = vec![
            tokio::spawn(rebuild::serve(Arc::downgrade(&engine), Arc::clone(&engine.rebuild))),
            tokio::spawn(projector::mend(Arc::clone(&engine.projector))),
        ];
        if engine.stores.event.capabilities().shared {
            let (events, projector) = (Arc::clone(&engine.stores.event), Arc::clone(&engine.projector));
            tasks.push(tokio::spawn(projector::follow(events, projector, Arc::clone(&engine.troubles))));
        }
        engine.tasks.lock().unwrap_or_else(PoisonError::into_inner).extend(tasks);
        Ok(engine)
    }

    /// The memory that requests hold together.
    pub fn memory(&self) -> &Arc<MemoryBudget> {
        &self.memory
    }

    /// Every model, by id.
    pub fn models(&self) -> Vec<Arc<Model>> {
        self.models.all().into_iter().map(|entry| Arc::clone(&entry.model)).collect()
    }

    /// `not-found` if there is none.
    pub fn model(&self, id: &str) -> Result<Arc<Model>> {
        Ok(Arc::clone(&self.models.require(id)?.model))
    }

    /// One instance, as it is now.
    pub async fn get(&self, model: &str, id: &str) -> Result<Instance> {
        self.availability.check_model(model)?;
        match self.stores.model.get(model, id).await? {
            Some(instance) => Ok(instance),
            None => {
                self.models.require(model)?;
                let shown: String = id.chars().take(128).collect();
                Err(Error::not_found(format!("there is no `{model}/{}`", shown.escape_debug())))
            }
        }
    }

    /// Whether data of the model may have something at each of the paths.
    pub fn check_fields(&self, model: &str, paths: &[String]) -> Result<()> {
        query::check_fields(&self.models.require(model)?.model, paths).map_err(Error::bad_request)
    }

    /// What does not work now.
    pub async fn readiness(&self) -> Readiness {
        let mut stores: Vec<(&'static str, String)> = Vec::new();
        let (secure, event, model, error) = tokio::join!(
            health(self.stores.secure.health()),
            health(self.stores.event.health()),
            health(self.stores.model.health()),
            health(self.stores.error.health()),
        );
        for (name, health) in [("secure", secure), ("event", event), ("model", model), ("error", error)] {
            stores.extend(health.err().map(|reason| (name, reason)));
        }
        stores.extend(self.troubles.all().into_iter().map(|(part, reason)| (part.store(), reason)));
        if let Some(time) = self.committer.stalled() {
            stores.push(("event", format!("it has been appending for {} s", time.as_secs())));
        }
        stores.extend(self.check_available().err().map(|error| ("model", error.detail)));
        // One reason for each store: the first is the nearest to its cause.
        let mut seen = BTreeSet::new();
        stores.retain(|(store, _)| seen.insert(*store));
        Readiness {
            stores: stores.into_iter().map(|(store, reason)| StoreFault { store, reason }).collect(),
            models: self.availability.all_stuck().into_values().collect(),
        }
    }

    /// Prometheus text.
    pub async fn metrics(&self) -> String {
        let mut out = String::new();
        self.metrics.write(&mut out);
        metrics::gauge(&mut out, "snaphook_log_head", "Position of the last event", self.tail.head());
        metrics::gauge(
            &mut out,
            "snaphook_commit_queue_length",
            "Commands that wait for the committer",
            self.committer.waiting() as u64,
        );
        metrics::memory(&mut out, &self.memory);
        self.stores.meters.write(&mut out);
        let models = self.models.all();
        metrics::gauge(&mut out, "snaphook_models", "Models in use", models.len() as u64);
        stuck::metrics(&mut out, &self.availability.all_stuck());
        metrics::hooks(&mut out, &models);
        metrics::backlogs(&mut out, &self.backlogs(&models).await);
        metrics::gauge(
            &mut out,
            "snaphook_listeners",
            "Event streams that are followed",
            self.metrics.listeners.load(std::sync::atomic::Ordering::Relaxed),
        );
        if let Ok(errors) = self.count_errors(&ErrorQuery::default()).await {
            metrics::gauge(&mut out, "snaphook_errors", "Post hooks that failed for good and are kept", errors);
        }
        metrics::libraries(&mut out, &self.host.libraries());
        self.host.engine_facts().for_each(|fact| metrics::fact(&mut out, fact));
        out
    }

    /// By model: events that its post hooks have not dealt with.
    async fn backlogs(&self, models: &[Arc<Entry>]) -> Vec<(String, u64)> {
        let mut backlogs = Vec::new();
        for entry in models.iter().filter(|entry| entry.reacts_since().is_some()) {
            let id = &entry.model.record.id;
            // A store that fails says so elsewhere.
            if let Ok((count, _)) = self.stores.event.lag(&bindings::group_of(id).name).await {
                backlogs.push((id.clone(), count));
            }
        }
        backlogs
    }

    /// Finishes what runs, within the time; then closes the stores. What post hooks did not finish comes again.
    pub async fn close(&self, within: Duration) {
        self.stopping.send_replace(true);
        self.dispatcher.close(within).await;
        let tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        tasks.iter().for_each(JoinHandle::abort);
        if self.committer.close().await {
            self.stores.close().await;
        } else {
            tracing::error!(
                "the event store does not come back from an append; the server ends without closing the stores"
            );
        }
    }
}

/// Asks a store whether it works; the error is the reason.
async fn health(answer: impl Future<Output = snaphook_driver::Result<()>>) -> Result<(), String> {
    match tokio::time::timeout(HEALTH_MAX, guarded("health", answer)).await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err(format!("it has not answered for {} s", HEALTH_MAX.as_secs())),
    }
}

/// Ends when the server stops.
async fn stopped_signal(mut stopping: watch::Receiver<bool>) {
    let _ = stopping.wait_for(|stopping| *stopping).await;
}
