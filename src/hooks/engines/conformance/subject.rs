//! What is tested: an engine, with a hook for each task.

use std::sync::Arc;

use crate::hooks::engines::engine::HookEngine;

/// What a hook is to do. `ID` is the instance's id in the context. A capability that refuses: logs the error's code,
/// then its message, and accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Task {
    Accept,
    /// Gives back `{"n":1}`.
    Amend,
    /// Refuses with `no`, and `bad` for the field `/a`.
    Reject,
    /// After a change: fails with `oops`.
    Fail,
    /// Breaks down: an exception, a panic, a trap.
    Crash,
    /// Gives back the data as it came.
    Same,
    /// Gives back the data with the member `"x":1` more.
    Add,
    /// Logs five lines of what the context holds: see cases.rs.
    Tell,
    /// Logs `d`, `i`, `w` and `e` at the levels debug, info, warn and error.
    Log,
    /// Logs the data of `item/ID`, or `absent`.
    ReadGet,
    /// Asks for `item` with `{"limit":1}`; logs the ids, then a space and the cursor.
    ReadQuery,
    /// Logs `present` or `absent`: the event at the position ID.
    ReadEvent,
    /// Creates `note/ID` with `{"a":1}`, and logs its data.
    WriteCreate,
    /// Makes `{"a":2}` of `note/ID`, and logs its data.
    WriteUpdate,
    /// Deletes `note/ID`, and logs its data.
    WriteDelete,
    /// Sends POST to the URL ID with the header `x-a: 1` and the body `hi`; logs status, space, body.
    HttpSend,
    /// Runs the program ID with the argument `-` and `in` on its standard input; logs exit code, space, its output.
    ProcessRun,
    /// Logs the value of the secret ID.
    SecretGet,
    Loop,
    /// Takes memory without end.
    Grow,
    Recurse,
    /// Gives back 20,000,000 bytes.
    Flood,
    /// Logs `x` without end.
    Talk,
    /// Logs lines of 8,000 bytes without end.
    Shout,
    /// Reads without end, whatever comes of it.
    Ask,
    /// Gives back `{"n":N}` at the Nth call of its sandbox; the third never ends.
    Count,
}

impl Task {
    /// The id of the context's `actor`.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Task::Accept => "accept",
            Task::Amend => "amend",
            Task::Reject => "reject",
            Task::Fail => "fail",
            Task::Crash => "crash",
            Task::Same => "same",
            Task::Add => "add",
            Task::Tell => "tell",
            Task::Log => "log",
            Task::ReadGet => "read-get",
            Task::ReadQuery => "read-query",
            Task::ReadEvent => "read-event",
            Task::WriteCreate => "write-create",
            Task::WriteUpdate => "write-update",
            Task::WriteDelete => "write-delete",
            Task::HttpSend => "http-send",
            Task::ProcessRun => "process-run",
            Task::SecretGet => "secret-get",
            Task::Loop => "loop",
            Task::Grow => "grow",
            Task::Recurse => "recurse",
            Task::Flood => "flood",
            Task::Talk => "talk",
            Task::Shout => "shout",
            Task::Ask => "ask",
            Task::Count => "count",
        }
    }
}

/// An engine under test, with hooks in one language.
pub(crate) struct Subject {
    /// In messages, such as `component (C)`.
    pub(crate) name: &'static str,
    /// `Err`: why it cannot be had here.
    pub(crate) engine: fn() -> Result<Arc<dyn HookEngine>, String>,
    /// The code for a task. `Err`: why it is not there, and what makes it.
    pub(crate) hook: fn(Task) -> Result<Vec<u8>, String>,
    /// Cases, or with a `*` at the end groups of them, that do not apply, and why. What is written here and is the name
    /// of no case fails the suite.
    pub(crate) without: &'static [(&'static str, &'static str)],
}
