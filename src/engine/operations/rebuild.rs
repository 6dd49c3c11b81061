//! Rebuilds the model store from the log while the server runs, without running hooks.
//!
//! A rebuild has exclusive use of the projector. Reads and writes get `unavailable` until it is done, because an
//! incomplete store would return wrong results. If it fails, they stay unavailable until the projector has caught up
//! from where it stopped.

use std::sync::{Arc, Weak};

use super::Operations;
use crate::engine::availability::Outage;
use crate::engine::command::RebuildProgress;
use crate::engine::core::Core;
use crate::engine::error::{Error, ErrorKind, Result};
use crate::engine::projection::Progress;
use crate::engine::rebuild::Rebuild;

impl Operations {
    /// Starts a rebuild of the model store; `conflict` if one runs.
    pub async fn start_rebuild(&self) -> Result<()> {
        let progress =
            self.core.rebuild.start(false).ok_or_else(|| {
                Error::new(ErrorKind::Conflict, "a rebuild is already running; GET /rebuild shows it")
            })?;
        tokio::spawn(run(Arc::clone(&self.core), progress));
        Ok(())
    }

    /// The progress of the rebuild.
    pub fn rebuild_progress(&self) -> RebuildProgress {
        self.core.rebuild.progress()
    }
}

/// Starts rebuilds that the projector requests, as long as the engine exists.
pub(in crate::engine) async fn serve(core: Weak<Core>, rebuild: Arc<Rebuild>) {
    loop {
        rebuild.wanted().await;
        let Some(core) = core.upgrade() else { return };
        start_wanted(&core);
    }
}

/// Starts a rebuild if one is requested and none is running.
pub(super) fn start_wanted(core: &Arc<Core>) {
    if let Some(progress) = core.rebuild.start(true) {
        tokio::spawn(run(Arc::clone(core), progress));
    }
}

async fn run(core: Arc<Core>, progress: Arc<Progress>) {
    // A rebuild would remove versions that a change has prepared in the model store.
    let _no_changes = core.locks.all().await;
    core.availability.begin(Outage::Rebuild);
    let rebuilt = core.projector.lock().await.rebuild(&progress).await;
    // First, so that callers that see the end can continue immediately.
    core.availability.end(Outage::Rebuild);
    core.rebuild.end(rebuilt.map_err(|error| {
        tracing::error!("the rebuild failed: {error}");
        error.detail
    }));
    // For events that were skipped meanwhile.
    start_wanted(&core);
}
