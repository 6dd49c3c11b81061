//! The results of a hook.

use serde::Serialize;

use crate::exchange::AccessError;

/// The result of `check` and `react`.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A pre hook accepts the change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Accept,
    /// Accepts the change with this JSON text as its data, which is validated again. Needs the grant `amend`.
    Amend(String),
}

impl Verdict {
    /// Accepts the change with `data` as its whole data: members that the type does not have are lost.
    /// [`crate::Change::amend`] changes single members.
    pub fn amend(data: &impl Serialize) -> Result<Verdict> {
        Ok(Verdict::Amend(serde_json::to_string(data)?))
    }
}

/// A rejection of the change, for the client (422).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reject {
    pub message: String,
    /// JSON Pointers into the data, each with a message.
    pub fields: Vec<(String, String)>,
}

impl Reject {
    pub fn new(message: impl Into<String>) -> Reject {
        Reject { message: message.into(), fields: Vec::new() }
    }

    /// Adds a message for one place, such as `/customer`.
    #[must_use]
    pub fn field(mut self, pointer: impl Into<String>, message: impl Into<String>) -> Reject {
        self.fields.push((pointer.into(), message.into()));
        self
    }
}

/// Why a hook rejects a change, or failed. With `?`, the error of a host call becomes a failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// The change is rejected. In a post hook, which is too late for that, this is a failure.
    Reject(Reject),
    /// The hook failed: a pre hook's change is not stored (502), a post hook is retried.
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
