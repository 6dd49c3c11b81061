//! What the client library's errors mean to the server.

use std::error::Error as _;

use snaphook_driver::{DriverError, ErrorKind};
use tokio_postgres::Error;
use tokio_postgres::error::{DbError, SqlState};

/// Makes a driver's error of one of the library.
pub(crate) fn fault(operation: &'static str) -> impl Fn(Error) -> DriverError {
    move |error| match error.as_db_error() {
        Some(said) => told(operation, said),
        None if error.is_closed() => {
            DriverError::new(ErrorKind::Unavailable, operation, "the connection to PostgreSQL was closed")
        }
        None => {
            let causes = causes(&error);
            let (kind, message) = if causes.contains("does not support TLS") {
                (ErrorKind::Config, "the server offers no TLS; turn it on there, or set `tls = 'off'`")
            } else if is_lost(&error) {
                (ErrorKind::Unavailable, "PostgreSQL cannot be reached")
            } else {
                (ErrorKind::Unexpected, "PostgreSQL sent what cannot be read")
            };
            DriverError::new(kind, operation, message).because(causes)
        }
    }
}

/// Stored data that no driver wrote.
pub(crate) fn corrupt(operation: &'static str, message: impl Into<String>) -> DriverError {
    DriverError::new(ErrorKind::Corrupt, operation, message)
}

/// What the server itself says. Its details are left out: they may hold data.
fn told(operation: &'static str, said: &DbError) -> DriverError {
    let (kind, advice) = kind(said.code());
    let message = match advice {
        "" => format!("PostgreSQL refuses: {}", said.message()),
        advice => format!("PostgreSQL refuses: {}; {advice}", said.message()),
    };
    DriverError::new(kind, operation, message).with("SQLSTATE", said.code().code())
}

fn kind(code: &SqlState) -> (ErrorKind, &'static str) {
    match code.code() {
        "53100" => (ErrorKind::Full, "the disk of the server is full"),
        "53300" => (ErrorKind::Unavailable, "raise `max_connections` of the server or lower `pool`"),
        "25006" => (ErrorKind::Unavailable, "the server is a standby; connect to the primary"),
        "57014" | "55P03" => (ErrorKind::Unavailable, "the server did not get to it in time"),
        "26000" | "42P05" => {
            (ErrorKind::Config, "a connection pooler seems to stand before the server; set `pgbouncer = true`")
        }
        "28000" | "28P01" => (ErrorKind::Config, "check `user` and `password`, and `pg_hba.conf` of the server"),
        "3D000" => (ErrorKind::Config, "create the database, or name another one"),
        "42501" => (ErrorKind::Config, "grant the role what it needs: its own schema, or CREATE on the database"),
        "42P01" | "3F000" => (ErrorKind::Corrupt, "something removed a table of Snaphook; restore it from a backup"),
        "XX001" | "XX002" => (ErrorKind::Corrupt, ""),
        code if ["08", "40", "53", "57", "58"].iter().any(|class| code.starts_with(class)) => {
            (ErrorKind::Unavailable, "")
        }
        _ => (ErrorKind::Unexpected, ""),
    }
}

/// Whether the connection itself failed, rather than what it carried.
pub(crate) fn is_lost(error: &Error) -> bool {
    let is_io = std::iter::successors(error.source(), |&cause| cause.source())
        .any(|cause| cause.is::<std::io::Error>() || cause.is::<rustls::Error>());
    // What cannot be reached has no cause but a text in some cases.
    let text = error.to_string();
    let is_before = ["error connecting", "error performing TLS handshake"].iter().any(|start| text.starts_with(start));
    error.is_closed() || is_io || is_before || error.code().is_some_and(is_end)
}

/// Whether a statement that was prepared is of no more use on its connection: tables changed, or it is not there any more.
pub(crate) fn is_stale(error: &Error) -> bool {
    error.code().is_some_and(|code| matches!(code.code(), "0A000" | "26000" | "42P05"))
}

/// Codes with which the server ends a connection.
fn is_end(code: &SqlState) -> bool {
    code.code().starts_with("57P") || code.code().starts_with("08") || code.code() == "25P03"
}

/// What went wrong. The error itself only says where.
fn causes(error: &Error) -> String {
    let causes = std::iter::successors(Some(error as &dyn std::error::Error), |&cause| cause.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
