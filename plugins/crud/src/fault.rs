//! What the errors of files mean to the server.

use std::io;
use std::path::Path;

use snaphook_driver::{DriverError, ErrorKind};

/// A closure for `map_err` that names the trait's method and the file.
pub(crate) fn fault(operation: &'static str, path: &Path) -> impl Fn(io::Error) -> DriverError {
    move |error| {
        let (kind, message) = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                (ErrorKind::Full, "the disk is full, make room")
            }
            _ => (ErrorKind::Unavailable, "the file cannot be used"),
        };
        DriverError::new(kind, operation, message).with("path", path.display()).because(error)
    }
}

/// The same while a store is opened: what cannot be used then is a matter of the configuration.
pub(crate) fn unusable(path: &Path) -> impl Fn(io::Error) -> DriverError {
    move |error| match fault("open", path)(error) {
        error if error.kind() == ErrorKind::Unavailable => error.as_kind(ErrorKind::Config),
        error => error,
    }
}
