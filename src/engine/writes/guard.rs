//! Checks whether the rules of a model allow a change, on the state that the change is applied to. The append succeeds
//! only if that state is current, so no race can bypass the rules.

use serde_json::Value;
use snaphook_driver::compare::InstanceView;
use snaphook_driver::time::{self, Millis};
use snaphook_driver::{EventKind, Instance};

use crate::catalog::document::Document;
use crate::catalog::rules::{Operation, Right, Rules, Subject};
use crate::engine::command::Origin;
use crate::engine::error::{Error, ErrorKind, Result};
use crate::engine::models::LiveModel;
use crate::engine::reads::check_version;
use crate::memory::{Lease, Share, tree_bytes};

/// One change under the rules of its model.
pub(super) struct Guard<'a> {
    model: &'a str,
    rules: &'a Rules,
    subject: &'a Subject,
    now: Millis,
    /// The tree of the current instance.
    before: Option<Value>,
}

impl<'a> Guard<'a> {
    /// `None`: the rules do not apply, or there are none.
    pub(super) fn new(
        entry: &'a LiveModel,
        origin: &'a Origin,
        current: Option<&Instance>,
        trees: &Lease<&Share>,
    ) -> Result<Option<Guard<'a>>> {
        let (Some(rules), Some(subject)) = (&entry.model.rules, origin.right.subject()) else { return Ok(None) };
        let before = match current {
            Some(current) => {
                check_version(&entry.model, current)?;
                trees.grow(tree_bytes(current.data.as_bytes()))?;
                Some(current.data.to_value().map_err(|error| Error::new(ErrorKind::Storage, error.to_string()))?)
            }
            None => None,
        };
        Ok(Some(Guard { model: &entry.model.record.id, rules, subject, now: time::now(), before }))
    }

    /// Whether the instance does not exist for the caller.
    pub(super) fn hides(&self, current: &Instance) -> bool {
        let Some(tree) = &self.before else { return false };
        !self.rules.may_read(self.subject, self.now, current, tree)
    }

    /// Rejects early a change that nobody may make.
    pub(super) fn check_for_nobody(&self, kind: EventKind) -> Result<()> {
        match self.rules.is_for_nobody(operation(kind)) {
            true => Err(self.denied(kind)),
            false => Ok(()),
        }
    }

    /// Whether the change is allowed after the pre hooks.
    pub(super) fn check(
        &self,
        kind: EventKind,
        id: &str,
        current: Option<&Instance>,
        document: Option<&Document>,
    ) -> Result<()> {
        let before = current.zip(self.before.as_ref()).map(|(current, tree)| InstanceView::new(current, tree));
        // Rules use only its id and its data.
        let after = document.map(|document| InstanceView {
            id,
            created_at: self.now,
            updated_at: self.now,
            revision: 0,
            position: 0,
            data: &document.value,
        });
        let operation = operation(kind);
        match self.rules.may_change(operation, self.subject, self.now, before.as_ref(), after.as_ref()) {
            true => Ok(()),
            false => Err(self.denied(kind)),
        }
    }

    fn denied(&self, kind: EventKind) -> Error {
        let detail =
            format!("the rule `{}` of the model `{}` does not allow this", operation(kind).as_str(), self.model);
        Error::new(ErrorKind::Forbidden, detail)
    }
}

/// Whether errors may not name other instances of the model.
pub(super) fn hides_others(entry: &LiveModel, told_to: &Right) -> bool {
    entry.model.rules.is_some() && told_to.subject().is_some()
}

fn operation(kind: EventKind) -> Operation {
    match kind {
        EventKind::InstanceCreated => Operation::Create,
        EventKind::InstanceDeleted => Operation::Delete,
        _ => Operation::Update,
    }
}
