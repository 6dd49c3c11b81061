//! Writes all metrics for `/metrics`.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use snaphook_driver::ErrorQuery;
use tokio::time::Instant;

use super::Operations;
use super::look::Look;
use crate::engine::group::group_of;
use crate::engine::models::LiveModel;
use crate::engine::{metrics, stuck};
use crate::telemetry::exposition::Exposition;

/// How long the stores' numbers are reused, so that requests for metrics do not determine the stores' load.
const FRESH: Duration = Duration::from_secs(1);

impl Operations {
    /// Writes what the engine, its stores and its hooks have counted.
    pub async fn metrics(&self, out: &mut Exposition) {
        self.core.metrics.write(out);
        let applied = self.core.tail.head();
        let help = "Position up to which this node has applied the log";
        out.gauge("snaphook_applied_position", help).sample(&[], applied);
        let models = self.core.models.all();
        let look = self.look(&models).await;
        if let Some(head) = look.log_head {
            let head = head.max(applied);
            out.gauge("snaphook_log_head", "Position of the log's last event, whoever wrote it").sample(&[], head);
            let help = "From what this node has applied to the head of the log, in positions";
            out.gauge("snaphook_node_lag", help).sample(&[], head - applied);
        }
        let waiting = self.core.committer.waiting();
        out.gauge("snaphook_commit_queue_length", "Commands that wait for the committer").sample(&[], waiting);
        metrics::memory(out, &self.core.memory);
        self.core.stores.meters.write(out);
        out.gauge("snaphook_models", "Models in use").sample(&[], models.len());
        stuck::metrics(out, &self.core.availability.all_stuck());
        self.core.host.logs.write_metrics(out);
        metrics::backlogs(out, &look.backlogs);
        let listeners = self.core.metrics.listeners.load(Ordering::Relaxed);
        out.gauge("snaphook_listeners", "Event streams that are followed").sample(&[], listeners);
        if let Some(errors) = look.errors {
            out.gauge("snaphook_errors", "Post hooks that failed for good and are kept").sample(&[], errors);
        }
        metrics::libraries(out, &self.core.host.libraries.counts());
        metrics::facts(out, self.core.host.code.engine_facts());
    }

    /// Reads the numbers of the stores, unless they are fresh; concurrent requests share one read.
    async fn look(&self, models: &[Arc<LiveModel>]) -> Arc<Look> {
        let mut last = self.last_look.lock().await;
        if let Some((at, look)) = &*last
            && at.elapsed() < FRESH
        {
            return Arc::clone(look);
        }
        let errors = match self.core.stores.error.capabilities().readable {
            true => self.core.stores.error.count(&ErrorQuery::default()).await.ok(),
            false => None,
        };
        let look = Look { log_head: self.log_head().await, backlogs: self.backlogs(models).await, errors };
        let look = Arc::new(look);
        *last = Some((Instant::now(), Arc::clone(&look)));
        look
    }

    async fn backlogs(&self, models: &[Arc<LiveModel>]) -> Vec<(String, u64)> {
        let mut backlogs = Vec::new();
        for entry in models.iter().filter(|entry| entry.reacts_since().is_some()) {
            let id = &entry.model.record.id;
            if let Ok((count, _)) = self.core.stores.event.lag(&group_of(id).name).await {
                backlogs.push((id.clone(), count));
            }
        }
        backlogs
    }
}
