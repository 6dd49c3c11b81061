//! Converts errors of the client and responses of the server to errors for the caller of a store.

use std::error::Error;

use snaphook_driver::{DriverError, ErrorKind};

/// A closure for `map_err`: the server is currently unavailable.
pub(crate) fn unavailable<E: Error + Send + Sync + 'static>(
    operation: &'static str,
    what: &'static str,
) -> impl Fn(E) -> DriverError {
    move |error| DriverError::new(ErrorKind::Unavailable, operation, format!("{what} cannot be reached")).because(error)
}

/// The error for stored data that this driver cannot have written.
pub(crate) fn corrupt(operation: &'static str, message: impl Into<String>) -> DriverError {
    DriverError::new(ErrorKind::Corrupt, operation, message)
}

/// Error codes for lack of space.
const NO_ROOM: [u64; 6] = [10002, 10023, 10028, 10047, 10077, 10122];

/// Codes of rejections before replication to other servers; 0: by the client.
const BEFORE_REPLICATION: [u64; 6] = [0, 10002, 10028, 10047, WRONG_LAST, 10122];

/// A condition on the last sequence is not met. Another code means that others are about to write; that request can be
/// retried.
const WRONG_LAST: u64 = 10071;

/// Why the server did not store a message.
#[derive(Clone, Debug)]
pub(crate) struct Refusal {
    pub(crate) code: u64,
    pub(crate) description: String,
}

impl Refusal {
    /// Whether the message's condition is not met.
    pub(crate) fn is_conflict(&self) -> bool {
        self.code == WRONG_LAST
    }

    /// Whether it is certain that no server has stored the message. With replicas, some of these responses come from a
    /// leader that could not store a message that the others may have: then only responses from before the replication
    /// are certain.
    pub(crate) fn is_certain(&self, replicas: usize) -> bool {
        replicas <= 1 || BEFORE_REPLICATION.contains(&self.code)
    }

    pub(crate) fn into_error(self, operation: &'static str) -> DriverError {
        let kind = if NO_ROOM.contains(&self.code) { ErrorKind::Full } else { ErrorKind::Unavailable };
        DriverError::new(kind, operation, "the server did not store the message")
            .with("code", self.code)
            .with("reason", self.description)
    }
}
