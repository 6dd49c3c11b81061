//! Errors of commands and queries.
//!
//! One type for the whole engine: callers decide by [`ErrorKind`] (the server turns it into a status, in one place;
//! the hook host into an access code).

use std::fmt;

use snaphook_driver::DriverError;

use crate::catalog::DefinitionError;
use crate::hooks::context::FieldError;
use crate::memory::Shortage;

/// Result of an engine call.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The kind of an error. Each kind has one problem type in the REST API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    BadRequest,
    /// A rule of the model does not allow it.
    Forbidden,
    NotFound,
    Exists,
    NotUnique,
    Conflict,
    ModelInUse,
    /// Others refer to the instance or model to be deleted.
    Referenced,
    PreconditionFailed,
    TooLarge,
    Invalid,
    Rejected,
    Incompatible,
    /// Checking it exceeded a budget of steps, time, depth or memory.
    TooComplex,
    /// The idempotency key was used before with another body, or by another actor.
    KeyReused,
    /// A position beyond the end of this log, or of another log.
    PositionUnknown,
    HookFailed,
    /// The store does not support it.
    NotSupported,
    Overloaded,
    /// A store, or one model, is catching up or unavailable.
    Unavailable,
    Storage,
}

impl ErrorKind {
    /// The name of its problem type, such as `not-found`.
    pub const fn as_str(self) -> &'static str {
        match self {
            ErrorKind::BadRequest => "bad-request",
            ErrorKind::Forbidden => "forbidden",
            ErrorKind::NotFound => "not-found",
            ErrorKind::Exists => "exists",
            ErrorKind::NotUnique => "not-unique",
            ErrorKind::Conflict => "conflict",
            ErrorKind::ModelInUse => "model-in-use",
            ErrorKind::Referenced => "referenced",
            ErrorKind::PreconditionFailed => "precondition-failed",
            ErrorKind::TooLarge => "too-large",
            ErrorKind::Invalid => "invalid",
            ErrorKind::Rejected => "rejected",
            ErrorKind::Incompatible => "incompatible",
            ErrorKind::TooComplex => "too-complex",
            ErrorKind::KeyReused => "idempotency-key-reused",
            ErrorKind::PositionUnknown => "position-unknown",
            ErrorKind::HookFailed => "hook-failed",
            ErrorKind::NotSupported => "not-supported",
            ErrorKind::Overloaded => "overloaded",
            ErrorKind::Unavailable => "unavailable",
            ErrorKind::Storage => "storage",
        }
    }
}

/// A rejection or a fault, with everything that the caller needs to react to it.
#[derive(Debug)]
pub struct Error {
    pub kind: ErrorKind,
    /// One sentence: what, where, what was expected, what to do.
    pub detail: String,
    /// JSON Pointers into the request body.
    pub errors: Vec<FieldError>,
    /// Name of the hook that rejected or failed.
    pub hook: Option<String>,
    /// Models that the error mentions although the request did not: only callers who may read them get the error.
    pub models: Vec<String>,
    /// The cause, for the log only.
    pub source: Option<Box<DriverError>>,
}

impl Error {
    pub fn new(kind: ErrorKind, detail: impl Into<String>) -> Self {
        Error { kind, detail: detail.into(), errors: Vec::new(), hook: None, models: Vec::new(), source: None }
    }

    #[must_use]
    pub fn with_errors(mut self, errors: Vec<FieldError>) -> Self {
        self.errors = errors;
        self
    }

    #[must_use]
    pub fn with_hook(mut self, hook: impl Into<String>) -> Self {
        self.hook = Some(hook.into());
        self
    }

    #[must_use]
    pub fn telling_of<'m>(mut self, models: impl IntoIterator<Item = &'m String>) -> Self {
        self.models.extend(models.into_iter().cloned());
        self
    }

    /// The cause was already logged.
    #[must_use]
    pub(super) fn logged(self) -> Self {
        Error { source: None, ..self }
    }

    pub fn bad_request(detail: impl Into<String>) -> Self {
        Error::new(ErrorKind::BadRequest, detail)
    }

    pub fn not_found(detail: impl Into<String>) -> Self {
        Error::new(ErrorKind::NotFound, detail)
    }
}

/// For requests while the server stops.
pub(super) fn stopped() -> Error {
    Error::new(ErrorKind::Unavailable, "the server is stopping; try again when it is back")
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

impl From<Shortage> for Error {
    fn from(shortage: Shortage) -> Self {
        let kind = if shortage.can_fit() { ErrorKind::Overloaded } else { ErrorKind::TooLarge };
        Error::new(kind, shortage.to_string())
    }
}

impl From<DefinitionError> for Error {
    fn from(error: DefinitionError) -> Self {
        let kind = if error.too_complex { ErrorKind::TooComplex } else { ErrorKind::Invalid };
        let errors = vec![FieldError { pointer: error.pointer.clone(), message: error.message.clone() }];
        Error::new(kind, error.message).with_errors(errors)
    }
}

impl From<DriverError> for Error {
    fn from(source: DriverError) -> Self {
        let kind = match source.kind() {
            snaphook_driver::ErrorKind::Invalid => ErrorKind::BadRequest,
            snaphook_driver::ErrorKind::TooComplex => ErrorKind::TooComplex,
            snaphook_driver::ErrorKind::Overloaded => ErrorKind::Overloaded,
            _ => ErrorKind::Storage,
        };
        let detail = match kind {
            ErrorKind::TooComplex | ErrorKind::Overloaded => source.message().to_owned(),
            ErrorKind::Storage => format!("a store failed, nothing was acknowledged: {source}"),
            _ => source.to_string(),
        };
        Error { kind, detail, errors: Vec::new(), hook: None, models: Vec::new(), source: Some(Box::new(source)) }
    }
}
