//! The hook host's interface to the rest of the server, which the engine above implements.

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use snaphook_driver::{Actor, Cause, Event, Instance, InstancePage, Position};

use crate::catalog::rules::Right;

/// An error that a guest can handle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessError {
    pub code: AccessCode,
    pub message: String,
}

impl AccessError {
    pub fn new(code: AccessCode, message: impl Into<String>) -> Self {
        AccessError { code, message: message.into() }
    }
}

/// The error codes of the hook contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessCode {
    Denied,
    NotFound,
    Exists,
    Conflict,
    Invalid,
    Rejected,
    Timeout,
    TooLarge,
    Failed,
}

impl AccessCode {
    pub const fn as_str(self) -> &'static str {
        match self {
            AccessCode::Denied => "denied",
            AccessCode::NotFound => "not-found",
            AccessCode::Exists => "exists",
            AccessCode::Conflict => "conflict",
            AccessCode::Invalid => "invalid",
            AccessCode::Rejected => "rejected",
            AccessCode::Timeout => "timeout",
            AccessCode::TooLarge => "too-large",
            AccessCode::Failed => "failed",
        }
    }
}

/// The author of a write: the code as an actor, and the cause to record in the event.
#[derive(Clone, Debug)]
pub struct Author {
    /// Such as `invoice.postCreate/mail`.
    pub actor: Arc<Actor>,
    /// `None`: no event caused the write.
    pub cause: Option<Cause>,
    pub request_id: Option<String>,
    /// The call's position in a trace, as events store it.
    pub trace: Option<String>,
    /// The server's right, or that of the event's actor.
    pub right: Right,
}

/// The state that a hook expects of an instance that it changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected {
    pub position: Position,
    /// The `model_version` in which the call read the instance at that position. `None` if the call did not read it; it
    /// then knows the instance as the event at that position left it.
    pub model_version: Option<u64>,
}

/// Gives hooks access to the server's data. The caller has already checked the grants ([`super::session::Session`]).
#[async_trait]
pub trait Access: Send + Sync {
    /// `None` if there is no such instance; `not-found` if there is no such model.
    async fn get(&self, model: &str, id: &str, right: &Right) -> Result<Option<Instance>, AccessError>;

    /// `query` is the JSON text `{filter?: {path: {op: value}}, sort?: "-a,b", limit?, cursor?}`, as in REST.
    async fn query(&self, model: &str, query: &str, right: &Right) -> Result<InstancePage, AccessError>;

    /// The event at a position.
    async fn event(&self, position: Position, right: &Right) -> Result<Option<Event>, AccessError>;

    /// An ordinary command: it is validated, runs hooks and is logged. `data` is JSON text.
    async fn create(&self, author: &Author, model: &str, id: Option<&str>, data: &str)
    -> Result<Instance, AccessError>;

    /// Replaces the data. It is a conflict if the instance is not as `expected`: it was changed, or it was converted to
    /// a new version of its model, and data in the old form would lose renamed properties.
    async fn update(
        &self,
        author: &Author,
        model: &str,
        id: &str,
        data: &str,
        expected: Option<Expected>,
    ) -> Result<Instance, AccessError>;

    /// Returns the instance as it was before.
    async fn delete(
        &self,
        author: &Author,
        model: &str,
        id: &str,
        expected: Option<Expected>,
    ) -> Result<Instance, AccessError>;

    /// A secret's plain value; `None` if there is no such secret.
    async fn secret(&self, name: &str) -> Result<Option<Vec<u8>>, AccessError>;
}

/// Instances as seen by a call in a batch of changes: with the results of the batch's earlier changes, and otherwise as
/// stored. Instances that are not written yet have position 0. Both methods correspond to those of [`Access`].
#[async_trait]
pub trait Ahead: Debug + Send + Sync {
    async fn get(&self, model: &str, id: &str, right: &Right) -> Result<Option<Instance>, AccessError>;

    async fn query(&self, model: &str, query: &str, right: &Right) -> Result<InstancePage, AccessError>;
}
