//! The log and the counters of each phase, and the feed of all runs for followers.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex};

use snaphook_driver::time;

use super::bound::BoundHook;
use super::guard::lock;
use crate::config::Phase;
use crate::hooks::binding::Binding;
use crate::hooks::context::{Context, LogLevel, LogLine, Outcome, Run};
use crate::hooks::feed::{Feed, Told};
use crate::hooks::phase_metrics::{self, PhaseMetrics};
use crate::hooks::stats::{PhaseLine, PhaseLog};
use crate::telemetry::exposition::{Exposition, SERIES_MAX};
use crate::telemetry::line::one_line;
use crate::telemetry::trace::scope;

/// The logs and the feed.
#[derive(Default)]
pub struct Logs {
    /// Kept as long as the server runs: replacing a hook keeps its phase's log.
    phases: Mutex<HashMap<(String, Phase), Arc<PhaseLog>>>,
    metrics: Mutex<HashMap<(String, Phase), Arc<PhaseMetrics>>>,
    /// The counters of all phases beyond the limit on separate series.
    others: Arc<PhaseMetrics>,
    feed: Feed,
}

impl Logs {
    /// The log of a phase of a model; empty if nothing has run there.
    pub fn phase(&self, model: &str, phase: Phase) -> Arc<PhaseLog> {
        Arc::clone(lock(&self.phases).entry((model.to_owned(), phase)).or_default())
    }

    /// The counters of a phase of a model. They live as long as the server, so the number of series is limited.
    pub(super) fn phase_metrics(&self, model: &str, phase: Phase) -> Arc<PhaseMetrics> {
        let mut metrics = lock(&self.metrics);
        let is_full = metrics.len() >= SERIES_MAX;
        match metrics.entry((model.to_owned(), phase)) {
            Entry::Occupied(entry) => Arc::clone(entry.get()),
            Entry::Vacant(_) if is_full => Arc::clone(&self.others),
            Entry::Vacant(entry) => Arc::clone(entry.insert(Arc::default())),
        }
    }

    /// Writes the metrics of the hooks of all phases.
    pub fn write_metrics(&self, out: &mut Exposition) {
        let mut phases: Vec<_> =
            lock(&self.metrics).iter().map(|(key, metrics)| (key.clone(), Arc::clone(metrics))).collect();
        phases.sort_by(|(a, _), (b, _)| (&a.0, a.1.as_str()).cmp(&(&b.0, b.1.as_str())));
        let own = phases.iter().map(|((model, phase), metrics)| (Some(model.as_str()), phase.as_str(), &**metrics));
        phase_metrics::write(out, own.chain([(None, "*", &*self.others)]));
    }

    /// A stream of every run that ends from now on, and of every library that is loaded or fails to load.
    pub fn follow(&self) -> impl futures::Stream<Item = Told> + Send + use<> {
        self.feed.follow()
    }

    /// Reports a library that was loaded for a hook, or failed to load with `error`.
    pub(super) fn tell_library(&self, binding: &Binding, artifact: &str, error: Option<&str>) {
        self.feed.tell_library(binding, artifact, error);
    }

    /// Reports a run that has ended.
    pub(super) fn tell_run(&self, hook: &BoundHook, context: &Context, run: &Run, shadow: bool) {
        self.feed.tell(&hook.binding, context, run);
        run.log.iter().for_each(|line| tell(hook, context, line));
        keep(hook, context, run, shadow);
    }
}

/// Writes to the server's log; visible with `--log info,hook=debug`.
fn tell(hook: &BoundHook, context: &Context, line: &LogLine) {
    let (instance, level) = (&context.instance, line.level.as_str());
    tracing::debug!(target: "hook", hook = hook.label, instance, level, "{}", one_line(&line.message));
}

/// Writes the run's log lines to the log of its phase, and its outcome if it is noteworthy.
fn keep(hook: &BoundHook, context: &Context, run: &Run, shadow: bool) {
    let verdict = match &run.outcome {
        Outcome::Failed(failure) => {
            Some((LogLevel::Error, format!("failed ({}): {}", failure.cause.as_str(), failure.message)))
        }
        Outcome::Reject(rejection) if shadow => Some((LogLevel::Info, format!("would reject: {}", rejection.message))),
        Outcome::Amend(data) if shadow => Some((LogLevel::Info, format!("would amend: {}", data.as_str()))),
        _ => None,
    };
    if run.log.is_empty() && verdict.is_none() {
        return;
    }
    let trace_id = scope::look(|scope| scope.trace().map(|trace| trace.trace_id().to_string())).flatten();
    let line = |time, level, message: &str| PhaseLine {
        time,
        hook: run.hook.name.clone(),
        instance: context.instance.clone(),
        request_id: context.request_id.clone(),
        trace_id: trace_id.clone(),
        level,
        message: message.to_owned(),
    };
    let logged = run.log.iter().map(|entry| line(entry.time, entry.level, &entry.message));
    hook.log.append(logged.chain(verdict.map(|(level, message)| line(time::now(), level, &message))));
}
