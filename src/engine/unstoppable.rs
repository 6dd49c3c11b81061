//! The part of a change that nothing may stop half way: what the committer has been given, and what follows from it.
//!
//! Everything before it ends with its caller: a request whose client has gone is dropped where it stands.

use super::Engine;
use super::error::Result;
use super::hanging::unanswered;
use super::write::stopped;

/// Runs work to its end, whether the caller still waits for it or not. A panic of the work is the caller's too.
pub(super) async fn unstoppable<T: Send + 'static>(
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    match tokio::spawn(work).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime ends.
            Err(_) => Err(stopped()),
        },
    }
}

impl Engine {
    /// The same for work that waits for the committer. If an append hangs the caller is told so, and the work goes on when
    /// the append does.
    pub(super) async fn commit<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        self.committer.answered(unstoppable(work)).await.unwrap_or_else(|| Err(unanswered()))
    }
}
