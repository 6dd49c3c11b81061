//! How a call ends badly: what wasmtime reports, turned into the failures of the contract.

use std::fmt;
use std::time::Duration;

use wasmtime::component::ResourceTableError;
use wasmtime::{PoolConcurrencyLimitError, Trap};
use wasmtime_wasi::I32Exit;

use super::state::State;
use super::{OUTPUT_BYTES_MAX, used_size};
use crate::config::{format_duration, format_size};
use crate::hooks::context::{Failure, FailureCause};

/// A limit that the host found broken: carried through wasmtime as the error that ends the guest.
#[derive(Clone, Debug)]
pub(in crate::hooks::engines) struct Broken(pub(in crate::hooks::engines) Failure);

impl Broken {
    pub(super) fn timeout(limit: Duration, used: Duration) -> Self {
        Broken(Failure {
            cause: FailureCause::Timeout,
            message: format!(
                "the hook ran for {} and did not end, the limit `timeout` is {}; raise it in `[hooks]` or in a grant",
                format_duration(used),
                format_duration(limit)
            ),
            limit: Some(format!("timeout {}", format_duration(limit))),
        })
    }

    /// `what` it produced, such as `the data it returned`.
    pub(in crate::hooks::engines) fn output(what: &str, bytes: usize) -> Self {
        Broken(Failure {
            cause: FailureCause::Output,
            message: format!(
                "{what} is {} long, the limit of what a hook hands back is {}",
                used_size(bytes),
                format_size(OUTPUT_BYTES_MAX)
            ),
            limit: Some(format!("output {}", format_size(OUTPUT_BYTES_MAX))),
        })
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl std::error::Error for Broken {}

/// What to report when a call into the guest came back with `error`.
pub(super) fn failure_of<X>(error: &wasmtime::Error, state: &State<X>) -> Failure {
    if let Some(Broken(failure)) = error.downcast_ref::<Broken>() {
        return failure.clone();
    }
    if let Some(failure) = state.memory_failure() {
        return failure;
    }
    if let Some(I32Exit(code)) = error.downcast_ref::<I32Exit>() {
        return plain(
            FailureCause::Trap,
            format!("the hook ended itself with exit code {code} instead of giving an answer"),
        );
    }
    if let Some(ResourceTableError::Full) = error.downcast_ref() {
        let message = "the hook holds more streams, futures and requests at once than the server keeps for one call";
        return plain(FailureCause::Memory, message.into());
    }
    if error.is::<PoolConcurrencyLimitError>() {
        let message = "the server has no memory for another sandbox at the moment; try again";
        return plain(FailureCause::Overloaded, message.into());
    }
    match error.downcast_ref::<Trap>() {
        Some(Trap::StackOverflow) => stack_failure(),
        Some(trap) => plain(FailureCause::Trap, format!("the hook trapped: {}", trap_text(*trap))),
        // Text that is no UTF-8, a pointer to nowhere: the guest's, since host functions report in their own way.
        None => plain(FailureCause::Trap, format!("the hook broke the rules of its interface: {error:#}")),
    }
}

/// Recursion that is too deep, however the guest's language reports it.
pub(in crate::hooks::engines) fn stack_failure() -> Failure {
    Failure {
        cause: FailureCause::Stack,
        message: "the hook used up its stack of 1 MiB, most often by recursion that does not end".into(),
        limit: Some("stack 1 MiB".into()),
    }
}

pub(super) fn memory_failure(limit: usize, used: usize, wanted: usize) -> Failure {
    Failure {
        cause: FailureCause::Memory,
        message: format!(
            "the hook asked for {} of memory with {} in use, the limit `memory` is {}; raise it in `[hooks]` or in a grant",
            used_size(wanted.saturating_sub(used)),
            used_size(used),
            format_size(limit)
        ),
        limit: Some(format!("memory {}", format_size(limit))),
    }
}

fn plain(cause: FailureCause, message: String) -> Failure {
    Failure { cause, message, limit: None }
}

/// wasmtime's own words start with `wasm trap: `.
fn trap_text(trap: Trap) -> String {
    let text = trap.to_string();
    text.strip_prefix("wasm trap: ").unwrap_or(&text).to_owned()
}
