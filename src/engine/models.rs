//! The models in use, each with its compiled schema and bound hooks: the starting point of every command.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use snaphook_driver::{EventKind, Position};
use tokio::sync::Notify;

use super::command::phases;
use super::error::{Error, Result};
use super::gate::Gate;
use crate::catalog::{HookMode, HookRecord, Model};
use crate::config::Phase;
use crate::hooks::engines::PreparedCode;
use crate::hooks::grants::HookId;
use crate::hooks::host::{Binding, BoundHook, HookHost, Mode};

/// One model in use.
pub(super) struct LiveModel {
    pub(super) model: Arc<Model>,
    hooks: HashMap<Phase, Vec<Arc<BoundHook>>>,
    /// Wakes the model's consumer group; shared by all versions of the model.
    pub(super) wake: Arc<Notify>,
    pub(super) gate: Arc<Gate>,
}

/// The prepared code of one phase's chain, in order.
pub(super) struct Ready {
    pub(super) phase: Phase,
    pub(super) code: Vec<Arc<dyn PreparedCode>>,
}

impl LiveModel {
    /// Binds the record's hooks. Hooks that are not in `ready` load their code at their first run.
    pub(super) fn new(
        model: Arc<Model>,
        host: &HookHost,
        previous: Option<&LiveModel>,
        ready: Option<&Ready>,
    ) -> LiveModel {
        let hooks = model
            .record
            .hooks
            .iter()
            .map(|(phase, chain)| {
                let ready = ready.filter(|ready| ready.phase == *phase);
                let bound = chain.iter().enumerate().map(|(index, record)| {
                    // An unchanged hook keeps its stats and its prepared code.
                    let kept = previous.and_then(|entry| {
                        entry.chain(*phase).iter().find(|hook| {
                            let binding = hook.binding();
                            binding.id.name == record.name
                                && binding.position == record.position
                                && binding.engine == record.engine
                        })
                    });
                    kept.cloned().unwrap_or_else(|| {
                        let code = ready.and_then(|ready| ready.code.get(index).cloned());
                        host.bind(binding(&model.record.id, *phase, record), code)
                    })
                });
                (*phase, bound.collect())
            })
            .collect();
        let wake = previous.map_or_else(|| Arc::new(Notify::new()), |entry| Arc::clone(&entry.wake));
        LiveModel { model, hooks, wake, gate: Arc::default() }
    }

    /// The hooks of a phase, in order.
    pub(super) fn chain(&self, phase: Phase) -> &[Arc<BoundHook>] {
        self.hooks.get(&phase).map_or(&[], Vec::as_slice)
    }

    /// The hooks of all phases.
    pub(super) fn hooks(&self) -> impl Iterator<Item = &Arc<BoundHook>> {
        self.hooks.values().flatten()
    }

    /// Whether a kind of event has post hooks, for an event at `position`.
    pub(super) fn reacts_to(&self, kind: EventKind, position: Position) -> bool {
        phases(kind).is_some_and(|(_, post)| {
            self.model.record.hooked_since.get(&post).is_some_and(|since| *since < position)
                && !self.chain(post).is_empty()
        })
    }

    /// Position after which the model has had post hooks; `None` if it has none.
    pub(super) fn reacts_since(&self) -> Option<Position> {
        let record = &self.model.record;
        record.hooked_since.iter().filter(|(phase, _)| !phase.is_pre()).map(|(_, since)| *since).min()
    }
}

fn binding(model: &str, phase: Phase, record: &HookRecord) -> Binding {
    Binding {
        id: HookId {
            model: model.to_owned(),
            phase,
            name: record.name.clone(),
            artifact: format!("sha256:{}", record.artifact),
        },
        engine: record.engine.clone(),
        size: record.size,
        mode: match record.mode {
            HookMode::Enforce => Mode::Enforce,
            HookMode::Shadow => Mode::Shadow,
        },
        position: record.position,
        library: record.library.clone(),
        language: record.language,
        as_actor: record.as_actor,
        origin: record.origin,
    }
}

/// Every model by id. Readers never wait; the projector alone changes it.
#[derive(Default)]
pub(super) struct Models(ArcSwap<HashMap<String, Arc<LiveModel>>>);

impl Models {
    pub(super) fn get(&self, id: &str) -> Option<Arc<LiveModel>> {
        self.0.load().get(id).cloned()
    }

    /// `not-found` if there is none.
    pub(super) fn require(&self, id: &str) -> Result<Arc<LiveModel>> {
        self.get(id)
            .ok_or_else(|| Error::not_found(format!("there is no model `{}`", id.chars().take(80).collect::<String>())))
    }

    /// By id.
    pub(super) fn all(&self) -> Vec<Arc<LiveModel>> {
        let mut all: Vec<_> = self.0.load().values().cloned().collect();
        all.sort_by(|a, b| a.model.record.id.cmp(&b.model.record.id));
        all
    }

    /// The current map of all models.
    pub(super) fn in_use(&self) -> arc_swap::Guard<Arc<HashMap<String, Arc<LiveModel>>>> {
        self.0.load()
    }

    /// Puts models in use, or (`None`) out of use, atomically.
    pub(super) fn change(&self, entries: Vec<(String, Option<Arc<LiveModel>>)>) {
        let mut map = HashMap::clone(&self.0.load());
        for (id, entry) in entries {
            match entry {
                Some(entry) => map.insert(id, entry),
                None => map.remove(&id),
            };
        }
        self.0.store(Arc::new(map));
    }
}
