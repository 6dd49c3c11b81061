//! The model store, made again from the log while the server runs. No hook runs.
//!
//! It has the projector for itself. Reads and writes are answered `unavailable` until it is done, because a store that is
//! half there would give wrong answers. If it fails they stay so until the projector has caught up from where it stopped.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use snaphook_driver::Position;
use tokio::sync::Notify;

use super::Engine;
use super::availability::Outage;
use super::command::RebuildProgress;
use super::error::{Error, ErrorKind, Result};
use super::projection::Progress;

/// The rebuild that runs, or the last one.
#[derive(Default)]
pub(super) struct Rebuild {
    state: Mutex<State>,
    wanted: Notify,
}

#[derive(Clone, Default)]
struct State {
    phase: Phase,
    progress: Arc<Progress>,
    /// Somebody found that the store has to be made again; the next rebuild does it.
    is_wanted: bool,
}

#[derive(Clone, Default)]
enum Phase {
    #[default]
    Idle,
    Running,
    Done,
    Failed(String),
}

impl Rebuild {
    /// The model store has to be made again.
    pub(super) fn want(&self) {
        self.lock().is_wanted = true;
        self.wanted.notify_one();
    }

    fn set(&self, phase: Phase) {
        self.lock().phase = phase;
    }

    fn state(&self) -> State {
        self.lock().clone()
    }

    /// `None` if one runs, or if it is to begin only if it is wanted and is not.
    fn start(&self, if_wanted: bool) -> Option<Arc<Progress>> {
        let mut state = self.lock();
        if matches!(state.phase, Phase::Running) || (if_wanted && !state.is_wanted) {
            return None;
        }
        *state = State { phase: Phase::Running, progress: Arc::default(), is_wanted: false };
        Some(Arc::clone(&state.progress))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts rebuilds that the projector wants, as long as the engine lives.
pub(super) async fn serve(engine: Weak<Engine>, rebuild: Arc<Rebuild>) {
    loop {
        rebuild.wanted.notified().await;
        let Some(engine) = engine.upgrade() else { return };
        engine.start_wanted_rebuild();
    }
}

impl Engine {
    /// Starts a rebuild of the model store; `conflict` if one runs.
    pub async fn start_rebuild(self: &Arc<Self>) -> Result<()> {
        let progress = self
            .rebuild
            .start(false)
            .ok_or_else(|| Error::new(ErrorKind::Conflict, "a rebuild runs already; GET /rebuild shows it"))?;
        tokio::spawn(run(Arc::clone(self), progress));
        Ok(())
    }

    /// Starts one if it is wanted and does not run.
    pub(super) fn start_wanted_rebuild(self: &Arc<Self>) {
        if let Some(progress) = self.rebuild.start(true) {
            tokio::spawn(run(Arc::clone(self), progress));
        }
    }

    /// How far it has come.
    pub fn rebuild_progress(&self) -> RebuildProgress {
        let State { phase, progress, .. } = self.rebuild.state();
        let load = |value: &std::sync::atomic::AtomicU64| -> Position { value.load(Ordering::Relaxed) };
        let (state, error) = match phase {
            Phase::Idle => ("idle", None),
            Phase::Running => ("running", None),
            Phase::Done => ("done", None),
            Phase::Failed(error) => ("failed", Some(error)),
        };
        RebuildProgress {
            state,
            position: load(&progress.position),
            head: load(&progress.head),
            events: load(&progress.events),
            error,
        }
    }

    /// Refuses while the model store is half there.
    pub(super) fn check_available(&self) -> Result<()> {
        self.availability.check()
    }
}

async fn run(engine: Arc<Engine>, progress: Arc<Progress>) {
    // What a change has prepared in the model store would be gone.
    let _no_changes = engine.definitions.all().await;
    engine.availability.begin(Outage::Rebuild);
    let rebuilt = engine.projector.lock().await.rebuild(&progress).await;
    // First, so that who sees the end can go on at once.
    engine.availability.end(Outage::Rebuild);
    engine.rebuild.set(match rebuilt {
        Ok(()) => Phase::Done,
        Err(error) => {
            tracing::error!("the rebuild failed: {error}");
            Phase::Failed(error.detail)
        }
    });
    // What was skipped meanwhile.
    engine.start_wanted_rebuild();
}
