//! The model store, made again from the log while the server runs. No hook runs.
//!
//! It has the committer's thread for itself: nothing is written meanwhile. Reads and writes are answered
//! `overloaded` until it is done, because a store that is half there would give wrong answers. If it fails they stay so
//! until the committer has caught up from where it stopped.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use snaphook_driver::Position;

use super::availability::Outage;
use super::command::RebuildProgress;
use super::error::{Error, ErrorKind, Result};
use super::models::Entry;
use super::replay::Replayed;
use super::{Engine, replay};

/// The rebuild that runs, or the last one.
#[derive(Default)]
pub(super) struct Rebuild(Mutex<State>);

#[derive(Clone, Default)]
struct State {
    phase: Phase,
    progress: Arc<replay::Progress>,
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
    fn set(&self, phase: Phase) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).phase = phase;
    }

    fn state(&self) -> State {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn start(&self) -> Option<Arc<replay::Progress>> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(state.phase, Phase::Running) {
            return None;
        }
        *state = State { phase: Phase::Running, progress: Arc::default() };
        Some(Arc::clone(&state.progress))
    }
}

impl Engine {
    /// Starts a rebuild of the model store; `conflict` if one runs.
    pub async fn start_rebuild(self: &Arc<Self>) -> Result<()> {
        let progress = self
            .rebuild
            .start()
            .ok_or_else(|| Error::new(ErrorKind::Conflict, "a rebuild runs already; GET /rebuild shows it"))?;
        let engine = Arc::clone(self);
        tokio::spawn(async move {
            // What a change has prepared in the model store would be gone.
            let _no_changes = engine.definitions.all().await;
            engine.availability.begin(Outage::Rebuild);
            let work = Arc::clone(&engine);
            let result = engine
                .committer
                .exclusive(move |writer| {
                    writer
                        .runtime
                        .block_on(async {
                            writer.store.reset(writer.events.identity()).await?;
                            replay::run(&writer.events, &writer.store, &progress).await
                        })
                        .map(|Replayed { models, stuck }| {
                            writer.availability.set_stuck(stuck);
                            writer.caught_up();
                            let entries = models.into_iter().map(|model| {
                                let old = work.models.get(&model.record.id);
                                Arc::new(Entry::new(Arc::new(model), &work.host, old.as_deref(), None))
                            });
                            work.models.replace(entries.collect());
                        })
                        .inspect_err(|_| writer.fell_behind())
                })
                .await
                .and_then(|result| result);
            // First, so that who sees the end can go on at once.
            // Whoever sees that it is done may ask the store.
            engine.availability.end(Outage::Rebuild);
            engine.rebuild.set(match result {
                Ok(()) => Phase::Done,
                Err(error) => {
                    tracing::error!("the rebuild failed: {error}");
                    Phase::Failed(error.detail)
                }
            });
        });
        Ok(())
    }

    /// How far it has come.
    pub fn rebuild_progress(&self) -> RebuildProgress {
        let State { phase, progress } = self.rebuild.state();
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
