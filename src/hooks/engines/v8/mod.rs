//! The engine `v8`: the same JavaScript and TypeScript as `quickjs`, in V8, in processes separate from the server.
//!
//! V8 can abort its whole process, and some regular expressions cannot be interrupted from inside. So each sandbox is a
//! separate process (worker), forked from one in which V8 and the runner are ready (zygote.rs), and the server ends it
//! when its time is up. The worker also serves the hook's next run: its memory is restored to the state before the
//! first run, or with `isolation = 'reuse'` kept. Host calls go over a socket (frames.rs) to the session, as in every
//! engine.

mod backoff;
mod frames;
mod process;
mod room;
mod socket;
mod turns;
mod worker;
mod zygote;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;

use self::backoff::Backoff;
use self::frames::{Call, Keep, Load};
use self::process::{End, Process, RunResult};
use self::room::Room;
use self::zygote::Nursery;
use super::clock::{Clock, bounded};
use super::engine::{
    CallReport, CallSettings, Candidate, EngineFact, HookEngine, HookState, PrepareError, PreparedCode,
};
use super::idle::IdlePool;
use super::javascript::{ALLOCATION_FAILED, Input, LostChange, Read, Reading, Source, compile_error};
use super::limits::{CHECK_LIMITS, memory_failure};
use crate::config::{Isolation, V8Reset};
use crate::hooks::context::{Context, Failure, FailureCause};
use crate::hooks::fair::FairSemaphore;
use crate::hooks::session::Session;
pub use worker::serve as serve_as_worker;
pub(super) use worker::system;

/// The engine's name in bindings.
pub(super) const NAME: &str = "v8";

/// Folder of the library, inside the plugins folder.
const FOLDER: &str = "v8";

/// Typical time to reset a worker after a run; an earlier run gets another idle worker.
const REST: Duration = Duration::from_micros(300);

/// Private memory of a reset idle worker, in MiB: the limit for written and saved pages in image.rs.
const FRESH_MIB: usize = 12;

/// After this many consecutive failed resets a hook's workers are used once and discarded, because a reset costs more
/// than it saves. After as many runs a reset is tried again.
const LOST_MAX: u32 = 8;
const LOST_TRIED: u32 = 64;

/// How many workers a run tries if they have ended: all idle ones may have.
const TRIES_MAX: usize = 8;

const GONE: &str = "the V8 workers end before they are used; try again";

/// The name of evaluated code in V8; answer.rs looks for it in stacks.
const SOURCE_NAME: &str = "\n//# sourceURL=<input>";

/// The engine.
pub(super) struct V8 {
    nursery: Arc<Nursery>,
    idle: Arc<IdlePool<Process>>,
    room: Arc<Room>,
    /// Permits for long runs.
    places: FairSemaphore,
}

impl V8 {
    /// `plugins`: the folder of plugins.
    pub(super) fn new(plugins: &Path, reset: V8Reset) -> Self {
        let room = Room::of_this_machine();
        V8 {
            nursery: Nursery::new(plugins.join(FOLDER), reset),
            idle: Arc::new(IdlePool::weighing_at_most(room.for_idle())),
            room: Arc::new(room),
            places: turns::places(),
        }
    }
}

#[async_trait]
impl HookEngine for V8 {
    fn name(&self) -> &'static str {
        NAME
    }

    fn fact(&self) -> Option<EngineFact> {
        let way = if self.nursery.restores_memory()? { "memory" } else { "fork" };
        let help = "How V8 is reset after a call: the process's memory is restored, or the next call has another";
        Some(EngineFact { name: "snaphook_v8_reset", help, label: ("way", way) })
    }

    async fn prepare(&self, candidate: Candidate<'_>) -> Result<Arc<dyn PreparedCode>, PrepareError> {
        self.nursery.check().map_err(PrepareError::plain)?;
        let mut source = Source::of(candidate.code, candidate.phase, candidate.language).await?;
        source.text.push_str(SOURCE_NAME);
        static HOOKS: AtomicU64 = AtomicU64::new(0);
        let lost_change = LostChange::of(&source);
        let hook = V8Hook {
            lost_change,
            id: HOOKS.fetch_add(1, Ordering::Relaxed),
            source: Arc::new(source),
            nursery: Arc::clone(&self.nursery),
            idle: Arc::clone(&self.idle),
            room: Arc::clone(&self.room),
            places: self.places.clone(),
            backoff: Backoff::default(),
            lost: AtomicU32::new(0),
            began: Instant::now(),
            called: AtomicU64::new(0),
        };
        hook.check().await?;
        Ok(Arc::new(hook))
    }
}

fn overloaded(message: String) -> Failure {
    Failure { cause: FailureCause::Overloaded, message, limit: None }
}

/// One prepared hook.
struct V8Hook {
    id: u64,
    source: Arc<Source>,
    lost_change: LostChange,
    nursery: Arc<Nursery>,
    idle: Arc<IdlePool<Process>>,
    room: Arc<Room>,
    places: FairSemaphore,
    backoff: Backoff,
    /// Consecutive runs whose worker could not be reused.
    lost: AtomicU32,
    began: Instant,
    /// Time of the last run, in microseconds after `began`.
    called: AtomicU64,
}

impl Drop for V8Hook {
    fn drop(&mut self) {
        self.idle.forget(self.id);
    }
}

impl V8Hook {
    /// Compiles the source in V8, which does not support everything that the parser does.
    async fn check(&self) -> Result<(), PrepareError> {
        let mut worker = self.nursery.worker().await.map_err(PrepareError::plain)?;
        let load = Load {
            check: true,
            keep: Keep::Nothing,
            memory_bytes: CHECK_LIMITS.memory_bytes as u64,
            source: self.source.text.clone(),
        };
        let clock = Arc::new(Clock::start(CHECK_LIMITS.timeout, None));
        let failure = match bounded(clock, worker.check(&load)).await {
            Ok(Ok(answer)) if answer.text.is_empty() => return Ok(()),
            Ok(Ok(answer)) => {
                let (message, place) = compile_error(&answer.text);
                let position = place.and_then(|(line, column)| self.source.position(line, column));
                let (line, column) = (position.map(|place| place.line), position.map(|place| place.column));
                return Err(PrepareError { line, column, ..PrepareError::plain(message) });
            }
            Ok(Err(End::Failed(failure) | End::Died(failure))) => failure,
            Ok(Err(End::Gone)) => return Err(PrepareError::plain(GONE)),
            Err(broken) => broken.0,
        };
        Err(PrepareError::plain(format!("the source could not be compiled: {}", failure.message)))
    }

    async fn run(
        &self,
        context: &Context,
        settings: &CallSettings,
        session: &Arc<Session>,
    ) -> Result<CallReport, Failure> {
        if let Some(failure) = self.backoff.failure(context) {
            return Err(failure);
        }
        let Input { text, mut digits, marker } = Input::of(context, session.memory()).await?;
        let _place = self.room.take(context.phase, session.share_key(), settings.limits.memory_bytes).await;
        let (keep, mut idle) = match settings.isolation {
            Isolation::Reuse => (Keep::State, self.idle(Keep::State, context)),
            Isolation::Call => {
                let pause = self.pause();
                match self.idle(Keep::Fresh, context) {
                    None if self.nursery.restores_memory() == Some(false) || !self.is_worth_keeping(pause) => {
                        (Keep::Nothing, None)
                    }
                    idle => (Keep::Fresh, idle),
                }
            }
        };
        let memory_bytes = settings.limits.memory_bytes as u64;
        let call = Call { memory_bytes, phase: self.lost_change.phase(context.phase).into(), marker, context: text };
        let mut tries = 0;
        let began = self.backoff.now();
        let (RunResult { text, cpu, memory_bytes, reusable }, worker) = loop {
            let (mut worker, load) = match idle.take() {
                Some(worker) => (worker, None),
                None => {
                    let load = Load { check: false, keep, memory_bytes, source: self.source.text.clone() };
                    (self.nursery.worker().await.map_err(overloaded)?, Some(load))
                }
            };
            let clock = Arc::new(Clock::start(settings.limits.timeout, Some(Arc::clone(session))));
            // Dropping a worker ends its process, also after a timeout.
            let turns = worker.turns();
            let ended = async {
                tokio::select! {
                    biased;
                    ended = worker.call(load.as_ref(), &call, session, &mut digits) => ended,
                    never = turns.take(&self.places, session.share_key()) => never,
                }
            };
            match bounded(clock, ended).await.map_err(|broken| broken.0)? {
                Ok(answer) => {
                    if keep == Keep::Fresh && load.is_none() {
                        self.lost.store(0, Ordering::Relaxed);
                    }
                    break (answer, worker);
                }
                Err(End::Failed(failure)) => return Err(failure),
                Err(End::Died(failure)) => {
                    // If the data of one run needs too much memory, this says nothing about the next run.
                    if failure.cause != FailureCause::Memory {
                        self.backoff.died(context, began);
                    }
                    return Err(failure);
                }
                Err(End::Gone) if tries < TRIES_MAX => {
                    tries += 1;
                    if keep == Keep::Fresh && load.is_none() {
                        self.lost.fetch_add(1, Ordering::Relaxed);
                    }
                }
                Err(End::Gone) => return Err(overloaded(GONE.into())),
            }
        };
        self.backoff.went_well(context, began);
        // Code that catches the error may continue; otherwise the run reached its limit.
        let refused = text.contains(ALLOCATION_FAILED);
        let memory_failure = refused.then(|| memory_failure(settings.limits.memory_bytes, None));
        let memory = Arc::clone(session.memory());
        let reading = Reading { answer: text, digits, marker: call.marker, memory_failure, memory };
        let Read { outcome, is_clean, has_lost_change } = reading.read(context, &self.source).await;
        if has_lost_change {
            self.lost_change.tell(session);
        }
        let stays = match keep {
            Keep::Nothing => false,
            // The reset removes everything that the run left.
            Keep::Fresh => reusable,
            // A worker with a long run has a low priority, which cannot be raised again.
            Keep::State => reusable && is_clean && cpu < worker::PATIENCE,
        };
        if !stays && keep == Keep::Fresh {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        if stays {
            let weight = if keep == Keep::Fresh { FRESH_MIB } else { settings.limits.memory_bytes >> 20 };
            self.idle.put_weighing(self.id, &context.model, worker, weight);
        }
        Ok(CallReport::new(outcome, cpu, memory_bytes))
    }

    /// Time since the last run.
    fn pause(&self) -> Duration {
        let now = self.began.elapsed().as_micros() as u64;
        Duration::from_micros(now.saturating_sub(self.called.swap(now, Ordering::Relaxed)))
    }

    /// Whether a new worker is likely to serve another run: the last ones did, and runs of this hook come before
    /// another hook would evict it.
    fn is_worth_keeping(&self, pause: Duration) -> bool {
        let lost = self.lost.load(Ordering::Relaxed);
        if lost >= LOST_MAX && !lost.is_multiple_of(LOST_TRIED) {
            self.lost.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        self.idle.lifetime(FRESH_MIB).is_none_or(|lifetime| pause < lifetime)
    }

    /// An idle worker in the state `keep`.
    fn idle(&self, keep: Keep, context: &Context) -> Option<Process> {
        let rest = if keep == Keep::Fresh { REST } else { Duration::ZERO };
        // Others were created before a change of the configuration.
        std::iter::from_fn(|| self.idle.take_after(self.id, &context.model, rest))
            .find(|worker| worker.kept() == Some(keep))
    }
}

#[async_trait]
impl PreparedCode for V8Hook {
    async fn call(&self, context: &Context, settings: &CallSettings, session: &Arc<Session>) -> CallReport {
        self.run(context, settings, session).await.unwrap_or_else(CallReport::failed)
    }

    fn bound_anew(&self, model: &str) {
        self.backoff.forget(model);
    }

    fn state(&self, model: &str) -> HookState {
        self.backoff.state(model)
    }
}

#[cfg(test)]
mod tests;
