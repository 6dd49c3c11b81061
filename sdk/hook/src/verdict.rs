//! What a hook says.

use serde::Serialize;

use crate::exchange::AccessError;

/// What `check` and `react` give.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A pre hook lets the change pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Accept,
    /// With this JSON text as the data instead. It is validated again, and needs the grant `amend`.
    Amend(String),
}

impl Verdict {
    /// With `data` instead, all of it: what the type does not know is gone. [`crate::Change::amend`] changes single members.
    pub fn amend(data: &impl Serialize) -> Result<Verdict> {
        Ok(Verdict::Amend(serde_json::to_string(data)?))
    }
}

/// A refusal of the change, for the client (422).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reject {
    pub message: String,
    /// JSON Pointers into the data, each with what is wrong there.
    pub fields: Vec<(String, String)>,
}

impl Reject {
    pub fn new(message: impl Into<String>) -> Reject {
        Reject { message: message.into(), fields: Vec::new() }
    }

    /// Says what is wrong at one place, such as `/customer`.
    #[must_use]
    pub fn field(mut self, pointer: impl Into<String>, message: impl Into<String>) -> Reject {
        self.fields.push((pointer.into(), message.into()));
        self
    }
}

/// Why a hook does not let a change pass, or did not do its work. What a capability refuses becomes a failure with `?`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// The change is refused. In a post hook, where it has happened, a failure.
    Reject(Reject),
    /// The hook came to no decision: a pre hook's change is not stored (502), a post hook is tried again.
    Fail(String),
}

impl From<Reject> for Error {
    fn from(reject: Reject) -> Self {
        Error::Reject(reject)
    }
}

impl From<AccessError> for Error {
    fn from(error: AccessError) -> Self {
        Error::Fail(error.to_string())
    }
}

impl From<serde_json::Error> for Error {
    fn from(error: serde_json::Error) -> Self {
        Error::Fail(error.to_string())
    }
}

impl From<String> for Error {
    fn from(message: String) -> Self {
        Error::Fail(message)
    }
}

impl From<&str> for Error {
    fn from(message: &str) -> Self {
        Error::Fail(message.to_owned())
    }
}
