//! Why a command has no result, and the resulting error for the server.

use redis::RedisError;
use snaphook_driver::{DriverError, ErrorKind};

/// How many characters of the server's own text a message shows.
const TEXT_CHARS_MAX: usize = 200;

/// Why a command has no result.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The server responded with an error: it did nothing.
    Refused { code: String, text: String },
    /// No response arrived: the server may or may not have carried out the command.
    Lost(String),
}

impl Failure {
    pub(crate) fn late() -> Failure {
        Failure::Lost("the server did not respond in time".into())
    }

    /// The server closed the connection, or does not serve this driver on it; a new connection may reach another
    /// server.
    pub(crate) fn ends_connection(&self) -> bool {
        match self {
            Failure::Lost(_) => true,
            Failure::Refused { code, .. } => {
                matches!(code.as_str(), "READONLY" | "MASTERDOWN" | "MOVED" | "CLUSTERDOWN" | "NOAUTH")
            }
        }
    }

    /// The server does not allow this user to read its configuration, or lacks the command.
    pub(crate) fn forbids(&self) -> bool {
        matches!(self, Failure::Refused { code, .. } if !is_state(code) && code != "NOAUTH")
    }

    /// The error of a call. It shows a part of the server's text, but never `password`.
    pub(crate) fn into_error(self, operation: &'static str, address: &str, password: Option<&str>) -> DriverError {
        let (kind, message, text) = match self {
            Failure::Lost(reason) => (ErrorKind::Unavailable, reason, None),
            Failure::Refused { code, text } => {
                let (kind, message) = meaning(&code);
                (kind, message.to_owned(), Some(shown(&format!("{code} {text}"), password)))
            }
        };
        let error = DriverError::new(kind, operation, message).with("server", address);
        match text {
            Some(text) => error.with("response", text),
            None => error,
        }
    }
}

impl From<RedisError> for Failure {
    fn from(error: RedisError) -> Failure {
        // Errors of the server have a code; local ones have none.
        match error.code() {
            Some(code) => {
                Failure::Refused { code: code.to_owned(), text: error.detail().unwrap_or_default().to_owned() }
            }
            None if error.is_io_error() => Failure::Lost(format!("the connection to the server broke: {error}")),
            None => Failure::Lost("the server's response is not one of Redis".into()),
        }
    }
}

/// Whether a code is about the server's state instead of the command.
fn is_state(code: &str) -> bool {
    matches!(
        code,
        "LOADING"
            | "BUSY"
            | "MASTERDOWN"
            | "READONLY"
            | "MISCONF"
            | "OOM"
            | "CLUSTERDOWN"
            | "MOVED"
            | "TRYAGAIN"
            | "ASK"
            | "NOREPLICAS"
    )
}

fn meaning(code: &str) -> (ErrorKind, &'static str) {
    match code {
        "OOM" => (ErrorKind::Full, "the server's memory is full, raise its `maxmemory` or delete data"),
        "NOAUTH" => (ErrorKind::Config, "the server requires a password, set `password` of the connection"),
        "WRONGPASS" => (ErrorKind::Config, "the server does not accept this user and password"),
        "NOPERM" => (ErrorKind::Config, "this user lacks the permission, change the user's ACL"),
        "READONLY" => (ErrorKind::Unavailable, "the server is a replica, expected the primary"),
        "MOVED" | "ASK" => (
            ErrorKind::Unavailable,
            "the server is a cluster node and another node has these keys, set the address to the node in the response",
        ),
        "WRONGTYPE" => (
            ErrorKind::Corrupt,
            "a key of this store has been overwritten by something else, use a `prefix` that nobody else uses",
        ),
        code if is_state(code) => (ErrorKind::Unavailable, "the server is temporarily unable to do this"),
        _ => (ErrorKind::Unexpected, "the server rejected the command"),
    }
}

/// The first line of a text, without control characters and without the password, which the server may echo.
fn shown(text: &str, password: Option<&str>) -> String {
    let text = match password.filter(|password| !password.is_empty()) {
        Some(password) => text.replace(password, "…"),
        None => text.to_owned(),
    };
    text.trim().chars().take(TEXT_CHARS_MAX).flat_map(char::escape_debug).collect()
}
