//! Engines run a hook's code. Each implements one trait (engine.rs) and is listed in one table, here.

mod arguments;
mod clock;
mod component;
#[cfg(target_os = "linux")]
mod confine;
#[cfg(test)]
mod conformance;
pub(super) mod engine;
mod handback;
mod idle;
mod javascript;
mod limits;
mod native;
#[cfg(target_os = "linux")]
mod pagemap;
mod quickjs;
mod subprocess;
#[cfg(test)]
mod testing;
#[cfg(target_os = "linux")]
mod v8;
mod wasm;
mod webhook;

use std::sync::Arc;

pub use component::{
    Decided, Made, ModuleCall, ModuleCode, ModuleCodes, ModuleDecision, ModuleHeader, ModuleHeaderChange,
    ModuleRequest, ModuleRequestChange, ModuleResponse, ModuleResponseChange, Proxies, Proxy, ProxyEnd, ProxyRun,
};
pub use engine::{
    CallReport, CallSettings, Candidate, EngineFact, HeldBack, HookEngine, HookState, PrepareError, PrepareErrorKind,
    PreparedCode, TopLevel,
};
pub use native::{Copy as LibraryCopy, exit, exit_at_once, tried_module};
pub use subprocess::at_once as compiled_at_once;
pub use subprocess::worker::serve as serve_as_worker;
#[cfg(target_os = "linux")]
pub use v8::serve_as_worker as serve_as_v8_worker;
pub use wasm::CODE_BYTES_MAX;
pub use webhook::lacks as webhook_lacks;

use crate::config::Config;

/// Every engine of this build. To add one, add a folder and a line here. `config` gives the paths.
///
/// This is cheap: an engine only creates what it needs to run code when the first hook is prepared.
pub fn all(config: &Config) -> Vec<Arc<dyn HookEngine>> {
    let cache = wasm::CodeCache::new(&config.hooks.cache);
    vec![
        Arc::new(component::ComponentEngine::new(cache.clone())),
        Arc::new(quickjs::QuickJs::new(cache)),
        Arc::new(native::NativeEngine::new(&config.hooks.cache)),
        #[cfg(target_os = "linux")]
        Arc::new(v8::V8::new(&config.plugins.directory, config.hooks.v8_reset)),
        Arc::<webhook::WebhookEngine>::default(),
    ]
}
