//! The events of a model's definition, ready to append.

use snaphook_driver::{Append, Event, EventKind, Expected, Position, time};

use crate::catalog::ModelRecord;
use crate::engine::change::DefinitionChange;
use crate::engine::command::Origin;
use crate::engine::error::Result;

/// The event of a definition, ready to append.
pub(super) fn definition_append(
    kind: EventKind,
    record: &ModelRecord,
    change: &DefinitionChange,
    expected: Expected,
    origin: &Origin,
) -> Result<Append> {
    let event = Event {
        position: 0,
        id: uuid::Uuid::now_v7().to_string(),
        kind,
        model: record.id.clone(),
        model_version: record.version,
        instance: None,
        revision: record.version,
        data: Some(change.to_json()?),
        actor: origin.actor.clone(),
        cause: origin.cause.clone(),
        hooks: Vec::new(),
        request_id: origin.request_id.clone(),
        trace: origin.trace.clone(),
        time: time::now(),
    };
    Ok(Append::new(event, expected))
}

/// The deletion event of a model.
pub(super) fn deletion(record: &ModelRecord, at: Position, origin: &Origin) -> Result<Append> {
    let change = DefinitionChange { definition: record.clone(), renames: Vec::new(), phase: None, is_target: false };
    let mut append = definition_append(EventKind::ModelDeleted, record, &change, Expected::At(at), origin)?;
    append.event.data = None;
    Ok(append)
}

/// The event of a model's next version.
pub(super) fn update(
    record: &ModelRecord,
    renames: Vec<(String, String)>,
    at: Position,
    origin: &Origin,
) -> Result<Append> {
    let change = DefinitionChange { definition: record.clone(), renames, phase: None, is_target: false };
    definition_append(EventKind::ModelUpdated, record, &change, Expected::At(at), origin)
}
