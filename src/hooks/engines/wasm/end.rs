//! Converts errors of wasmtime to the failures of the hook contract.

use wasmtime::component::ResourceTableError;
use wasmtime::{PoolConcurrencyLimitError, Trap};
use wasmtime_wasi::I32Exit;

use super::state::SandboxState;
use crate::hooks::context::{Failure, FailureCause};
use crate::hooks::engines::limits::{Broken, copied_failure, stack_failure};

/// How languages inside WebAssembly report that recursion is too deep: QuickJS (twice), CPython.
const TOO_DEEP: [&str; 3] = [
    "Maximum call stack size exceeded",
    "InternalError: stack overflow",
    "RecursionError: maximum recursion depth exceeded",
];

/// How wasmtime reports that the host would have copied more than `COPIED_BYTES_MAX`; the error has no public type.
const COPIED_TOO_MUCH: &str = "fuel allocated for hostcalls";

/// The failure to report when a call into the guest returned `error`.
pub(super) fn failure_of<X>(error: &wasmtime::Error, state: &SandboxState<X>) -> Failure {
    if let Some(Broken(failure)) = error.downcast_ref::<Broken>() {
        return failure.clone();
    }
    if let Some(failure) = state.memory_failure() {
        return failure;
    }
    if let Some(I32Exit(code)) = error.downcast_ref::<I32Exit>() {
        let mut message = format!("the hook exited with code {code} instead of returning a verdict");
        let words = state.last_words();
        if !words.is_empty() {
            message.push_str(&format!(": {words}"));
        }
        return plain(FailureCause::Trap, message);
    }
    if let Some(ResourceTableError::Full) = error.downcast_ref() {
        let message = "the hook uses more streams, futures and requests at once than the server allows for one call";
        return plain(FailureCause::Memory, message.into());
    }
    if error.is::<PoolConcurrencyLimitError>() {
        let message = "the server has no memory for another sandbox at the moment; try again";
        return plain(FailureCause::Overloaded, message.into());
    }
    match error.downcast_ref::<Trap>() {
        Some(Trap::StackOverflow) => stack_failure(),
        // Whoever calls `abort` has said before what is wrong: Python and Javy of an exception, Rust of an error that a `?`
        // returned or of a panic.
        Some(Trap::UnreachableCodeReached) if !state.last_words().is_empty() => gave_up("the hook gave up", state),
        Some(trap) => plain(FailureCause::Trap, format!("the hook trapped: {}", trap_text(*trap))),
        None if format!("{error:#}").contains(COPIED_TOO_MUCH) => copied_failure(),
        // Invalid UTF-8 or an invalid pointer: an error of the guest, because host functions report errors differently.
        None => plain(FailureCause::Trap, format!("the hook broke the rules of its interface: {error:#}")),
    }
}

/// The failure of a guest that aborted: its last message, unless that reports a limit found by its language.
pub(in crate::hooks::engines) fn gave_up<X>(what: &str, state: &SandboxState<X>) -> Failure {
    let words = state.last_words();
    if let Some(failure) = state.memory_failure() {
        return failure;
    }
    if TOO_DEEP.iter().any(|text| words.contains(text)) {
        return stack_failure();
    }
    let message = if words.is_empty() { what.to_owned() } else { format!("{what}: {words}") };
    plain(FailureCause::Exception, message)
}

fn plain(cause: FailureCause, message: String) -> Failure {
    Failure { cause, message, limit: None }
}

/// wasmtime's own words start with `wasm trap: `.
fn trap_text(trap: Trap) -> String {
    let text = trap.to_string();
    text.strip_prefix("wasm trap: ").unwrap_or(&text).to_owned()
}
