//! What stores were asked for metrics, and when.

use std::sync::Arc;

use snaphook_driver::Position;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// What stores say of themselves, as it was a moment ago.
pub(super) type LastLook = Mutex<Option<(Instant, Arc<Look>)>>;

/// What only stores know. One that fails, or does not say it in time, says so elsewhere.
pub(super) struct Look {
    pub(super) log_head: Option<Position>,
    /// By model: events that its post hooks have not dealt with.
    pub(super) backlogs: Vec<(String, u64)>,
    pub(super) errors: Option<u64>,
}
