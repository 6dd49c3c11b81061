//! Conflicts of a change with the current state, and their errors.

use snaphook_driver::{Conflict, Holder};

use super::steps::{Submitted, WriteCommand};
use crate::catalog::{Collation, FieldError, ModelRecord, escape_token, references, unique};
use crate::engine::command::{InstanceChange, Precondition};
use crate::engine::error::{Error, ErrorKind};
use crate::engine::idempotency::is_key;

/// The error for a conflict; `None` if the change may be retried. `has_key`: the request has an idempotency key.
pub(super) fn refusal(
    submitted: &Submitted,
    conflict: &Conflict,
    command: &WriteCommand,
    precondition: &Precondition,
    has_key: bool,
) -> Option<Error> {
    let (model, id) = (&submitted.instance.model, &command.id);
    let failed = |detail: String| Some(Error::new(ErrorKind::PreconditionFailed, detail));
    match conflict {
        // The target was deleted, or somebody refers to the instance to be deleted: the next round reports it.
        Conflict::Claimed { key, .. } if references::is_key(key) => None,
        Conflict::Claimed { key, holder } if !is_key(key) => {
            Some(not_unique(&submitted.entry.model.record, key, Some(holder).filter(|_| !submitted.hides_others)))
        }
        // With a key it may have been the same request; the next round finds its result.
        Conflict::Stream { .. } if has_key => None,
        Conflict::Stream { ended: false, .. } if *precondition == Precondition::Absent => {
            failed(format!("`{model}/{id}` was created by somebody else meanwhile"))
        }
        Conflict::Stream { ended: false, .. } if matches!(command.change, InstanceChange::Create { .. }) => {
            Some(exists(model, id))
        }
        Conflict::Stream { .. } if *precondition != Precondition::None => {
            failed(format!("`{model}/{id}` was changed by somebody else meanwhile; read it again"))
        }
        _ => None,
    }
}

pub(super) fn exists(model: &str, id: &str) -> Error {
    Error::new(ErrorKind::Exists, format!("`{model}/{id}` exists already; PUT or PATCH changes it"))
}

/// `holder`: the instance with the value, if it may be named.
pub(super) fn not_unique(record: &ModelRecord, key: &str, holder: Option<&Holder>) -> Error {
    let list = unique::list_of(record, key);
    let properties = list.map_or(&[][..], |list| &**list);
    let same = match list.map(|list| list.collation) {
        Some(Collation::NoCase) => "this value already, apart from case",
        _ => "this value already",
    };
    let names = properties.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    let errors = properties
        .iter()
        .map(|name| FieldError {
            pointer: format!("/data/{}", escape_token(name)),
            message: match holder {
                Some(holder) => format!("must be unique, `{}` has {same}", holder.stream),
                None => format!("must be unique, another instance has {same}"),
            },
        })
        .collect();
    Error::new(ErrorKind::NotUnique, format!("another instance has the same value of {names}")).with_errors(errors)
}
