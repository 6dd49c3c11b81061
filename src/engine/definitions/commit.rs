//! How changes of models are written: events like any other, which the projector puts in use when it meets them.

use std::sync::Arc;

use snaphook_driver::{
    Append, Budget, CarryOver, Conflict, Event, EventKind, Expected, Instance, InstanceQuery, Position, Quiet,
};

use super::super::Engine;
use super::super::change::DefinitionChange;
use super::super::command::Origin;
use super::super::committer::{Committed, Draft, lost_answer};
use super::super::error::{Error, ErrorKind, Result};
use super::super::models::{Entry, Ready};
use super::super::projection::Hint;
use super::{check_unused, deletion};
use crate::catalog::{Model, ModelRecord, Schema, unique};

/// Instances that are deleted at once with their model.
const DELETED_AT_ONCE: u32 = if cfg!(test) { 10 } else { 250 };

/// What became of a change of a model.
pub(in crate::engine) enum Defining {
    Done(Arc<Model>),
    /// An instance changed since the change was checked, the last with the event at this position.
    NotQuiet(Position),
}

impl Defining {
    /// For changes that do not depend on what instances there are.
    pub(in crate::engine) fn done(self) -> Result<Arc<Model>> {
        match self {
            Defining::Done(model) => Ok(model),
            Defining::NotQuiet(_) => Err(lost_answer()),
        }
    }
}

/// What is known of a definition that is to be written.
pub(in crate::engine) struct NewDefinition {
    pub(in crate::engine) append: Append,
    pub(in crate::engine) schema: Arc<Schema>,
    /// What is to be done to the instances.
    pub(in crate::engine) carry: CarryOver,
    /// The code of hooks that are bound with it.
    pub(in crate::engine) ready: Option<Ready>,
}

impl Engine {
    /// Writes a definition. When this returns it is in use on this node.
    pub(in crate::engine) async fn define(&self, definition: NewDefinition) -> Result<Defining> {
        let NewDefinition { append, schema, carry, ready } = definition;
        let event = append.event.clone();
        let hint = Hint { schema: Arc::clone(&schema), carry, ready };
        let committed = match self.append_one(Draft { hint: Some(Box::new(hint)), ..Draft::new(append) }).await? {
            Ok(committed) => committed,
            Err(Conflict::NotQuiet { last }) => return Ok(Defining::NotQuiet(last)),
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
        let in_use = self.models.get(&event.model).map(|entry| Arc::clone(&entry.model));
        if let Some(model) = in_use.filter(|model| model.record.position == event.position) {
            return Ok(Defining::Done(model));
        }
        // Somebody else has changed it since, or it is unavailable.
        Ok(Defining::Done(Arc::new(Model { record: DefinitionChange::from_event(&event)?.definition, schema })))
    }

    /// Appends one event of the server's own.
    pub(in crate::engine) async fn append_one(&self, draft: Draft) -> Result<Result<Committed, Conflict>> {
        self.committer.append(vec![draft]).await?.pop().unwrap_or_else(|| Err(lost_answer()))
    }

    /// Deletes a model, whose gate is closed and whose last event is at `at`, if it has no instances. Answers the last of those
    /// that changed meanwhile.
    pub(super) async fn delete_empty(&self, entry: &Entry, at: Position, origin: &Origin) -> Result<Option<Position>> {
        let record = &entry.model.record;
        let outages = self.availability.begun();
        // The model store is at least there.
        let since = self.tail.head();
        let one = InstanceQuery { limit: 1, ..InstanceQuery::default() };
        if !self.stores.model.query(&record.id, &one, &Budget::unlimited()).await?.items.is_empty() {
            check_unused(&record.id, self.stores.model.count(&record.id, &[], &Budget::unlimited()).await?)?;
        }
        self.check_undisturbed(&record.id, outages)?;
        let quiet = Some(Quiet { model: record.id.clone(), since });
        match self.append_one(Draft::new(Append { quiet, ..deletion(record, at, origin)? })).await? {
            Ok(_) => Ok(None),
            Err(Conflict::NotQuiet { last }) => Ok(Some(last)),
            Err(_) => Err(changed(&record.id)),
        }
    }

    /// Deletes some instances whose last event is not after `head`; `false` if there are none left, as far as it can see.
    pub(super) async fn delete_page(&self, model: &Model, head: Position, origin: &Origin) -> Result<bool> {
        let record = &model.record;
        self.availability.check_model(&record.id)?;
        let query = InstanceQuery { limit: DELETED_AT_ONCE, ..InstanceQuery::default() };
        let page = self.stores.model.query(&record.id, &query, &Budget::unlimited()).await?;
        let old = page.items.into_iter().filter(|instance| instance.position <= head);
        let deletions: Vec<Draft> =
            old.map(|instance| Draft::new(instance_deletion(record, instance, origin))).collect();
        if deletions.is_empty() {
            return Ok(false);
        }
        // Those that others changed meanwhile have a later event now.
        for answer in self.committer.append(deletions).await? {
            if let Err(Conflict::Stream { last, .. }) = answer? {
                self.seen(last).await;
            }
        }
        Ok(true)
    }
}

pub(in crate::engine) fn changed(model: &str) -> Error {
    Error::new(ErrorKind::Conflict, format!("model `{model}` was changed by somebody else meanwhile; read it again"))
}

/// The end of an instance whose model ends. No hook sees it.
fn instance_deletion(record: &ModelRecord, instance: Instance, origin: &Origin) -> Append {
    let value = instance.data.to_value().unwrap_or_default();
    let keys = unique::keys(record, &value);
    let event = Event {
        position: 0,
        id: uuid::Uuid::now_v7().to_string(),
        kind: EventKind::InstanceDeleted,
        model: record.id.clone(),
        model_version: record.version,
        instance: Some(instance.id),
        revision: instance.revision + 1,
        data: None,
        actor: origin.actor.clone(),
        cause: origin.cause.clone(),
        hooks: Vec::new(),
        request_id: origin.request_id.clone(),
        time: 0,
    };
    Append {
        releases: keys.into_iter().map(|key| key.key).collect(),
        ..Append::new(event, Expected::At(instance.position))
    }
}
