//! Removes from the result of a write everything that the caller may not read. The changes that follow from a deletion
//! may be in models that the caller may not read.

use super::identify::may_read;
use super::problem::Problem;
use super::request::Call;
use crate::engine::command::DryRun;
use crate::engine::error::Error;
use crate::hooks::context::FieldError;

/// An error for the caller.
pub(super) fn problem(call: &Call, error: Error) -> Problem {
    if error.models.iter().all(|model| may_read(call, model)) {
        return error.into();
    }
    let detail = "what would be deleted is referred to by instances of models that are not for this caller, and they are in the way; \
                  whoever may read these models can see why"
        .to_owned();
    // In a batch they identify the operation.
    let pointers = error.errors.iter().map(|row| row.pointer.clone()).filter(|pointer| !pointer.is_empty()).take(1);
    let errors = pointers.map(|pointer| FieldError { pointer, message: detail.clone() }).collect();
    Error { detail, errors, hook: None, ..error }.into()
}

/// The result of a dry run for the caller.
pub(super) fn dry_run(call: &Call, mut dry_run: DryRun) -> DryRun {
    dry_run.follows.retain(|follows| may_read(call, &follows.model));
    dry_run.hooks.retain(|hook| hook.model.as_ref().is_none_or(|model| may_read(call, model)));
    dry_run
}
