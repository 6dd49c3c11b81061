//! The common checks and errors of changes of definitions.

use crate::catalog::FieldError;
use crate::engine::command::{Precondition, Seen};
use crate::engine::error::{Error, ErrorKind, Result};
use crate::engine::models::LiveModel;

/// `If-Match` on a model.
pub(super) fn check_precondition(entry: &LiveModel, precondition: &Precondition) -> Result<()> {
    let record = &entry.model.record;
    match precondition {
        Precondition::At(expected) if !expected.contains(&Seen::model(record)) => Err(Error::new(
            ErrorKind::PreconditionFailed,
            format!(
                "model `{}` is at position {}, not where `If-Match` expected it; read it again",
                record.id, record.position
            ),
        )),
        Precondition::Absent => Err(Error::new(ErrorKind::PreconditionFailed, format!("model `{}` exists", record.id))),
        _ => Ok(()),
    }
}

pub(super) fn cannot_bind(pointer: String, message: String) -> Error {
    Error::new(ErrorKind::Invalid, message.clone()).with_errors(vec![FieldError { pointer, message }])
}

pub(super) fn changed(model: &str) -> Error {
    Error::new(ErrorKind::Conflict, format!("model `{model}` was changed by somebody else meanwhile; read it again"))
}

pub(super) fn too_fast(model: &str) -> Error {
    Error::new(
        ErrorKind::Conflict,
        format!(
            "instances of `{model}` change faster than they can be checked against the new version; try again when fewer are \
             written, or make the schema simpler"
        ),
    )
}

/// For deletions of models that other nodes write to.
pub(super) fn written_on(model: &str) -> Error {
    Error::new(
        ErrorKind::Conflict,
        format!("others create instances of `{model}` while it is deleted; try again when fewer are written"),
    )
}

pub(super) fn check_unused(model: &str, instances: u64) -> Result<()> {
    if instances == 0 {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::ModelInUse,
        format!("model `{model}` has {instances} instances; delete them first, or add `?cascade=true`"),
    ))
}
