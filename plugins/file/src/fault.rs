//! What the errors of files mean to the server.

use std::io;
use std::path::Path;

use snaphook_driver::{DriverError, ErrorKind};

/// A closure for `map_err` that names the trait's method and the file.
pub(crate) fn fault(operation: &'static str, path: &Path) -> impl Fn(io::Error) -> DriverError {
    move |error| {
        let (kind, message) = classify(&error);
        DriverError::new(kind, operation, message).with("path", path.display()).because(error)
    }
}

/// The same while a store is opened: what cannot be used then is a matter of the configuration.
pub(crate) fn unusable(path: &Path) -> impl Fn(io::Error) -> DriverError {
    move |error| match fault("open", path)(error) {
        error if error.kind() == ErrorKind::Unavailable => {
            DriverError::new(ErrorKind::Config, "open", "the folder of the store cannot be used").because(error)
        }
        error => error,
    }
}

/// A call to a store that was closed.
pub(crate) fn closed(operation: &'static str) -> DriverError {
    DriverError::new(ErrorKind::Unavailable, operation, "the store is closed")
}

/// What was to be stored cannot be written as JSON.
pub(crate) fn unwritable(operation: &'static str) -> impl Fn(serde_json::Error) -> DriverError {
    move |error| DriverError::new(ErrorKind::Invalid, operation, "this cannot be written as JSON").because(error)
}

fn classify(error: &io::Error) -> (ErrorKind, &'static str) {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            (ErrorKind::Full, "the disk is full, make room")
        }
        io::ErrorKind::UnexpectedEof => (ErrorKind::Corrupt, "the file is shorter than it was"),
        _ => (ErrorKind::Unavailable, "the file cannot be used"),
    }
}
