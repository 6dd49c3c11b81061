//! One call of a library's function: its answer, its buffers, and whether it may still make host calls.
//!
//! A call can outlive its waiter: if a function does not return, the call fails, but the function keeps its thread and
//! its buffers. From then on the host rejects its host calls.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use snaphook_driver::Json;
use snaphook_hook_abi::{ANSWER_ACCEPT, ANSWER_AMEND, ANSWER_FAIL, ANSWER_REJECT};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::given_up::GivenUp;
use super::inline::QUICK_MAX;
use crate::catalog::Part;
use crate::config::{Limits, format_duration, format_size};
use crate::hooks::context::{Failure, FailureCause, FieldError, Outcome, Rejection};
use crate::hooks::engines::arguments::{ANY, misfit};
use crate::hooks::engines::limits::{Broken, OUTPUT_BYTES_MAX, used_size};
use crate::hooks::fair::FairPermit;
use crate::hooks::session::{HostError, Session};

/// How a call ended: the outcome, and the time spent in the library.
pub(super) type Ended = (Outcome, Duration);

/// A call that is running, or that has ended but has not returned yet.
pub(super) struct Call {
    pub(super) id: u64,
    pub(super) session: Arc<Session>,
    pub(super) runtime: Handle,
    is_pre: bool,
    limits: Limits,
    hook: Arc<GivenUp>,
    /// Whether it runs on a thread of the runtime.
    pub(super) inline: bool,
    /// Whether another thread of the runtime was woken because of it.
    made_way: AtomicBool,
    over: AtomicBool,
    state: Mutex<CallState>,
}

struct CallState {
    started: Option<Instant>,
    answer: Option<LibraryVerdict>,
    /// The first rule that the library broke or limit that it exceeded.
    fault: Option<Failure>,
    buffers: HashMap<u64, Vec<u8>>,
    buffer_last: u64,
    /// Total bytes in `buffers`.
    held: usize,
    ended: Option<oneshot::Sender<Ended>>,
    /// Its permit for a thread, until it returns or its thread is given up.
    permit: Option<FairPermit>,
    /// It has timed out, and its function has not returned.
    given_up: bool,
}

#[derive(Debug)]
enum LibraryVerdict {
    Accept,
    Amend(String),
    Reject(String),
    Fail(String),
}

impl LibraryVerdict {
    const fn as_str(&self) -> &'static str {
        match self {
            LibraryVerdict::Accept => "accept",
            LibraryVerdict::Amend(_) => "amend",
            LibraryVerdict::Reject(_) => "reject",
            LibraryVerdict::Fail(_) => "fail",
        }
    }
}

/// Why a host function does nothing and returns an error.
#[derive(Debug)]
pub(super) enum Refused {
    Over,
    Misuse,
}

impl Call {
    pub(super) fn new(
        session: &Arc<Session>,
        is_pre: bool,
        limits: Limits,
        hook: &Arc<GivenUp>,
        inline: bool,
    ) -> (Arc<Call>, oneshot::Receiver<Ended>) {
        static CALLS: AtomicU64 = AtomicU64::new(1);
        let (sender, receiver) = oneshot::channel();
        let call = Call {
            id: CALLS.fetch_add(1, Ordering::Relaxed),
            session: Arc::clone(session),
            runtime: Handle::current(),
            is_pre,
            limits,
            hook: Arc::clone(hook),
            inline,
            made_way: AtomicBool::new(false),
            over: AtomicBool::new(false),
            state: Mutex::new(CallState {
                started: None,
                answer: None,
                fault: None,
                buffers: HashMap::new(),
                buffer_last: 0,
                held: 0,
                ended: Some(sender),
                permit: None,
                given_up: false,
            }),
        };
        (Arc::new(call), receiver)
    }

    fn state(&self) -> MutexGuard<'_, CallState> {
        // Code that holds this lock never leaves the state inconsistent.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stores the permit for the thread that will run it.
    pub(super) fn hold(&self, permit: FairPermit) {
        self.state().permit = Some(permit);
    }

    /// Starts measuring its time.
    pub(super) fn begin(&self) {
        self.state().started = Some(Instant::now());
    }

    /// Makes room for other tasks: this call blocks a thread of the runtime for longer than a moment. The runtime wakes
    /// no other thread for the sockets and timers that this thread was driving, but a spawned task does.
    pub(super) fn make_way(&self) {
        if self.inline && self.elapsed() > QUICK_MAX && !self.made_way.swap(true, Ordering::Relaxed) {
            drop(self.runtime.spawn(async {}));
        }
    }

    /// Fails the call because no thread is left to run it.
    pub(super) fn refuse(&self, failure: Failure) {
        if let Some(ended) = self.state().ended.take() {
            // The caller may be gone.
            let _ = ended.send((Outcome::Failed(failure), Duration::ZERO));
        }
    }

    /// Time since it began, including host calls.
    pub(super) fn elapsed(&self) -> Duration {
        self.state().started.map_or(Duration::ZERO, |started| started.elapsed())
    }

    /// Whether the host no longer serves this call.
    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    /// Notes that nobody waits for it any more.
    pub(super) fn abandon(&self) {
        self.over.store(true, Ordering::Release);
    }

    /// Time spent in the library.
    fn used(&self, started: Option<Instant>) -> Duration {
        started.map_or(Duration::ZERO, |started| started.elapsed().saturating_sub(self.session.host_time()))
    }

    /// Stores a copy of the answer.
    pub(super) fn answer(&self, kind: u32, payload: &[u8]) -> Result<(), Refused> {
        if self.is_over() {
            return Err(Refused::Over);
        }
        let text = |name: &str| {
            if payload.len() > OUTPUT_BYTES_MAX {
                return Err(Broken::output(&format!("the payload of its answer `{name}`"), payload.len()).0);
            }
            String::from_utf8(payload.to_vec()).map_err(|error| {
                let at = error.utf8_error().valid_up_to();
                misuse(&format!("the payload of its answer `{name}` is not UTF-8, from byte {at} on"))
            })
        };
        let answer = match kind {
            ANSWER_ACCEPT => Ok(LibraryVerdict::Accept),
            ANSWER_FAIL => text("fail").map(LibraryVerdict::Fail),
            ANSWER_AMEND | ANSWER_REJECT if !self.is_pre => Err(misuse(
                "it answered `amend` or `reject` in a post phase, where the change has happened: expected `accept` or \
                 `fail`",
            )),
            ANSWER_AMEND => text("amend").map(LibraryVerdict::Amend),
            ANSWER_REJECT => text("reject").map(LibraryVerdict::Reject),
            other => Err(misuse(&format!("it answered with kind {other}, which is none of `SNAPHOOK_ANSWER_…`"))),
        };
        match answer {
            Err(failure) => Err(self.fault(failure)),
            Ok(answer) => {
                let mut state = self.state();
                match &state.answer {
                    None => {
                        state.answer = Some(answer);
                        Ok(())
                    }
                    Some(first) => {
                        let (first, second) = (first.as_str(), answer.as_str());
                        drop(state);
                        Err(self.misuse(&format!("it answered twice: `{first}`, then `{second}`")))
                    }
                }
            }
        }
    }

    /// Records a broken rule.
    pub(super) fn misuse(&self, what: &str) -> Refused {
        self.fault(misuse(what))
    }

    fn fault(&self, failure: Failure) -> Refused {
        self.state().fault.get_or_insert(failure);
        Refused::Misuse
    }

    /// Fails the call because a limit is exceeded; the host no longer serves it.
    pub(super) fn fatal(&self, error: HostError) -> Refused {
        let failure = match error {
            HostError::Fatal(failure) => failure,
            HostError::Access(error) => Failure { cause: FailureCause::Exception, message: error.message, limit: None },
        };
        self.fault(failure);
        self.over.store(true, Ordering::Release);
        Refused::Over
    }

    /// Keeps bytes for the library until it releases them.
    pub(super) fn keep(&self, bytes: Vec<u8>) -> Result<(u64, *const u8, usize), Refused> {
        let mut state = self.state();
        let held = state.held + bytes.len();
        if held > self.limits.memory_bytes {
            drop(state);
            let limit = format_size(self.limits.memory_bytes);
            return Err(self.fatal(HostError::Fatal(Failure {
                cause: FailureCause::Memory,
                message: format!(
                    "the hook keeps {} of what host functions returned, the limit `memory` is {limit}; release what is \
                     no longer used",
                    used_size(held)
                ),
                limit: Some(format!("memory {limit}")),
            })));
        }
        state.held = held;
        state.buffer_last += 1;
        let handle = state.buffer_last;
        let place = (handle, bytes.as_ptr(), bytes.len());
        // The bytes stay where they are when the vector moves.
        state.buffers.insert(handle, bytes);
        Ok(place)
    }

    /// Releases a buffer.
    pub(super) fn release(&self, handle: u64) -> Result<(), Refused> {
        let mut state = self.state();
        if let Some(bytes) = state.buffers.remove(&handle) {
            state.held -= bytes.len();
            return Ok(());
        }
        let what = match handle {
            0 => "it released the buffer 0, which never exists".to_owned(),
            known if known <= state.buffer_last => format!("it released the buffer {handle} twice"),
            _ => format!("it released the buffer {handle}, which it was never given"),
        };
        drop(state);
        Err(self.misuse(&what))
    }

    /// Ends the call when its function has returned; `thrown` means with a panic or an exception. Returns whether its
    /// thread was given up in the meantime.
    pub(super) fn returned(&self, thrown: bool) -> bool {
        self.over.store(true, Ordering::Release);
        let mut state = self.state();
        state.permit = None;
        if state.given_up {
            self.hook.came_back();
            return true;
        }
        let used = self.used(state.started);
        let outcome = match (state.fault.take(), thrown, state.answer.take()) {
            (Some(failure), _, _) => Outcome::Failed(failure),
            (None, true, _) => Outcome::Failed(Failure {
                cause: FailureCause::Trap,
                message:
                    "the hook panicked or threw an exception out of its function; see the server's standard error for \
                     its message"
                        .to_owned(),
                limit: None,
            }),
            (None, false, None) => {
                Outcome::Failed(misuse("it returned without an answer: `host->answer` must be called once per call"))
            }
            (None, false, Some(answer)) => outcome(answer),
        };
        if let Some(ended) = state.ended.take() {
            // The caller may be gone.
            let _ = ended.send((outcome, used));
        }
        false
    }

    /// Fails the call if it has timed out; returns whether it has.
    pub(super) fn expire(&self) -> bool {
        let mut state = self.state();
        let used = self.used(state.started);
        let limit = self.limits.timeout;
        // A call that is answered has returned or is already given up.
        if state.started.is_none() || state.ended.is_none() || used <= limit {
            return false;
        }
        self.over.store(true, Ordering::Release);
        state.given_up = true;
        state.permit = None;
        self.hook.gave_up();
        let failure = state.fault.take().unwrap_or_else(|| Failure {
            cause: FailureCause::Timeout,
            message: format!(
                "the hook ran for {} and did not return, the limit `timeout` is {}; native code cannot be stopped, so its \
                 thread is given up; fix the library, or raise the limit in `[hooks]` or in a grant",
                format_duration(Duration::from_millis(used.as_millis() as u64)),
                format_duration(limit)
            ),
            limit: Some(format!("timeout {}", format_duration(limit))),
        });
        if let Some(ended) = state.ended.take() {
            let _ = ended.send((Outcome::Failed(failure), used));
        }
        true
    }
}

fn outcome(answer: LibraryVerdict) -> Outcome {
    match answer {
        LibraryVerdict::Accept => Outcome::Accept,
        LibraryVerdict::Amend(data) => Outcome::Amend(Json::trusted(data)),
        LibraryVerdict::Fail(message) => {
            Outcome::Failed(Failure { cause: FailureCause::Exception, message, limit: None })
        }
        LibraryVerdict::Reject(text) => match rejection(&text) {
            Ok(rejection) => Outcome::Reject(rejection),
            Err(fault) => Outcome::Failed(misuse(&format!(
                "{}; an example: {{\"message\": \"no\", \"fields\": [{{\"pointer\": \"/a\", \"message\": \"bad\"}}]}}",
                misfit("the payload of its answer `reject`", &fault)
            ))),
        },
    }
}

/// Reads the payload of `reject`. Other members are ignored.
pub(super) fn rejection(text: &str) -> Result<Rejection, FieldError> {
    let mut members = Part::whole(text).any_members()?;
    let message = members.need("message", "a string")?.string()?;
    let fields = members.take("fields").map(|fields| fields.items::<ANY>("a list of objects")).transpose()?;
    let field = |field: Part<'_>| {
        let mut members = field.any_members()?;
        Ok(FieldError {
            pointer: members.take("pointer").map(|pointer| pointer.string()).transpose()?.unwrap_or_default(),
            message: members.need("message", "a string")?.string()?,
        })
    };
    let fields = fields.unwrap_or_default().into_iter().map(field).collect::<Result<_, FieldError>>()?;
    Ok(Rejection { message, fields })
}

/// The failure of a call whose library broke a rule of the header.
fn misuse(what: &str) -> Failure {
    Failure {
        cause: FailureCause::Trap,
        message: format!("the hook broke the rules of its interface (`snaphook_hook.h`): {what}"),
        limit: None,
    }
}
