//! Why a command failed.

use std::fmt;

use crate::config::ConfigErrors;

/// Result of a command.
pub(super) type Result<T, E = Failure> = std::result::Result<T, E>;

/// Why a command failed.
#[derive(Debug)]
pub(super) enum Failure {
    Message(String),
    /// Nobody answers at the server's address.
    NoServer(String),
    /// The connection broke before an answer came.
    Broken(String),
    /// The server has no such thing.
    NotFound(String),
    /// The log does not have the position that was asked for.
    PositionUnknown(String),
    /// Something that is needed is missing, or what was only tried would fail: see [`Failure::exit_code`].
    NotReady(String),
    Config(ConfigErrors),
    /// Stdout was closed by its reader.
    OutputClosed,
}

impl Failure {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Failure::Message(message.into())
    }

    /// What the process ends with: 3 says that nothing was done yet and what to do first, 1 that something failed.
    pub(super) fn exit_code(&self) -> u8 {
        match self {
            Failure::NotReady(_) => 3,
            _ => 1,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Message(message)
            | Failure::NoServer(message)
            | Failure::Broken(message)
            | Failure::NotFound(message)
            | Failure::NotReady(message)
            | Failure::PositionUnknown(message) => f.write_str(message),
            Failure::Config(errors) => errors.fmt(f),
            Failure::OutputClosed => f.write_str("nobody reads the output"),
        }
    }
}

impl From<ConfigErrors> for Failure {
    fn from(errors: ConfigErrors) -> Self {
        Failure::Config(errors)
    }
}

impl From<std::io::Error> for Failure {
    /// Of writing to stdout, the only thing that commands do with a plain `?`.
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::BrokenPipe => Failure::OutputClosed,
            _ => Failure::new(format!("cannot write the output: {error}")),
        }
    }
}
