//! How a call ends badly: what wasmtime reports, turned into the failures of the contract.

use wasmtime::component::ResourceTableError;
use wasmtime::{PoolConcurrencyLimitError, Trap};
use wasmtime_wasi::I32Exit;

use super::state::State;
use crate::hooks::context::{Failure, FailureCause};
use crate::hooks::engines::limits::{Broken, copied_failure, stack_failure};

/// How languages inside WebAssembly say that recursion went too deep: QuickJS (twice), CPython.
const TOO_DEEP: [&str; 3] = [
    "Maximum call stack size exceeded",
    "InternalError: stack overflow",
    "RecursionError: maximum recursion depth exceeded",
];

/// How wasmtime says that the host would have copied more than `COPIED_BYTES_MAX`; its error has no public type.
const COPIED_TOO_MUCH: &str = "fuel allocated for hostcalls";

/// What to report when a call into the guest came back with `error`.
pub(super) fn failure_of<X>(error: &wasmtime::Error, state: &State<X>) -> Failure {
    if let Some(Broken(failure)) = error.downcast_ref::<Broken>() {
        return failure.clone();
    }
    if let Some(failure) = state.memory_failure() {
        return failure;
    }
    if let Some(I32Exit(code)) = error.downcast_ref::<I32Exit>() {
        let mut message = format!("the hook ended itself with exit code {code} instead of giving an answer");
        let words = state.last_words();
        if !words.is_empty() {
            message.push_str(&format!(": {words}"));
        }
        return plain(FailureCause::Trap, message);
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
        // Whoever calls `abort` has said before what is wrong: Python and Javy of an exception, Rust of an error that a `?`
        // returned or of a panic.
        Some(Trap::UnreachableCodeReached) if !state.last_words().is_empty() => gave_up("the hook gave up", state),
        Some(trap) => plain(FailureCause::Trap, format!("the hook trapped: {}", trap_text(*trap))),
        None if format!("{error:#}").contains(COPIED_TOO_MUCH) => copied_failure(),
        // Text that is no UTF-8, a pointer to nowhere: the guest's, since host functions report in their own way.
        None => plain(FailureCause::Trap, format!("the hook broke the rules of its interface: {error:#}")),
    }
}

/// The end of a guest that gave up by itself: what it said last, unless that is a limit which its language has found.
pub(in crate::hooks::engines) fn gave_up<X>(what: &str, state: &State<X>) -> Failure {
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
