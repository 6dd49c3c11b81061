//! Converts errors of the client library to the driver's errors.

use std::error::Error as _;

use snaphook_driver::{DriverError, ErrorKind};
use tokio_postgres::Error;
use tokio_postgres::error::{DbError, SqlState};

/// A closure that converts an error of the library.
pub(crate) fn fault(operation: &'static str) -> impl Fn(Error) -> DriverError {
    move |error| match error.as_db_error() {
        Some(said) => told(operation, said),
        None if error.is_closed() => {
            DriverError::new(ErrorKind::Unavailable, operation, "the connection to PostgreSQL was closed")
        }
        None => {
            let causes = causes(&error);
            let (kind, message) = if causes.contains("does not support TLS") {
                (ErrorKind::Config, "the server does not support TLS; enable it there, or set `tls = 'off'`")
            } else if is_lost(&error) {
                (ErrorKind::Unavailable, "PostgreSQL cannot be reached")
            } else {
                (ErrorKind::Unexpected, "the response of PostgreSQL cannot be read")
            };
            DriverError::new(kind, operation, message).because(causes)
        }
    }
}

/// The error for stored data that no driver wrote.
pub(crate) fn corrupt(operation: &'static str, message: impl Into<String>) -> DriverError {
    DriverError::new(ErrorKind::Corrupt, operation, message)
}

/// Converts an error message of the server. Its details are left out, because they may contain data.
fn told(operation: &'static str, said: &DbError) -> DriverError {
    let (kind, advice) = kind(said.code());
    let message = match advice {
        "" => format!("PostgreSQL rejected the request: {}", said.message()),
        advice => format!("PostgreSQL rejected the request: {}; {advice}", said.message()),
    };
    DriverError::new(kind, operation, message).with("SQLSTATE", said.code().code())
}

fn kind(code: &SqlState) -> (ErrorKind, &'static str) {
    match code.code() {
        "53100" => (ErrorKind::Full, "the disk of the server is full"),
        "53300" => (ErrorKind::Unavailable, "raise `max_connections` of the server or lower `pool`"),
        "25006" => (ErrorKind::Unavailable, "the server is a standby; connect to the primary"),
        "57014" | "55P03" => (ErrorKind::Unavailable, "the statement, or its wait for a lock, timed out"),
        "26000" | "42P05" => {
            (ErrorKind::Config, "a connection pooler seems to be in front of the server; set `pgbouncer = true`")
        }
        "28000" | "28P01" => (ErrorKind::Config, "check `user` and `password`, and `pg_hba.conf` of the server"),
        "3D000" => (ErrorKind::Config, "create the database, or name another one"),
        "42501" => (ErrorKind::Config, "grant the role what it needs: its own schema, or CREATE on the database"),
        "42P01" | "3F000" => {
            (ErrorKind::Corrupt, "a table of Snaphook or its schema is missing; restore it from a backup")
        }
        "XX001" | "XX002" => (ErrorKind::Corrupt, ""),
        code if ["08", "40", "53", "57", "58"].iter().any(|class| code.starts_with(class)) => {
            (ErrorKind::Unavailable, "")
        }
        _ => (ErrorKind::Unexpected, ""),
    }
}

/// Whether the connection itself failed, not a statement on it.
pub(crate) fn is_lost(error: &Error) -> bool {
    let is_io = std::iter::successors(error.source(), |&cause| cause.source())
        .any(|cause| cause.is::<std::io::Error>() || cause.is::<rustls::Error>());
    // Some errors of connecting have no cause, only a text.
    let text = error.to_string();
    let is_before = ["error connecting", "error performing TLS handshake"].iter().any(|start| text.starts_with(start));
    error.is_closed() || is_io || is_before || error.code().is_some_and(is_end)
}

/// Whether a prepared statement can no longer be used on its connection: tables have changed, or it no longer exists.
pub(crate) fn is_stale(error: &Error) -> bool {
    error.code().is_some_and(|code| matches!(code.code(), "0A000" | "26000" | "42P05"))
}

/// The codes with which the server closes a connection.
fn is_end(code: &SqlState) -> bool {
    code.code().starts_with("57P") || code.code().starts_with("08") || code.code() == "25P03"
}

/// The error with its causes; its own text only says where it occurred.
fn causes(error: &Error) -> String {
    let causes = std::iter::successors(Some(error as &dyn std::error::Error), |&cause| cause.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
