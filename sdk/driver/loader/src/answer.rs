//! Turns the outcome of a call into a response or a clear error for its caller.

use std::time::Duration;

use snaphook_driver::wire::{Method, decode, proto};
use snaphook_driver::{DriverError, ErrorKind, Result};
use snaphook_driver_abi::{ERROR, OK};

use crate::loaded::Loaded;
use crate::outcome::{CallOutcome, LibraryAnswer, Stage};
use crate::threads::SERVING_MAX;

/// The kind of call, which decides how its outcome is reported.
#[derive(Clone, Copy)]
pub(crate) enum Operation {
    Open,
    Method(Method),
}

impl Operation {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Operation::Open => "open",
            Operation::Method(method) => method.name(),
        }
    }

    /// The error kind if the outcome is unknown.
    fn unknown(self, without_effect: ErrorKind) -> ErrorKind {
        match self {
            Operation::Method(method) if method.changes() => ErrorKind::Uncertain,
            _ => without_effect,
        }
    }
}

/// Returns the bytes of the response.
pub(crate) fn read(plugin: &Loaded, operation: Operation, time: Duration, outcome: CallOutcome) -> Result<Vec<u8>> {
    let name = plugin.name();
    let error = |kind, message: String| Err(DriverError::new(kind, operation.name(), message));
    match outcome {
        CallOutcome::Answered(answer) => read_answer(answer).unwrap_or_else(|fault| {
            plugin.faults().garbage(plugin);
            error(operation.unknown(ErrorKind::Unexpected), format!("the response of the plugin `{name}` {fault}"))
        }),
        CallOutcome::Thrown => {
            let message = format!("the plugin `{name}` panicked or threw an exception");
            error(operation.unknown(ErrorKind::Unexpected), message)
        }
        CallOutcome::Late(Stage::Queued) => error(
            ErrorKind::Unavailable,
            format!(
                "the plugin `{name}` had no free thread for the call within {time:?}: at most {SERVING_MAX} calls run at once"
            ),
        ),
        CallOutcome::Late(stage) => {
            let what = if stage == Stage::Running { "return from" } else { "respond to" };
            let message = format!("the plugin `{name}` did not {what} the call within {time:?}");
            error(operation.unknown(ErrorKind::Unavailable), message)
        }
    }
}

/// Separates success, the driver's error, and an unreadable answer, which the outer error describes as a clause.
fn read_answer(LibraryAnswer { status, bytes }: LibraryAnswer) -> Result<Result<Vec<u8>>, String> {
    let bytes = bytes?;
    match status {
        OK => Ok(Ok(bytes)),
        ERROR => match decode::<proto::Error>(&bytes) {
            Ok(error) => Ok(Err(error.into())),
            Err(fault) => Err(format!("is an error that cannot be read: {fault}")),
        },
        other => Err(format!("has status {other}, expected {OK} or {ERROR}")),
    }
}
