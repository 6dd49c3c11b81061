//! The engine `quickjs`: JavaScript and TypeScript source, run by QuickJS inside a WebAssembly sandbox.
//!
//! One compiled runner serves all hooks (runner.rs); a hook is its rewritten source (`javascript`). A call gets a fresh
//! sandbox (made ahead where possible, spares.rs), loads the source and runs the handler; with `isolation = 'reuse'` the
//! loaded sandbox serves the hook's next call too. What the handler asks for goes through host.rs to the session.

mod host;
mod runner;
mod spares;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use wasmtime::Trap;
use wasmtime::component::TypedFunc;

use self::host::Extra;
use self::runner::{Runner, runner};
use self::spares::Spares;
use super::idle::IdlePool;
use super::javascript::{Input, Reading, Source, compile_error};
use super::limits::{Broken, CHECK_LIMITS};
use super::wasm::{self, CodeCache, Runtime, Sandbox};
use super::{CallReport, CallSettings, Engine, PrepareError, Prepared};
use crate::config::{Isolation, Phase};
use crate::hooks::context::{Context, Failure, FailureCause, Outcome};
use crate::hooks::session::Session;

/// The word in bindings.
pub(super) const NAME: &str = "quickjs";

/// The engine.
pub(super) struct QuickJs {
    cache: CodeCache,
    idle: Arc<IdlePool<Sandbox<Extra>>>,
    spares: Arc<Spares>,
}

impl QuickJs {
    pub(super) fn new(cache: CodeCache) -> Self {
        QuickJs { cache, idle: Arc::default(), spares: Arc::default() }
    }
}

#[async_trait]
impl Engine for QuickJs {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn prepare(&self, code: &[u8], phase: Phase, _: &str) -> Result<Arc<dyn Prepared>, PrepareError> {
        // The source is checked before the runner is made: a mistake is answered at once on a cold server too.
        let source = Source::of(code, phase).await?;
        let runtime = wasm::runtime().map_err(PrepareError::plain)?;
        let runner = runner(runtime, &self.cache).await?;
        check(runtime, runner, &source).await?;
        static HOOKS: AtomicU64 = AtomicU64::new(0);
        let id = HOOKS.fetch_add(1, Ordering::Relaxed);
        let (idle, spares) = (Arc::clone(&self.idle), Arc::clone(&self.spares));
        Ok(Arc::new(Hook { id, source: Arc::new(source), runtime, runner, idle, spares }))
    }
}

/// Lets QuickJS compile the source, since it does not know all that the parser knows.
async fn check(runtime: &'static Runtime, runner: &'static Runner, source: &Source) -> Result<(), PrepareError> {
    let text = source.text.clone();
    let sandbox = Sandbox::new(runtime, Extra::default()).await;
    let mut sandbox = sandbox.map_err(|failure| PrepareError::plain(failure.message))?;
    let clock = sandbox.begin(None, &CHECK_LIMITS);
    let (checked, _) = wasm::run(runtime, clock, async move {
        let checked = compile(runner, &mut sandbox, &text).await;
        sandbox.end(checked)
    })
    .await;
    let failure = match checked {
        Ok(Ok(None)) => return Ok(()),
        Ok(Ok(Some(error))) => {
            let (message, place) = compile_error(&error);
            let position = place.and_then(|(line, column)| source.position(line, column));
            let (line, column) = (position.map(|position| position.line), position.map(|position| position.column));
            return Err(PrepareError { line, column, ..PrepareError::plain(message) });
        }
        Ok(Err(failure)) => failure,
        Err(broken) => broken.0,
    };
    Err(PrepareError::plain(format!("the source could not be compiled: {}", failure.message)))
}

/// `None`: it can be compiled.
async fn compile(runner: &Runner, sandbox: &mut Sandbox<Extra>, text: &str) -> wasmtime::Result<Option<String>> {
    let instance = sandbox.instance(&runner.code).await?;
    let check: TypedFunc<(&str,), (Option<String>,)> = instance.get_typed_func(&mut sandbox.store, runner.check)?;
    Ok(check.call_async(&mut sandbox.store, (text,)).await?.0)
}

/// One hook's source, ready to run.
struct Hook {
    id: u64,
    source: Arc<Source>,
    runtime: &'static Runtime,
    runner: &'static Runner,
    idle: Arc<IdlePool<Sandbox<Extra>>>,
    spares: Arc<Spares>,
}

impl Drop for Hook {
    fn drop(&mut self) {
        self.idle.forget(self.id);
    }
}

#[async_trait]
impl Prepared for Hook {
    async fn call(&self, context: &Context, settings: &CallSettings, session: &Arc<Session>) -> CallReport {
        let Input { text, digits, marker } = match Input::of(context, session.memory()).await {
            Ok(input) => input,
            Err(failure) => return CallReport::failed(failure),
        };
        let reuse = settings.isolation == Isolation::Reuse;
        let spare = || self.spares.take(self.runtime, self.runner, settings.limits.memory_bytes);
        let mut sandbox = match reuse.then(|| self.idle.take(self.id, &context.model)).flatten().or_else(spare) {
            Some(sandbox) => sandbox,
            None => match Sandbox::new(self.runtime, Extra::default()).await {
                Ok(sandbox) => sandbox,
                Err(failure) => return CallReport::failed(failure),
            },
        };
        sandbox.store.data_mut().extra.digits = digits;
        let clock = sandbox.begin(Some(Arc::clone(session)), &settings.limits);
        let (runner, source, phase, word) = (self.runner, Arc::clone(&self.source), context.phase, marker.clone());
        let (ended, cpu) = wasm::run(self.runtime, clock, async move {
            let answer = answer(runner, &mut sandbox, &source, phase, &text, &word).await;
            (sandbox.end(answer), sandbox)
        })
        .await;
        let (answer, mut sandbox) = match ended {
            Ok(ended) => ended,
            Err(broken) => return CallReport { cpu, ..CallReport::failed(broken.0) },
        };
        let memory_bytes = sandbox.store.data().memory_peak() as u64;
        let outcome = match answer {
            Ok(answer) => {
                let memory_failure = sandbox.store.data().memory_failure();
                let digits = std::mem::take(&mut sandbox.store.data_mut().extra.digits);
                let memory = Arc::clone(session.memory());
                let reading = Reading { answer, digits, marker, memory_failure, memory };
                let (outcome, clean) = reading.read(context, &self.source).await;
                if reuse && clean && sandbox.is_roomy() {
                    self.idle.put(self.id, &context.model, sandbox);
                } else {
                    sandbox.discard();
                }
                outcome
            }
            // What trapped is never used again.
            Err(failure) => {
                sandbox.discard();
                Outcome::Failed(failure)
            }
        };
        CallReport { outcome, cpu, memory_bytes }
    }
}

/// The runner's answer to one call.
async fn answer(
    runner: &Runner,
    sandbox: &mut Sandbox<Extra>,
    source: &Source,
    phase: Phase,
    context: &str,
    marker: &str,
) -> wasmtime::Result<String> {
    type Arguments<'a> = (&'a str, &'a str, &'a str, &'a str);
    let loaded = std::mem::replace(&mut sandbox.store.data_mut().extra.loaded, true);
    let source = if loaded { "" } else { source.text.as_str() };
    let instance = sandbox.instance(&runner.code).await?;
    let store = &mut sandbox.store;
    let run: TypedFunc<Arguments<'_>, (Option<String>,)> = instance.get_typed_func(&mut *store, runner.run)?;
    let (answer,) = run.call_async(&mut *store, (source, phase.as_str(), context, marker)).await?;
    if let Some(answer) = answer {
        return Ok(answer);
    }
    // The handler is asynchronous: its promise is settled by a call that may wait.
    let settle: TypedFunc<(), (String,)> = instance.get_typed_func(&mut *store, runner.settle)?;
    let settled = store.run_concurrent(async |accessor| settle.call_concurrent(accessor, ()).await).await;
    match settled.and_then(|settled| settled) {
        Ok((answer,)) => Ok(answer),
        // QuickJS has nothing left to do and nothing to wait for.
        Err(error) if error.downcast_ref() == Some(&Trap::NoAsyncResult) => {
            Err(wasmtime::Error::new(Broken(Failure {
                cause: FailureCause::Exception,
                message: "the promise that the handler returned never settles: nothing is left that could settle it"
                    .into(),
                limit: None,
            })))
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests;
