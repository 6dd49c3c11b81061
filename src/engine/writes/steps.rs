//! A change between its steps: a command, prepared, submitted to the committer.

use std::sync::Arc;

use snaphook_driver::{Append, EventKind, Instance};
use tokio::sync::oneshot;

use crate::catalog::is_instance_id;
use crate::engine::command::{HookDecision, InstanceChange, Precondition, Written};
use crate::engine::committer::{AppendResult, Committed};
use crate::engine::error::{Error, Result};
use crate::engine::idempotency::IdempotencyKey;
use crate::engine::models::LiveModel;

/// A change and its instance.
#[derive(Clone)]
pub(super) struct WriteCommand {
    pub(super) id: String,
    /// The id was generated here, so no such instance exists.
    pub(super) fresh: bool,
    pub(super) change: InstanceChange,
}

impl WriteCommand {
    /// The instance, if the request names it.
    pub(super) fn named(&self) -> Option<&str> {
        (!self.fresh).then_some(&*self.id)
    }

    /// Checks the instance's id; generates one for a creation without an id, so that every attempt has the same
    /// instance.
    pub(super) fn new(mut change: InstanceChange) -> Result<WriteCommand> {
        let id = match &mut change {
            InstanceChange::Create { id, .. } => id.take(),
            InstanceChange::Replace { id, .. } | InstanceChange::Patch { id, .. } | InstanceChange::Delete { id } => {
                Some(id.clone())
            }
        };
        match id {
            None => Ok(WriteCommand { id: uuid::Uuid::now_v7().to_string(), fresh: true, change }),
            Some(id) if is_instance_id(&id) => Ok(WriteCommand { id, fresh: false, change }),
            Some(id) => Err(Error::bad_request(format!(
                "`{}` is not an instance id: 1 to 128 letters, digits, `.`, `_`, `~`, `-` are expected, the first a letter or digit",
                id.chars().take(140).collect::<String>().escape_debug()
            ))),
        }
    }
}

/// A change that passed its pre hooks and is ready to be written.
pub(super) struct PreparedWrite {
    pub(super) append: Append,
    /// The new instance or, for a deletion, the old one; position and times are not filled in yet.
    pub(super) instance: Instance,
    pub(super) entry: Arc<LiveModel>,
    pub(super) key: Option<IdempotencyKey>,
    /// Errors may not name other instances.
    pub(super) hides_others: bool,
}

/// An operation whose instance has an id.
pub(super) struct One {
    pub(super) model: String,
    pub(super) command: WriteCommand,
    pub(super) precondition: Precondition,
}

/// The outcome of drafting a change.
#[expect(clippy::large_enum_variant, reason = "nearly every draft passes: boxing it would cost each change")]
pub(super) enum Drafted {
    Pass {
        append: Append,
        instance: Instance,
        decisions: Vec<HookDecision>,
    },
    /// A pre hook rejected it, or failed.
    Stop {
        error: Error,
        decisions: Vec<HookDecision>,
    },
}

/// The outcome of preparing a change.
pub(super) enum PrepareOutcome {
    Write(Box<PreparedWrite>),
    /// It deletes an instance of a model that others refer to, which may cause further changes.
    DeleteTarget,
    /// Nothing is to be written: a dry run, or the first result of the idempotency key.
    Answer(Box<Written>),
}

/// Its result, the end of its post hooks, and the data to interpret the result.
pub(super) type Sent = (oneshot::Receiver<AppendResult>, Option<oneshot::Receiver<()>>, Submitted);

/// A change in the committer's queue.
pub(super) struct Submitted {
    pub(super) entry: Arc<LiveModel>,
    pub(super) kind: EventKind,
    pub(super) instance: Instance,
    pub(super) key: Option<IdempotencyKey>,
    pub(super) hides_others: bool,
}

impl Submitted {
    pub(super) fn written(mut self, committed: Committed) -> Written {
        if self.kind == EventKind::InstanceDeleted {
            return Written::Deleted(self.instance);
        }
        self.instance.position = committed.position;
        self.instance.updated_at = committed.time;
        if self.kind == EventKind::InstanceCreated {
            self.instance.created_at = committed.time;
            return Written::Created(self.instance);
        }
        Written::Updated(self.instance)
    }
}
