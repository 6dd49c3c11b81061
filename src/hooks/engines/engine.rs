//! The interface of an engine: it prepares code, runs it, and reports the result.

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

/// A fact about an engine for metrics: a gauge with value 1 and a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EngineFact {
    pub name: &'static str,
    pub help: &'static str,
    /// Its name and its value.
    pub label: (&'static str, &'static str),
}

/// Code to prepare.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    pub code: &'a [u8],
    pub phase: Phase,
    /// The hook's name.
    pub name: &'a str,
    /// The language of a source, if known.
    pub language: Option<SourceLanguage>,
}

/// A way to run code.
#[async_trait]
pub trait HookEngine: Send + Sync {
    /// The word in bindings, such as `quickjs`.
    fn name(&self) -> &'static str;

    /// A fact for metrics, once the engine runs.
    fn fact(&self) -> Option<EngineFact> {
        None
    }

    /// Checks and prepares the code for the phase. Called when a hook is bound and at start, so that code that cannot
    /// work is rejected here, with the reason, and not at the first call.
    async fn prepare(&self, candidate: Candidate<'_>) -> Result<Arc<dyn PreparedCode>, PrepareError>;

    /// For each of these digests (hexadecimal) of code: what has to be compiled before it can run, which takes seconds. Hooks
    /// with the same answer wait for the same compilation. Cheap: reads the names of the cached files, once.
    fn uncompiled(&self, digests: &[&str]) -> Vec<Option<String>> {
        vec![None; digests.len()]
    }

    /// Whether the code contains information that the REST API shows, so that the code must be read for it.
    fn describes_hooks(&self) -> bool {
        false
    }

    /// The limits of a call, given the grants.
    fn limits(&self, granted: &Granted) -> Limits {
        granted.limits
    }

    /// Whether its code consists of libraries that run with the server's privileges, without a sandbox: these may only
    /// come from the hooks directory.
    fn is_native(&self) -> bool {
        false
    }
}

/// Prepared code. Dropped when no binding uses it any more.
#[async_trait]
pub trait PreparedCode: Send + Sync {
    /// Runs it once. Never panics, and never runs longer than the limits allow; errors of the guest become
    /// [`Outcome::Failed`]. Host calls go to the session, which checks the grants.
    async fn call(&self, context: &Context, settings: &CallSettings, session: &Arc<Session>) -> CallReport;

    /// Called when the same code is bound to a model again: forgives its earlier failures there.
    fn bound_anew(&self, _model: &str) {}

    /// Whether it currently runs for a model to which it is bound.
    fn state(&self, _model: &str) -> HookState {
        HookState::Ok
    }

    /// How its top level is handled; `None` for engines without this distinction.
    fn top_level(&self) -> Option<TopLevel> {
        None
    }

    /// How long its top level ran when it was bound.
    fn top_level_time(&self) -> Option<Duration> {
        None
    }

    /// The receiver of events, for a webhook.
    fn webhook(&self) -> Option<&Webhook> {
        None
    }
}

/// How a call handles the top level of a hook's code (the code outside of functions), which may already have run when
/// the hook was bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TopLevel {
    /// A call starts from the state that the top level left.
    Captured,
    /// The top level runs at each call; `reason` says why its result cannot be kept.
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

    /// Why the top level runs at each call, if it does.
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

/// Whether a hook currently runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HookState {
    Ok,
    /// Its calls, or only some of them, fail at once until then.
    BackingOff {
        retry_at: Millis,
        held_back: Option<HeldBack>,
    },
    /// Its calls fail until somebody intervenes.
    Unavailable,
}

/// Which calls fail at once while a hook partly backs off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct HeldBack {
    /// Instances, and data of instances to create.
    pub changes: usize,
    pub actors: usize,
}

/// The settings of one call, including grants.
#[derive(Clone, Copy, Debug)]
pub struct CallSettings {
    pub limits: Limits,
    pub isolation: Isolation,
}

/// An engine's report of one call.
#[derive(Clone, Debug)]
pub struct CallReport {
    pub outcome: Outcome,
    /// CPU time, if the engine can measure it, otherwise wall time without host calls.
    pub cpu: Duration,
    pub memory_bytes: u64,
    /// When to retry, for a failure.
    pub retry: Retry,
}

/// The kind of a reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PrepareErrorKind {
    /// The code is invalid.
    Invalid,
    /// Preparing it exceeds a budget of time, memory, size or depth.
    TooComplex,
    /// The server is overloaded; the same code may be accepted later.
    Overloaded,
}

/// Why code cannot be bound.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrepareError {
    pub kind: PrepareErrorKind,
    /// One sentence: what is wrong, where, and how to fix it.
    pub message: String,
    /// 1-based, in the author's source.
    pub line: Option<u32>,
    /// 1-based.
    pub column: Option<u32>,
    /// Whether this server will certainly fail on the same code again.
    #[serde(default)]
    pub repeats: bool,
}

impl PrepareError {
    /// An error without a position in the source.
    pub fn plain(message: impl Into<String>) -> Self {
        PrepareError::of(PrepareErrorKind::Invalid, message)
    }

    /// An error for code that exceeds a budget.
    pub fn too_complex(message: impl Into<String>) -> Self {
        PrepareError::of(PrepareErrorKind::TooComplex, message)
    }

    /// An error for an overloaded server.
    pub fn overloaded(message: impl Into<String>) -> Self {
        PrepareError::of(PrepareErrorKind::Overloaded, message)
    }

    fn of(kind: PrepareErrorKind, message: impl Into<String>) -> Self {
        PrepareError { kind, message: message.into(), line: None, column: None, repeats: false }
    }

    /// Of the compiler: it comes to the same result again, unless the server was only overloaded.
    pub(super) fn of_compiler(self) -> Self {
        PrepareError { repeats: self.kind != PrepareErrorKind::Overloaded, ..self }
    }
}

/// Includes the position, if there is one.
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
    /// The report of a call without consequences for other calls.
    pub(super) fn new(outcome: Outcome, cpu: Duration, memory_bytes: u64) -> Self {
        CallReport { outcome, cpu, memory_bytes, retry: Retry::Usual }
    }

    /// The report of a call that never reached the guest.
    pub(super) fn failed(failure: Failure) -> Self {
        CallReport::new(Outcome::Failed(failure), Duration::ZERO, 0)
    }
}
