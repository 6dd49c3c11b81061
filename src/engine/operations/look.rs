//! A cache of the stores' numbers for metrics.

use std::sync::Arc;

use snaphook_driver::Position;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// The last numbers of the stores, with their time.
pub(super) type LastLook = Mutex<Option<(Instant, Arc<Look>)>>;

/// Numbers that only stores know. A store that fails or is late is reported elsewhere.
pub(super) struct Look {
    pub(super) log_head: Option<Position>,
    /// By model: events that its post hooks have not finished.
    pub(super) backlogs: Vec<(String, u64)>,
    pub(super) errors: Option<u64>,
}
