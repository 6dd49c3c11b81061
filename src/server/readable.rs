//! What a write is answered, without what the caller may not read. What follows from a deletion is not asked for, so it may be
//! in models that are not the caller's.

use super::identify::may_read;
use super::problem::Problem;
use super::request::Call;
use crate::engine::command::DryRun;
use crate::engine::error::Error;
use crate::hooks::context::FieldError;

/// An error as the caller may see it.
pub(super) fn problem(call: &Call, error: Error) -> Problem {
    if error.models.iter().all(|model| may_read(call, model)) {
        return error.into();
    }
    let detail = "what would be deleted is referred to by instances of models that are not for this caller, and they are in the way; \
                  whoever may read these models can see why"
        .to_owned();
    // Of a batch they say which operation it is.
    let pointers = error.errors.iter().map(|row| row.pointer.clone()).filter(|pointer| !pointer.is_empty()).take(1);
    let errors = pointers.map(|pointer| FieldError { pointer, message: detail.clone() }).collect();
    Error { detail, errors, hook: None, ..error }.into()
}

/// What a change would do, as the caller may see it.
pub(super) fn dry_run(call: &Call, mut dry_run: DryRun) -> DryRun {
    dry_run.follows.retain(|follows| may_read(call, &follows.model));
    dry_run.hooks.retain(|hook| hook.model.as_ref().is_none_or(|model| may_read(call, model)));
    dry_run
}
