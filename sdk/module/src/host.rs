//! The server's functions outside hooks.

use snaphook_module_abi as abi;

/// The server, as seen by a module.
#[derive(Clone, Copy)]
pub struct Host(pub(crate) &'static abi::Host);

/// The level of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    Error,
    Warn,
    Info,
    Debug,
}

impl Host {
    /// Writes a line to the server's log.
    pub fn log(&self, level: Level, message: &str) {
        let level = match level {
            Level::Error => abi::LOG_ERROR,
            Level::Warn => abi::LOG_WARN,
            Level::Info => abi::LOG_INFO,
            Level::Debug => abi::LOG_DEBUG,
        };
        (self.0.log)(self.0.module, level, abi::Text { ptr: message.as_ptr().cast(), len: message.len() });
    }
}

/// Resumes a hook that returned [`crate::Answer::Pending`]. If it is dropped, the request ends at its deadline.
pub struct Resume {
    pub(crate) host: Host,
    pub(crate) token: u64,
}

impl Resume {
    /// Makes the server call the hook again soon. May be called from any thread, even before the hook returns.
    pub fn resume(self) {
        (self.host.0.resume)(self.token);
    }
}
