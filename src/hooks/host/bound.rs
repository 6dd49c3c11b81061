//! A bound hook: its code, its permits and its statistics.

use std::sync::Arc;

use arc_swap::ArcSwap;
use snaphook_driver::Provenance;

use crate::hooks::binding::Binding;
use crate::hooks::code::{Code, Followed};
use crate::hooks::context::Run;
use crate::hooks::grants::HookId;
use crate::hooks::phase_metrics::PhaseMetrics;
use crate::hooks::places::Places;
use crate::hooks::stats::{HookStats, PhaseLog};

/// A bound hook. It costs little until it runs for the first time.
pub struct BoundHook {
    pub(super) binding: Binding,
    pub(super) label: String,
    pub(super) code: ArcSwap<Code>,
    pub(super) file: Option<Followed>,
    pub(super) places: Places,
    pub(super) stats: HookStats,
    pub(super) log: Arc<PhaseLog>,
    pub(super) metrics: Arc<PhaseMetrics>,
}

impl BoundHook {
    /// The binding that created it.
    pub fn binding(&self) -> &Binding {
        &self.binding
    }

    /// Its current identity: the artifact is that of the running code, which for a library may differ from the one that
    /// was bound.
    pub fn id(&self) -> Arc<HookId> {
        Arc::clone(&self.code.load().id)
    }

    /// `invoice.postCreate/mail`.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Its statistics since it was bound.
    pub fn stats(&self) -> &HookStats {
        &self.stats
    }

    /// The record in an event of the code that accepted it.
    pub fn provenance(&self, run: &Run) -> Provenance {
        Provenance {
            name: run.hook.name.clone(),
            engine: self.binding.engine.clone(),
            artifact: run.hook.artifact.clone(),
            ms: (run.wall.as_secs_f64() * 1e6).round() / 1e3,
        }
    }
}
