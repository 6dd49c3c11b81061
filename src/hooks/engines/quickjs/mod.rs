//! The engine `quickjs`: JavaScript and TypeScript source, run by QuickJS inside a WebAssembly sandbox.
//!
//! One module serves all hooks (artifact.rs, runner.rs): a snapshot of QuickJS with our scripts. A hook is its
//! rewritten source (`javascript`), loaded once, when it is bound (load.rs). The changes that loading made in the
//! module's memory are copied into the fresh sandbox of a run (delta.rs) or, if they are large, the fresh sandbox maps
//! an image (image.rs). After the run its memory is restored, and it serves the hook's next run (restore.rs); with
//! `isolation = 'reuse'` its memory is kept. Host calls go through host.rs to the session; several of them may run
//! concurrently (`javascript::calls`).

mod artifact;
mod delta;
mod guest;
mod host;
mod image;
mod instance;
mod load;
mod restore;
mod runner;
mod written;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;

use self::host::Extra;
use self::load::{Loaded, load};
use self::restore::restore;
use self::runner::{Runner, runner};
use super::engine::{CallReport, CallSettings, Candidate, HookEngine, PrepareError, PreparedCode, TopLevel};
use super::idle::IdlePool;
use super::javascript::{Input, LostChange, Read, Reading, Source};
use super::wasm::{self, CodeCache, Sandbox};
use crate::config::Isolation;
use crate::hooks::context::{Context, Outcome};
use crate::hooks::session::Session;

/// The engine's name in bindings.
pub(super) const NAME: &str = "quickjs";

/// The engine.
pub(super) struct QuickJs {
    cache: CodeCache,
    idle: Arc<IdlePool<Sandbox<Extra>>>,
}

impl QuickJs {
    pub(super) fn new(cache: CodeCache) -> Self {
        QuickJs { cache, idle: Arc::default() }
    }
}

#[async_trait]
impl HookEngine for QuickJs {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn prepare(&self, candidate: Candidate<'_>) -> Result<Arc<dyn PreparedCode>, PrepareError> {
        // The source is checked before the runner is created, so that errors are reported immediately, also on a cold
        // server.
        let source = Source::of(candidate.code, candidate.phase, candidate.language).await?;
        let runner = runner(&self.cache).await?;
        let loaded = load(runner, &self.cache, &source).await?;
        static HOOKS: AtomicU64 = AtomicU64::new(0);
        let id = HOOKS.fetch_add(1, Ordering::Relaxed);
        let idle = Arc::clone(&self.idle);
        let lost_change = LostChange::of(&source);
        Ok(Arc::new(QuickJsHook { id, source: Arc::new(source), loaded: Arc::new(loaded), lost_change, runner, idle }))
    }

    fn uncompiled(&self, digests: &[&str]) -> Vec<Option<String>> {
        // A hook is loaded in milliseconds, once what runs it is there.
        vec![runner::uncompiled(&self.cache); digests.len()]
    }
}

/// One prepared hook.
struct QuickJsHook {
    id: u64,
    source: Arc<Source>,
    loaded: Arc<Loaded>,
    lost_change: LostChange,
    runner: &'static Runner,
    idle: Arc<IdlePool<Sandbox<Extra>>>,
}

impl Drop for QuickJsHook {
    fn drop(&mut self) {
        self.idle.forget(self.id);
    }
}

impl QuickJsHook {
    /// An idle sandbox for the run.
    fn idle(&self, reuse: bool, context: &Context, settings: &CallSettings) -> Option<Sandbox<Extra>> {
        let memory_bytes = settings.limits.memory_bytes;
        // Others were created before a change of the configuration.
        std::iter::from_fn(|| self.idle.take(self.id, &context.model)).find_map(|mut sandbox| {
            let is_restored = std::mem::take(&mut sandbox.store.data_mut().extra.is_restored);
            (is_restored != reuse && sandbox.memory_used() <= memory_bytes).then_some(sandbox)
        })
    }
}

#[async_trait]
impl PreparedCode for QuickJsHook {
    async fn call(&self, context: &Context, settings: &CallSettings, session: &Arc<Session>) -> CallReport {
        let Input { text, digits, marker } = match Input::of(context, session.memory()).await {
            Ok(input) => input,
            Err(failure) => return CallReport::failed(failure),
        };
        let reuse = settings.isolation == Isolation::Reuse;
        let runner = self.runner;
        let mut sandbox = match self.idle(reuse, context, settings) {
            Some(sandbox) => sandbox,
            None => match Sandbox::new(runner.runtime, Extra::default()).await {
                Ok(sandbox) => sandbox,
                Err(failure) => return CallReport::failed(failure),
            },
        };
        sandbox.store.data_mut().extra.digits = digits;
        let clock = sandbox.begin(Some(Arc::clone(session)), &settings.limits);
        let (loaded, word) = (Arc::clone(&self.loaded), marker.clone());
        let phase = self.lost_change.phase(context.phase);
        let (ended, cpu) = wasm::run(runner.runtime, clock, async move {
            let mut written = std::mem::take(&mut sandbox.store.data_mut().extra.written);
            let answer = written.during(answer(runner, &mut sandbox, &loaded, [&phase, &text, &word])).await;
            sandbox.store.data_mut().extra.written = written;
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
                let Read { outcome, is_clean, has_lost_change } = reading.read(context, &self.source).await;
                if has_lost_change {
                    self.lost_change.tell(session);
                }
                let stays = match reuse {
                    true => is_clean && sandbox.is_roomy() && sandbox.store.data().extra.calls.is_idle(),
                    false => restore(runner, &self.loaded.start, &mut sandbox),
                };
                if stays {
                    self.idle.put(self.id, &context.model, sandbox);
                }
                outcome
            }
            // A sandbox that trapped is never reused.
            Err(failure) => Outcome::Failed(failure),
        };
        CallReport::new(outcome, cpu, memory_bytes)
    }

    fn top_level(&self) -> Option<TopLevel> {
        Some(self.loaded.top_level.clone())
    }

    fn top_level_time(&self) -> Option<Duration> {
        Some(self.loaded.top_level_time)
    }
}

/// The runner's answer for one run.
async fn answer(
    runner: &Runner,
    sandbox: &mut Sandbox<Extra>,
    loaded: &Loaded,
    input: [&str; 3],
) -> wasmtime::Result<String> {
    let store = &mut sandbox.store;
    let (guest, exports) = loaded.start.guest(runner, store).await?;
    guest.run(store, exports, runner.input, input).await
}

#[cfg(test)]
mod tests;
