//! What a model's hooks are, what they logged, what their runs cost.

use futures::StreamExt;
use futures::stream::{self, BoxStream};
use serde_json::Value;

use super::command::HookInfo;
use super::error::Result;
use super::{Engine, stopped_signal};
use crate::catalog::Model;
use crate::config::Phase;
use crate::hooks::feed::Told;
use crate::hooks::stats::PhaseLine;

impl Engine {
    /// A model's hooks follow the files of their libraries: what [`Engine::hook_infos`] tells is so from then on.
    pub async fn look_at_libraries(&self, model: &Model) {
        let Some(entry) = self.models.get(&model.record.id) else { return };
        for hook in entry.hooks() {
            self.host.look_at_library(hook).await;
        }
    }

    /// A phase's hooks, in order.
    pub fn hook_infos(&self, model: &Model, phase: Phase) -> Vec<HookInfo> {
        let Some(entry) = self.models.get(&model.record.id) else { return Vec::new() };
        entry.chain(phase).iter().map(|hook| self.host.info(hook)).collect()
    }

    /// The last 200 log lines of a phase's runs.
    pub fn hook_log(&self, model: &str, phase: Phase) -> Result<Vec<PhaseLine>> {
        self.models.require(model)?;
        Ok(self.host.phase_log(model, phase).lines())
    }

    /// The lines that are kept, then those from now on.
    pub fn follow_hook_log(&self, model: &str, phase: Phase) -> Result<BoxStream<'static, PhaseLine>> {
        self.models.require(model)?;
        let (lines, receiver) = self.host.phase_log(model, phase).follow();
        let live = stream::unfold(receiver, |mut receiver| async move {
            use tokio::sync::broadcast::error::RecvError;
            loop {
                match receiver.recv().await {
                    Ok(line) => return Some((line, receiver)),
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return None,
                }
            }
        });
        let ended = self.stopping.subscribe();
        Ok(stream::iter(lines).chain(live).take_until(stopped_signal(ended)).boxed())
    }

    /// Every run of every hook that ends from now on, and every native library that is loaded or cannot be. One that
    /// cannot keep up misses some, and is told how many.
    pub fn follow_hooks(&self) -> BoxStream<'static, Told> {
        self.host.follow().take_until(stopped_signal(self.stopping.subscribe())).boxed()
    }

    /// One object per hook of the phase.
    pub fn hook_stats(&self, model: &str, phase: Phase) -> Result<Vec<Value>> {
        let entry = self.models.require(model)?;
        let stats = entry.chain(phase).iter().map(|hook| {
            let mut stats = self.host.stats(hook);
            if let Value::Object(map) = &mut stats {
                map.shift_insert(0, "name".to_owned(), Value::String(hook.binding().id.name.clone()));
            }
            stats
        });
        Ok(stats.collect())
    }
}
