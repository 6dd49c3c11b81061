//! The hook host: binds code to a model's phase and runs it, one call at a time or many at once.
//!
//! The path of one run: grants and limits as they are now, a place among the calls of this hook, the engine with a
//! session, the amend grant, stats and log. Nothing on it takes a lock that hooks share.

use std::any::Any;
use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use bytes::Bytes;
use futures::FutureExt;
use serde_json::Value;
use sha2::{Digest, Sha256};
use snaphook_driver::{PAYLOAD_BYTES_MAX, Provenance, time};

use super::access::Access;
pub use super::binding::{Binding, HookInfo, Mode};
use super::capabilities::process::Processes;
use super::code::{Code, Followed, Found, Loading, Seen};
use super::context::{Context, Failure, FailureCause, LogLevel, Outcome, Run};
use super::engines::{
    CallReport, CallSettings, Candidate, Engine, EngineFact, HookState, PrepareError, PrepareErrorKind, Prepared,
    TopLevel,
};
use super::feed::{Feed, Told};
use super::grants::{Granted, HookId};
use super::library;
use super::loaded::Loaded;
use super::places::Places;
use super::session::{Services, Session};
use super::stats::{HookStats, PhaseLine, PhaseLog, shorten};
use crate::catalog::SourceLanguage;
use crate::config::{Config, Phase, format_duration, format_size};

/// What a refusal may say, message and fields together, and of how many fields.
const REJECTION_BYTES_MAX: usize = 64 * 1024;
const REJECTION_FIELDS_MAX: usize = 1_000;

/// What of a failure's message is kept: it goes into logs, answers and the error store.
pub(crate) const FAILURE_BYTES_MAX: usize = 4 * 1024;

/// How long the code of a bound hook waits for its turn to be compiled.
const LOAD_MAX: Duration = Duration::from_secs(30);

/// Where the code of artifacts is kept.
#[async_trait]
pub trait Artifacts: Send + Sync {
    /// The code; the error is one sentence.
    async fn code(&self, artifact: &str) -> Result<Bytes, String>;
}

/// What is said of native code wherever it appears.
pub const NOT_SANDBOXED: &str = "not sandboxed";

/// A hook that is bound. Cheap until it runs for the first time.
pub struct BoundHook {
    binding: Binding,
    label: String,
    code: ArcSwap<Code>,
    file: Option<Followed>,
    places: Places,
    stats: HookStats,
    log: Arc<PhaseLog>,
}

impl BoundHook {
    /// What it was bound with.
    pub fn binding(&self) -> &Binding {
        &self.binding
    }

    /// Who it is now: the artifact is that of the code that runs, which for a library may be another than when it was
    /// bound.
    pub fn id(&self) -> Arc<HookId> {
        Arc::clone(&self.code.load().id)
    }

    /// `invoice.postCreate/mail`.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Its numbers since it was bound.
    pub fn stats(&self) -> &HookStats {
        &self.stats
    }

    /// What an event says of the code that let it pass.
    pub fn provenance(&self, run: &Run) -> Provenance {
        Provenance {
            name: run.hook.name.clone(),
            engine: self.binding.engine.clone(),
            artifact: run.hook.artifact.clone(),
            ms: (run.wall.as_secs_f64() * 1e6).round() / 1e3,
        }
    }
}

/// Engines × capabilities.
pub struct HookHost {
    engines: Vec<Arc<dyn Engine>>,
    config: Arc<ArcSwap<Config>>,
    attached: OnceLock<Attached>,
    /// Code in use, so that the same code is prepared once.
    prepared: Mutex<HashMap<PreparedKey, Weak<dyn Prepared>>>,
    /// Kept for as long as the server runs: a hook that is replaced keeps its phase's log.
    logs: Mutex<HashMap<(String, Phase), Arc<PhaseLog>>>,
    feed: Feed,
    loaded: Loaded,
}

struct Attached {
    services: Arc<Services>,
    artifacts: Arc<dyn Artifacts>,
}

/// Engine, phase, name (it stands in messages and stack traces) and SHA-256 of the code.
type PreparedKey = (&'static str, Phase, String, Option<SourceLanguage>, [u8; 32]);

impl HookHost {
    /// Grants and limits follow `config`.
    pub fn new(engines: Vec<Arc<dyn Engine>>, config: Arc<ArcSwap<Config>>) -> Self {
        HookHost {
            engines,
            config,
            attached: OnceLock::new(),
            prepared: Mutex::default(),
            logs: Mutex::default(),
            feed: Feed::default(),
            loaded: Loaded::default(),
        }
    }

    /// Connects the host to the server's data, which needs the host itself. Once, before the first run; what is
    /// attached later is ignored.
    pub fn attach(&self, access: Arc<dyn Access>, artifacts: Arc<dyn Artifacts>) {
        self.attach_services(Services::new(access), artifacts);
        Processes::clean_up();
    }

    pub(super) fn attach_services(&self, services: Arc<Services>, artifacts: Arc<dyn Artifacts>) {
        let _ = self.attached.set(Attached { services, artifacts });
    }

    /// Names of the engines of this build.
    pub fn engine_names(&self) -> impl Iterator<Item = &'static str> {
        self.engines.iter().map(|engine| engine.name())
    }

    /// What metrics tell of the engines.
    pub fn engine_facts(&self) -> impl Iterator<Item = EngineFact> {
        self.engines.iter().filter_map(|engine| engine.fact())
    }

    /// Checks code for a phase and makes it ready. The same code for the same phase and name is prepared once, for as
    /// long as somebody holds it.
    pub async fn prepare(&self, engine: &str, candidate: Candidate<'_>) -> Result<Arc<dyn Prepared>, PrepareError> {
        let Candidate { code, phase, name, language } = candidate;
        let engine = self.engines.iter().find(|candidate| candidate.name() == engine).ok_or_else(|| {
            let names: Vec<String> = self.engine_names().map(|name| format!("`{name}`")).collect();
            PrepareError::plain(format!("no engine `{engine}` in this build; there are {}", names.join(", ")))
        })?;
        let key = (engine.name(), phase, name.to_owned(), language, Sha256::digest(code).into());
        if let Some(prepared) = lock(&self.prepared).get(&key).and_then(Weak::upgrade) {
            return Ok(prepared);
        }
        let prepared = AssertUnwindSafe(engine.prepare(candidate)).catch_unwind().await.unwrap_or_else(|panic| {
            Err(PrepareError::plain(format!("engine `{}` failed on this code: {}", engine.name(), panic_text(&*panic))))
        })?;
        let mut cache = lock(&self.prepared);
        // Two may have prepared the same at once: both keep the first.
        if let Some(first) = cache.get(&key).and_then(Weak::upgrade) {
            return Ok(first);
        }
        cache.retain(|_, prepared| prepared.strong_count() > 0);
        cache.insert(key, Arc::downgrade(&prepared));
        Ok(prepared)
    }

    /// Binds code. With `prepared` it runs at once; without, the code is loaded at the first run.
    pub fn bind(&self, binding: Binding, prepared: Option<Arc<dyn Prepared>>) -> Arc<BoundHook> {
        let log = self.phase_log(&binding.id.model, binding.id.phase);
        let loaded = prepared.is_some();
        let hook = Arc::new(BoundHook {
            label: binding.id.to_string(),
            code: ArcSwap::new(Code::new(binding.id.clone(), binding.size, prepared)),
            file: binding.library.as_deref().map(Followed::new),
            binding,
            places: Places::default(),
            stats: HookStats::default(),
            log,
        });
        if loaded {
            self.announce(&hook, &hook.code.load());
        }
        hook
    }

    /// Whether an engine's code comes as libraries of the hooks directory, and runs as the server itself does.
    pub fn is_native(&self, engine: &str) -> bool {
        self.engines.iter().any(|candidate| candidate.name() == engine && candidate.is_native())
    }

    /// Loads a library now, so that whoever looks at the log sees it or why it cannot be; other code waits for its first
    /// run.
    pub async fn load_library(&self, hook: &BoundHook) {
        if hook.file.is_some() {
            let code = self.current(hook).await;
            if let Some(message) = code.recent_failure() {
                tracing::error!(hook = hook.label, "a native hook cannot run, so its calls fail: {message}");
            }
        }
    }

    /// The log of a phase of a model; empty if nothing ran there.
    pub fn phase_log(&self, model: &str, phase: Phase) -> Arc<PhaseLog> {
        Arc::clone(lock(&self.logs).entry((model.to_owned(), phase)).or_default())
    }

    /// Loads a library if its file is another than the one that runs: whoever asks what is bound learns what is so now.
    pub async fn look_at_library(&self, hook: &BoundHook) {
        if hook.file.is_some() {
            self.current(hook).await;
        }
    }

    /// Every run that ends from now on, and every library that is loaded or cannot be.
    pub fn follow(&self) -> impl futures::Stream<Item = Told> + Send + use<> {
        self.feed.follow()
    }

    /// What the REST API tells of a hook.
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
            grants: self.granted_to(&code).to_json(),
            position: hook.binding.position,
            language: hook.binding.language,
            library: hook.binding.library.clone(),
            sandbox: hook.binding.library.as_ref().map(|_| NOT_SANDBOXED),
            still_loaded: match &hook.file {
                Some(file) => self.loaded.beside(&file.name, &code.id.artifact),
                None => Vec::new(),
            },
        }
    }

    /// Libraries that the server's process holds, bound or not: the file, and how many contents of it.
    pub fn libraries(&self) -> Vec<(String, usize)> {
        self.loaded.counts()
    }

    /// A library was loaded to be checked, whether it is bound or not: the sentence that says so. `artifact` begins with
    /// `sha256:`.
    pub fn checked_library(&self, file: &str, artifact: &str) -> String {
        self.loaded.note(file, artifact);
        format!(
            "native library `{file}` ({artifact}) was loaded into the server to be checked: {NOT_SANDBOXED}, and it stays \
             until the server ends"
        )
    }

    /// A library that was loaded is told wherever it runs: nobody should have to guess what is not sandboxed.
    fn announce(&self, hook: &BoundHook, code: &Code) {
        let Some(file) = &hook.file else { return };
        self.loaded.note(&file.name, &code.id.artifact);
        let stay = match self.loaded.beside(&file.name, &code.id.artifact).len() {
            0 => String::new(),
            1 => "; 1 other content of this file stays loaded until the server ends".to_owned(),
            count => format!("; {count} other contents of this file stay loaded until the server ends"),
        };
        tracing::warn!(
            hook = hook.label,
            "native library `{}` ({}) is loaded: {NOT_SANDBOXED}, it can do whatever the server can{stay}",
            file.name,
            code.id.artifact
        );
        self.feed.tell_library(&hook.binding, &code.id.artifact, None);
    }

    /// A hook's numbers, with the limits that hold now.
    pub fn stats(&self, hook: &BoundHook) -> Value {
        hook.stats.to_json(self.granted(hook).limits)
    }

    /// What the configuration in force opens to a hook.
    pub fn granted(&self, hook: &BoundHook) -> Arc<Granted> {
        self.granted_to(&hook.code.load())
    }

    fn granted_to(&self, code: &Code) -> Arc<Granted> {
        let config = self.config.load();
        if let Some(granted) = &*code.granted.load()
            && granted.is_current(&config)
        {
            return Arc::clone(granted);
        }
        let granted = Arc::new(Granted::resolve(&config, &code.id));
        code.granted.store(Some(Arc::clone(&granted)));
        granted
    }

    /// Runs a hook once. Never panics. A hook in shadow mode runs the same, but its outcome is always
    /// [`Outcome::Accept`]: what it would have been is in its log and stats.
    pub async fn run(&self, hook: &BoundHook, context: &Context) -> Run {
        self.run_checked(hook, context, |_| {}).await
    }

    /// The same, with a `check` of the caller that may turn the outcome into another before it is counted and logged.
    pub async fn run_checked(&self, hook: &BoundHook, context: &Context, check: impl FnOnce(&mut Run)) -> Run {
        let mut run = self.run_unsettled(hook, context).await;
        check(&mut run);
        self.settle(hook, context, run)
    }

    /// The same, neither counted nor logged: the caller turns the outcome into what it takes it for, and hands it to
    /// [`HookHost::settle`].
    pub async fn run_unsettled(&self, hook: &BoundHook, context: &Context) -> Run {
        let code = self.current(hook).await;
        match self.call(hook, &code, context).await {
            Ok(run) => run,
            Err(failure) => Run::unstarted(&code.id, failure),
        }
    }

    /// Counts and logs a run. Of one that only looks on, the outcome is forgotten.
    pub fn settle(&self, hook: &BoundHook, context: &Context, mut run: Run) -> Run {
        let shadow = hook.binding.mode == Mode::Shadow;
        if let Outcome::Failed(failure) = &mut run.outcome {
            shorten(&mut failure.message, FAILURE_BYTES_MAX);
        }
        hook.stats.record(&run, shadow);
        self.feed.tell(&hook.binding, context, &run);
        self.keep_log(hook, context, &run, shadow);
        tracing::debug!(
            hook = hook.label,
            instance = context.instance,
            outcome = outcome_word(&run.outcome),
            shadow,
            wall_us = run.wall.as_micros() as u64,
            host_us = run.host.as_micros() as u64,
            memory_bytes = run.memory_bytes,
            "hook ran"
        );
        if shadow {
            run.outcome = Outcome::Accept;
        }
        run
    }

    async fn call(&self, hook: &BoundHook, code: &Code, context: &Context) -> Result<Run, Failure> {
        let attached = self.attached.get().ok_or_else(|| Failure {
            cause: FailureCause::Internal,
            message: "the server is not ready to run hooks".to_owned(),
            limit: None,
        })?;
        let prepared = self.load(hook, code, attached).await?;
        let granted = self.granted_to(code);
        let config = granted.config();
        let _place = hook.places.take(config.hooks.concurrency).await?;
        let settings = CallSettings { limits: granted.limits, isolation: config.hooks.isolation };
        let session = Session::new(&attached.services, Arc::clone(&granted), context);
        let started = Instant::now();
        let report = AssertUnwindSafe(prepared.call(context, &settings, &session)).catch_unwind().await;
        let wall = started.elapsed();
        let CallReport { outcome, cpu, memory_bytes } = report.unwrap_or_else(|panic| {
            let message = format!("engine `{}` failed: {}", hook.binding.engine, panic_text(&*panic));
            tracing::error!(hook = hook.label, "{message}");
            let outcome = Outcome::Failed(Failure { cause: FailureCause::Internal, message, limit: None });
            CallReport { outcome, cpu: Duration::ZERO, memory_bytes: 0 }
        });
        let outcome = check_outcome(outcome, context.phase, &session);
        let host = session.host_time();
        let (log, asked) = session.finish();
        Ok(Run { hook: Arc::clone(&code.id), outcome, wall, host, cpu, memory_bytes, log, asked })
    }

    /// The code that a call runs. Of a library: as its file is now; who is first after a change loads it while the others
    /// go on with what was there, if something was.
    async fn current(&self, hook: &BoundHook) -> Arc<Code> {
        let code = hook.code.load_full();
        let Some(file) = &hook.file else { return code };
        if code.is_settled() && !file.is_due() {
            return code;
        }
        let mut seen = match code.is_settled() {
            true => match file.seen.try_lock() {
                Ok(seen) => seen,
                Err(_) => return code,
            },
            false => file.seen.lock().await,
        };
        // Another call may have loaded it meanwhile.
        let code = hook.code.load_full();
        if code.is_settled() && !file.is_due() {
            return code;
        }
        let is_first = seen.loading.is_none();
        if is_first {
            match self.look(hook, file, &mut seen, &code).await {
                Ok(loading) => seen.loading = Some(loading),
                Err(code) => return code,
            }
        }
        let Some(mut loading) = seen.loading.take() else { return code };
        // Who found it waits for it, but not for longer than a call may take.
        let patience = if is_first { self.granted_to(&code).limits.timeout } else { Duration::ZERO };
        let loaded = match tokio::time::timeout(patience, &mut loading.task).await {
            Ok(loaded) => loaded.unwrap_or_else(|error| Err(PrepareError::plain(error.to_string()))),
            Err(_) => {
                let name = &file.name;
                if is_first {
                    tracing::warn!(
                        hook = hook.label,
                        "native library `{name}` is still being loaded after {}",
                        format_duration(patience)
                    );
                }
                let waiting = Code::new(loading.id.clone(), loading.size, None);
                seen.loading = Some(loading);
                if code.prepared.initialized() {
                    return code;
                }
                waiting.failed(format!("`{name}` is still being loaded; its calls fail until it is"));
                hook.code.store(Arc::clone(&waiting));
                return waiting;
            }
        };
        let Loading { id, size, .. } = loading;
        let new = match loaded {
            Ok(prepared) => Code::new(id, size, Some(prepared)),
            Err(error) => {
                let broken = Code::new(id, size, None);
                let message =
                    format!("`{}`: {error}; put a library there that loads: until then its calls fail", file.name);
                tracing::error!(hook = hook.label, "a native hook's library cannot be loaded: {message}");
                self.feed.tell_library(&hook.binding, &broken.id.artifact, Some(&message));
                broken.failed(message);
                broken
            }
        };
        if new.prepared.initialized() {
            self.announce(hook, &new);
        }
        hook.code.store(Arc::clone(&new));
        new
    }

    /// Looks at a hook's file and starts to load what is new there; the code that holds if nothing is.
    async fn look(
        &self,
        hook: &BoundHook,
        file: &Followed,
        seen: &mut Seen,
        code: &Arc<Code>,
    ) -> Result<Loading, Arc<Code>> {
        let (bytes, digest) = match file.look(seen, library::directory(&self.config.load()), code).await {
            Found::Same => return Err(Arc::clone(code)),
            Found::Fault(message) => {
                let broken = Code::new(HookId::clone(&code.id), code.size, None);
                self.feed.tell_library(&hook.binding, &code.id.artifact, Some(&message));
                broken.failed(format!("{message}; its calls fail until the file is there again"));
                tracing::error!(hook = hook.label, "a native hook lost its library, so its calls fail: {message}");
                hook.code.store(Arc::clone(&broken));
                return Err(broken);
            }
            Found::Bytes { bytes, digest } => (bytes, digest),
        };
        let id = HookId { artifact: format!("sha256:{digest}"), ..HookId::clone(&code.id) };
        tracing::info!(hook = hook.label, "loading native library `{}` ({})", file.name, id.artifact);
        let engine = self.engines.iter().find(|engine| engine.name() == hook.binding.engine).map(Arc::clone);
        let (size, phase, name) = (bytes.len() as u64, id.phase, id.name.clone());
        // It goes on when the call that found it has ended.
        let task = tokio::spawn(async move {
            let engine = engine.ok_or_else(|| PrepareError::plain("this build cannot load libraries"))?;
            engine.prepare(Candidate { code: &bytes, phase, name: &name, language: None }).await
        });
        Ok(Loading { id, size, task })
    }

    /// The code, ready to run; loaded by the first call while the others wait.
    async fn load(&self, hook: &BoundHook, code: &Code, attached: &Attached) -> Result<Arc<dyn Prepared>, Failure> {
        if let Some(prepared) = code.prepared.get() {
            return Ok(Arc::clone(prepared));
        }
        let failed = |message: String| Failure {
            cause: FailureCause::Load,
            message: format!("hook `{}` could not be loaded: {message}", hook.label),
            limit: None,
        };
        if let Some(message) = code.recent_failure() {
            return Err(failed(message));
        }
        let load = async {
            if hook.file.is_some() {
                return Err("its library was not loaded".to_owned());
            }
            let bytes = attached.artifacts.code(&code.id.artifact).await?;
            let started = Instant::now();
            loop {
                let candidate = Candidate {
                    code: &bytes,
                    phase: code.id.phase,
                    name: &code.id.name,
                    language: hook.binding.language,
                };
                let prepared = self.prepare(&hook.binding.engine, candidate).await;
                match prepared {
                    // It was bound, so it can be compiled: it takes its turn.
                    Err(error) if error.kind == PrepareErrorKind::Overloaded && started.elapsed() < LOAD_MAX => {}
                    prepared => return prepared.map_err(|error| error.to_string()),
                }
            }
        };
        match code.prepared.get_or_try_init(|| load).await {
            Ok(prepared) => Ok(Arc::clone(prepared)),
            Err(message) => {
                code.failed(message.clone());
                Err(failed(message))
            }
        }
    }

    fn keep_log(&self, hook: &BoundHook, context: &Context, run: &Run, shadow: bool) {
        let verdict = match &run.outcome {
            Outcome::Failed(failure) => {
                Some((LogLevel::Error, format!("failed ({}): {}", failure.cause.as_str(), failure.message)))
            }
            Outcome::Reject(rejection) if shadow => {
                Some((LogLevel::Info, format!("would refuse: {}", rejection.message)))
            }
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
}

/// What of an outcome may stand: the phase, the amend grant and the sizes decide.
fn check_outcome(outcome: Outcome, phase: Phase, session: &Session) -> Outcome {
    let too_large = |what: &str, bytes: usize, limit: usize| {
        let limit = format_size(limit);
        Outcome::Failed(Failure {
            cause: FailureCause::Output,
            message: format!("{what} is {bytes} bytes, at most {limit} are allowed"),
            limit: Some(format!("output {limit}")),
        })
    };
    match outcome {
        Outcome::Amend(data) => match session.check_amend() {
            Err(failure) => Outcome::Failed(failure),
            Ok(()) if data.len() > PAYLOAD_BYTES_MAX => too_large("the amended data", data.len(), PAYLOAD_BYTES_MAX),
            Ok(()) => Outcome::Amend(data),
        },
        // What happened cannot be refused any more: the run failed and is tried again.
        Outcome::Reject(rejection) if !phase.is_pre() => {
            Outcome::Failed(Failure { cause: FailureCause::Exception, message: rejection.message, limit: None })
        }
        Outcome::Reject(rejection) if rejection.fields.len() > REJECTION_FIELDS_MAX => Outcome::Failed(Failure {
            cause: FailureCause::Output,
            message: format!(
                "the refusal names {} fields, at most {REJECTION_FIELDS_MAX} are allowed",
                rejection.fields.len()
            ),
            limit: Some(format!("refusal {REJECTION_FIELDS_MAX} fields")),
        }),
        Outcome::Reject(rejection) => {
            let fields = rejection.fields.iter().map(|field| field.pointer.len() + field.message.len());
            let bytes = rejection.message.len() + fields.sum::<usize>();
            match bytes > REJECTION_BYTES_MAX {
                true => too_large("the refusal", bytes, REJECTION_BYTES_MAX),
                false => Outcome::Reject(rejection),
            }
        }
        other => other,
    }
}

fn outcome_word(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Accept => "accept",
        Outcome::Amend(_) => "amend",
        Outcome::Reject(_) => "reject",
        Outcome::Failed(failure) => failure.cause.as_str(),
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("a panic without a message")
}

/// Nothing that holds these locks can leave the data half changed, so a panic elsewhere does not matter.
fn lock<T: ?Sized>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
