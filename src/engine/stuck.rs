//! Stuck models: the model store has them only up to an event that it cannot apply.
//!
//! Such a model is unavailable and everything else continues. The model store itself records the state, in place of the
//! model's record and together with the checkpoint, so a restart need not read the log again, and a rebuild starts
//! without it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use snaphook_driver::{Event, Json, ModelShape, Position};

use super::error::{Error, ErrorKind, Result};
use crate::catalog::{Model, ModelRecord};
use crate::telemetry::exposition::{Exposition, SERIES_MAX};

/// A stuck model, and the reason.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stuck {
    pub model: String,
    /// The event that cannot be applied.
    pub position: Position,
    pub reason: String,
}

/// The record of a stuck model in the model store. A plain [`ModelRecord`] has neither member.
#[derive(Deserialize)]
struct Envelope {
    #[serde(default)]
    stuck: Option<Stuck>,
    #[serde(default)]
    record: Option<ModelRecord>,
}

/// A model in the model store.
pub(super) struct Stored {
    /// `None` only if the model is stuck at its first event.
    pub(super) record: Option<ModelRecord>,
    pub(super) stuck: Option<Stuck>,
}

impl Stuck {
    pub(super) fn at(event: &Event, reason: impl Into<String>) -> Stuck {
        Stuck { model: event.model.clone(), position: event.position, reason: reason.into() }
    }

    /// The shape for the model store: the model as it is there, with this state in its record.
    pub(super) fn shape(&self, model: Option<&Model>) -> Result<ModelShape> {
        #[derive(Serialize)]
        struct Envelope<'a> {
            stuck: &'a Stuck,
            record: Option<&'a ModelRecord>,
        }
        let envelope = Envelope { stuck: self, record: model.map(|model| &model.record) };
        let record = serde_json::to_string(&envelope).map(Json::trusted).map_err(|error| {
            Error::new(ErrorKind::Storage, format!("the state of a model cannot be written: {error}"))
        })?;
        let nothing = || ModelShape {
            model: self.model.clone(),
            version: 1,
            columns: Vec::new(),
            indexes: Vec::new(),
            unique: Vec::new(),
            record: Json::trusted("null"),
        };
        Ok(ModelShape { record, ..model.map_or_else(nothing, Model::shape) })
    }

    /// The error for requests to the model, with the options of an admin.
    pub(super) fn error(&self) -> Error {
        let Stuck { model, position, reason } = self;
        Error::new(
            ErrorKind::Unavailable,
            format!(
                "model `{model}` is unavailable: its event at {position} cannot be applied ({reason}); an admin can look at \
                 it with `snaphook events inspect {position}`, and delete the model or skip the event"
            ),
        )
    }

    /// The one line for the log.
    pub(super) fn log(&self) {
        let Stuck { model, position, reason } = self;
        tracing::error!(
            model,
            position,
            "the model store cannot apply an event, so its model is unavailable, while all others continue: {reason}; \
             `snaphook events inspect {position}` shows it, then delete the model, or skip the event with `snaphook events \
             skip {position} --reason TEXT`"
        );
    }
}

/// Reads the record of a model in the model store; the error is a clause.
pub(super) fn stored(shape: &ModelShape) -> Result<Stored, String> {
    let Envelope { stuck, record } = snaphook_driver::json::typed(&shape.record).map_err(|error| error.to_string())?;
    match stuck {
        Some(stuck) => Ok(Stored { record, stuck: Some(stuck) }),
        None => {
            let record = snaphook_driver::json::typed(&shape.record).map_err(|error| error.to_string())?;
            Ok(Stored { record: Some(record), stuck: None })
        }
    }
}

pub(super) fn metrics(out: &mut Exposition, stuck: &BTreeMap<String, Stuck>) {
    let help = "Models with an event that the model store cannot apply";
    out.gauge("snaphook_models_unavailable", help).sample(&[], stuck.len());
    let help = "Position of the event that the model store cannot apply";
    let mut positions = out.gauge("snaphook_model_unavailable_position", help);
    stuck.iter().take(SERIES_MAX).for_each(|(model, stuck)| positions.sample(&[("model", model)], stuck.position));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_that_is_stuck_comes_back_as_it_was() {
        let stuck = Stuck { model: "m".into(), position: 7, reason: "\"\n".into() };
        let shape = stuck.shape(None).unwrap();
        let back = stored(&shape).unwrap();
        assert_eq!((back.stuck, back.record), (Some(stuck), None));
    }
}
