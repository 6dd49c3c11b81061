//! What goes into a hook's call and what comes out, the same for all engines.

use std::sync::Arc;
use std::time::Duration;

use snaphook_driver::time::Millis;
use snaphook_driver::{Actor, Event, Json, Position};

use super::access::Ahead;
use super::grants::HookId;
pub use crate::catalog::FieldError;
use crate::config::Phase;
use crate::telemetry::trace::Span;

/// What a hook gets to see of one change.
#[derive(Clone, Debug)]
pub struct Context {
    pub phase: Phase,
    pub model: String,
    pub model_version: u64,
    /// Instance id.
    pub instance: String,
    /// Data before the change; absent for a creation.
    pub before: Option<Json>,
    /// Data after the change; absent for a deletion.
    pub after: Option<Json>,
    pub actor: Option<Arc<Actor>>,
    pub request_id: Option<String>,
    pub time: Millis,
    /// Post phases: the event that the hook reacts to.
    pub event: Option<EventRef>,
    /// Post phases: 1 and up. Pre phases: 1.
    pub attempt: u32,
    /// Length of the chain of causes that led here; writes of this call are at `depth + 1`.
    pub depth: u32,
    /// What the call reads instead of instances as they are stored.
    pub ahead: Option<Arc<dyn Ahead>>,
}

impl Context {
    /// The actor for interfaces that carry it as text: the JSON of the object.
    pub fn actor_text(&self) -> Option<String> {
        self.actor.as_ref().map(|actor| actor.to_text())
    }
}

/// The event that a post hook reacts to.
#[derive(Clone, Debug)]
pub struct EventRef {
    pub position: Position,
    pub id: String,
    /// As the log has it; absent where the code is only tried.
    pub record: Option<Arc<Event>>,
}

/// How a call ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// Pre: the change may go on. Post: done.
    Accept,
    /// Pre: the change may go on with this data.
    Amend(Json),
    /// Pre: refused by the author's decision.
    Reject(Rejection),
    /// The code did not come to a decision.
    Failed(Failure),
}

/// A pre hook's refusal.
#[derive(Clone, Debug, PartialEq)]
pub struct Rejection {
    pub message: String,
    pub fields: Vec<FieldError>,
}

/// Why code did not come to a decision.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    pub cause: FailureCause,
    /// One sentence: which hook limit or error, its value, what was used, where in the author's source.
    pub message: String,
    /// The limit that was hit, such as `timeout 500 ms`.
    pub limit: Option<String>,
}

/// When a post hook that failed may run again for the same event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Retry {
    /// After the usual delay.
    #[default]
    Usual,
    /// After so long, if the usual delay is not longer.
    After(Duration),
    /// Not without somebody doing something about it.
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
    /// What it returned or logged was larger than allowed.
    Output,
    HostCalls,
    /// Amended without the grant, or with data that is not valid.
    Amend,
    /// A chain of causes that is too deep.
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
    /// Who ran, with the artifact that it ran.
    pub hook: Arc<HookId>,
    pub outcome: Outcome,
    /// From the start of the call to its end.
    pub wall: Duration,
    /// Part of `wall` that was spent inside the host for capabilities.
    pub host: Duration,
    /// Time on a core of the guest's code, as far as the engine can tell.
    pub cpu: Duration,
    /// Largest size of the sandbox's memories and tables, in bytes.
    pub memory_bytes: u64,
    pub retry: Retry,
    pub log: Vec<LogLine>,
    /// Each capability that the code asked for, with the answer; for `hook test` and denial messages.
    pub asked: Vec<Asked>,
    /// Ends when the run is settled.
    pub span: Span,
}

impl Run {
    /// That of a hook that did not start.
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
    /// What it was asked for, such as a model or a URL without its query.
    pub target: String,
    pub granted: bool,
}
