//! The order of steps: how changes get into the log, their consequences, and the queries.
//!
//! The engine is five services over one [`core`]. Each service is a folder; it knows the core and no other service. The files
//! beside them are the parts of the core.
//!
//! The engine does no HTTP and does not know which drivers or hook engines exist. Ground state is the event log
//! alone; models in use, model store, tail and consumer groups are derived from it.

pub mod backtest;
pub mod batch_input;
pub mod command;
pub mod error;
pub mod input;
pub mod replay;
pub mod skip;

mod definitions;
mod deliveries;
mod history;
mod operations;
mod writes;

mod access;
mod ahead;
mod amended;
mod availability;
mod carried;
mod change;
mod committer;
mod core;
mod fit;
mod gate;
mod group;
mod hanging;
mod idempotency;
mod jobs;
mod lanes;
mod locks;
mod metrics;
mod models;
mod projection;
mod projector;
mod reads;
mod rebuild;
mod referring;
mod revisions;
mod stopping;
mod stuck;
mod tail;
mod troubles;
mod unstoppable;
mod waiters;
mod workers;

#[cfg(test)]
mod batch_tests;
#[cfg(test)]
mod cluster_tests;
#[cfg(test)]
mod committer_tests;
#[cfg(test)]
mod fault_tests;
#[cfg(test)]
mod reference_skip_tests;
#[cfg(test)]
mod reference_tests;
#[cfg(test)]
mod stuck_tests;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;

use self::access::{EngineAccess, StoredArtifacts};
pub use self::command::At;
use self::core::Core;
use self::definitions::{Definitions, lists};
use self::deliveries::{Deliveries, dispatcher};
pub use self::error::{Error, ErrorKind, Result};
pub use self::history::expand::{Expand, Expanded};
pub use self::history::{History, Visibility};
pub use self::jobs::JobInfo;
use self::operations::Operations;
pub use self::operations::nodes::NodeInfo;
pub use self::operations::readiness::{Readiness, StoreFault};
use self::operations::rebuild as rebuilding;
pub use self::stuck::Stuck;
use self::writes::Writes;
pub use self::writes::import::Line;
pub use crate::catalog::filter::{FilterInput, FilterValue, list_item};
pub use crate::catalog::query::QueryInput;
use crate::config::ConfigHandle;
use crate::drivers::Stores;
use crate::hooks::host::{Endpoints, HookHost, SandboxedModules};
use crate::memory::MemoryBudget;

/// One server's engine.
pub struct Engine {
    pub definitions: Definitions,
    pub writes: Writes,
    pub history: History,
    pub deliveries: Deliveries,
    pub operations: Operations,
    core: Arc<Core>,
    /// Tasks that run while the engine is open.
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl Engine {
    /// Brings the model store up to date with the log, puts the models in use, and starts running post hooks.
    /// `progress` can be watched meanwhile.
    pub async fn open(
        config: Arc<ConfigHandle>,
        stores: Stores,
        host: Arc<HookHost>,
        progress: &replay::Progress,
    ) -> Result<Arc<Engine>> {
        let core = Core::open(config, stores, host, progress).await?;
        core.host.attach(
            Arc::new(EngineAccess(Arc::downgrade(&core))),
            Arc::new(StoredArtifacts(Arc::clone(&core.stores.event))),
        );
        for hook in core.models.all().iter().flat_map(|entry| entry.hooks()) {
            core.host.libraries.load(hook).await;
        }
        lists::sweep(&core.stores.event, &core.models, &core.tail).await?;
        dispatcher::start(&core);
        let mut tasks = vec![
            tokio::spawn(rebuilding::serve(Arc::downgrade(&core), Arc::clone(&core.rebuild))),
            tokio::spawn(projector::mend(Arc::clone(&core.projector))),
        ];
        if core.stores.event.capabilities().shared {
            let (events, projector) = (Arc::clone(&core.stores.event), Arc::clone(&core.projector));
            tasks.push(tokio::spawn(projector::follow(events, projector, Arc::clone(&core.troubles))));
        }
        Ok(Arc::new(Engine {
            definitions: Definitions::new(Arc::clone(&core)),
            writes: Writes { core: Arc::clone(&core) },
            history: History { core: Arc::clone(&core) },
            deliveries: Deliveries::new(Arc::clone(&core)),
            operations: Operations::new(Arc::clone(&core)),
            core,
            tasks: Mutex::new(tasks),
        }))
    }

    /// The memory budget of all requests.
    pub fn memory(&self) -> &Arc<MemoryBudget> {
        &self.core.memory
    }

    /// The components of custom endpoints.
    pub fn endpoints(&self) -> &Arc<Endpoints> {
        &self.core.host.endpoints
    }

    /// The components of sandboxed modules.
    pub fn modules(&self) -> &SandboxedModules {
        &self.core.host.modules
    }

    /// From now on responses do not wait for post hooks (`Prefer: wait`).
    pub fn answer_at_once(&self) {
        self.core.leaving.begin();
    }

    /// Finishes running work within the time, then closes the stores. Unfinished post hooks run again later.
    pub async fn close(&self, within: Duration) {
        self.core.stopping.begin();
        self.core.lanes.close(within).await;
        let tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        tasks.iter().for_each(JoinHandle::abort);
        if self.core.committer.close().await {
            self.core.stores.close().await;
        } else {
            tracing::error!(
                "the event store does not return from an append; the server ends without closing the stores"
            );
        }
    }
}
