//! The engine `native`: runs libraries of the hooks directory in the server's own process. No sandbox: the code is
//! trusted.
//!
//! A library is copied and loaded once per content (image.rs, library.rs). It runs on separate threads (threads.rs) or,
//! if it is quick, directly on the runtime's threads (inline.rs). It makes host calls through a table of functions
//! (table.rs), which use the session like those of every other engine. Broken rules, exceptions and timeouts fail the
//! call (call.rs); nothing prevents a library from damaging the process.

mod blocking;
mod call;
mod given_up;
mod image;
mod inline;
mod library;
mod registry;
mod table;
mod threads;

use std::collections::HashMap;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use sha2::{Digest, Sha256};
use snaphook_driver::{Json, time};
use snaphook_foreign::Thrown;
use snaphook_hook_abi::{
    Context as RawContext, Handler, PHASE_POST_CREATE, PHASE_POST_DELETE, PHASE_POST_UPDATE, PHASE_PRE_CREATE,
    PHASE_PRE_DELETE, PHASE_PRE_UPDATE, Text,
};

use self::call::Call;
use self::given_up::GivenUp;
pub use self::image::Copy;
use self::inline::{Pace, Permit};
use self::library::Library;
use self::threads::After;
use super::engine::{CallReport, CallSettings, Candidate, HookEngine, HookState, PrepareError, PreparedCode};
use super::handback::amended;
use super::subprocess::{self, Job};
use crate::config::Phase;
use crate::hooks::context::{Context, Failure, FailureCause, Outcome};
use crate::hooks::session::Session;

/// The word in bindings.
pub(super) const NAME: &str = "native";

/// How long loading a library may take.
const LOAD_MAX: Duration = Duration::from_secs(10);

/// The engine.
pub(super) struct NativeEngine {
    copies: PathBuf,
    /// By SHA-256 of the content; never unloaded.
    libraries: Arc<Mutex<HashMap<[u8; 32], Arc<Library>>>>,
}

impl NativeEngine {
    pub(super) fn new(cache: &Path) -> Self {
        NativeEngine { copies: cache.join(NAME), libraries: Arc::default() }
    }

    async fn library(&self, code: &[u8]) -> Result<Arc<Library>, PrepareError> {
        let digest: [u8; 32] = Sha256::digest(code).into();
        let known = |libraries: &Mutex<HashMap<[u8; 32], Arc<Library>>>| {
            libraries.lock().unwrap_or_else(PoisonError::into_inner).get(&digest).cloned()
        };
        if let Some(library) = known(&self.libraries) {
            return Ok(library);
        }
        registry::start().map_err(PrepareError::plain)?;
        let copy = tried(Job::Load, self.copies.clone(), code.to_vec()).await?;
        self.open(digest, copy).await.map_err(PrepareError::plain)
    }

    /// Loads a library into this process.
    async fn open(&self, digest: [u8; 32], copy: Copy) -> Result<Arc<Library>, String> {
        let libraries = Arc::clone(&self.libraries);
        let (sender, receiver) = tokio::sync::oneshot::channel();
        // Its initialisers run here and may take any time.
        let load = move || {
            let loaded = Library::open(copy.path()).map(|library| {
                let mut libraries = libraries.lock().unwrap_or_else(PoisonError::into_inner);
                Arc::clone(libraries.entry(digest).or_insert_with(|| Arc::new(library)))
            });
            LOADING.fetch_sub(1, Ordering::SeqCst);
            // If it took too long, nobody waits any more.
            let _ = sender.send(loaded);
        };
        LOADING.fetch_add(1, Ordering::SeqCst);
        let started = std::thread::Builder::new().name("hook-native-load".into()).spawn(load);
        started.map_err(|error| {
            LOADING.fetch_sub(1, Ordering::SeqCst);
            format!("no thread can be started to load the library: {error}")
        })?;
        match tokio::time::timeout(LOAD_MAX, receiver).await {
            Ok(Ok(loaded)) => loaded,
            Ok(Err(_)) => Err("loading the library panicked; see the server's log".to_owned()),
            Err(_) => Err(not_loaded(LOAD_MAX)),
        }
    }
}

/// Makes a private copy of a library, after a subprocess could load it.
async fn tried(job: Job, copies: PathBuf, code: Vec<u8>) -> Result<Copy, PrepareError> {
    let copy = tokio::task::spawn_blocking(move || image::check(&code).and_then(|()| Copy::make(&copies, &code)));
    let copy = copy.await.unwrap_or_else(|error| Err(error.to_string())).map_err(PrepareError::plain)?;
    // First in a subprocess: an initialiser that does not return or ends its process only affects the subprocess.
    let trial = subprocess::run_trusted(job, copy.path().as_os_str().as_bytes());
    match tokio::time::timeout(LOAD_MAX, trial).await {
        Ok(loaded) => loaded.map(|_| copy),
        Err(_) => Err(PrepareError::plain(not_loaded(LOAD_MAX))),
    }
}

/// The same for the library of a server module. `cache` is the folder of compiled code. The error is a sentence.
pub async fn tried_module(cache: &Path, code: Vec<u8>) -> Result<Copy, String> {
    tried(Job::LoadModule, cache.join(NAME), code).await.map_err(|error| error.to_string())
}

/// How many libraries are being loaded; meanwhile the loader's lock may be held.
static LOADING: AtomicUsize = AtomicUsize::new(0);

/// The message about a library that is not loaded in time.
fn not_loaded(limit: Duration) -> String {
    format!(
        "the library was not loaded within {} s: one of its initialisers, or the function that it exports, does not \
         return",
        limit.as_secs()
    )
}

/// Runs in the subprocess: loads a library, reads its descriptor, and ends.
pub(super) fn try_out(path: &Path) -> Result<(), PrepareError> {
    Library::open(path).map(drop).map_err(PrepareError::plain)
}

/// Ends the process at once.
pub fn exit_at_once(code: u8) -> ! {
    library::exit_now(code.into())
}

/// Returns the process's exit code; ends the process right here if a library would prevent it from ending.
pub fn exit(code: u8) -> std::process::ExitCode {
    if LOADING.load(Ordering::SeqCst) > 0 || registry::has_given_up() || snaphook_modules::has_late_threads() {
        exit_at_once(code);
    }
    code.into()
}

#[async_trait]
impl HookEngine for NativeEngine {
    fn name(&self) -> &'static str {
        NAME
    }

    fn is_native(&self) -> bool {
        true
    }

    async fn prepare(&self, candidate: Candidate<'_>) -> Result<Arc<dyn PreparedCode>, PrepareError> {
        let Candidate { code, phase, .. } = candidate;
        let library = self.library(code).await?;
        let handler = library.handler(phase).map_err(PrepareError::plain)?;
        Ok(Arc::new(NativeHook { library, handler, given_up: Arc::default(), pace: Arc::default() }))
    }
}

/// A library's function for one phase.
struct NativeHook {
    /// Keeps the code of `handler` loaded.
    library: Arc<Library>,
    handler: Handler,
    given_up: Arc<GivenUp>,
    pace: Arc<Pace>,
}

#[async_trait]
impl PreparedCode for NativeHook {
    async fn call(&self, context: &Context, settings: &CallSettings, session: &Arc<Session>) -> CallReport {
        if let Some(failure) = self.given_up.kept_out() {
            return CallReport::failed(failure);
        }
        let permit = if self.pace.is_quick() { Permit::take() } else { None };
        let inline = permit.is_some();
        let (call, ended) = Call::new(session, context.phase.is_pre(), settings.limits, &self.given_up, inline);
        let _waiter = Waiter(Arc::clone(&call));
        let work = Work {
            call,
            handler: self.handler,
            change: ChangeData::new(context),
            pace: Arc::clone(&self.pace),
            _library: Arc::clone(&self.library),
        };
        match permit {
            // A separate task, so that the waiter is notified when the call times out.
            Some(permit) => {
                tokio::spawn(async move {
                    work.run();
                    drop(permit);
                });
            }
            None => {
                let permit = threads::permits().acquire(session.share_key(), 1).await;
                work.call.hold(permit);
                threads::run(work);
            }
        }
        let (outcome, cpu) = ended.await.unwrap_or_else(|_| (lost(), Duration::ZERO));
        let outcome = match outcome {
            Outcome::Amend(data) => amended(data, context.after.clone()).await,
            other => other,
        };
        // A library's memory is part of the server's memory and cannot be measured separately.
        CallReport::new(outcome, cpu, 0)
    }

    fn bound_anew(&self, _: &str) {
        self.given_up.forgive();
    }

    fn state(&self, _: &str) -> HookState {
        match self.given_up.kept_out() {
            Some(_) => HookState::Unavailable,
            None => HookState::Ok,
        }
    }
}

/// A call that is ready to run.
struct Work {
    call: Arc<Call>,
    handler: Handler,
    change: ChangeData,
    pace: Arc<Pace>,
    /// Keeps the code of `handler` loaded.
    _library: Arc<Library>,
}

impl Work {
    /// Runs it on this thread.
    fn run(&self) -> After {
        let Work { call, handler, change, pace, .. } = self;
        if call.is_over() {
            return After::Serve;
        }
        call.begin();
        registry::enter(call);
        let thrown = matches!(library::call(*handler, call.id, &change.raw(), &table::HOST), Err(Thrown));
        // Before the caller is notified, so that its next call sees this.
        pace.took(call.elapsed(), thrown);
        let was_given_up = call.returned(thrown);
        registry::leave(call);
        match (was_given_up, thrown) {
            (true, _) => After::CameBack,
            (false, true) => After::End,
            (false, false) => After::Serve,
        }
    }
}

impl threads::Work for Work {
    fn run(self: Box<Self>) -> After {
        Work::run(&self)
    }

    fn refuse(self: Box<Self>, failure: Failure) {
        self.call.refuse(failure);
    }
}

/// Waits for a call; when this is dropped, the call may make no more host calls.
struct Waiter(Arc<Call>);

impl Drop for Waiter {
    fn drop(&mut self) {
        self.0.abandon();
    }
}

fn lost() -> Outcome {
    let message = "the thread that ran the hook is gone".to_owned();
    Outcome::Failed(Failure { cause: FailureCause::Internal, message, limit: None })
}

/// The data of a change for a library, kept while the library may read it.
struct ChangeData {
    phase: u32,
    attempt: u32,
    model: String,
    model_version: u64,
    id: String,
    before: Option<Json>,
    after: Option<Json>,
    actor: Option<String>,
    request_id: Option<String>,
    time: String,
    event: Option<(u64, String)>,
}

impl ChangeData {
    fn new(context: &Context) -> ChangeData {
        ChangeData {
            phase: match context.phase {
                Phase::PreCreate => PHASE_PRE_CREATE,
                Phase::PostCreate => PHASE_POST_CREATE,
                Phase::PreUpdate => PHASE_PRE_UPDATE,
                Phase::PostUpdate => PHASE_POST_UPDATE,
                Phase::PreDelete => PHASE_PRE_DELETE,
                Phase::PostDelete => PHASE_POST_DELETE,
            },
            attempt: context.attempt,
            model: context.model.clone(),
            model_version: context.model_version,
            id: context.instance.clone(),
            before: context.before.clone(),
            after: context.after.clone(),
            actor: context.actor_text(),
            request_id: context.request_id.clone(),
            time: time::format(context.time),
            event: context.event.as_ref().map(|event| (event.position, event.id.clone())),
        }
    }

    /// The C form, which points into `self`.
    fn raw(&self) -> RawContext {
        let none = Text { ptr: std::ptr::null(), len: 0 };
        let text = |text: &str| Text { ptr: text.as_ptr().cast(), len: text.len() };
        let maybe = |maybe: Option<&str>| maybe.map_or(none, text);
        RawContext {
            struct_size: size_of::<RawContext>(),
            phase: self.phase,
            attempt: self.attempt,
            model: text(&self.model),
            model_version: self.model_version,
            id: text(&self.id),
            before: maybe(self.before.as_ref().map(Json::as_str)),
            after: maybe(self.after.as_ref().map(Json::as_str)),
            actor: maybe(self.actor.as_deref()),
            request_id: maybe(self.request_id.as_deref()),
            time: text(&self.time),
            event_position: self.event.as_ref().map_or(0, |(position, _)| *position),
            event_id: maybe(self.event.as_ref().map(|(_, id)| id.as_str())),
        }
    }
}

#[cfg(test)]
mod tests;
