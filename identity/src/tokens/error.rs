//! Why tokens could not be created, listed or revoked.

use std::fmt;

use snaphook_driver::DriverError;

/// The kind of an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenErrorKind {
    /// A token of that name exists.
    Exists,
    /// There is no token of that name.
    NotFound,
    /// The request is invalid.
    Invalid,
    /// The secure store failed or contains an invalid list of tokens, or the file for the first token cannot be
    /// written.
    Store,
}

#[derive(Debug)]
pub struct TokenError {
    kind: TokenErrorKind,
    message: String,
}

impl TokenError {
    pub(super) fn new(kind: TokenErrorKind, message: impl Into<String>) -> TokenError {
        TokenError { kind, message: message.into() }
    }

    pub(super) fn invalid(message: impl Into<String>) -> TokenError {
        TokenError::new(TokenErrorKind::Invalid, message)
    }

    pub(super) fn store(what: &str, error: &DriverError) -> TokenError {
        TokenError::new(TokenErrorKind::Store, format!("{what}: {error}"))
    }

    pub fn kind(&self) -> TokenErrorKind {
        self.kind
    }
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for TokenError {}
