//! `log`: lines that a hook writes. Needs no grant; bounded per run.

use super::super::context::LogLevel;
use super::super::session::{HostError, Session};

impl Session {
    /// Keeps a log line; `Fatal` when the call logs more than allowed.
    pub fn log(&self, level: LogLevel, message: String) -> Result<(), HostError> {
        self.append_log(level, message)
    }
}
