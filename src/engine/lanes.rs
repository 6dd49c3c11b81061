//! One task for each model with post hooks, which serves the model's consumer group. The projector starts and stops them; the
//! dispatcher decides what such a task does.

use std::collections::HashMap;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Starts the task of a model; `None` if the engine was dropped.
type Begin = Box<dyn Fn(&str, Signals) -> Option<JoinHandle<()>> + Send + Sync>;

/// The signals that end a task.
pub(super) struct Signals {
    /// The model's post hooks must not run any longer.
    pub(super) stop: watch::Receiver<bool>,
    /// The server is stopping.
    pub(super) stopping: watch::Receiver<bool>,
}

/// The tasks, by model.
pub(super) struct Lanes {
    begin: OnceLock<Begin>,
    lanes: Mutex<HashMap<String, Lane>>,
    stopping: watch::Sender<bool>,
}

struct Lane {
    task: JoinHandle<()>,
    stop: watch::Sender<bool>,
}

impl Lanes {
    pub(super) fn new() -> Lanes {
        Lanes { begin: OnceLock::new(), lanes: Mutex::default(), stopping: watch::Sender::new(false) }
    }

    /// From now on tasks can be started.
    pub(super) fn start(&self, begin: impl Fn(&str, Signals) -> Option<JoinHandle<()>> + Send + Sync + 'static) {
        let _ = self.begin.set(Box::new(begin));
    }

    /// Starts a model's task, unless it is running.
    pub(super) fn serve(&self, model: &str) {
        let Some(begin) = self.begin.get() else { return };
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        if *self.stopping.borrow() || lanes.get(model).is_some_and(|lane| !lane.task.is_finished()) {
            return;
        }
        let stop = watch::Sender::new(false);
        let signals = Signals { stop: stop.subscribe(), stopping: self.stopping.subscribe() };
        if let Some(task) = begin(model, signals) {
            lanes.insert(model.to_owned(), Lane { task, stop });
        }
    }

    /// Stops a model's task.
    pub(super) fn stop(&self, model: &str) {
        let lane = self.lanes.lock().unwrap_or_else(PoisonError::into_inner).remove(model);
        if let Some(lane) = lane {
            lane.stop.send_replace(true);
            // Running hooks finish; waiting for them here could deadlock with a hook that waits for this call.
            drop(lane.task);
        }
    }

    /// Takes no more events; running hooks get `within` to finish. Unacknowledged events are delivered again.
    pub(super) async fn close(&self, within: Duration) {
        self.stopping.send_replace(true);
        let lanes = std::mem::take(&mut *self.lanes.lock().unwrap_or_else(PoisonError::into_inner));
        let all = futures::future::join_all(lanes.into_values().map(|lane| async move {
            let mut task = lane.task;
            if tokio::time::timeout(within, &mut task).await.is_err() {
                task.abort();
                let _ = task.await;
            }
        }));
        all.await;
    }
}
