//! The part of a change that must not be interrupted: the work of the committer, and its consequences.
//!
//! Everything before it ends with its caller: a request whose client has disconnected is dropped at its current point.

use super::error::{Result, stopped};
use crate::telemetry::trace::scope;

/// Completes work even if the caller is dropped. A panic of the work propagates to the caller.
pub(super) async fn unstoppable<T: Send + 'static>(
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    match tokio::spawn(scope::within(scope::current(), work)).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is shutting down.
            Err(_) => Err(stopped()),
        },
    }
}
