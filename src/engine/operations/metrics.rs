//! Everything that is counted and measured, as Prometheus text.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use snaphook_driver::ErrorQuery;

use super::Operations;
use crate::engine::group::group_of;
use crate::engine::models::Entry;
use crate::engine::{metrics, stuck};

impl Operations {
    /// Prometheus text.
    pub async fn metrics(&self) -> String {
        let mut out = String::new();
        self.core.metrics.write(&mut out);
        metrics::gauge(&mut out, "snaphook_log_head", "Position of the last event", self.core.tail.head());
        if let Some(lag) = self.lag().await {
            let help = "From what this node has applied to the head of the log, in positions";
            metrics::gauge(&mut out, "snaphook_node_lag", help, lag);
        }
        metrics::gauge(
            &mut out,
            "snaphook_commit_queue_length",
            "Commands that wait for the committer",
            self.core.committer.waiting() as u64,
        );
        metrics::memory(&mut out, &self.core.memory);
        self.core.stores.meters.write(&mut out);
        let models = self.core.models.all();
        metrics::gauge(&mut out, "snaphook_models", "Models in use", models.len() as u64);
        stuck::metrics(&mut out, &self.core.availability.all_stuck());
        metrics::hooks(&mut out, &models);
        metrics::backlogs(&mut out, &self.backlogs(&models).await);
        metrics::gauge(
            &mut out,
            "snaphook_listeners",
            "Event streams that are followed",
            self.core.metrics.listeners.load(Ordering::Relaxed),
        );
        if self.core.stores.error.capabilities().readable
            && let Ok(errors) = self.core.stores.error.count(&ErrorQuery::default()).await
        {
            metrics::gauge(&mut out, "snaphook_errors", "Post hooks that failed for good and are kept", errors);
        }
        metrics::libraries(&mut out, &self.core.host.libraries.counts());
        self.core.host.code.engine_facts().for_each(|fact| metrics::fact(&mut out, fact));
        out
    }

    /// By model: events that its post hooks have not dealt with.
    async fn backlogs(&self, models: &[Arc<Entry>]) -> Vec<(String, u64)> {
        let mut backlogs = Vec::new();
        for entry in models.iter().filter(|entry| entry.reacts_since().is_some()) {
            let id = &entry.model.record.id;
            // A store that fails says so elsewhere.
            if let Ok((count, _)) = self.core.stores.event.lag(&group_of(id).name).await {
                backlogs.push((id.clone(), count));
            }
        }
        backlogs
    }
}
