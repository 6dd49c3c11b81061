//! The one error type of all four stores.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;

/// The kind of a fault; it determines the server's reaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The driver's table in the configuration cannot work.
    Config,
    /// The store is unreachable, or responded too late.
    Unavailable,
    /// No space is left.
    Full,
    /// Stored data cannot be read.
    Corrupt,
    /// The driver does not support this, according to its capabilities.
    Unsupported,
    /// An expectation of the caller was not met.
    Conflict,
    /// The request itself is invalid.
    Invalid,
    /// The change may or may not have been stored; only a later read shows it.
    Uncertain,
    /// The read exceeded its [`crate::Budget`]; the message says which limit. The same read would exceed it again.
    TooComplex,
    /// Too many reads are waiting for their turn.
    Overloaded,
    /// Anything else.
    Unexpected,
}

impl ErrorKind {
    const fn as_str(self) -> &'static str {
        match self {
            ErrorKind::Config => "bad configuration",
            ErrorKind::Unavailable => "unavailable",
            ErrorKind::Full => "no space left",
            ErrorKind::Corrupt => "corrupt",
            ErrorKind::Unsupported => "unsupported",
            ErrorKind::Conflict => "conflict",
            ErrorKind::Invalid => "invalid request",
            ErrorKind::Uncertain => "uncertain",
            ErrorKind::TooComplex => "too complex",
            ErrorKind::Overloaded => "overloaded",
            ErrorKind::Unexpected => "failed",
        }
    }
}

/// Result of a driver call.
pub type Result<T, E = DriverError> = std::result::Result<T, E>;

/// A fault of a store: its kind, the operation, what it concerned, and the cause.
#[derive(Debug)]
pub struct DriverError {
    kind: ErrorKind,
    operation: Cow<'static, str>,
    message: String,
    context: Vec<(Cow<'static, str>, String)>,
    source: Option<Box<dyn StdError + Send + Sync>>,
    /// `None`: the kind decides.
    temporary: Option<bool>,
}

impl DriverError {
    /// `operation` is the trait's method, `message` one lowercase sentence without a full stop.
    pub fn new(kind: ErrorKind, operation: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        DriverError {
            kind,
            operation: operation.into(),
            message: message.into(),
            context: Vec::new(),
            source: None,
            temporary: None,
        }
    }

    /// Adds a fact that is not in the message. Must not contain a secret.
    #[must_use]
    pub fn with(mut self, key: impl Into<Cow<'static, str>>, value: impl fmt::Display) -> Self {
        self.context.push((key.into(), value.to_string()));
        self
    }

    /// Adds the cause.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Overrides whether the same call may succeed a little later, if the kind's default is wrong.
    #[must_use]
    pub fn temporary(mut self, temporary: bool) -> Self {
        self.temporary = Some(temporary);
        self
    }

    /// The same fault with another kind.
    #[must_use]
    pub fn as_kind(mut self, kind: ErrorKind) -> Self {
        self.kind = kind;
        self
    }

    /// What happened, without the operation, the context and the cause.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The kind of fault.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The trait's method.
    pub fn operation(&self) -> &str {
        &self.operation
    }

    /// The additional facts, in order.
    pub fn context(&self) -> impl Iterator<Item = (&str, &str)> {
        self.context.iter().map(|(key, value)| (&**key, value.as_str()))
    }

    /// Whether the same call may succeed a little later.
    pub fn is_temporary(&self) -> bool {
        self.temporary.unwrap_or(matches!(
            self.kind,
            ErrorKind::Unavailable | ErrorKind::Full | ErrorKind::Uncertain | ErrorKind::Overloaded
        ))
    }
}

impl fmt::Display for DriverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.operation, self.kind.as_str(), self.message)?;
        for (key, value) in &self.context {
            write!(f, ", {key} `{value}`")?;
        }
        if let Some(source) = &self.source {
            write!(f, ": {source}")?;
        }
        Ok(())
    }
}

impl StdError for DriverError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
