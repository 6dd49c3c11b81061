//! A call's access to the host: every capability of every engine and WIT version goes through it.
//!
//! Grants, call counts, deadlines, sizes and the server's memory for the run are only checked here and in
//! [`super::capabilities`], which contains the methods of each capability: no engine and no old version can bypass
//! them.

use std::borrow::Cow;
use std::fmt::Display;
use std::future::Future;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use snaphook_driver::{Cause, Instance, Position, time};
use tokio::sync::Semaphore;

use super::access::{Access, AccessCode, AccessError, Ahead, Author, Expected};
use super::capabilities::http::client::HttpClient;
use super::capabilities::process::run::Processes;
use super::context::{Asked, Context, Failure, FailureCause, LogLevel, LogLine, Outcome};
use super::fair;
use super::grants::{Capability, Granted, Grantee};
pub use super::host_call::{HostError, HttpRequest, HttpResponse, ProcessCommand, ProcessOutput, Redirect};
use super::host_memory::{Held, HostMemory};
use super::masks::Masks;
use super::sightings::Sightings;
use crate::catalog::rules::Right;
use crate::config::{format_duration, format_size};
use crate::telemetry::line::shorten;
use crate::telemetry::trace::{Scope, TraceContext, scope};

/// Maximum number of host calls of one run, over all capabilities.
pub const HOST_CALLS_MAX: u32 = 10_000;

/// Maximum number of log lines of one run, and the total size of their messages.
pub const LOG_LINES_MAX: usize = 1_000;
pub const LOG_BYTES_MAX: usize = 64 * 1024;

/// Maximum time in host calls of one run. A pre hook keeps a client waiting, so it gets less.
pub const HOST_TIME_PRE_MAX: Duration = Duration::from_secs(10);
pub const HOST_TIME_POST_MAX: Duration = Duration::from_secs(300);

/// How many different uses a run's report lists.
const ASKED_MAX: usize = 100;
/// Maximum length of a target in the report: a URL may be long.
const TARGET_BYTES_MAX: usize = 1024;

/// Concurrent HTTP requests and processes of one run; further ones wait. Their results are outside the sandbox's memory
/// until the guest reads them, so they need a separate limit.
const OUTSIDE_CALLS_MAX: usize = 8;

/// The state that all sessions of a server share.
pub struct Services {
    pub access: Arc<dyn Access>,
    pub(super) http: HttpClient,
    pub(super) processes: Processes,
    pub(super) masks: Masks,
}

impl Services {
    /// This is cheap: the HTTP client and the state for processes are created on first use.
    pub fn new(access: Arc<dyn Access>) -> Arc<Self> {
        Services::with_http(access, HttpClient::default())
    }

    pub(super) fn with_http(access: Arc<dyn Access>, http: HttpClient) -> Arc<Self> {
        Arc::new(Services { access, http, processes: Processes::default(), masks: Masks::default() })
    }
}

/// The origin of a call.
struct CallOrigin {
    event_position: Position,
    depth: u32,
    request_id: Option<String>,
    ahead: Option<Arc<dyn Ahead>>,
    right: Right,
}

/// One call's session.
pub struct Session {
    pub(super) services: Arc<Services>,
    pub(super) granted: Arc<Granted>,
    event_position: Position,
    depth: u32,
    request_id: Option<String>,
    /// The run's scope; its host calls may come from other tasks.
    pub(super) scope: Option<Arc<Scope>>,
    pub(super) ahead: Option<Arc<dyn Ahead>>,
    /// The right for its reads and writes.
    pub(super) right: Right,
    /// For all host calls of the run together.
    host_time_max: Duration,
    calls: AtomicU32,
    clock: Mutex<HostClock>,
    notes: Mutex<Notes>,
    sightings: Mutex<Sightings>,
    outside: Semaphore,
    /// Number of host calls in progress while the guest may run.
    background: AtomicU32,
    memory: Arc<HostMemory>,
}

impl Session {
    /// The session of one call of the hook in `granted`; its reads and writes use `right`.
    pub fn new(services: &Arc<Services>, granted: Arc<Granted>, context: &Context, right: Right) -> Arc<Session> {
        let origin = CallOrigin {
            event_position: context.event.as_ref().map_or(0, |event| event.position),
            depth: context.depth,
            request_id: context.request_id.clone(),
            ahead: context.ahead.clone(),
            right,
        };
        let is_pre = granted.grantee().hook().is_some_and(|hook| hook.phase.is_pre());
        let host_time_max = if is_pre { HOST_TIME_PRE_MAX } else { HOST_TIME_POST_MAX };
        Session::make(services, granted, origin, host_time_max)
    }

    /// The session of a request to the endpoint or module in `granted`. It has the server's right.
    pub fn of_request(
        services: &Arc<Services>,
        granted: Arc<Granted>,
        request_id: Option<String>,
        host_time_max: Duration,
    ) -> Arc<Session> {
        let origin = CallOrigin { event_position: 0, depth: 0, request_id, ahead: None, right: Right::Server };
        Session::make(services, granted, origin, host_time_max)
    }

    fn make(
        services: &Arc<Services>,
        granted: Arc<Granted>,
        origin: CallOrigin,
        host_time_max: Duration,
    ) -> Arc<Session> {
        let CallOrigin { event_position, depth, request_id, ahead, right } = origin;
        Arc::new(Session {
            services: Arc::clone(services),
            memory: Arc::new(HostMemory::new(granted.limits.memory_bytes)),
            granted,
            host_time_max,
            event_position,
            depth,
            request_id,
            scope: scope::current(),
            ahead,
            right,
            calls: AtomicU32::new(0),
            clock: Mutex::default(),
            notes: Mutex::default(),
            sightings: Mutex::default(),
            outside: Semaphore::new(OUTSIDE_CALLS_MAX),
            background: AtomicU32::new(0),
        })
    }

    /// The server's memory for this run.
    pub fn memory(&self) -> &Arc<HostMemory> {
        &self.memory
    }

    /// Reserves bytes for a host call; a failure stops the guest.
    pub(super) fn hold(&self, bytes: usize) -> Result<Held<'_>, HostError> {
        Ok(self.memory.hold(bytes)?)
    }

    /// Waits for a timer. This counts as a host call, but its time counts as the guest's.
    pub async fn sleep(&self, duration: Duration) -> Result<(), HostError> {
        self.count_call()?;
        tokio::time::sleep(duration).await;
        Ok(())
    }

    /// The time that the guest has spent waiting for host calls so far, which an engine adds to its deadline.
    /// Overlapping calls count once.
    pub fn host_time(&self) -> Duration {
        let clock = lock(&self.clock);
        clock.total().saturating_sub(clock.guest)
    }

    /// Until the guard is dropped, host calls may be in progress while the guest runs.
    pub fn background(self: &Arc<Self>) -> Background {
        // Relaxed: the guest whose time is measured runs after this.
        self.background.fetch_add(1, Ordering::Relaxed);
        Background(Arc::clone(self))
    }

    /// Records that the guest ran for this long. If a host call was in progress, that time was not a wait.
    pub fn guest_ran(&self, duration: Duration) {
        if self.background.load(Ordering::Relaxed) > 0 {
            let mut clock = lock(&self.clock);
            // Only subtract time that is measured as time in host calls.
            if clock.since.is_some() {
                clock.guest += duration;
            }
        }
    }

    /// Takes the log lines and the uses of capabilities at the end of the call.
    pub fn finish(&self) -> (Vec<LogLine>, Vec<Asked>) {
        let mut notes = lock(&self.notes);
        notes.log_bytes = 0;
        (std::mem::take(&mut notes.log), std::mem::take(&mut notes.asked))
    }

    /// The key under which its hook shares permits with others.
    pub(super) fn share_key(&self) -> fair::Key {
        self.granted.share_key()
    }

    pub(super) fn grantee(&self) -> &Grantee {
        self.granted.grantee()
    }

    /// Until the guard is dropped, the run waits for its client, which does not count as the guest's time.
    pub fn wait_for_client(self: &Arc<Self>) -> ClientWait {
        enter(&self.clock);
        ClientWait(self.background())
    }

    /// The grants of its hook.
    pub(super) fn granted(&self) -> &Granted {
        &self.granted
    }

    /// The author of writes in this call.
    pub(super) fn author(&self) -> Author {
        let cause = self.grantee().hook().map(|hook| Cause {
            position: self.event_position,
            hook: hook.to_string(),
            depth: self.depth + 1,
        });
        Author {
            actor: Arc::new(self.grantee().actor()),
            cause,
            request_id: self.request_id.clone(),
            trace: self.scope.as_deref().and_then(Scope::trace).map(TraceContext::to_text),
            right: self.right.clone(),
        }
    }

    /// Remembers in which form the call has read instances.
    pub(super) fn saw<'a>(&self, instances: impl IntoIterator<Item = &'a Instance>) {
        // Only needed for writes.
        if self.granted.write.is_empty() {
            return;
        }
        let mut sightings = lock(&self.sightings);
        instances.into_iter().for_each(|instance| sightings.add(instance));
    }

    /// What the call expects of an instance that it knows at this position.
    pub(super) fn expected(&self, model: &str, id: &str, position: Position) -> Expected {
        Expected { position, model_version: lock(&self.sightings).model_version(model, id, position) }
    }

    /// Counts one host call; exceeding the limit stops the guest.
    pub(super) fn count_call(&self) -> Result<(), HostError> {
        // Relaxed: only the number itself matters.
        if self.calls.fetch_add(1, Ordering::Relaxed) < HOST_CALLS_MAX {
            return Ok(());
        }
        self.calls.store(HOST_CALLS_MAX, Ordering::Relaxed);
        Err(HostError::Fatal(Failure {
            cause: FailureCause::HostCalls,
            message: format!(
                "the hook made {} host calls in one run, the limit is {HOST_CALLS_MAX}",
                HOST_CALLS_MAX.saturating_add(1)
            ),
            limit: Some(format!("host calls {HOST_CALLS_MAX}")),
        }))
    }

    /// Records the use of a capability and its result; a denial is also written to the hook's log.
    pub(super) fn check(
        &self,
        capability: Capability,
        target: impl Into<String>,
        verdict: Result<(), AccessError>,
    ) -> Result<(), HostError> {
        let first = self.note(capability, target.into(), verdict.is_ok());
        let Err(error) = verdict else { return Ok(()) };
        if first {
            // If the log is full, the denial still reaches the guest.
            let _ = self.log(LogLevel::Warn, error.message.clone());
        }
        Err(HostError::Access(error))
    }

    /// Waits until fewer than [`OUTSIDE_CALLS_MAX`] outgoing requests of this call are in progress.
    pub(super) async fn outside_slot(&self) -> Option<tokio::sync::SemaphorePermit<'_>> {
        // Never closed, so never `None`; without a permit a caller would merely be unlimited.
        self.outside.acquire().await.ok()
    }

    /// Runs a host call within its deadline and the run's remaining time for host calls.
    pub(super) async fn within<T>(
        &self,
        deadline: Duration,
        what: &(dyn Display + Sync),
        call: impl Future<Output = Result<T, AccessError>>,
    ) -> Result<T, HostError> {
        let budget = self.host_time_max;
        let used = || lock(&self.clock).total();
        let left = budget.saturating_sub(used());
        let _span = Span::start(&self.clock);
        match tokio::time::timeout(deadline.min(left), scope::within(self.scope.clone(), call)).await {
            Ok(answer) => answer.map_err(HostError::Access),
            Err(_) if left <= deadline => Err(HostError::Fatal(Failure {
                cause: FailureCause::Timeout,
                message: format!(
                    "the hook spent {} in host calls, the limit of one run is {}; the last one was {what}",
                    format_duration(Duration::from_millis(used().as_millis() as u64)),
                    format_duration(budget)
                ),
                limit: Some(format!("host time {}", format_duration(budget))),
            })),
            Err(_) => Err(HostError::Access(AccessError::new(
                AccessCode::Timeout,
                format!("{what} took longer than {}", format_duration(deadline)),
            ))),
        }
    }

    /// Masks the secrets that the guest has read.
    pub(super) fn masked<'a>(&self, text: &'a str) -> Cow<'a, str> {
        self.services.masks.mask(text, &self.granted.secret)
    }

    /// The same for the message of a failure.
    pub(super) fn masked_failure(&self, mut failure: Failure) -> Failure {
        self.services.masks.mask_in(&mut failure.message, &self.granted.secret);
        failure
    }

    /// The same for what clients see of an outcome. Amended data stays as it is.
    pub(super) fn masked_outcome(&self, outcome: Outcome) -> Outcome {
        match outcome {
            Outcome::Failed(failure) => Outcome::Failed(self.masked_failure(failure)),
            Outcome::Reject(mut rejection) => {
                let fields = rejection.fields.iter_mut().flat_map(|field| [&mut field.pointer, &mut field.message]);
                for text in fields.chain([&mut rejection.message]) {
                    self.services.masks.mask_in(text, &self.granted.secret);
                }
                Outcome::Reject(rejection)
            }
            other => other,
        }
    }

    /// Appends a log line, with secrets masked, if the limits of the run allow it.
    pub(super) fn append_log(&self, level: LogLevel, mut message: String) -> Result<(), HostError> {
        self.services.masks.mask_in(&mut message, &self.granted.secret);
        let mut notes = lock(&self.notes);
        let (lines, bytes) = (notes.log.len() + 1, notes.log_bytes.saturating_add(message.len()));
        if lines > LOG_LINES_MAX || bytes > LOG_BYTES_MAX {
            let limit = match lines > LOG_LINES_MAX {
                true => format!("{LOG_LINES_MAX} lines"),
                false => format_size(LOG_BYTES_MAX),
            };
            return Err(HostError::Fatal(Failure {
                cause: FailureCause::Output,
                message: format!(
                    "the hook logged {lines} lines of {bytes} bytes together in one run, the limit is {limit}"
                ),
                limit: Some(format!("log {limit}")),
            }));
        }
        notes.log_bytes = bytes;
        message.shrink_to_fit();
        notes.log.push(LogLine { time: time::now(), level, message });
        Ok(())
    }

    /// Returns whether this use was not recorded before. If the list is full, a denial replaces a granted use, because
    /// denials matter more to readers.
    pub(super) fn note(&self, capability: Capability, mut target: String, granted: bool) -> bool {
        self.services.masks.mask_in(&mut target, &self.granted.secret);
        shorten(&mut target, TARGET_BYTES_MAX);
        let asked = Asked { capability: capability.as_str(), target, granted };
        let mut notes = lock(&self.notes);
        if notes.asked.contains(&asked) {
            return false;
        }
        if notes.asked.len() < ASKED_MAX {
            notes.asked.push(asked);
            return true;
        }
        let place = if granted { None } else { notes.asked.iter().rposition(|asked| asked.granted) };
        place.is_some_and(|place| {
            notes.asked[place] = asked;
            true
        })
    }
}

/// A host call during which the guest continues, such as a request that it awaits later.
pub struct Background(Arc<Session>);

impl Background {
    pub fn session(&self) -> &Session {
        &self.0
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.0.background.fetch_sub(1, Ordering::Relaxed);
    }
}

#[derive(Default)]
struct Notes {
    log: Vec<LogLine>,
    log_bytes: usize,
    asked: Vec<Asked>,
}

/// Time during which at least one host call was in progress.
#[derive(Default)]
struct HostClock {
    under_way: u32,
    since: Option<Instant>,
    finished: Duration,
    /// The part of this time in which the guest ran.
    guest: Duration,
}

impl HostClock {
    fn total(&self) -> Duration {
        self.finished + self.since.map_or(Duration::ZERO, |since| since.elapsed())
    }
}

/// One host call in progress; it ends when this is dropped, including when the call is cancelled.
struct Span<'a>(&'a Mutex<HostClock>);

impl<'a> Span<'a> {
    fn start(clock: &'a Mutex<HostClock>) -> Self {
        enter(clock);
        Span(clock)
    }
}

impl Drop for Span<'_> {
    fn drop(&mut self) {
        leave(self.0);
    }
}

/// A wait for the run's client to send or receive.
pub struct ClientWait(Background);

impl Drop for ClientWait {
    fn drop(&mut self) {
        leave(&self.0.session().clock);
    }
}

fn enter(clock: &Mutex<HostClock>) {
    let mut clock = lock(clock);
    clock.under_way += 1;
    clock.since.get_or_insert_with(Instant::now);
}

fn leave(clock: &Mutex<HostClock>) {
    let mut clock = lock(clock);
    clock.under_way -= 1;
    if clock.under_way == 0 {
        clock.finished = clock.total();
        clock.since = None;
    }
}

/// Code that holds these locks never leaves the data inconsistent, so poisoning can be ignored.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::{HOST_CALLS_MAX, HostError, Session};
    use crate::config::Phase;
    use crate::hooks::access::{AccessCode, AccessError};
    use crate::hooks::context::{Failure, FailureCause, LogLevel};
    use crate::hooks::testing::{Bench, access_error};

    #[track_caller]
    fn fatal<T: std::fmt::Debug>(result: Result<T, HostError>) -> Failure {
        match result {
            Err(HostError::Fatal(failure)) => failure,
            other => panic!("not fatal: {other:?}"),
        }
    }

    fn session() -> Arc<Session> {
        Bench::new().session("invoice", Phase::PreCreate, "h", "read = ['*']")
    }

    #[tokio::test]
    async fn host_calls_are_bounded() {
        let session = session();
        for _ in 0..HOST_CALLS_MAX {
            session.read_get("a", "1").await.unwrap();
        }
        let failure = fatal(session.read_get("a", "1").await);
        assert_eq!(failure.cause, FailureCause::HostCalls);
        assert_eq!(failure.limit.as_deref(), Some("host calls 10000"));
        fatal(session.sleep(Duration::ZERO).await);
        fatal(session.secret_get("denied").await);
    }

    #[test]
    fn the_log_is_bounded() {
        let session = session();
        for _ in 0..1000 {
            session.log(LogLevel::Info, "x".into()).unwrap();
        }
        let failure = fatal(session.log(LogLevel::Info, String::new()));
        assert_eq!((failure.cause, failure.limit.as_deref()), (FailureCause::Output, Some("log 1000 lines")));
        let message = "the hook logged 1001 lines of 1000 bytes together in one run, the limit is 1000 lines";
        assert_eq!(failure.message, message);
        assert_eq!(session.finish().0.len(), 1000);
        let failure = fatal(session.log(LogLevel::Info, "x".repeat(64 * 1024 + 1)));
        assert_eq!(failure.limit.as_deref(), Some("log 64 KiB"));
    }

    #[tokio::test]
    async fn what_was_asked_is_bounded() {
        let session = session();
        for n in 0..1000 {
            session.read_get(&n.to_string(), "1").await.unwrap();
            session.read_get("0", "1").await.unwrap();
        }
        assert_eq!(session.finish().1.len(), super::ASKED_MAX);
    }

    #[tokio::test]
    async fn a_refusal_after_many_requests_is_still_told() {
        let session = Bench::new().session("invoice", Phase::PreCreate, "h", "read = ['a*']");
        for n in 0..200 {
            session.read_get(&format!("a{n}"), "1").await.unwrap();
        }
        for n in 0..200 {
            session.read_get(&format!("b{n}"), "1").await.unwrap_err();
        }
        let (log, asked) = session.finish();
        assert!(log[0].message.contains("read of model `b0`"), "{log:?}");
        assert_eq!((log.len(), asked.len()), (super::ASKED_MAX, super::ASKED_MAX));
    }

    #[tokio::test]
    async fn calls_have_a_deadline_and_overlapping_ones_count_once() {
        let session = session();
        let slow = || {
            let never = std::future::pending::<Result<(), AccessError>>();
            session.within(Duration::from_millis(50), &"a slow call", never)
        };
        let (a, b) = tokio::join!(slow(), slow());
        let error = access_error(a.unwrap_err());
        assert_eq!((error.code, error.message.as_str()), (AccessCode::Timeout, "a slow call took longer than 50 ms"));
        b.unwrap_err();
        let time = session.host_time();
        assert!((50..100).contains(&time.as_millis()), "{time:?}");
    }

    #[tokio::test]
    async fn time_in_the_host_is_bounded() {
        let mut session = session();
        Arc::get_mut(&mut session).unwrap().host_time_max = Duration::from_millis(20);
        for _ in 0..2 {
            let failure = fatal(session.read_get("slow", "1").await);
            assert_eq!(failure.cause, FailureCause::Timeout);
            let (used, rest) = failure.message.split_once(" ms in host calls").unwrap();
            assert!(used.strip_prefix("the hook spent ").unwrap().parse::<u32>().unwrap() >= 20, "{used}");
            assert_eq!(rest, ", the limit of one run is 20 ms; the last one was read of `slow/1`");
        }
    }
}
