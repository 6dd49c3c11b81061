//! Why a file cannot be loaded as a plugin by this server.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A file that was not loaded, and why.
#[derive(Debug)]
pub struct LoadError {
    file: PathBuf,
    fault: Fault,
}

/// What is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("it cannot be loaded as a library: {0}")]
    NotLoaded(String),
    #[error("it does not export `{}`, so it has no drivers", snaphook_driver_abi::SYMBOL)]
    NoSymbol,
    #[error("{0} panicked or threw an exception")]
    Thrown(&'static str),
    #[error("`{}` returned no descriptor", snaphook_driver_abi::SYMBOL)]
    NoDescriptor,
    #[error("it has version {found} of the interface, expected {expected}")]
    Version { found: u32, expected: u32 },
    #[error("its descriptor has {found} bytes, expected at least {expected}")]
    Size { found: u32, expected: u32 },
    #[error("`{field}` of its descriptor {fault}")]
    Field { field: &'static str, fault: String },
    #[error("the description of its drivers cannot be read: {0}")]
    Description(String),
    #[error("it was not loaded within {0:?}: an initialiser or `{symbol}` does not return", symbol = snaphook_driver_abi::SYMBOL)]
    Stuck(Duration),
    #[error("loading it ended the process with {0}")]
    Ended(String),
    #[error("it could not be inspected: {0}")]
    NotInspected(String),
    /// The message that a child process reported.
    #[error("{0}")]
    Reported(String),
}

impl LoadError {
    pub(crate) fn new(file: &Path, fault: Fault) -> LoadError {
        LoadError { file: file.to_owned(), fault }
    }

    /// The file.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// What is wrong with it.
    pub fn fault(&self) -> &Fault {
        &self.fault
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "plugin `{}`: {}", self.file.display(), self.fault)
    }
}

impl std::error::Error for LoadError {}
