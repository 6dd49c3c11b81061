//! How a call ends badly: what wasmtime reports, turned into the failures of the contract.

use wasmtime::component::ResourceTableError;
use wasmtime::{PoolConcurrencyLimitError, Trap};
use wasmtime_wasi::I32Exit;

use super::state::State;
use crate::hooks::context::{Failure, FailureCause};
use crate::hooks::engines::limits::{Broken, stack_failure};

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

fn plain(cause: FailureCause, message: String) -> Failure {
    Failure { cause, message, limit: None }
}

/// wasmtime's own words start with `wasm trap: `.
fn trap_text(trap: Trap) -> String {
    let text = trap.to_string();
    text.strip_prefix("wasm trap: ").unwrap_or(&text).to_owned()
}
