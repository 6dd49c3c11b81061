//! Problems (RFC 9457): the one place where a kind of error becomes a status and a problem type.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use hyper::StatusCode;
use hyper::header::HeaderValue;

use crate::engine::{Error, ErrorKind};
use crate::hooks::context::FieldError;
use crate::memory::Shortage;

/// Result of a handler.
pub(super) type Result<T, E = Problem> = std::result::Result<T, E>;

/// The types of the contract; the names are stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ProblemType {
    BadRequest,
    Unauthorized,
    Forbidden,
    NotFound,
    MethodNotAllowed,
    Exists,
    NotUnique,
    Conflict,
    ModelInUse,
    Referenced,
    PreconditionFailed,
    TooLarge,
    UnsupportedMediaType,
    RangeNotSatisfiable,
    Invalid,
    Rejected,
    Incompatible,
    TooComplex,
    KeyReused,
    PositionUnknown,
    HookFailed,
    EndpointFailed,
    NotSupported,
    RateLimited,
    Overloaded,
    Unavailable,
    Storage,
    /// A fault of the server itself; has no type of its own in the contract (`about:blank`).
    Internal,
}

impl ProblemType {
    /// Suffix of `type`, title, status.
    pub(super) const fn describe(self) -> (&'static str, &'static str, StatusCode) {
        use ProblemType as T;
        match self {
            T::BadRequest => ("bad-request", "Bad request", StatusCode::BAD_REQUEST),
            T::Unauthorized => ("unauthorized", "Unauthorized", StatusCode::UNAUTHORIZED),
            T::Forbidden => ("forbidden", "Forbidden", StatusCode::FORBIDDEN),
            T::NotFound => ("not-found", "Not found", StatusCode::NOT_FOUND),
            T::MethodNotAllowed => ("method-not-allowed", "Method not allowed", StatusCode::METHOD_NOT_ALLOWED),
            T::Exists => ("exists", "Exists already", StatusCode::CONFLICT),
            T::NotUnique => ("not-unique", "Not unique", StatusCode::CONFLICT),
            T::Conflict => ("conflict", "Conflict", StatusCode::CONFLICT),
            T::ModelInUse => ("model-in-use", "Model in use", StatusCode::CONFLICT),
            T::Referenced => ("referenced", "Referred to by others", StatusCode::CONFLICT),
            T::PreconditionFailed => ("precondition-failed", "Precondition failed", StatusCode::PRECONDITION_FAILED),
            T::TooLarge => ("too-large", "Too large", StatusCode::PAYLOAD_TOO_LARGE),
            T::UnsupportedMediaType => {
                ("unsupported-media-type", "Unsupported media type", StatusCode::UNSUPPORTED_MEDIA_TYPE)
            }
            T::RangeNotSatisfiable => {
                ("range-not-satisfiable", "Range not satisfiable", StatusCode::RANGE_NOT_SATISFIABLE)
            }
            T::Invalid => ("invalid", "Invalid data", StatusCode::UNPROCESSABLE_ENTITY),
            T::Rejected => ("rejected", "Rejected by a hook", StatusCode::UNPROCESSABLE_ENTITY),
            T::Incompatible => ("incompatible", "Incompatible with instances", StatusCode::UNPROCESSABLE_ENTITY),
            T::TooComplex => ("too-complex", "Too complex", StatusCode::UNPROCESSABLE_ENTITY),
            T::KeyReused => ("idempotency-key-reused", "Idempotency key reused", StatusCode::UNPROCESSABLE_ENTITY),
            T::PositionUnknown => ("position-unknown", "Position unknown", StatusCode::GONE),
            T::HookFailed => ("hook-failed", "A hook failed", StatusCode::BAD_GATEWAY),
            T::EndpointFailed => ("endpoint-failed", "An endpoint failed", StatusCode::BAD_GATEWAY),
            T::NotSupported => ("not-supported", "Not supported", StatusCode::NOT_IMPLEMENTED),
            T::RateLimited => ("rate-limited", "Too many requests", StatusCode::TOO_MANY_REQUESTS),
            T::Overloaded => ("overloaded", "Overloaded", StatusCode::SERVICE_UNAVAILABLE),
            T::Unavailable => ("unavailable", "Unavailable", StatusCode::SERVICE_UNAVAILABLE),
            T::Storage => ("storage", "Storage failed", StatusCode::SERVICE_UNAVAILABLE),
            T::Internal => ("", "Internal error", StatusCode::INTERNAL_SERVER_ERROR),
        }
    }

    fn of(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::BadRequest => ProblemType::BadRequest,
            ErrorKind::Forbidden => ProblemType::Forbidden,
            ErrorKind::NotFound => ProblemType::NotFound,
            ErrorKind::Exists => ProblemType::Exists,
            ErrorKind::NotUnique => ProblemType::NotUnique,
            ErrorKind::Conflict => ProblemType::Conflict,
            ErrorKind::ModelInUse => ProblemType::ModelInUse,
            ErrorKind::Referenced => ProblemType::Referenced,
            ErrorKind::PreconditionFailed => ProblemType::PreconditionFailed,
            ErrorKind::TooLarge => ProblemType::TooLarge,
            ErrorKind::Invalid => ProblemType::Invalid,
            ErrorKind::Rejected => ProblemType::Rejected,
            ErrorKind::Incompatible => ProblemType::Incompatible,
            ErrorKind::TooComplex => ProblemType::TooComplex,
            ErrorKind::KeyReused => ProblemType::KeyReused,
            ErrorKind::PositionUnknown => ProblemType::PositionUnknown,
            ErrorKind::HookFailed => ProblemType::HookFailed,
            ErrorKind::NotSupported => ProblemType::NotSupported,
            ErrorKind::Overloaded => ProblemType::Overloaded,
            ErrorKind::Unavailable => ProblemType::Unavailable,
            ErrorKind::Storage => ProblemType::Storage,
        }
    }
}

/// Faults of stores that requests met.
static REPEATS: Repeats = Repeats(Mutex::new(Vec::new()));

/// A fault that goes on meets every request; the log gets it once in this time.
const REPEATED_AFTER: Duration = Duration::from_secs(60);
/// Messages that are remembered.
const REPEATS_MAX: usize = 16;

/// The messages that were logged lately, oldest first.
struct Repeats(Mutex<Vec<(String, Instant)>>);

impl Repeats {
    /// Whether this message was not logged lately. Then it is now.
    fn is_news(&self, message: &str) -> bool {
        let mut logged = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        logged.retain(|(_, time)| time.elapsed() < REPEATED_AFTER);
        if logged.iter().any(|(known, _)| known == message) {
            return false;
        }
        if logged.len() == REPEATS_MAX {
            logged.remove(0);
        }
        logged.push((message.to_owned(), Instant::now()));
        true
    }
}

/// Why a request was not answered with what was asked for.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) kind: ProblemType,
    pub(super) detail: String,
    pub(super) errors: Vec<FieldError>,
    pub(super) hook: Option<String>,
    /// Of a 429: when the caller may try again.
    pub(super) retry_after: Option<Duration>,
    /// Of a 405: the methods that the route has.
    pub(super) allow: Option<Box<str>>,
    /// Of a 416: `Content-Range`, which says how long the file is.
    pub(super) content_range: Option<Box<HeaderValue>>,
}

impl Problem {
    pub(super) fn new(kind: ProblemType, detail: impl Into<String>) -> Self {
        Problem {
            kind,
            detail: detail.into(),
            errors: Vec::new(),
            hook: None,
            retry_after: None,
            allow: None,
            content_range: None,
        }
    }

    pub(super) fn bad_request(detail: impl Into<String>) -> Self {
        Problem::new(ProblemType::BadRequest, detail)
    }

    pub(super) fn not_found(detail: impl Into<String>) -> Self {
        Problem::new(ProblemType::NotFound, detail)
    }

    /// The caller has had all requests that it may have for now.
    pub(super) fn rate_limited(wait: Duration) -> Self {
        let detail = "more requests than `server.limits.requests-per-second` allows for one token or address";
        Problem { retry_after: Some(wait), ..Problem::new(ProblemType::RateLimited, detail) }
    }

    /// The route is there, the method is not.
    pub(super) fn method_not_allowed(allow: String) -> Self {
        let detail = format!("this path does not answer that method, only {allow}");
        Problem { allow: Some(allow.into_boxed_str()), ..Problem::new(ProblemType::MethodNotAllowed, detail) }
    }

    pub(super) fn status(&self) -> StatusCode {
        self.kind.describe().2
    }

    pub(super) fn detail(&self) -> &str {
        &self.detail
    }
}

impl From<Shortage> for Problem {
    fn from(shortage: Shortage) -> Self {
        Error::from(shortage).into()
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        // Other kinds are the caller's business. Without a source it is an answer that many callers get at once, and what
        // is behind it was logged where it happened.
        if error.kind == ErrorKind::Storage && error.source.is_some() && REPEATS.is_news(&error.detail) {
            tracing::error!("{error}");
        }
        Problem {
            kind: ProblemType::of(error.kind),
            detail: error.detail,
            errors: error.errors,
            hook: error.hook,
            retry_after: None,
            allow: None,
            content_range: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_that_goes_on_is_logged_once() {
        let repeats = Repeats(Mutex::default());
        let all: Vec<bool> = ["a", "b", "a", "a", "b", "c"].map(|message| repeats.is_news(message)).to_vec();
        assert_eq!(all, [true, true, false, false, false, true]);
        for number in 0..100 {
            assert!(repeats.is_news(&number.to_string()));
        }
        assert_eq!(repeats.0.lock().unwrap().len(), REPEATS_MAX);
    }
}
