//! The input and output of a hook's call, the same for all engines.

use std::sync::Arc;
use std::time::Duration;

use snaphook_driver::time::Millis;
use snaphook_driver::{Actor, Event, Json, Position};

use super::access::Ahead;
use super::grants::HookId;
pub use crate::catalog::FieldError;
use crate::config::Phase;
use crate::telemetry::trace::Span;

/// The information about one change that a hook receives.
#[derive(Clone, Debug)]
pub struct Context {
    pub phase: Phase,
    pub model: String,
    pub model_version: u64,
    /// Instance id.
    pub instance: String,
    /// Data before the change; `None` for a creation.
    pub before: Option<Json>,
    /// Data after the change; `None` for a deletion.
    pub after: Option<Json>,
    pub actor: Option<Arc<Actor>>,
    pub request_id: Option<String>,
    pub time: Millis,
    /// Post phases: the event that the hook reacts to.
    pub event: Option<EventRef>,
    /// Post phases: 1 and up. Pre phases: 1.
    pub attempt: u32,
    /// Length of the chain of causes of this call; its writes are at `depth + 1`.
    pub depth: u32,
    /// If present, the call reads instances from here instead of those stored.
    pub ahead: Option<Arc<dyn Ahead>>,
}

impl Context {
    /// The actor for interfaces that pass it as text: the object as JSON.
    pub fn actor_text(&self) -> Option<String> {
        self.actor.as_ref().map(|actor| actor.to_text())
    }
}

/// The event that a post hook reacts to.
#[derive(Clone, Debug)]
pub struct EventRef {
    pub position: Position,
    pub id: String,
    /// The event as stored in the log; `None` if the code is only tested.
    pub record: Option<Arc<Event>>,
}

/// How a call ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// Pre: the change may proceed. Post: done.
    Accept,
    /// Pre: the change may proceed with this data.
    Amend(Json),
    /// Pre: the hook rejects the change.
    Reject(Rejection),
    /// The code failed to reach a decision.
    Failed(Failure),
}

/// A pre hook's rejection.
#[derive(Clone, Debug, PartialEq)]
pub struct Rejection {
    pub message: String,
    pub fields: Vec<FieldError>,
}

/// Why code failed to reach a decision.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    pub cause: FailureCause,
    /// One sentence: the hook, the limit or error with its value, how much was used, and the position in the author's
    /// source.
    pub message: String,
    /// The limit that was hit, such as `timeout 500 ms`.
    pub limit: Option<String>,
}

/// When a post hook that failed may run again for the same event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Retry {
    /// As after an error in the code.
    #[default]
    Usual,
    /// For as long as another party's server may be unavailable, and not before this time has passed.
    Patient(Duration),
    /// Not until somebody intervenes.
    Never,
}

/// Kinds of failure; the names are those of metrics, stats and the error store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FailureCause {
    /// The author's code threw or returned an error.
    Exception,
    /// The sandbox trapped.
    Trap,
    Timeout,
    Memory,
    Stack,
    /// It returned or logged more than allowed.
    Output,
    HostCalls,
    /// It amended without the grant, or with invalid data.
    Amend,
    /// The chain of causes is too deep.
    Depth,
    /// The code could not be loaded.
    Load,
    /// Too many calls of this hook wait already.
    Overloaded,
    /// A fault of the host.
    Internal,
}

impl FailureCause {
    pub const ALL: [FailureCause; 12] = [
        FailureCause::Exception,
        FailureCause::Trap,
        FailureCause::Timeout,
        FailureCause::Memory,
        FailureCause::Stack,
        FailureCause::Output,
        FailureCause::HostCalls,
        FailureCause::Amend,
        FailureCause::Depth,
        FailureCause::Load,
        FailureCause::Overloaded,
        FailureCause::Internal,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            FailureCause::Exception => "exception",
            FailureCause::Trap => "trap",
            FailureCause::Timeout => "timeout",
            FailureCause::Memory => "memory",
            FailureCause::Stack => "stack",
            FailureCause::Output => "output",
            FailureCause::HostCalls => "host-calls",
            FailureCause::Amend => "amend",
            FailureCause::Depth => "depth",
            FailureCause::Load => "load",
            FailureCause::Overloaded => "overloaded",
            FailureCause::Internal => "internal",
        }
    }
}

/// One finished call: its outcome and what it cost.
#[derive(Debug)]
pub struct Run {
    /// The hook, with the artifact that ran.
    pub hook: Arc<HookId>,
    pub outcome: Outcome,
    /// From the start of the call to its end.
    pub wall: Duration,
    /// The part of `wall` that was spent in host calls.
    pub host: Duration,
    /// CPU time of the guest's code, as far as the engine can tell.
    pub cpu: Duration,
    /// Peak size of the sandbox's memories and tables, in bytes.
    pub memory_bytes: u64,
    pub retry: Retry,
    pub log: Vec<LogLine>,
    /// Each use of a capability, with the result; for `hook test` and denial messages.
    pub asked: Vec<Asked>,
    /// Ends when the run is settled.
    pub span: Span,
}

impl Run {
    /// The run of a hook that did not start.
    pub fn unstarted(hook: &Arc<HookId>, failure: Failure) -> Run {
        Run {
            hook: Arc::clone(hook),
            outcome: Outcome::Failed(failure),
            wall: Duration::ZERO,
            host: Duration::ZERO,
            cpu: Duration::ZERO,
            memory_bytes: 0,
            retry: Retry::Usual,
            log: Vec::new(),
            asked: Vec::new(),
            span: Span::default(),
        }
    }
}

/// One line that a hook logged.
#[derive(Clone, Debug, serde::Serialize)]
pub struct LogLine {
    #[serde(with = "snaphook_driver::time")]
    pub time: Millis,
    pub level: LogLevel,
    pub message: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    Debug,
    Info,
    Warn,
    Error,
}

impl LogLevel {
    pub const fn as_str(self) -> &'static str {
        match self {
            LogLevel::Debug => "debug",
            LogLevel::Info => "info",
            LogLevel::Warn => "warn",
            LogLevel::Error => "error",
        }
    }
}

/// One use of a capability.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Asked {
    /// `read`, `write`, `http`, `process`, `secret` or `amend`.
    pub capability: &'static str,
    /// The target, such as a model or a URL without its query.
    pub target: String,
    pub granted: bool,
}
