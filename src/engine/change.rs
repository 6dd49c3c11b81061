//! The data of events of a model's definition.

use serde::{Deserialize, Serialize};
use snaphook_driver::{CarryOver, DriverError, Event, EventKind, Json, Position};

use super::error::{Error, ErrorKind, Result};
use crate::catalog::{ModelRecord, Schema};
use crate::config::Phase;

/// `data` of `model.event-skipped`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Skip {
    /// The event of the model that is never applied.
    pub(super) position: Position,
    pub(super) reason: String,
}

impl Skip {
    pub(super) fn from_event(event: &Event) -> Result<Skip> {
        data_of(event)
    }
}

/// `data` of `model.changing`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Changing {
    /// How long writes of the model's instances are held back at most; 0: no longer.
    pub(super) within_ms: u64,
}

impl Changing {
    pub(super) fn from_event(event: &Event) -> Result<Changing> {
        data_of(event)
    }

    pub(super) fn to_json(self) -> Json {
        Json::trusted(format!("{{\"within_ms\":{}}}", self.within_ms))
    }
}

fn data_of<T: for<'de> Deserialize<'de>>(event: &Event) -> Result<T> {
    let corrupt = |message: String| {
        Error::from(
            DriverError::new(snaphook_driver::ErrorKind::Corrupt, "read", message)
                .with("position", event.position)
                .with("type", event.kind),
        )
    };
    let data = event.data.as_ref().ok_or_else(|| corrupt("the event has no data".to_owned()))?;
    snaphook_driver::json::typed(data).map_err(|error| corrupt(format!("its data cannot be read: {error}")))
}

/// Whether a kind of event carries a [`DefinitionChange`].
pub(super) const fn changes_definition(kind: EventKind) -> bool {
    matches!(kind, EventKind::ModelCreated | EventKind::ModelUpdated | EventKind::HookUpdated | EventKind::HookDeleted)
}

/// `data` of `model.created`, `model.updated`, `hook.updated` and `hook.deleted`: the whole definition after the
/// change, so that a reader needs no earlier event.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct DefinitionChange {
    pub(super) definition: ModelRecord,
    /// Old name, new name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) renames: Vec<(String, String)>,
    /// The phase whose hooks changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) phase: Option<Phase>,
    /// From now on another model may refer to this one; nothing else changed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) is_target: bool,
}

impl DefinitionChange {
    pub(super) fn to_json(&self) -> Result<Json> {
        serde_json::to_string(self)
            .map(Json::trusted)
            .map_err(|error| Error::new(ErrorKind::Storage, format!("a definition cannot be written: {error}")))
    }

    /// Reads an event that contains a definition, that is, not a deletion and not a skipped event. Fills in the
    /// positions.
    pub(super) fn from_event(event: &Event) -> Result<DefinitionChange> {
        let mut change: DefinitionChange = data_of(event)?;
        change.definition.settle(event.position);
        change.definition.updated_at = event.time;
        if event.kind == EventKind::ModelCreated {
            change.definition.created_at = event.time;
        }
        Ok(change)
    }

    /// The conversion of instances of the previous version; `schema` is that of this definition.
    pub(super) fn carry_over(&self, schema: &Schema) -> CarryOver {
        if self.phase.is_some() || self.is_target {
            return CarryOver::default();
        }
        CarryOver { renames: self.renames.clone(), defaults: schema.top_level_defaults() }
    }
}
