//! Counters of the commit path and the dispatcher, and their output.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::hooks::engines::EngineFact;
use crate::memory::MemoryBudget;
use crate::telemetry::exposition::{Exposition, OTHERS, SERIES_MAX};
use crate::telemetry::histogram::{Histogram, LATENCY};

/// Histogram bounds of batch sizes: a batch has at most 1,024 events, unless it is a client's batch.
const BATCH_SIZES: [u64; 11] = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024];

/// Counts since the start. Relaxed, because each is read independently.
#[derive(Debug)]
pub(super) struct Metrics {
    batch_sizes: Histogram<{ BATCH_SIZES.len() }>,
    batch_times: Histogram<{ LATENCY.len() }>,
    appended: AtomicU64,
    conflicts: AtomicU64,
    pub(super) retries: AtomicU64,
    pub(super) deliveries: AtomicU64,
    pub(super) post_failures: AtomicU64,
    pub(super) given_up: AtomicU64,
    /// Repeated requests with a known idempotency key, and requests with the key of another request.
    pub(super) keys_repeated: AtomicU64,
    pub(super) keys_reused: AtomicU64,
    /// Followers of events, now.
    pub(super) listeners: AtomicU64,
}

impl Default for Metrics {
    fn default() -> Self {
        Metrics {
            batch_sizes: Histogram::new(&BATCH_SIZES),
            batch_times: Histogram::new(&LATENCY),
            appended: AtomicU64::default(),
            conflicts: AtomicU64::default(),
            retries: AtomicU64::default(),
            deliveries: AtomicU64::default(),
            post_failures: AtomicU64::default(),
            given_up: AtomicU64::default(),
            keys_repeated: AtomicU64::default(),
            keys_reused: AtomicU64::default(),
            listeners: AtomicU64::default(),
        }
    }
}

impl Metrics {
    /// One batch was appended: its rows, how many of them conflicted, and how long it took.
    pub(super) fn batch(&self, rows: usize, conflicts: usize, took: Duration) {
        self.batch_sizes.count(rows as u64);
        self.batch_times.observe(took);
        self.appended.fetch_add((rows - conflicts) as u64, Ordering::Relaxed);
        self.conflicts.fetch_add(conflicts as u64, Ordering::Relaxed);
    }

    pub(super) fn write(&self, out: &mut Exposition) {
        let help = "Batches appended to the event log, one fsync each, by the number of their events";
        out.histogram("snaphook_commit_batch_size", help).distribution(&[], &self.batch_sizes.numbers());
        let help = "From the start of a batch's append to when it is durable";
        out.histogram("snaphook_commit_batch_seconds", help).distribution(&[], &self.batch_times.seconds());
        for (name, help, value) in [
            ("snaphook_events_appended", "Events appended to the event log", &self.appended),
            ("snaphook_append_conflicts", "Appends rejected by optimistic concurrency or a claim", &self.conflicts),
            ("snaphook_command_retries", "Commands tried again after a lost race", &self.retries),
            ("snaphook_deliveries", "Events handed to post hooks", &self.deliveries),
            ("snaphook_post_hook_failures", "Failed runs of post hooks, retried or not", &self.post_failures),
            ("snaphook_post_hooks_given_up", "Post hooks that went to the error store", &self.given_up),
        ] {
            out.counter(name, help).sample(&[], value.load(Ordering::Relaxed));
        }
        let help = "Requests whose idempotency key was known: the same request again, or another one that was rejected";
        let mut keys = out.counter("snaphook_idempotency_keys_known", help);
        keys.sample(&[("request", "same")], self.keys_repeated.load(Ordering::Relaxed));
        keys.sample(&[("request", "other")], self.keys_reused.load(Ordering::Relaxed));
    }
}

/// The memory of requests, and its limit.
pub(super) fn memory(out: &mut Exposition, budget: &MemoryBudget) {
    let help = "Bodies, trees, pages and responses in flight, by their size";
    out.gauge("snaphook_memory_bytes", help).sample(&[], budget.used());
    let help = "The most that they may use together (`server.limits.memory`)";
    out.gauge("snaphook_memory_limit_bytes", help).sample(&[], budget.limit());
}

/// Events that post hooks have not finished.
pub(super) fn backlogs(out: &mut Exposition, backlogs: &[(String, u64)]) {
    let help = "Events that the post hooks of a model have not handled";
    let mut family = out.gauge("snaphook_post_hook_backlog", help);
    let (own, others) = backlogs.split_at(backlogs.len().min(SERIES_MAX));
    own.iter().for_each(|(model, count)| family.sample(&[("model", model)], count));
    if !others.is_empty() {
        family.sample(&[("model", OTHERS)], others.iter().map(|(_, count)| count).sum::<u64>());
    }
}

/// Loaded native libraries, also of hooks that are no longer bound: libraries are never unloaded.
pub(super) fn libraries(out: &mut Exposition, libraries: &[(String, usize)]) {
    let help = "Contents of a native library's file that the server's process keeps loaded, not sandboxed";
    let mut family = out.gauge("snaphook_libraries_loaded", help);
    libraries.iter().for_each(|(file, count)| family.sample(&[("library", file)], count));
}

/// Facts about engines.
pub(super) fn facts(out: &mut Exposition, facts: impl Iterator<Item = EngineFact>) {
    for EngineFact { name, help, label: (label, value) } in facts {
        out.gauge(name, help).sample(&[(label, value)], 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::exposition::Format;

    #[test]
    fn backlogs_of_many_models_are_not_as_many_series() {
        let text = |models: usize| {
            let mut out = Exposition::new(Format::Prometheus);
            backlogs(&mut out, &(0..models).map(|model| (format!("m-{model:04}"), 2)).collect::<Vec<_>>());
            out.finish()
        };
        let all = text(SERIES_MAX);
        assert!(all.contains("{model=\"m-0599\"} 2\n") && !all.contains(OTHERS), "{all}");
        let more = text(SERIES_MAX + 5);
        assert_eq!(more.lines().count(), all.lines().count() + 1);
        assert!(more.ends_with("{model=\"(others)\"} 10\n"), "{more}");
    }
}
