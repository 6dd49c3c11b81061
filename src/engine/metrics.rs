//! Counters of the commit path and the dispatcher.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::models::Entry;
use crate::config::Phase;
use crate::hooks::engines::EngineFact;
use crate::memory::MemoryBudget;

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
    /// Followers of events, now.
    pub(super) listeners: AtomicU64,
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

/// Runs and failures of each hook. A hook that never ran is left out, so that a thousand of them cost nothing here.
pub(super) fn hooks(out: &mut String, models: &[Arc<Entry>]) {
    let mut runs = String::new();
    let mut failures = String::new();
    let chains = models.iter().flat_map(|entry| Phase::ALL.into_iter().flat_map(|phase| entry.chain(phase)));
    for hook in chains.filter(|hook| hook.stats().runs() > 0) {
        let id = &hook.binding().id;
        let (model, phase, name) = (&id.model, id.phase, &id.name);
        // Ids and names need no escapes. Writing into a `String` cannot fail.
        let labels = format!("model=\"{model}\",phase=\"{phase}\",hook=\"{name}\"");
        let _ = writeln!(runs, "snaphook_hook_runs_total{{{labels}}} {}", hook.stats().runs());
        for (cause, count) in hook.stats().failures() {
            let cause = cause.as_str();
            let _ = writeln!(failures, "snaphook_hook_failures_total{{{labels},cause=\"{cause}\"}} {count}");
        }
    }
    for (name, help, lines) in [
        ("snaphook_hook_runs_total", "Runs of a hook since it was bound", runs),
        ("snaphook_hook_failures_total", "Failed runs of a hook, by cause, such as the limit it broke", failures),
    ] {
        if !lines.is_empty() {
            let _ = write!(out, "# HELP {name} {help}\n# TYPE {name} counter\n{lines}");
        }
    }
}

/// What requests hold, and what they may hold.
pub(super) fn memory(out: &mut String, budget: &MemoryBudget) {
    let used = budget.used() as u64;
    gauge(out, "snaphook_memory_bytes", "Bodies, trees, pages and responses in flight, by their size", used);
    let limit = budget.limit() as u64;
    gauge(out, "snaphook_memory_limit_bytes", "Most that they may hold together (`server.limits.memory`)", limit);
}

/// What post hooks have not dealt with.
pub(super) fn backlogs(out: &mut String, backlogs: &[(String, u64)]) {
    if backlogs.is_empty() {
        return;
    }
    let name = "snaphook_post_hook_backlog";
    let help = "Events that the post hooks of a model have not dealt with";
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} gauge");
    for (model, count) in backlogs {
        let _ = writeln!(out, "{name}{{model=\"{model}\"}} {count}");
    }
}

/// Native libraries, also of hooks that are bound no more: nothing is unloaded.
pub(super) fn libraries(out: &mut String, libraries: &[(String, usize)]) {
    if libraries.is_empty() {
        return;
    }
    let name = "snaphook_libraries_loaded";
    let help = "Contents of a native library's file that the server's process holds, not sandboxed";
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} gauge");
    for (file, count) in libraries {
        let file = file.replace('\\', r"\\").replace('"', r#"\""#).replace('\n', r"\n");
        let _ = writeln!(out, "{name}{{library=\"{file}\"}} {count}");
    }
}

/// What is so.
pub(super) fn fact(out: &mut String, EngineFact { name, help, label: (label, value) }: EngineFact) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} gauge\n{name}{{{label}=\"{value}\"}} 1");
}

pub(super) fn counter(out: &mut String, name: &str, help: &str, value: u64) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} counter\n{name} {value}");
}

pub(super) fn gauge(out: &mut String, name: &str, help: &str, value: u64) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}");
}
