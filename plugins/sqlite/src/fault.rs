//! Converts SQLite's errors to errors for the server.

use rusqlite::{Error, ErrorCode};
use snaphook_driver::{DriverError, ErrorKind};

/// A closure for `map_err` that names the trait's method.
pub(crate) fn fault(operation: &'static str) -> impl Fn(Error) -> DriverError + Copy {
    move |error| {
        let (kind, message) = classify(&error);
        DriverError::new(kind, operation, message).because(error)
    }
}

/// A stored value that cannot be read back.
pub(crate) fn corrupt(operation: &'static str, message: impl Into<String>) -> DriverError {
    DriverError::new(ErrorKind::Corrupt, operation, message)
}

fn classify(error: &Error) -> (ErrorKind, &'static str) {
    match error {
        Error::SqliteFailure(failure, _) => match failure.code {
            ErrorCode::DiskFull => (ErrorKind::Full, "the disk is full; free some space"),
            ErrorCode::DatabaseCorrupt => (ErrorKind::Corrupt, "the database file is damaged"),
            ErrorCode::NotADatabase => (ErrorKind::Corrupt, "the file is not an SQLite database"),
            ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => {
                (ErrorKind::Unavailable, "another program has locked the database file")
            }
            ErrorCode::SystemIoFailure => (ErrorKind::Unavailable, "the disk failed"),
            ErrorCode::OutOfMemory => (ErrorKind::Unavailable, "out of memory"),
            ErrorCode::CannotOpen => (ErrorKind::Unavailable, "the database file cannot be opened"),
            ErrorCode::PermissionDenied | ErrorCode::ReadOnly => {
                (ErrorKind::Config, "the database file or its folder cannot be written")
            }
            ErrorCode::TooBig => (ErrorKind::Invalid, "the value is too large"),
            _ => (ErrorKind::Unexpected, "SQLite returned an error"),
        },
        Error::FromSqlConversionFailure(..) | Error::InvalidColumnType(..) | Error::IntegralValueOutOfRange(..) => {
            (ErrorKind::Corrupt, "a stored value cannot be read back")
        }
        _ => (ErrorKind::Unexpected, "SQLite returned an error"),
    }
}
