//! Locks, and work off the async threads.

use std::sync::{Mutex, MutexGuard, PoisonError};

use snaphook_driver::{DriverError, ErrorKind, Result};

/// Locks a mutex. A panic of an earlier holder never leaves the state inconsistent: it is updated last, in one step.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs work that may take long off the async threads, or on this thread if there is no runtime.
pub(crate) async fn off_thread<T: Send + 'static>(
    operation: &'static str,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    if tokio::runtime::Handle::try_current().is_err() {
        return work();
    }
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => {
            Err(DriverError::new(ErrorKind::Unexpected, operation, "the background task ended early").because(error))
        }
    }
}
