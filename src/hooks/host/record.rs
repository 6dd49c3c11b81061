//! What is counted of an endpoint's runs, and the places for them. It outlives a change of the component.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::hooks::context::FailureCause;
use crate::hooks::places::Places;

/// One endpoint's.
pub(super) struct Record {
    pub(super) name: Arc<str>,
    pub(super) places: Arc<Places>,
    runs: AtomicU64,
    failures: [AtomicU64; FailureCause::ALL.len()],
}

impl Record {
    pub(super) fn new(name: &str) -> Arc<Record> {
        Arc::new(Record {
            name: name.into(),
            places: Arc::default(),
            runs: AtomicU64::new(0),
            failures: Default::default(),
        })
    }

    pub(super) fn count(&self, failure: Option<FailureCause>) {
        self.runs.fetch_add(1, Ordering::Relaxed);
        if let Some(cause) = failure {
            self.failures[cause as usize].fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Runs and failures of endpoints, as Prometheus text. One that never ran is left out.
pub(super) fn write_metrics<'a>(out: &mut String, records: impl Iterator<Item = &'a Record>) {
    let (mut runs, mut failures) = (String::new(), String::new());
    for Record { name, runs: count, failures: causes, .. } in records {
        let count = count.load(Ordering::Relaxed);
        if count > 0 {
            runs.push_str(&format!("snaphook_endpoint_runs_total{{endpoint=\"{name}\"}} {count}\n"));
        }
        for (cause, count) in FailureCause::ALL.iter().zip(causes) {
            let (cause, count) = (cause.as_str(), count.load(Ordering::Relaxed));
            if count > 0 {
                let labels = format!("endpoint=\"{name}\",cause=\"{cause}\"");
                failures.push_str(&format!("snaphook_endpoint_failures_total{{{labels}}} {count}\n"));
            }
        }
    }
    for (name, help, lines) in [
        ("snaphook_endpoint_runs_total", "Requests that an endpoint's component ran for.", runs),
        ("snaphook_endpoint_failures_total", "Those of them in which the component failed, by cause.", failures),
    ] {
        if !lines.is_empty() {
            out.push_str(&format!("# HELP {name} {help}\n# TYPE {name} counter\n{lines}"));
        }
    }
}
