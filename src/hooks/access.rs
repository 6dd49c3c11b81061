//! What hooks may do to the rest of the server, as seen from the hook host: implemented by the engine above.

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use snaphook_driver::{Actor, Cause, Event, Instance, InstancePage, Position};

use crate::catalog::rules::Right;

/// Errors that a guest can handle.
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

/// The codes of the contract.
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

/// Who writes: the code as an actor, and the cause for the event.
#[derive(Clone, Debug)]
pub struct Writer {
    /// Such as `invoice.postCreate/mail`.
    pub actor: Arc<Actor>,
    /// `None`: no event led to it.
    pub cause: Option<Cause>,
    pub request_id: Option<String>,
    /// The place of the call in a trace, as events keep it.
    pub trace: Option<String>,
    /// The server's own, or that of the actor of the event.
    pub right: Right,
}

/// What a hook expects of an instance that it changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected {
    pub position: Position,
    /// The `model_version` in which the call read the instance at that position. `None`: it did not read it, so it knows
    /// it as the event at that position left it.
    pub model_version: Option<u64>,
}

/// The server's data, for hooks. Grants were checked by the caller ([`super::session::Session`]).
#[async_trait]
pub trait Access: Send + Sync {
    /// `None` if there is no such instance; `not-found` if there is no such model.
    async fn get(&self, model: &str, id: &str, right: &Right) -> Result<Option<Instance>, AccessError>;

    /// `query` is the JSON text `{filter?: {path: {op: value}}, sort?: "-a,b", limit?, cursor?}`, as in REST.
    async fn query(&self, model: &str, query: &str, right: &Right) -> Result<InstancePage, AccessError>;

    /// The event at a position.
    async fn event(&self, position: Position, right: &Right) -> Result<Option<Event>, AccessError>;

    /// A command like any other: validated, hooked, logged. `data` is JSON text.
    async fn create(&self, writer: &Writer, model: &str, id: Option<&str>, data: &str)
    -> Result<Instance, AccessError>;

    /// Replaces the data. An instance that is not as `expected` is a conflict: it was changed, or carried over to a new
    /// version of its model, and data in the old form would lose what was renamed.
    async fn update(
        &self,
        writer: &Writer,
        model: &str,
        id: &str,
        data: &str,
        expected: Option<Expected>,
    ) -> Result<Instance, AccessError>;

    /// Gives the instance as it was.
    async fn delete(
        &self,
        writer: &Writer,
        model: &str,
        id: &str,
        expected: Option<Expected>,
    ) -> Result<Instance, AccessError>;

    /// A secret's plain value; `None` if there is none.
    async fn secret(&self, name: &str) -> Result<Option<Vec<u8>>, AccessError>;
}

/// Instances as a call sees them that is part of several changes: what those before it will have made of them, and for the
/// rest what is stored. What is not written yet is at position 0. Both methods are those of [`Access`].
#[async_trait]
pub trait Ahead: Debug + Send + Sync {
    async fn get(&self, model: &str, id: &str, right: &Right) -> Result<Option<Instance>, AccessError>;

    async fn query(&self, model: &str, query: &str, right: &Right) -> Result<InstancePage, AccessError>;
}
