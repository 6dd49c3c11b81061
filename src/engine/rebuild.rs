//! The state of the rebuild of the model store: requested, running, or ended, and its progress.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use snaphook_driver::Position;
use tokio::sync::Notify;

use super::command::RebuildProgress;
use super::projection::Progress;

/// The running rebuild, or the last one.
#[derive(Default)]
pub(super) struct Rebuild {
    state: Mutex<RebuildState>,
    wanted: Notify,
}

#[derive(Clone, Default)]
struct RebuildState {
    phase: Phase,
    progress: Arc<Progress>,
    /// A rebuild was requested.
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
    /// Requests a rebuild of the model store.
    pub(super) fn want(&self) {
        self.lock().is_wanted = true;
        self.wanted.notify_one();
    }

    /// Waits until a rebuild is requested.
    pub(super) async fn wanted(&self) {
        self.wanted.notified().await;
    }

    /// The rebuild that ran has ended; the error says why it failed.
    pub(super) fn end(&self, result: Result<(), String>) {
        self.lock().phase = result.map_or_else(Phase::Failed, |()| Phase::Done);
    }

    /// The progress.
    pub(super) fn progress(&self) -> RebuildProgress {
        let RebuildState { phase, progress, .. } = self.lock().clone();
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

    /// `None` if one is running, or with `if_wanted` if none is requested.
    pub(super) fn start(&self, if_wanted: bool) -> Option<Arc<Progress>> {
        let mut state = self.lock();
        if matches!(state.phase, Phase::Running) || (if_wanted && !state.is_wanted) {
            return None;
        }
        *state = RebuildState { phase: Phase::Running, progress: Arc::default(), is_wanted: false };
        Some(Arc::clone(&state.progress))
    }

    fn lock(&self) -> MutexGuard<'_, RebuildState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
