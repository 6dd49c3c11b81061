//! The log of each phase, and the feed of all runs for those who follow it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use snaphook_driver::time;

use super::bound::BoundHook;
use super::guard::lock;
use crate::config::Phase;
use crate::hooks::binding::Binding;
use crate::hooks::context::{Context, LogLevel, Outcome, Run};
use crate::hooks::feed::{Feed, Told};
use crate::hooks::stats::{PhaseLine, PhaseLog};

/// The logs and the feed.
#[derive(Default)]
pub struct Logs {
    /// Kept for as long as the server runs: a hook that is replaced keeps its phase's log.
    phases: Mutex<HashMap<(String, Phase), Arc<PhaseLog>>>,
    feed: Feed,
}

impl Logs {
    /// The log of a phase of a model; empty if nothing ran there.
    pub fn phase(&self, model: &str, phase: Phase) -> Arc<PhaseLog> {
        Arc::clone(lock(&self.phases).entry((model.to_owned(), phase)).or_default())
    }

    /// Every run that ends from now on, and every library that is loaded or cannot be.
    pub fn follow(&self) -> impl futures::Stream<Item = Told> + Send + use<> {
        self.feed.follow()
    }

    /// A library was loaded for a hook; `error`: it could not be.
    pub(super) fn tell_library(&self, binding: &Binding, artifact: &str, error: Option<&str>) {
        self.feed.tell_library(binding, artifact, error);
    }

    /// A run has ended.
    pub(super) fn tell_run(&self, hook: &BoundHook, context: &Context, run: &Run, shadow: bool) {
        self.feed.tell(&hook.binding, context, run);
        keep(hook, context, run, shadow);
    }
}

/// In the log of its phase: what it logged, and what it came to if somebody has to know.
fn keep(hook: &BoundHook, context: &Context, run: &Run, shadow: bool) {
    let verdict = match &run.outcome {
        Outcome::Failed(failure) => {
            Some((LogLevel::Error, format!("failed ({}): {}", failure.cause.as_str(), failure.message)))
        }
        Outcome::Reject(rejection) if shadow => Some((LogLevel::Info, format!("would refuse: {}", rejection.message))),
        Outcome::Amend(data) if shadow => Some((LogLevel::Info, format!("would amend: {}", data.as_str()))),
        _ => None,
    };
    if run.log.is_empty() && verdict.is_none() {
        return;
    }
    let line = |time, level, message: &str| PhaseLine {
        time,
        hook: run.hook.name.clone(),
        instance: context.instance.clone(),
        level,
        message: message.to_owned(),
    };
    let logged = run.log.iter().map(|entry| line(entry.time, entry.level, &entry.message));
    hook.log.append(logged.chain(verdict.map(|(level, message)| line(time::now(), level, &message))));
}
