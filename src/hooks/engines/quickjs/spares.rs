//! Sandboxes that hold the runner and nothing else yet, made beside the calls.
//!
//! All hooks share one runner, so the better half of what a fresh sandbox costs is the same for every call, whatever
//! its hook. A call takes a spare, and while its change waits for the disk another one is made.

use std::sync::{Arc, Mutex, PoisonError};

use super::host::Extra;
use super::runner::Runner;
use crate::hooks::engines::limits::CHECK_LIMITS;
use crate::hooks::engines::wasm::{Runtime, Sandbox};

/// Spares at most; each has about half a MiB in memory.
const SPARES_MAX: usize = 8;

#[derive(Default)]
pub(super) struct Spares(Mutex<State>);

#[derive(Default)]
struct State {
    ready: Vec<Sandbox<Extra>>,
    /// How many are being made.
    making: usize,
}

impl Spares {
    /// A sandbox with the runner in it, if there is one that keeps within `memory_bytes`. Has the next one made.
    pub(super) fn take(
        self: &Arc<Self>,
        runtime: &'static Runtime,
        runner: &'static Runner,
        memory_bytes: usize,
    ) -> Option<Sandbox<Extra>> {
        let (spare, wanted) = {
            let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let spare = state.ready.pop_if(|spare| spare.memory_used() <= memory_bytes);
            let wanted = state.ready.len() + state.making < SPARES_MAX;
            state.making += usize::from(wanted);
            (spare, wanted)
        };
        if wanted {
            let spares = Arc::clone(self);
            tokio::spawn(async move {
                let made = make(runtime, runner).await;
                let mut state = spares.0.lock().unwrap_or_else(PoisonError::into_inner);
                state.making -= 1;
                state.ready.extend(made);
            });
        }
        spare
    }
}

/// `None`: what is wrong shows in the calls that make their sandboxes themselves.
async fn make(runtime: &Runtime, runner: &Runner) -> Option<Sandbox<Extra>> {
    let mut sandbox = Sandbox::new(runtime, Extra::default()).await.ok()?;
    sandbox.begin(None, &CHECK_LIMITS);
    let made = sandbox.instance(&runner.code).await;
    sandbox.end(made).ok()?;
    Some(sandbox)
}
