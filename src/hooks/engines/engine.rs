//! What an engine is: how it makes code ready, runs it, and says what came of it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use snaphook_driver::time::Millis;

use crate::catalog::{SourceLanguage, Webhook};
use crate::config::{Isolation, Limits, Phase};
use crate::hooks::context::{Context, Failure, Outcome, Retry};
use crate::hooks::grants::Granted;
use crate::hooks::session::Session;

/// A fact about an engine, for metrics: a gauge that is 1 with one of some labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EngineFact {
    pub name: &'static str,
    pub help: &'static str,
    /// Its name and its value.
    pub label: (&'static str, &'static str),
}

/// Code that is to be made ready.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    pub code: &'a [u8],
    pub phase: Phase,
    /// The hook's.
    pub name: &'a str,
    /// Of a source, if something says so.
    pub language: Option<SourceLanguage>,
}

/// A way to run code.
#[async_trait]
pub trait Engine: Send + Sync {
    /// The word in bindings, such as `quickjs`.
    fn name(&self) -> &'static str;

    /// What metrics tell of it, once it runs.
    fn fact(&self) -> Option<EngineFact> {
        None
    }

    /// Checks the code for the phase and makes it ready. Called when a hook is bound and at start; what cannot work
    /// is refused here, with the reason, not at the first call.
    async fn prepare(&self, candidate: Candidate<'_>) -> Result<Arc<dyn Prepared>, PrepareError>;

    /// Whether code with this digest (hexadecimal) has to be compiled before it can run, which takes seconds. Cheap: looks only at
    /// the names of cached files.
    fn must_compile(&self, _digest: &str) -> bool {
        false
    }

    /// Whether what the REST API tells of a hook stands in its code, so that the code is read to tell it.
    fn describes_hooks(&self) -> bool {
        false
    }

    /// What a call may use, of what the grants say.
    fn limits(&self, granted: &Granted) -> Limits {
        granted.limits
    }

    /// Whether its code are libraries that run as the server does, without a sandbox: they come from the hooks directory
    /// and from nowhere else.
    fn is_native(&self) -> bool {
        false
    }
}

/// Code that is ready to run. Dropped when no binding uses it any more.
#[async_trait]
pub trait Prepared: Send + Sync {
    /// Runs it once. Never panics, never runs longer than the limits allow; what goes wrong in the guest is an
    /// [`Outcome::Failed`]. Capability calls go to the session, which checks the grants.
    async fn call(&self, context: &Context, settings: &CallSettings, session: &Arc<Session>) -> CallReport;

    /// The same code was bound to a model anew: what it did there before is not held against it any more.
    fn bound_anew(&self, _model: &str) {}

    /// Whether it runs at the moment for a model that it is bound to.
    fn state(&self, _model: &str) -> HookState {
        HookState::Ok
    }

    /// What of it was done when it was bound; `None` for engines that load all code alike.
    fn top_level(&self) -> Option<TopLevel> {
        None
    }

    /// How long its top level ran when it was bound.
    fn top_level_time(&self) -> Option<Duration> {
        None
    }

    /// Where it sends events, if that is what it does.
    fn webhook(&self) -> Option<&Webhook> {
        None
    }
}

/// What a call need not do again of a hook's code: all of it is compiled, and its top level, the code outside of functions, may
/// have run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TopLevel {
    /// A call starts from what the top level left.
    Captured,
    /// The top level runs at each call; `reason` says what it does that forbids to keep what it left.
    EachCall { reason: String },
}

impl TopLevel {
    /// `captured`, or `each-call`.
    pub const fn as_str(&self) -> &'static str {
        match self {
            TopLevel::Captured => "captured",
            TopLevel::EachCall { .. } => "each-call",
        }
    }

    /// Why it runs at each call, if it does.
    pub fn reason(&self) -> Option<&str> {
        match self {
            TopLevel::Captured => None,
            TopLevel::EachCall { reason } => Some(reason),
        }
    }
}

impl fmt::Display for TopLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TopLevel::Captured => f.write_str("captured, a call starts from what it left"),
            TopLevel::EachCall { reason } => write!(f, "runs at each call, since it {reason}"),
        }
    }
}

/// Whether a hook runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HookState {
    Ok,
    /// Its calls fail at once until then; only some of them, if that is said.
    BackingOff {
        retry_at: Millis,
        held_back: Option<HeldBack>,
    },
    /// Its calls fail until somebody does something about it.
    Unavailable,
}

/// Which calls fail at once while a hook backs off in part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct HeldBack {
    /// Instances, and data of instances that are to be created.
    pub changes: usize,
    pub actors: usize,
}

/// What holds for one call, grants included.
#[derive(Clone, Copy, Debug)]
pub struct CallSettings {
    pub limits: Limits,
    pub isolation: Isolation,
}

/// What an engine says of one call.
#[derive(Clone, Debug)]
pub struct CallReport {
    pub outcome: Outcome,
    /// Time on a core, as far as the engine can tell (wall time without the time in the host, if not).
    pub cpu: Duration,
    pub memory_bytes: u64,
    /// Of a failure.
    pub retry: Retry,
}

/// What kind of reason it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PrepareErrorKind {
    /// The code is not what it should be.
    Invalid,
    /// Making it ready exceeds a budget of time, memory, size or depth.
    TooComplex,
    /// The server has no place for it now; the same code may be taken later.
    Overloaded,
}

/// Why code cannot be bound.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrepareError {
    pub kind: PrepareErrorKind,
    /// One sentence that says what, where and what to do.
    pub message: String,
    /// 1-based, in the author's source.
    pub line: Option<u32>,
    /// 1-based.
    pub column: Option<u32>,
}

impl PrepareError {
    /// Without a place in the source.
    pub fn plain(message: impl Into<String>) -> Self {
        PrepareError::of(PrepareErrorKind::Invalid, message)
    }

    /// More than a budget allows.
    pub fn too_complex(message: impl Into<String>) -> Self {
        PrepareError::of(PrepareErrorKind::TooComplex, message)
    }

    /// Not now.
    pub fn overloaded(message: impl Into<String>) -> Self {
        PrepareError::of(PrepareErrorKind::Overloaded, message)
    }

    fn of(kind: PrepareErrorKind, message: impl Into<String>) -> Self {
        PrepareError { kind, message: message.into(), line: None, column: None }
    }
}

/// With the place, if there is one.
impl fmt::Display for PrepareError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match (self.line, self.column) {
            (Some(line), Some(column)) => write!(f, " (line {line}, column {column})"),
            (Some(line), None) => write!(f, " (line {line})"),
            (None, _) => Ok(()),
        }
    }
}

impl CallReport {
    /// A call whose end says nothing of another one.
    pub(super) fn new(outcome: Outcome, cpu: Duration, memory_bytes: u64) -> Self {
        CallReport { outcome, cpu, memory_bytes, retry: Retry::Usual }
    }

    /// A call that never got to the guest.
    pub(super) fn failed(failure: Failure) -> Self {
        CallReport::new(Outcome::Failed(failure), Duration::ZERO, 0)
    }
}
