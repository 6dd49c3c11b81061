//! Counters of the commit path and the dispatcher.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counts since the start. Relaxed: each is read for itself.
#[derive(Debug, Default)]
pub(super) struct Metrics {
    batches: AtomicU64,
    appended: AtomicU64,
    conflicts: AtomicU64,
    pub(super) retries: AtomicU64,
    pub(super) deliveries: AtomicU64,
    pub(super) post_failures: AtomicU64,
    pub(super) given_up: AtomicU64,
}

impl Metrics {
    /// One batch was appended: its rows, and how many of them conflicted.
    pub(super) fn batch(&self, rows: usize, conflicts: usize) {
        self.batches.fetch_add(1, Ordering::Relaxed);
        self.appended.fetch_add((rows - conflicts) as u64, Ordering::Relaxed);
        self.conflicts.fetch_add(conflicts as u64, Ordering::Relaxed);
    }

    /// Prometheus text.
    pub(super) fn write(&self, out: &mut String) {
        for (name, help, value) in [
            ("snaphook_commit_batches_total", "Batches appended to the event log, one fsync each", &self.batches),
            ("snaphook_events_appended_total", "Events appended to the event log", &self.appended),
            (
                "snaphook_append_conflicts_total",
                "Appends refused by optimistic concurrency or a claim",
                &self.conflicts,
            ),
            ("snaphook_command_retries_total", "Commands tried again after a lost race", &self.retries),
            ("snaphook_deliveries_total", "Events handed to post hooks", &self.deliveries),
            ("snaphook_post_hook_failures_total", "Failed runs of post hooks, retried or not", &self.post_failures),
            ("snaphook_post_hooks_given_up_total", "Post hooks that went to the error store", &self.given_up),
        ] {
            counter(out, name, help, value.load(Ordering::Relaxed));
        }
    }
}

pub(super) fn counter(out: &mut String, name: &str, help: &str, value: u64) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} counter\n{name} {value}");
}

pub(super) fn gauge(out: &mut String, name: &str, help: &str, value: u64) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}");
}
