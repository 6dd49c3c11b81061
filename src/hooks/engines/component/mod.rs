//! The engine `component`: WebAssembly components for the worlds of wit/, and commands that use JSON on standard input
//! and output, such as those of Javy.
//!
//! A core module is first converted to a component (core_module.rs). When a component is bound, it is inspected
//! (inspect.rs), compiled once per machine, linked for its version of the package (versions.rs) and instantiated once
//! as a test. A call gets a new sandbox, or with `isolation = 'reuse'` one that served the same hook before; a command,
//! which ends with its call, always gets a new one.

mod command;
mod core_module;
mod counts;
mod inspect;
mod linking;
mod module;
mod proxy;
#[cfg(test)]
mod since_v0_0_9;
mod since_v0_1_0;
mod speech;
mod versions;
mod wasi_http;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use wasmtime::component::{Component, ComponentExportIndex, InstancePre};

use self::inspect::{Kind, check_bytes, check_world, kind};
use self::linking::{digest, linker};
pub use self::module::{
    Decided, Decision as ModuleDecision, Header as ModuleHeader, HeaderChange as ModuleHeaderChange, Made, ModuleCall,
    ModuleCode, ModuleCodes, Request as ModuleRequest, RequestChange as ModuleRequestChange,
    Response as ModuleResponse, ResponseChange as ModuleResponseChange,
};
pub use self::proxy::{Proxies, Proxy, ProxyEnd, ProxyRun};
use self::speech::Speech;
use self::versions::handler_name;
use self::wasi_http::Extra;
use super::engine::{CallReport, CallSettings, Candidate, HookEngine, PrepareError, PrepareErrorKind, PreparedCode};
use super::handback::amended;
use super::idle::IdlePool;
use super::limits::CHECK_LIMITS;
use super::wasm::{self, CodeCache, Runtime, Sandbox, SandboxState};
use crate::config::{Isolation, Phase};
use crate::hooks::context::{Context, Outcome};
use crate::hooks::session::Session;

/// The word in bindings.
pub(super) const NAME: &str = "component";

/// The engine.
pub(super) struct ComponentEngine {
    cache: CodeCache,
    idle: Arc<IdlePool<Sandbox<Extra>>>,
}

impl ComponentEngine {
    pub(super) fn new(cache: CodeCache) -> Self {
        ComponentEngine { cache, idle: Arc::default() }
    }
}

#[async_trait]
impl HookEngine for ComponentEngine {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn prepare(&self, candidate: Candidate<'_>) -> Result<Arc<dyn PreparedCode>, PrepareError> {
        let Candidate { code, phase, .. } = candidate;
        check_bytes(code).map_err(PrepareError::plain)?;
        let runtime = wasm::runtime().map_err(PrepareError::plain)?;
        let (key, what) = match kind(code).map_err(PrepareError::plain)? {
            Kind::Component => (digest(code), "component"),
            // The component also depends on the adapters that the module is combined with.
            Kind::CoreModule => (format!("{}-{}", digest(code), core_module::ADAPTER), "module"),
        };
        let component = self.cache.component(runtime, &key, code).await.map_err(|error| match error.kind {
            PrepareErrorKind::Invalid => {
                PrepareError { message: format!("the file is not a valid {what}: {}", error.message), ..error }
            }
            _ => error,
        })?;
        let idle = Arc::clone(&self.idle);
        let made = tokio::task::spawn_blocking(move || {
            let speech = check_world(&runtime.engine, &component, phase)?;
            link(runtime, &component, speech, phase, idle)
                .map_err(|error| format!("the component does not fit {}: {error:#}", speech.name()))
        });
        let made = made.await.unwrap_or_else(|error| Err(format!("the component could not be linked: {error}")));
        let hook = made.map_err(PrepareError::plain)?;
        hook.check(phase).await.map_err(PrepareError::plain)?;
        Ok(Arc::new(hook))
    }

    fn uncompiled(&self, digests: &[&str]) -> Vec<Option<String>> {
        let names = self.cache.names();
        // Keys begin with the digest.
        digests.iter().map(|digest| (!names.may_have(digest)).then(|| (*digest).to_owned())).collect()
    }
}

/// Runs in the subprocess: checks the size of a hook's contents, converts it to a component, and compiles it.
pub(super) fn compile(compiler: &wasmtime::Engine, code: &[u8]) -> Result<Vec<u8>, PrepareError> {
    counts::check(code)?;
    let component = core_module::componentized(code).map_err(PrepareError::plain)?;
    compiler.precompile_component(&component).map_err(|error| match error.is::<wasmtime::OutOfMemory>() {
        true => {
            PrepareError::too_complex("compiling the WebAssembly takes more memory than code of this size may take")
        }
        false => PrepareError::plain(format!("{error:#}")),
    })
}

fn link(
    runtime: &'static Runtime,
    component: &Component,
    speech: Speech,
    phase: Phase,
    idle: Arc<IdlePool<Sandbox<Extra>>>,
) -> wasmtime::Result<ComponentHook> {
    static HOOKS: AtomicU64 = AtomicU64::new(0);
    let version = match speech {
        Speech::Package(version) => Some(version),
        Speech::Command => None,
    };
    let linker = linker(runtime, version)?;
    let handler = speech.handler(component, phase).ok_or_else(|| wasmtime::format_err!("it has no handler"))?;
    let code = linker.instantiate_pre(component)?;
    Ok(ComponentHook { id: HOOKS.fetch_add(1, Ordering::Relaxed), code, handler, speech, runtime, idle })
}

/// A prepared component.
struct ComponentHook {
    id: u64,
    code: InstancePre<SandboxState<Extra>>,
    handler: ComponentExportIndex,
    speech: Speech,
    runtime: &'static Runtime,
    idle: Arc<IdlePool<Sandbox<Extra>>>,
}

impl Drop for ComponentHook {
    fn drop(&mut self) {
        self.idle.forget(self.id);
    }
}

impl ComponentHook {
    /// Instantiates it once to check that this works and that its handler has the right type.
    async fn check(&self, phase: Phase) -> Result<(), String> {
        let mut sandbox = Sandbox::new(self.runtime, Extra::default()).await.map_err(|failure| failure.message)?;
        let clock = sandbox.begin(None, &CHECK_LIMITS);
        let (code, handler, speech) = (self.code.clone(), self.handler, self.speech);
        let (checked, _) = wasm::run(self.runtime, clock, async move {
            let started = sandbox.instance(&code).await;
            let instance =
                sandbox.end(started).map_err(|failure| format!("it cannot be started: {}", failure.message))?;
            let (checked, name) = match speech {
                Speech::Package(version) => {
                    (version.check(&mut sandbox.store, &instance, &handler, phase), handler_name(phase))
                }
                Speech::Command => (command::check(&mut sandbox.store, &instance, &handler), "run"),
            };
            checked.map_err(|error| format!("`{name}` has another type than in {}: {error:#}", speech.name()))
        })
        .await;
        let checked = checked.unwrap_or_else(|broken| Err(broken.0.message));
        checked.map_err(|message| format!("the component cannot be used: {message}"))
    }
}

#[async_trait]
impl PreparedCode for ComponentHook {
    async fn call(&self, context: &Context, settings: &CallSettings, session: &Arc<Session>) -> CallReport {
        let is_command = self.speech == Speech::Command;
        let reuse = settings.isolation == Isolation::Reuse && !is_command;
        let idle = reuse.then(|| self.idle.take(self.id, &context.model)).flatten();
        let sandbox = match idle {
            Some(sandbox) => Ok(sandbox),
            None if is_command => Sandbox::of_command(self.runtime, Extra::default(), command::input(context)).await,
            None => Sandbox::new(self.runtime, Extra::default()).await,
        };
        let mut sandbox = match sandbox {
            Ok(sandbox) => sandbox,
            Err(failure) => return CallReport::failed(failure),
        };
        let clock = sandbox.begin(Some(Arc::clone(session)), &settings.limits);
        let (code, handler, speech, change) = (self.code.clone(), self.handler, self.speech, context.clone());
        let (ended, cpu) = wasm::run(self.runtime, clock, async move {
            let outcome = match (sandbox.instance(&code).await, speech) {
                (Ok(instance), Speech::Package(version)) => {
                    version.call(&mut sandbox.store, &instance, &handler, &change).await
                }
                (Ok(instance), Speech::Command) => {
                    command::call(&mut sandbox.store, &instance, &handler, change.phase).await
                }
                (Err(error), _) => Err(error),
            };
            (sandbox.end(outcome), sandbox)
        })
        .await;
        let (outcome, mut sandbox) = match ended {
            Ok(ended) => ended,
            Err(broken) => return CallReport { cpu, ..CallReport::failed(broken.0) },
        };
        let memory_bytes = sandbox.store.data().memory_peak() as u64;
        match outcome {
            Ok(outcome) => {
                let clean = sandbox.store.data_mut().extra.end();
                if reuse && clean && sandbox.is_roomy() {
                    self.idle.put(self.id, &context.model, sandbox);
                } else {
                    sandbox.discard();
                }
                let outcome = match outcome {
                    Outcome::Amend(data) => amended(data, context.after.clone()).await,
                    other => other,
                };
                CallReport::new(outcome, cpu, memory_bytes)
            }
            // A sandbox that trapped is never used again.
            Err(failure) => {
                sandbox.discard();
                CallReport::new(Outcome::Failed(failure), cpu, memory_bytes)
            }
        }
    }
}

#[cfg(test)]
mod command_tests;
#[cfg(test)]
mod guest;
#[cfg(test)]
mod tests;
