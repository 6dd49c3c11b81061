//! `log`: log lines of a hook. Needs no grant; limited per run.

use super::super::context::LogLevel;
use super::super::session::{HostError, Session};

impl Session {
    /// Stores a log line; `Fatal` if the call logs more than allowed.
    pub fn log(&self, level: LogLevel, message: String) -> Result<(), HostError> {
        self.append_log(level, message)
    }
}
