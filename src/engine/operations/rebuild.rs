//! The model store, made again from the log while the server runs. No hook runs.
//!
//! It has the projector for itself. Reads and writes are answered `unavailable` until it is done, because a store that is
//! half there would give wrong answers. If it fails they stay so until the projector has caught up from where it stopped.

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
        let progress = self
            .core
            .rebuild
            .start(false)
            .ok_or_else(|| Error::new(ErrorKind::Conflict, "a rebuild runs already; GET /rebuild shows it"))?;
        tokio::spawn(run(Arc::clone(&self.core), progress));
        Ok(())
    }

    /// How far it has come.
    pub fn rebuild_progress(&self) -> RebuildProgress {
        self.core.rebuild.progress()
    }
}

/// Starts rebuilds that the projector wants, as long as the engine lives.
pub(in crate::engine) async fn serve(core: Weak<Core>, rebuild: Arc<Rebuild>) {
    loop {
        rebuild.wanted().await;
        let Some(core) = core.upgrade() else { return };
        start_wanted(&core);
    }
}

/// Starts one if it is wanted and does not run.
pub(super) fn start_wanted(core: &Arc<Core>) {
    if let Some(progress) = core.rebuild.start(true) {
        tokio::spawn(run(Arc::clone(core), progress));
    }
}

async fn run(core: Arc<Core>, progress: Arc<Progress>) {
    // What a change has prepared in the model store would be gone.
    let _no_changes = core.locks.all().await;
    core.availability.begin(Outage::Rebuild);
    let rebuilt = core.projector.lock().await.rebuild(&progress).await;
    // First, so that who sees the end can go on at once.
    core.availability.end(Outage::Rebuild);
    core.rebuild.end(rebuilt.map_err(|error| {
        tracing::error!("the rebuild failed: {error}");
        error.detail
    }));
    // What was skipped meanwhile.
    start_wanted(&core);
}
