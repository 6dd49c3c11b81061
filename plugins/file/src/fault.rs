//! What the errors of files mean to the server.

use snaphook_driver::{DriverError, ErrorKind};

pub(crate) use snaphook_driver::files::{file_fault as fault, unusable_file as unusable};

/// A call to a store that was closed.
pub(crate) fn closed(operation: &'static str) -> DriverError {
    DriverError::new(ErrorKind::Unavailable, operation, "the store is closed")
}

/// What was to be stored cannot be written as JSON.
pub(crate) fn unwritable(operation: &'static str) -> impl Fn(serde_json::Error) -> DriverError {
    move |error| DriverError::new(ErrorKind::Invalid, operation, "this cannot be written as JSON").because(error)
}
