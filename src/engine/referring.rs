//! Finds references to an instance: the models that may refer to it at the moment of a deletion, and their referring
//! instances.

use std::sync::Arc;

use serde_json::Value;
use snaphook_driver::{Condition, EventKind, Filter, Operator, Position, Require, Stream};

use super::core::Core;
use super::error::{Error, ErrorKind, Result};
use super::models::LiveModel;
use crate::catalog::{ModelRecord, Reference};

/// A model, and the condition for an append that the model has not changed.
pub(super) struct Referring {
    /// `None`: the model does not exist now.
    pub(super) entry: Option<Arc<LiveModel>>,
    pub(super) require: Require,
}

/// All models that may refer to this one, except itself.
pub(super) async fn referring(core: &Core, record: &ModelRecord) -> Result<Vec<Referring>> {
    let mut found = Vec::new();
    let names = record.referenced.iter().flat_map(|referenced| &referenced.by);
    for model in names.filter(|model| **model != record.id) {
        core.availability.check_model(model)?;
        let stream = Stream::of_model(model);
        let entry = core.models.get(model);
        let position = match &entry {
            Some(entry) => entry.model.record.position,
            None => end_of(core, &stream).await?,
        };
        found.push(Referring { entry, require: Require { stream, position } });
    }
    Ok(found)
}

/// The last event of a model that is not in use.
async fn end_of(core: &Core, stream: &Stream) -> Result<Position> {
    match core.stores.event.last(stream, Position::MAX).await? {
        None => Ok(0),
        Some(last) if last.kind == EventKind::ModelDeleted => Ok(last.position),
        Some(_) => {
            let detail = format!("this node does not know the model `{stream}` yet; try again in a moment");
            Err(Error::new(ErrorKind::Unavailable, detail))
        }
    }
}

/// The target of a reference in the data.
pub(super) fn target<'a>(reference: &Reference, data: &'a Value) -> Option<&'a str> {
    data.get(&reference.property).and_then(Value::as_str)
}

/// A filter for the instances that refer to one.
pub(super) fn refers_to(reference: &Reference, id: &str) -> Filter {
    Condition { path: vec![reference.property.clone()].into(), operator: Operator::Eq(id.into()) }.into()
}
