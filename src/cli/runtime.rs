//! The runtime of commands that do not need the threads of a server.

use super::failure::{Failure, Result};

/// A command without a server needs one thread.
pub(super) fn block_on(work: impl Future<Output = Result<()>>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| Failure::new(format!("no runtime: {error}")))?.block_on(work)
}
