//! How long a call may take before it is given up.

use std::time::Duration;

use snaphook_driver::wire::{CALL_TIME, Method, WHOLE_TIME};

/// How long calls of a plugin may take.
#[derive(Clone, Copy, Debug)]
pub struct Deadlines {
    /// An ordinary call. A read that waits for events also gets its waiting time, and a query the time of its budget.
    pub call: Duration,
    /// Opening a store, and methods that work on the whole store ([`Method::is_whole`]).
    pub whole: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Deadlines { call: CALL_TIME, whole: WHOLE_TIME }
    }
}

impl Deadlines {
    /// How long one call may take.
    pub(crate) fn of(&self, method: Method, request: &[u8]) -> Duration {
        match method.is_whole() {
            true => self.whole,
            false => self.call.saturating_add(method.own_time(request)).min(self.whole.max(self.call)),
        }
    }
}
