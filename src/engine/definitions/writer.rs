//! What changes of models do on the committer's thread: their events, and the moment in which they come into use.

use std::sync::Arc;

use snaphook_driver::{Append, CarryOver, Conflict, Event, EventKind, Expected, Group, Instance, InstanceQuery};

use super::super::command::Origin;
use super::super::committer::Writer;
use super::super::error::{Error, ErrorKind, Result};
use super::super::models::{Entry, Ready};
use super::super::troubles::guarded;
use super::{check_unused, deletion};
use crate::catalog::{Model, ModelRecord, unique};
use crate::hooks::host::HookHost;

/// Instances that are deleted at once with their model.
const DELETED_AT_ONCE: u32 = if cfg!(test) { 10 } else { 250 };

/// How a definition follows the one before it.
#[derive(Default)]
pub(in crate::engine) struct Step<'a> {
    pub(in crate::engine) old: Option<&'a Entry>,
    pub(in crate::engine) carry: CarryOver,
    /// The consumer group of post hooks, if the model gets its first.
    pub(in crate::engine) group: Option<&'a Group>,
    pub(in crate::engine) ready: Option<&'a Ready>,
}

impl Writer {
    /// Appends the event of a definition, changes the model store, puts the model in use, tells listeners.
    pub(in crate::engine) fn define(
        &mut self,
        append: Append,
        mut model: Model,
        host: &HookHost,
        step: Step<'_>,
    ) -> Result<Arc<Model>> {
        let Step { old, carry, group, ready } = step;
        self.catch_up()?;
        let id = model.record.id.clone();
        self.availability.check_model(&id)?;
        let mut appends = [append];
        let result = self.append(&mut appends)?.pop();
        let committed = match result {
            Some(Ok(committed)) => committed,
            // Only an idempotency key is claimed with a definition.
            Some(Err(Conflict::Claimed { .. })) => {
                return Err(Error::new(
                    ErrorKind::Conflict,
                    "another request with this idempotency key is under way; try again in a moment",
                ));
            }
            _ => {
                return Err(Error::new(
                    ErrorKind::Conflict,
                    format!("model `{id}` was changed by somebody else meanwhile; read it again"),
                ));
            }
        };
        let [append] = appends;
        model.record.settle(committed.position);
        model.record.updated_at = committed.time;
        if append.event.kind == EventKind::ModelCreated {
            model.record.created_at = committed.time;
        }
        let old_shape = old.map(|entry| entry.model.shape());
        let new_shape = model.shape();
        let defined = self.store.define(old_shape.as_ref(), &new_shape, &carry, committed.position);
        let defined = self.runtime.block_on(guarded("define", defined));
        self.check_applied(defined);
        if let Some(group) = group
            && let Err(error) = self.runtime.block_on(self.events.create_group(group, committed.position))
        {
            // The dispatcher makes it when it next looks.
            tracing::error!(group = group.name, "a consumer group could not be made yet: {error}");
        }
        let model = Arc::new(model);
        self.models.put(Arc::new(Entry::new(Arc::clone(&model), host, old, ready)));
        let event = Event { position: committed.position, ..append.event };
        self.tail.publish(std::iter::once(Arc::new(event)));
        Ok(model)
    }

    /// Deletes a model, whose gate is closed, once it has no instances any more.
    pub(super) fn delete_model(&mut self, entry: &Entry, origin: &Origin) -> Result<()> {
        self.catch_up()?;
        let record = &entry.model.record;
        self.availability.check_model(&record.id)?;
        let one = InstanceQuery { limit: 1, ..InstanceQuery::default() };
        if !self
            .runtime
            .block_on(self.store.query(&record.id, &one, &snaphook_driver::Budget::unlimited()))?
            .items
            .is_empty()
        {
            check_unused(
                &record.id,
                self.runtime.block_on(self.store.count(&record.id, &[], &snaphook_driver::Budget::unlimited()))?,
            )?;
        }
        let mut appends = [deletion(record, origin)?];
        let Some(Ok(committed)) = self.append(&mut appends)?.pop() else {
            return Err(Error::new(
                ErrorKind::Conflict,
                format!("model `{}` was changed by somebody else meanwhile; read it again", record.id),
            ));
        };
        let dropped = self.store.drop_model(&record.id, committed.position);
        let dropped = self.runtime.block_on(guarded("drop_model", dropped));
        self.check_applied(dropped);
        self.models.remove(&record.id);
        let [append] = appends;
        self.tail.publish(std::iter::once(Arc::new(Event { position: committed.position, ..append.event })));
        Ok(())
    }

    /// Deletes some instances; `false` if there are none left.
    pub(super) fn delete_page(&mut self, model: &Model, origin: &Origin) -> Result<bool> {
        self.catch_up()?;
        let record = &model.record;
        let query = InstanceQuery { limit: DELETED_AT_ONCE, ..InstanceQuery::default() };
        let page =
            self.runtime.block_on(self.store.query(&record.id, &query, &snaphook_driver::Budget::unlimited()))?;
        if page.items.is_empty() {
            return Ok(false);
        }
        let mut appends: Vec<Append> =
            page.items.into_iter().map(|instance| instance_deletion(record, instance, origin)).collect();
        let results = self.append(&mut appends)?;
        let mut events = Vec::with_capacity(appends.len());
        let mut conflict = false;
        for (append, result) in appends.into_iter().zip(results) {
            match result {
                Ok(committed) => events.push(Event { position: committed.position, ..append.event }),
                Err(_) => conflict = true,
            }
        }
        // Those that are deleted are so whatever became of the others.
        self.apply(events);
        self.catch_up()?;
        if conflict {
            return Err(Error::new(
                ErrorKind::Conflict,
                format!("an instance of `{}` was changed by somebody else meanwhile; try again", record.id),
            ));
        }
        Ok(true)
    }
}

/// The end of an instance whose model ends. No hook sees it.
fn instance_deletion(record: &ModelRecord, instance: Instance, origin: &Origin) -> Append {
    let value = instance.data.to_value().unwrap_or_default();
    let keys = unique::keys(record, &value);
    Append {
        event: Event {
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
        },
        expected: Expected::At(instance.position),
        requires: Vec::new(),
        claims: Vec::new(),
        releases: keys.into_iter().map(|key| key.key).collect(),
    }
}
