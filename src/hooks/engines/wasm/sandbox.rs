//! One sandbox, from its creation to its end or its next call.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;
use wasmtime::Store;
use wasmtime::component::{Instance, InstancePre};

use super::config::Runtime;
use super::end::failure_of;
use super::state::{SandboxState, new_store};
use crate::config::Limits;
use crate::hooks::context::{Failure, FailureCause};
use crate::hooks::engines::clock::Clock;
use crate::hooks::session::Session;

/// A store, and the instance in it once there is one.
pub(in crate::hooks::engines) struct Sandbox<X: 'static> {
    pub(in crate::hooks::engines) store: Store<SandboxState<X>>,
    instance: Option<Instance>,
    _permit: OwnedSemaphorePermit,
}

impl<X: Send + 'static> Sandbox<X> {
    /// Creates an empty sandbox. Waits for a permit if the maximum number exists.
    pub(in crate::hooks::engines) async fn new(runtime: &Runtime, extra: X) -> Result<Self, Failure> {
        Sandbox::make(runtime, extra, None).await
    }

    /// Creates a sandbox for a command, which reads `input` from its standard input.
    pub(in crate::hooks::engines) async fn of_command(
        runtime: &Runtime,
        extra: X,
        input: Bytes,
    ) -> Result<Self, Failure> {
        Sandbox::make(runtime, extra, Some(input)).await
    }

    async fn make(runtime: &Runtime, extra: X, input: Option<Bytes>) -> Result<Self, Failure> {
        let permit = runtime.sandbox().await;
        let permit = permit.map_err(|message| Failure { cause: FailureCause::Overloaded, message, limit: None })?;
        Ok(Sandbox { store: new_store(runtime, extra, input), instance: None, _permit: permit })
    }

    /// Drops the sandbox in the background: releasing its memory takes a considerable part of a call's time, and nobody
    /// has to wait for it.
    pub(in crate::hooks::engines) fn discard(self) {
        tokio::spawn(async move { drop(self) });
    }

    /// Starts the clock of one call. `session` is `None` while code is only checked; every host call then fails.
    pub(in crate::hooks::engines) fn begin(&mut self, session: Option<Arc<Session>>, limits: &Limits) -> Arc<Clock> {
        // Two ticks: the first may be due at once, and most calls end before the second.
        self.store.set_epoch_deadline(2);
        self.store.data_mut().begin(session, limits)
    }

    /// Returns the instance; instantiates `code` if the sandbox has none yet.
    pub(in crate::hooks::engines) async fn instance(
        &mut self,
        code: &InstancePre<SandboxState<X>>,
    ) -> wasmtime::Result<Instance> {
        match self.instance {
            Some(instance) => Ok(instance),
            None => {
                let instance = code.instantiate_async(&mut self.store).await?;
                self.instance = Some(instance);
                Ok(instance)
            }
        }
    }

    /// Ends the call; returns the failure if `result` is an error.
    pub(in crate::hooks::engines) fn end<T>(&mut self, result: wasmtime::Result<T>) -> Result<T, Failure> {
        let result = result.map_err(|error| failure_of(&error, self.store.data()));
        self.store.data_mut().end();
        result
    }

    /// The size of its memories and tables in bytes.
    pub(in crate::hooks::engines) fn memory_used(&self) -> usize {
        self.store.data().memory_used()
    }

    /// Whether it has enough memory left for another call. Otherwise the next call could fail because of the last one.
    pub(in crate::hooks::engines) fn is_roomy(&self) -> bool {
        let state = self.store.data();
        state.memory_used() <= state.memory_limit() / 2
    }
}

#[cfg(test)]
mod tests {
    use wasmtime::component::{Component, Linker};

    use super::*;
    use crate::hooks::engines::limits::CHECK_LIMITS;
    use crate::hooks::engines::wasm::{SandboxState, runtime};

    #[tokio::test]
    async fn a_component_that_takes_the_most_leaves_enough_for_others() {
        let runtime = runtime().unwrap();
        let module = "(core module $m (memory 1) (table 1 funcref))";
        let text = |count: usize| format!("(component {module} {})", "(core instance (instantiate $m))".repeat(count));
        let component = |count| Component::new(&runtime.engine, wat::parse_str(text(count)).unwrap());
        assert!(component(5).is_err(), "too many memories for one sandbox");
        let code = Linker::<SandboxState<()>>::new(&runtime.engine).instantiate_pre(&component(4).unwrap()).unwrap();
        let mut sandboxes = Vec::new();
        // Other tests use sandboxes at the same time.
        for _ in 0..400 {
            let mut sandbox = Sandbox::new(runtime, ()).await.unwrap_or_else(|failure| panic!("{failure:?}"));
            sandbox.begin(None, &CHECK_LIMITS);
            let made = sandbox.instance(&code).await;
            sandbox.end(made).unwrap_or_else(|failure| panic!("sandbox {}: {failure:?}", sandboxes.len()));
            sandboxes.push(sandbox);
        }
    }
}
