//! The part of a change that nothing may stop half way: what the committer has been given, and what follows from it.
//!
//! Everything before it ends with its caller: a request whose client has gone is dropped where it stands.

use super::error::{Result, stopped};
use crate::telemetry::trace::scope;

/// Runs work to its end, whether the caller still waits for it or not. A panic of the work is the caller's too.
pub(super) async fn unstoppable<T: Send + 'static>(
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    match tokio::spawn(scope::within(scope::current(), work)).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime ends.
            Err(_) => Err(stopped()),
        },
    }
}
