//! Operations for admins: readiness, metrics, rebuild, backup, jobs, secrets, nodes, events that cannot be applied.

mod backup;
mod jobs;
mod look;
mod metrics;
pub(super) mod nodes;
pub(super) mod readiness;
pub(super) mod rebuild;
mod secrets;
mod skip;

use std::sync::Arc;

use tokio::sync::Semaphore;

use super::core::Core;
use crate::drivers::PluginInfo;

/// The service for admins.
pub struct Operations {
    core: Arc<Core>,
    /// One backup at a time, because each makes the stores keep data that others overwrite.
    backing_up: Arc<Semaphore>,
    last_look: Arc<look::LastLook>,
}

impl Operations {
    pub(super) fn new(core: Arc<Core>) -> Operations {
        Operations { core, backing_up: Arc::new(Semaphore::new(1)), last_look: Arc::default() }
    }

    /// The loaded libraries with drivers.
    pub fn plugins(&self) -> &[PluginInfo] {
        &self.core.stores.plugins
    }
}
