//! The engine `quickjs`: JavaScript and TypeScript source, run by QuickJS inside a WebAssembly sandbox.
//!
//! One compiled runner serves all hooks (runner.rs); a hook is its rewritten source (source.rs). A call gets a fresh
//! sandbox, loads the source and runs the handler; with `isolation = 'reuse'` the loaded sandbox serves the hook's next
//! call too. What the handler asks for goes through host.rs to the session; what it hands back is read by answer.rs.

mod answer;
mod digits;
mod foreign;
mod host;
mod runner;
mod source;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use serde_json::json;
use snaphook_driver::time;
use tokio::sync::OwnedSemaphorePermit;
use wasmtime::Store;
use wasmtime::component::{Instance, TypedFunc};

use self::answer::{Reader, compile_error};
use self::digits::Digits;
use self::host::Extra;
use self::runner::{Runner, runner};
use self::source::Source;
use super::wasm::{self, CHECK_LIMITS, CodeCache, IdlePool, Runtime, State, failure_of};
use super::{CallReport, CallSettings, Engine, PrepareError, Prepared};
use crate::config::{Isolation, Phase};
use crate::hooks::context::{Context, Failure, FailureCause, Outcome};
use crate::hooks::session::Session;

/// The word in bindings.
pub(super) const NAME: &str = "quickjs";

/// The engine.
pub(super) struct QuickJs {
    cache: CodeCache,
    idle: Arc<IdlePool<Sandbox>>,
}

impl QuickJs {
    pub(super) fn new(cache: CodeCache) -> Self {
        QuickJs { cache, idle: Arc::default() }
    }
}

#[async_trait]
impl Engine for QuickJs {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn prepare(&self, code: &[u8], phase: Phase, _: &str) -> Result<Arc<dyn Prepared>, PrepareError> {
        let code = code.to_vec();
        let cache = self.cache.clone();
        // The source is checked before the runner is made: a mistake is answered at once on a cold server too.
        let made = tokio::task::spawn_blocking(move || {
            let source = source::compile(&code, phase)?;
            let runtime = wasm::runtime().map_err(PrepareError::plain)?;
            let runner = runner(runtime, &cache).map_err(PrepareError::plain)?;
            Ok::<_, PrepareError>((source, runtime, runner))
        });
        let made =
            made.await.map_err(|error| PrepareError::plain(format!("the source could not be compiled: {error}")));
        let (source, runtime, runner) = made??;
        check(runtime, runner, &source).await?;
        static HOOKS: AtomicU64 = AtomicU64::new(0);
        let id = HOOKS.fetch_add(1, Ordering::Relaxed);
        Ok(Arc::new(Hook { id, source: Arc::new(source), runtime, runner, idle: Arc::clone(&self.idle) }))
    }
}

/// Lets QuickJS compile the source, since it does not know all that the parser knows.
async fn check(runtime: &'static Runtime, runner: &'static Runner, source: &Source) -> Result<(), PrepareError> {
    let text = source.text.clone();
    let mut store = wasm::new_store(runtime, Extra::default());
    let clock = store.data_mut().begin(None, &CHECK_LIMITS);
    let permit = sandbox_permit(runtime).await.map_err(|failure| PrepareError::plain(failure.message))?;
    let (checked, _) = wasm::run(runtime, clock, async move {
        let _permit = permit;
        let checked = async {
            let instance = runner.instance.instantiate_async(&mut store).await?;
            let check = instance.get_typed_func::<(&str,), (Option<String>,)>(&mut store, &runner.check)?;
            check.call_async(&mut store, (&text,)).await
        };
        let checked: wasmtime::Result<_> = checked.await;
        checked.map_err(|error| failure_of(&error, store.data()))
    })
    .await;
    let failure = match checked {
        Ok(Ok((None,))) => return Ok(()),
        Ok(Ok((Some(error),))) => {
            let (message, place) = compile_error(&error);
            let position = place.and_then(|(line, column)| source.position(line, column));
            let (line, column) = (position.map(|position| position.line), position.map(|position| position.column));
            return Err(PrepareError { message, line, column });
        }
        Ok(Err(failure)) => failure,
        Err(broken) => broken.0,
    };
    Err(PrepareError::plain(format!("the source could not be compiled: {}", failure.message)))
}

/// One hook's source, ready to run.
struct Hook {
    id: u64,
    source: Arc<Source>,
    runtime: &'static Runtime,
    runner: &'static Runner,
    idle: Arc<IdlePool<Sandbox>>,
}

impl Drop for Hook {
    fn drop(&mut self) {
        self.idle.forget(self.id);
    }
}

/// A running QuickJS.
struct Sandbox {
    store: Store<State<Extra>>,
    instance: Instance,
    _permit: OwnedSemaphorePermit,
}

/// What the guest made of a call.
struct Ended {
    answer: Result<String, Failure>,
    /// Of a sandbox that may be used again, if nothing was left behind in it.
    sandbox: Option<Sandbox>,
    memory_failure: Option<Failure>,
    memory_bytes: usize,
    digits: Digits,
}

#[async_trait]
impl Prepared for Hook {
    async fn call(&self, context: &Context, settings: &CallSettings, session: &Arc<Session>) -> CallReport {
        let input = Input::new(context);
        let reuse = settings.isolation == Isolation::Reuse;
        let idle = reuse.then(|| self.idle.take(self.id)).flatten();
        let permit = match &idle {
            Some(_) => None,
            None => match sandbox_permit(self.runtime).await {
                Ok(permit) => Some(permit),
                Err(failure) => return CallReport::failed(failure),
            },
        };
        let mut start = match (idle, permit) {
            (Some(sandbox), _) => Start::Warm(sandbox),
            (None, Some(permit)) => Start::Fresh(wasm::new_store(self.runtime, Extra::default()), permit),
            (None, None) => unreachable!("without an idle sandbox there is a permit for a fresh one"),
        };
        let state = start.store().data_mut();
        state.extra.digits = input.digits;
        let clock = state.begin(Some(Arc::clone(session)), &settings.limits);
        let guest =
            guest(self.runner, start, Arc::clone(&self.source), context.phase, input.text, input.marker.clone());
        let (ended, cpu) = wasm::run(self.runtime, clock, guest).await;
        let ended = match ended {
            Ok(ended) => ended,
            Err(broken) => return CallReport { cpu, ..CallReport::failed(broken.0) },
        };
        let (outcome, clean) = match ended.answer {
            Ok(answer) => {
                let (source, digits, marker) = (&*self.source, &ended.digits, input.marker.as_str());
                Reader { context, source, digits, marker, memory_failure: ended.memory_failure }.outcome(&answer)
            }
            Err(failure) => (Outcome::Failed(failure), false),
        };
        if let Some(sandbox) = ended.sandbox.filter(|_| reuse && clean) {
            self.idle.put(self.id, sandbox);
        }
        CallReport { outcome, cpu, memory_bytes: ended.memory_bytes as u64 }
    }
}

/// A place for one more sandbox.
async fn sandbox_permit(runtime: &Runtime) -> Result<OwnedSemaphorePermit, Failure> {
    runtime.sandbox().await.map_err(|message| Failure { cause: FailureCause::Overloaded, message, limit: None })
}

/// The context as the guest gets it.
struct Input {
    text: String,
    digits: Digits,
    /// Stands for an infinite number in the answer; empty if there is none in the data.
    marker: String,
}

impl Input {
    fn new(context: &Context) -> Self {
        let mut digits = Digits::default();
        let mut data = String::new();
        for (name, json) in [("before", &context.before), ("after", &context.after)] {
            if let Some(json) = json {
                digits.note(json);
                data.push_str(&format!(",\"{name}\":{}", json.as_str()));
            }
        }
        let event = context.event.as_ref().map(|event| json!({ "position": event.position, "id": event.id }));
        let rest = json!({
            "phase": context.phase,
            "model": { "id": context.model, "version": context.model_version },
            "id": context.instance,
            "actor": context.actor,
            "requestId": context.request_id,
            "time": time::format(context.time),
            "attempt": context.attempt,
            "event": event,
        });
        let mut text = rest.to_string();
        text.insert_str(text.len() - 1, &data);
        // A word that the author cannot know beforehand.
        let marker = if digits.has_infinite() { uuid::Uuid::now_v7().simple().to_string() } else { String::new() };
        Input { text, digits, marker }
    }
}

/// Where a call begins.
enum Start {
    Fresh(Store<State<Extra>>, OwnedSemaphorePermit),
    Warm(Sandbox),
}

impl Start {
    fn store(&mut self) -> &mut Store<State<Extra>> {
        match self {
            Start::Fresh(store, _) => store,
            Start::Warm(sandbox) => &mut sandbox.store,
        }
    }
}

async fn guest(
    runner: &'static Runner,
    start: Start,
    source: Arc<Source>,
    phase: Phase,
    context: String,
    marker: String,
) -> Ended {
    let (mut sandbox, loaded) = match start {
        Start::Warm(sandbox) => (sandbox, true),
        Start::Fresh(mut store, permit) => match runner.instance.instantiate_async(&mut store).await {
            Ok(instance) => (Sandbox { store, instance, _permit: permit }, false),
            Err(error) => {
                let failure = failure_of(&error, store.data());
                return ended(Err(failure), &mut store, None);
            }
        },
    };
    let source = if loaded { "" } else { source.text.as_str() };
    let answer = sandbox.run(runner, source, phase, &context, &marker).await;
    let failure = match answer {
        Ok(answer) => {
            let mut done = ended(Ok(answer), &mut sandbox.store, None);
            // One that grew most of the way would fail the next call for what the last one did.
            let roomy = sandbox.store.data().memory_used() <= sandbox.store.data().memory_limit() / 2;
            done.sandbox = roomy.then_some(sandbox);
            return done;
        }
        Err(error) => failure_of(&error, sandbox.store.data()),
    };
    ended(Err(failure), &mut sandbox.store, None)
}

fn ended(answer: Result<String, Failure>, store: &mut Store<State<Extra>>, sandbox: Option<Sandbox>) -> Ended {
    let state = store.data_mut();
    state.end();
    Ended {
        answer,
        sandbox,
        memory_failure: state.memory_failure(),
        memory_bytes: state.memory_peak(),
        digits: std::mem::take(&mut state.extra.digits),
    }
}

impl Sandbox {
    async fn run(
        &mut self,
        runner: &Runner,
        source: &str,
        phase: Phase,
        context: &str,
        marker: &str,
    ) -> wasmtime::Result<String> {
        type Arguments<'a> = (&'a str, &'a str, &'a str, &'a str);
        let run: TypedFunc<Arguments<'_>, (Option<String>,)> =
            self.instance.get_typed_func(&mut self.store, &runner.run)?;
        let (answer,) = run.call_async(&mut self.store, (source, phase.as_str(), context, marker)).await?;
        if let Some(answer) = answer {
            return Ok(answer);
        }
        // The handler is asynchronous: its promise is settled by a call that may wait.
        let settle: TypedFunc<(), (String,)> = self.instance.get_typed_func(&mut self.store, &runner.settle)?;
        let settled = self.store.run_concurrent(async |accessor| settle.call_concurrent(accessor, ()).await).await;
        let (answer,) = settled??;
        Ok(answer)
    }
}

#[cfg(test)]
mod tests;
