//! The logs, statistics and live runs of hooks.

use futures::StreamExt;
use futures::stream::{self, BoxStream};
use serde_json::Value;

use super::Deliveries;
use crate::config::Phase;
use crate::engine::error::Result;
use crate::hooks::feed::Told;
use crate::hooks::stats::PhaseLine;

impl Deliveries {
    /// The last 200 log lines of a phase's runs.
    pub fn hook_log(&self, model: &str, phase: Phase) -> Result<Vec<PhaseLine>> {
        self.core.models.require(model)?;
        Ok(self.core.host.logs.phase(model, phase).lines())
    }

    /// The stored lines, then new ones.
    pub fn follow_hook_log(&self, model: &str, phase: Phase) -> Result<BoxStream<'static, PhaseLine>> {
        self.core.models.require(model)?;
        let (lines, receiver) = self.core.host.logs.phase(model, phase).follow();
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
        Ok(stream::iter(lines).chain(live).take_until(self.core.stopping.begun()).boxed())
    }

    /// Every run of every hook that ends from now on, and every native library that is loaded or fails to load. A slow
    /// consumer misses some, and gets their number.
    pub fn follow_hooks(&self) -> BoxStream<'static, Told> {
        self.core.host.logs.follow().take_until(self.core.stopping.begun()).boxed()
    }

    /// One object per hook of the phase.
    pub fn hook_stats(&self, model: &str, phase: Phase) -> Result<Vec<Value>> {
        let entry = self.core.models.require(model)?;
        let stats = entry.chain(phase).iter().map(|hook| {
            let mut stats = self.core.host.stats(hook);
            if let Value::Object(map) = &mut stats {
                map.shift_insert(0, "name".to_owned(), Value::String(hook.binding().id.name.clone()));
            }
            stats
        });
        Ok(stats.collect())
    }
}
