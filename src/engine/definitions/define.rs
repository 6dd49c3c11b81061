//! Writes changes of models: they are events like any other, and the projector puts them in use when it reaches them.

use std::sync::Arc;

use snaphook_driver::{Append, CarryOver, Conflict, Event, Position};

use super::Definitions;
use super::faults::changed;
use crate::catalog::{Model, Schema, references};
use crate::engine::change::DefinitionChange;
use crate::engine::committer::{Draft, lost_answer};
use crate::engine::error::{Error, ErrorKind, Result};
use crate::engine::models::Ready;
use crate::engine::projection::Hint;

/// The outcome of a change of a model.
pub(super) enum Defining {
    Done(Arc<Model>),
    /// An instance has changed since the change was checked; this is the position of the last such event.
    NotQuiet(Position),
}

impl Defining {
    /// For changes that do not depend on instances.
    pub(super) fn done(self) -> Result<Arc<Model>> {
        match self {
            Defining::Done(model) => Ok(model),
            Defining::NotQuiet(_) => Err(lost_answer()),
        }
    }
}

/// A definition to be written.
pub(super) struct NewDefinition {
    pub(super) append: Append,
    pub(super) schema: Arc<Schema>,
    /// The conversion of the instances.
    pub(super) carry: CarryOver,
    /// The code of hooks that are bound with it.
    pub(super) ready: Option<Ready>,
}

impl Definitions {
    /// Writes a definition. When this returns it is in use on this node.
    pub(super) async fn define(&self, definition: NewDefinition) -> Result<Defining> {
        let NewDefinition { append, schema, carry, ready } = definition;
        let event = append.event.clone();
        let hint = Hint { schema: Arc::clone(&schema), carry, ready };
        let committed = match self.core.append_one(Draft { hint: Some(Box::new(hint)), ..Draft::new(append) }).await? {
            Ok(committed) => committed,
            // Targets of references, instances and models, count like the model's own instances.
            Err(Conflict::NotQuiet { last } | Conflict::Required { last, .. }) => return Ok(Defining::NotQuiet(last)),
            Err(Conflict::Claimed { key, holder }) if references::is_key(&key) => {
                return Ok(Defining::NotQuiet(holder.position));
            }
            // Only an idempotency key is claimed with a definition.
            Err(Conflict::Claimed { .. }) => {
                return Err(Error::new(
                    ErrorKind::Conflict,
                    "another request with this idempotency key is under way; try again in a moment",
                ));
            }
            Err(_) => return Err(changed(&event.model)),
        };
        let event = Event { position: committed.position, time: committed.time, ..event };
        let in_use = self.core.models.get(&event.model).map(|entry| Arc::clone(&entry.model));
        if let Some(model) = in_use.filter(|model| model.record.position == event.position) {
            return Ok(Defining::Done(model));
        }
        // Somebody else has changed it meanwhile, or it is unavailable.
        let model = Model::with_schema(DefinitionChange::from_event(&event)?.definition, schema);
        Ok(Defining::Done(Arc::new(model.map_err(|error| Error::new(ErrorKind::Storage, error))?)))
    }
}
