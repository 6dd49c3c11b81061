//! Converts file errors to errors for the server.

use snaphook_driver::{DriverError, ErrorKind};

pub(crate) use snaphook_driver::files::{file_fault as fault, unusable_file as unusable};

/// The error of a call to a closed store.
pub(crate) fn closed(operation: &'static str) -> DriverError {
    DriverError::new(ErrorKind::Unavailable, operation, "the store is closed")
}

/// The error for data that cannot be serialised as JSON.
pub(crate) fn unwritable(operation: &'static str) -> impl Fn(serde_json::Error) -> DriverError {
    move |error| DriverError::new(ErrorKind::Invalid, operation, "the value cannot be written as JSON").because(error)
}
