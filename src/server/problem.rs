//! Problems (RFC 9457): the only place that maps kinds of errors to statuses and problem types.

use std::time::Duration;

use hyper::StatusCode;
use hyper::header::HeaderValue;

use crate::engine::{Error, ErrorKind};
use crate::hooks::context::FieldError;
use crate::memory::Shortage;
use crate::telemetry::repeats::Repeats;

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
    /// An internal error of the server; has no separate type in the contract (`about:blank`).
    Internal,
}

impl ProblemType {
    #[cfg(test)]
    pub(super) const ALL: [ProblemType; 28] = {
        use ProblemType as T;
        // One more needs a place here.
        assert!(T::Internal as usize == 27);
        [
            T::BadRequest,
            T::Unauthorized,
            T::Forbidden,
            T::NotFound,
            T::MethodNotAllowed,
            T::Exists,
            T::NotUnique,
            T::Conflict,
            T::ModelInUse,
            T::Referenced,
            T::PreconditionFailed,
            T::TooLarge,
            T::UnsupportedMediaType,
            T::RangeNotSatisfiable,
            T::Invalid,
            T::Rejected,
            T::Incompatible,
            T::TooComplex,
            T::KeyReused,
            T::PositionUnknown,
            T::HookFailed,
            T::EndpointFailed,
            T::NotSupported,
            T::RateLimited,
            T::Overloaded,
            T::Unavailable,
            T::Storage,
            T::Internal,
        ]
    };

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

/// Store errors that occurred in requests.
static REPEATS: Repeats = Repeats::new();

/// Why a request failed.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) kind: ProblemType,
    pub(super) detail: String,
    pub(super) errors: Vec<FieldError>,
    pub(super) hook: Option<String>,
    /// For 429: when the caller may retry.
    pub(super) retry_after: Option<Duration>,
    /// For 405: the methods of the route.
    pub(super) allow: Option<Box<str>>,
    /// For 416: `Content-Range` with the length of the file.
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

    /// The caller has exceeded its rate limit.
    pub(super) fn rate_limited(wait: Duration) -> Self {
        let detail = "more requests than `server.limits.requests-per-second` allows for one token or address";
        Problem { retry_after: Some(wait), ..Problem::new(ProblemType::RateLimited, detail) }
    }

    /// The route exists, but not for this method.
    pub(super) fn method_not_allowed(allow: String) -> Self {
        let detail = format!("this path does not support that method, only {allow}");
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

/// Of a body.
impl From<FieldError> for Problem {
    fn from(fault: FieldError) -> Self {
        Error::from(fault).into()
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        // Other kinds are errors of the caller. An error without a source is a response that many callers get at once;
        // its cause was logged where it occurred.
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
