//! Why a caller was not identified.

use std::borrow::Cow;
use std::fmt;

/// The kind of the response. A client learns no more than this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeniedKind {
    /// There is no `Authorization` header. 401.
    Missing,
    /// The header does not contain a bearer token. 401.
    Malformed,
    /// The token is unknown, revoked, expired, or not acceptable. 401.
    Refused,
    /// The issuer's keys are currently unavailable; the token may be valid. 503.
    Unavailable,
}

impl DeniedKind {
    /// Whether it counts as an attempt to guess.
    pub(crate) fn is_attempt(self) -> bool {
        matches!(self, DeniedKind::Malformed | DeniedKind::Refused)
    }
}

/// A kind, and a reason for the log. The reason contains no part of a token and no control characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denied {
    kind: DeniedKind,
    reason: Cow<'static, str>,
}

impl Denied {
    pub(crate) fn new(kind: DeniedKind, reason: impl Into<Cow<'static, str>>) -> Denied {
        Denied { kind, reason: reason.into() }
    }

    pub fn kind(&self) -> DeniedKind {
        self.kind
    }

    /// For the log, never for the client.
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for Denied {}
