//! The timeouts of a call and of its steps.

use std::time::Duration;

use tokio::time::Instant;

/// Connecting, including TLS, authentication and the check of the server's configuration.
pub(crate) const CONNECT: Duration = Duration::from_secs(5);

/// One command: sending it, the server's fsync, and receiving the response.
pub(crate) const COMMAND: Duration = Duration::from_secs(5);

/// One call of the store with all its retries: less than the 30 s after which its caller gives up.
pub(crate) const CALL: Duration = Duration::from_secs(12);

/// When a call ends.
#[derive(Clone, Copy)]
pub(crate) struct Deadline(Instant);

impl Deadline {
    /// The deadline of a call that begins now.
    pub(crate) fn new() -> Deadline {
        Deadline(Instant::now() + CALL)
    }

    pub(crate) fn is_over(self) -> bool {
        self.0 <= Instant::now()
    }

    /// The deadline of a step that begins now.
    pub(crate) fn step(self, most: Duration) -> Instant {
        self.0.min(Instant::now() + most)
    }

    /// When the call ends.
    pub(crate) fn end(self) -> Instant {
        self.0
    }
}
