//! Host calls of libraries block the thread that runs the library.

use tokio::runtime::{Handle, RuntimeFlavor};

/// Waits for `work`. On a thread of the runtime, other tasks continue on other threads in the meantime.
pub(super) fn wait<T>(runtime: &Handle, work: impl Future<Output = T>) -> T {
    let on_a_worker = Handle::try_current().is_ok_and(|here| here.runtime_flavor() == RuntimeFlavor::MultiThread);
    match on_a_worker {
        true => tokio::task::block_in_place(|| runtime.block_on(work)),
        false => runtime.block_on(work),
    }
}
