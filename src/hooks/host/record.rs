//! The counters of an endpoint's runs, and the permits for them. They survive a change of the component.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::hooks::context::FailureCause;
use crate::hooks::places::Places;
use crate::telemetry::exposition::Exposition;

/// The record of one endpoint.
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

/// Writes the runs and failures of endpoints, except those that never ran.
pub(super) fn write_metrics(out: &mut Exposition, records: &[&Record]) {
    let mut runs = out.counter("snaphook_endpoint_runs", "Requests that an endpoint's component ran for");
    for record in records {
        let count = record.runs.load(Ordering::Relaxed);
        if count > 0 {
            runs.sample(&[("endpoint", &record.name)], count);
        }
    }
    let help = "Requests in which an endpoint's component failed, by cause";
    let mut failures = out.counter("snaphook_endpoint_failures", help);
    for record in records {
        for (cause, count) in FailureCause::ALL.iter().zip(&record.failures) {
            let count = count.load(Ordering::Relaxed);
            if count > 0 {
                failures.sample(&[("endpoint", &record.name), ("cause", cause.as_str())], count);
            }
        }
    }
}
