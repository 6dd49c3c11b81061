//! Metrics of the hooks of one phase of one model since the server started. They survive the replacement of hooks, so
//! that counters never decrease. [`super::stats`] has the statistics of individual hooks.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::context::{FailureCause, Outcome, Run};
use crate::telemetry::exposition::{Exposition, OTHERS};
use crate::telemetry::histogram::{Histogram, LATENCY};

/// The outcomes of runs, as also used in spans.
const OUTCOMES: [&str; 4] = ["accept", "amend", "reject", "failed"];

/// Counters of one phase of one model.
#[derive(Debug)]
pub(super) struct PhaseMetrics {
    outcomes: [AtomicU64; OUTCOMES.len()],
    failures: [AtomicU64; FailureCause::ALL.len()],
    times: Histogram<{ LATENCY.len() }>,
}

impl Default for PhaseMetrics {
    fn default() -> Self {
        PhaseMetrics {
            outcomes: [const { AtomicU64::new(0) }; OUTCOMES.len()],
            failures: [const { AtomicU64::new(0) }; FailureCause::ALL.len()],
            times: Histogram::new(&LATENCY),
        }
    }
}

impl PhaseMetrics {
    pub(super) fn record(&self, run: &Run) {
        let outcome = match &run.outcome {
            Outcome::Accept => 0,
            Outcome::Amend(_) => 1,
            Outcome::Reject(_) => 2,
            Outcome::Failed(failure) => {
                self.failures[failure.cause as usize].fetch_add(1, Ordering::Relaxed);
                3
            }
        };
        self.outcomes[outcome].fetch_add(1, Ordering::Relaxed);
        // A run that did not start has no duration.
        if run.wall > Duration::ZERO {
            self.times.observe(run.wall);
        }
    }
}

/// Writes the counters of these phases: the model (`None` for phases without separate series), the phase, and its
/// counters. Phases without runs are skipped.
pub(super) fn write<'a>(
    out: &mut Exposition,
    phases: impl Iterator<Item = (Option<&'a str>, &'static str, &'a PhaseMetrics)> + Clone,
) {
    let phases = phases.map(|(model, phase, metrics)| (model.unwrap_or(OTHERS), phase, metrics));
    let mut runs = out.counter("snaphook_hook_runs", "Runs of hooks by how they ended, also in shadow mode");
    for (model, phase, metrics) in phases.clone() {
        for (outcome, count) in OUTCOMES.into_iter().zip(&metrics.outcomes) {
            let count = count.load(Ordering::Relaxed);
            if count > 0 {
                runs.sample(&[("model", model), ("phase", phase), ("outcome", outcome)], count);
            }
        }
    }
    let help = "Failed runs of hooks by cause, such as the limit that was broken";
    let mut failures = out.counter("snaphook_hook_failures", help);
    for (model, phase, metrics) in phases.clone() {
        for (cause, count) in FailureCause::ALL.into_iter().zip(&metrics.failures) {
            let count = count.load(Ordering::Relaxed);
            if count > 0 {
                failures.sample(&[("model", model), ("phase", phase), ("cause", cause.as_str())], count);
            }
        }
    }
    let mut times =
        out.histogram("snaphook_hook_seconds", "From the start of a hook's run to its end, host calls included");
    for (model, phase, metrics) in phases {
        times.distribution(&[("model", model), ("phase", phase)], &metrics.times.seconds());
    }
}
