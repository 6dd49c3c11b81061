//! The hook host: engines × capabilities. A few services with one job each; it binds hooks to them.

mod bound;
mod code;
mod compiling;
mod endpoints;
mod exchange;
mod guard;
mod libraries;
mod logs;
mod modules;
mod record;
mod runs;
mod said;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use arc_swap::ArcSwap;
use serde_json::Value;
use snaphook_driver::time;

pub use self::bound::BoundHook;
use self::code::HookCode;
pub use self::compiling::Uncompiled;
pub use self::endpoints::{Endpoint, Endpoints};
pub use self::exchange::{Exchange, ResponseBody, UploadError};
use self::libraries::Libraries;
use self::logs::Logs;
pub use self::modules::{RequestNote, SandboxedModule, SandboxedModules};
pub(crate) use self::runs::FAILURE_BYTES_MAX;
use self::runs::Runs;
use super::access::Access;
pub use super::artifacts::Artifacts;
pub use super::binding::{Binding, HookInfo, Mode};
use super::capabilities::process::Processes;
use super::code::{Code, Followed};
use super::engines::engine::{HookEngine, HookState, PreparedCode, TopLevel};
use super::grants::Granted;
pub use super::library::NOT_SANDBOXED;
use super::places::Places;
use super::session::Services;
use super::stats::HookStats;
use crate::catalog::Webhook;
use crate::config::Config;

/// Engines × capabilities.
pub struct HookHost {
    pub code: Arc<HookCode>,
    pub libraries: Arc<Libraries>,
    pub logs: Arc<Logs>,
    pub runs: Runs,
    pub endpoints: Arc<Endpoints>,
    pub modules: SandboxedModules,
    config: Arc<ArcSwap<Config>>,
}

impl HookHost {
    /// Grants and limits follow `config`.
    pub fn new(engines: Vec<Arc<dyn HookEngine>>, config: Arc<ArcSwap<Config>>) -> Self {
        let (code, logs) = (Arc::new(HookCode::new(engines)), Arc::<Logs>::default());
        let libraries = Arc::new(Libraries::new(Arc::clone(&config), Arc::clone(&code), Arc::clone(&logs)));
        let runs = Runs::new(Arc::clone(&config), Arc::clone(&code), Arc::clone(&libraries), Arc::clone(&logs));
        let endpoints = Arc::new(Endpoints::new(Arc::clone(&config)));
        let modules = SandboxedModules::new(Arc::clone(&config));
        HookHost { code, libraries, logs, runs, endpoints, modules, config }
    }

    /// Connects the host to the server's data, which itself needs the host. Must be called before the first run; later
    /// calls are ignored.
    pub fn attach(&self, access: Arc<dyn Access>, artifacts: Arc<dyn Artifacts>) {
        self.attach_services(Services::new(access), artifacts);
        Processes::clean_up();
    }

    pub(super) fn attach_services(&self, services: Arc<Services>, artifacts: Arc<dyn Artifacts>) {
        self.endpoints.attach(Arc::clone(&services));
        self.modules.attach(Arc::clone(&services));
        self.runs.attach(services, artifacts);
    }

    /// Binds code. With `prepared` it can run at once; otherwise the code is loaded at the first run.
    pub fn bind(&self, binding: Binding, prepared: Option<Arc<dyn PreparedCode>>) -> Arc<BoundHook> {
        let log = self.logs.phase(&binding.id.model, binding.id.phase);
        let metrics = self.logs.phase_metrics(&binding.id.model, binding.id.phase);
        let loaded = prepared.is_some();
        let hook = Arc::new(BoundHook {
            label: binding.id.to_string(),
            code: ArcSwap::new(Code::new(binding.id.clone(), binding.size, prepared)),
            file: binding.library.as_deref().map(Followed::new),
            binding,
            places: Places::default(),
            stats: HookStats::default(),
            log,
            metrics,
        });
        if loaded {
            self.libraries.announce(&hook, &hook.code.load());
        }
        hook
    }

    /// The REST API's description of a hook.
    pub fn info(&self, hook: &BoundHook) -> HookInfo {
        let code = hook.code.load();
        let found = code.prepared.get().map(|prepared| prepared.state(&hook.binding.id.model));
        let (state, retry_at, held_back) = match (code.recent_failure(), found) {
            (Some(_), _) | (None, Some(HookState::Unavailable)) => ("unavailable", None, None),
            (None, Some(HookState::BackingOff { retry_at, held_back })) => {
                ("backing-off", Some(time::format(retry_at)), held_back)
            }
            (None, None | Some(HookState::Ok)) => ("ok", None, None),
        };
        let granted = code.granted(&self.config);
        let webhook = code.prepared.get().and_then(|prepared| prepared.webhook());
        let top_level = code.prepared.get().and_then(|prepared| prepared.top_level());
        HookInfo {
            state,
            retry_at,
            held_back,
            top_level: top_level.as_ref().map(TopLevel::as_str),
            top_level_reason: top_level.as_ref().and_then(|top_level| top_level.reason().map(str::to_owned)),
            name: code.id.name.clone(),
            engine: hook.binding.engine.clone(),
            artifact: code.id.artifact.clone(),
            size: code.size,
            mode: hook.binding.mode,
            grants: granted.to_json(self.code.limits(&hook.binding.engine, &granted)),
            position: hook.binding.position,
            origin: hook.binding.origin,
            language: hook.binding.language,
            acts_as: hook.binding.as_actor.then_some("actor"),
            library: hook.binding.library.clone(),
            url: webhook.map(Webhook::address),
            secret: webhook.map(|webhook| webhook.secret.clone()),
            sandbox: hook.binding.library.as_ref().map(|_| NOT_SANDBOXED),
            still_loaded: self.libraries.beside(hook, &code),
        }
    }

    /// A hook's statistics, with the current limits.
    pub fn stats(&self, hook: &BoundHook) -> Value {
        hook.stats.to_json(self.code.limits(&hook.binding.engine, &self.granted(hook)))
    }

    /// What the current configuration grants a hook.
    pub fn granted(&self, hook: &BoundHook) -> Arc<Granted> {
        hook.code.load().granted(&self.config)
    }
}
