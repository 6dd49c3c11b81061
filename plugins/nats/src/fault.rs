//! What errors of the client and answers of the server mean to whoever called a store.

use std::error::Error;

use snaphook_driver::{DriverError, ErrorKind};

/// A closure for `map_err`: the server cannot be asked now.
pub(crate) fn unavailable<E: Error + Send + Sync + 'static>(
    operation: &'static str,
    what: &'static str,
) -> impl Fn(E) -> DriverError {
    move |error| DriverError::new(ErrorKind::Unavailable, operation, format!("{what} cannot be reached")).because(error)
}

/// What was stored is not what this driver stores.
pub(crate) fn corrupt(operation: &'static str, message: impl Into<String>) -> DriverError {
    DriverError::new(ErrorKind::Corrupt, operation, message)
}

/// Codes of errors after which there is no room.
const NO_ROOM: [u64; 6] = [10002, 10023, 10028, 10047, 10077, 10122];

/// Codes of what is refused before other servers get it; 0: by the client.
const BEFORE_REPLICATION: [u64; 6] = [0, 10002, 10028, 10047, WRONG_LAST, 10122];

/// A condition on the last sequence does not hold. Beside it there is one that says that others are about to write, after
/// which one may try again.
const WRONG_LAST: u64 = 10071;

/// Why the server did not store a message.
#[derive(Clone, Debug)]
pub(crate) struct Refusal {
    pub(crate) code: u64,
    pub(crate) description: String,
}

impl Refusal {
    /// The message's condition does not hold.
    pub(crate) fn is_conflict(&self) -> bool {
        self.code == WRONG_LAST
    }

    /// Whether no server has stored it. With replicas, some of these answers come from a leader that could not store what the others
    /// may have: then only those are certain that a server gives before it asks the others.
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
