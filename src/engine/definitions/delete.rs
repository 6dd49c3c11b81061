//! Deletes a model, and with `cascade` its instances.

use std::sync::Arc;

use snaphook_driver::{
    Append, Budget, Conflict, Event, EventKind, Expected, Filter, Instance, InstanceQuery, Position, Quiet, Require,
    Stream,
};

use super::event::deletion;
use super::faults::{changed, check_precondition, check_unused, written_on};
use super::hold::HeldBack;
use super::pace::Pace;
use super::{DISTURBED_MAX, Definitions, lists};
use crate::catalog::{Model, ModelRecord, unique};
use crate::engine::command::{Defined, DryRun, Origin, WriteOptions};
use crate::engine::committer::Draft;
use crate::engine::error::{ErrorKind, Result};
use crate::engine::gate::Closing;
use crate::engine::locks::OneModel;
use crate::engine::models::LiveModel;

/// Instances per append when a model is deleted.
const DELETED_AT_ONCE: u32 = if cfg!(test) { 10 } else { 250 };

impl Definitions {
    /// Deletes a model. With `cascade` its instances are deleted first, each with an event; no hook runs for them.
    pub async fn delete(
        &self,
        id: &str,
        cascade: bool,
        options: &WriteOptions,
        origin: &Origin,
    ) -> Result<Defined<()>> {
        self.core.availability.check()?;
        let one = self.lock_model(id).await?;
        self.core.availability.check()?;
        if let Some(stuck) = self.core.availability.stuck(id) {
            self.check_stuck_unreferred(id)?;
            return self.delete_stuck(one, stuck, cascade, options, origin).await;
        }
        let entry = self.core.models.require(id)?;
        check_precondition(&entry, &options.precondition)?;
        self.check_unreferred(&entry.model.record).await?;
        if !cascade {
            // Not on the committer's thread, which only checks whether there is one.
            check_unused(id, self.core.stores.model.count(id, &Filter::default(), &Budget::unlimited()).await?)?;
        }
        if options.dry_run {
            let append = deletion(&entry.model.record, entry.model.record.position, origin)?;
            return Ok(Defined::DryRun(DryRun::unhooked(Some(append.event))));
        }
        let (definitions, origin) = (self.clone(), origin.clone());
        // A deletion that stopped half way would have deleted some of the instances.
        self.core
            .commit(async move { definitions.delete_prepared(one, entry, cascade, origin).await })
            .await
            .map(Defined::Done)
    }

    async fn delete_prepared(
        &self,
        _one: OneModel,
        mut entry: Arc<LiveModel>,
        cascade: bool,
        origin: Origin,
    ) -> Result<()> {
        let id = entry.model.record.id.clone();
        // Only a deletion with all instances takes longer than a write can wait.
        let closing = if cascade { Closing::Deletion } else { Closing::Change };
        let mut closed = self.close_gate(&entry, closing).await?;
        let mut is_deleted = false;
        let (mut at, mut held_back) = (entry.model.record.position, None);
        for round in 0..=DISTURBED_MAX {
            // Page by page, so that writes to other models continue. Later instances are left for the next round.
            let head = self.core.tail.head();
            while cascade && self.delete_page(&entry.model, at, head, &origin).await? {}
            match self.delete_empty(&entry, at, &origin).await {
                Ok(None) => is_deleted = true,
                Ok(Some(last)) => self.core.seen(last).await,
                // Another node created some meanwhile.
                Err(error) if cascade && error.kind == ErrorKind::ModelInUse => {}
                Err(error) => return Err(error),
            }
            if is_deleted || round == DISTURBED_MAX {
                break;
            }
            held_back = Some(HeldBack::new(&self.core, &entry.model.record, at, &origin).await?);
            at = held_back.as_ref().map_or(at, HeldBack::position);
            // The event put the model in use anew, with a gate of its own.
            entry = self.core.models.require(&id)?;
            closed = self.close_gate(&entry, closing).await?;
        }
        drop((held_back, closed));
        if !is_deleted {
            return Err(written_on(&id));
        }
        let gone = lists::all(&entry.model.record);
        // The keys of instances were released with them; this removes keys that a crash left behind.
        lists::forget(Arc::clone(&self.core.stores.event), gone, Pace::new(&self.core.tail));
        // Pending post hooks no longer have a model.
        self.core.forget_post_hooks(&id).await;
        Ok(())
    }

    /// Deletes a model, whose gate is closed and whose last event is at `at`, if it has no instances. Returns the
    /// position of the last instance event that came meanwhile.
    async fn delete_empty(&self, entry: &LiveModel, at: Position, origin: &Origin) -> Result<Option<Position>> {
        let record = &entry.model.record;
        let outages = self.core.availability.begun();
        // The model store has applied at least this position.
        let since = self.core.tail.head();
        let one = InstanceQuery { limit: 1, ..InstanceQuery::default() };
        if !self.core.stores.model.query(&record.id, &one, &Budget::unlimited()).await?.items.is_empty() {
            check_unused(
                &record.id,
                self.core.stores.model.count(&record.id, &Filter::default(), &Budget::unlimited()).await?,
            )?;
        }
        self.check_undisturbed(&record.id, outages)?;
        let quiet = Some(Quiet { model: record.id.clone(), since });
        let requires = self.check_unreferred(record).await?;
        match self.core.append_one(Draft::new(Append { quiet, requires, ..deletion(record, at, origin)? })).await? {
            Ok(_) => Ok(None),
            Err(Conflict::NotQuiet { last }) => Ok(Some(last)),
            Err(_) => Err(changed(&record.id)),
        }
    }

    /// Deletes some instances whose last event is not after `head`; `false` if it sees no more of them. Each deletion
    /// requires that the model's last event is at `at` and that no other model refers to it, because nobody searches
    /// for referring instances here.
    pub(super) async fn delete_page(
        &self,
        model: &Model,
        at: Position,
        head: Position,
        origin: &Origin,
    ) -> Result<bool> {
        let record = &model.record;
        self.core.availability.check_model(&record.id)?;
        let own = Require { stream: Stream::of_model(&record.id), position: at };
        let mut requires = self.check_unreferred(record).await?;
        requires.push(own.clone());
        let query = InstanceQuery { limit: DELETED_AT_ONCE, ..InstanceQuery::default() };
        let page = self.core.stores.model.query(&record.id, &query, &Budget::unlimited()).await?;
        let old = page.items.into_iter().filter(|instance| instance.position <= head);
        let deletions: Vec<Draft> = old
            .map(|instance| {
                Draft::new(Append { requires: requires.clone(), ..instance_deletion(record, instance, origin) })
            })
            .collect();
        if deletions.is_empty() {
            return Ok(false);
        }
        for answer in self.core.committer.append(deletions).await? {
            match answer? {
                Err(Conflict::Required { stream, .. }) if stream == own.stream => return Err(changed(&record.id)),
                // An instance that others changed meanwhile has a later event now, and so has a model that could refer to it.
                Err(Conflict::Stream { last, .. } | Conflict::Required { last, .. }) => self.core.seen(last).await,
                _ => {}
            }
        }
        Ok(true)
    }
}

/// The deletion of an instance together with its model. No hook runs.
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
        trace: origin.trace.clone(),
        time: 0,
    };
    let mut append = Append {
        releases: keys.into_iter().map(|key| key.key).collect(),
        ..Append::new(event, Expected::At(instance.position))
    };
    end_references(record, &mut append);
    append
}

/// Adds to the deletion of an instance with its model the condition that nobody begins to refer to it. Only instances
/// of this model refer to it now, and they are deleted, too.
pub(super) fn end_references(record: &ModelRecord, append: &mut Append) {
    if let (Some(referenced), Some(id)) = (&record.referenced, &append.event.instance) {
        append.releases.extend([referenced.key(id), referenced.prefix()]);
        append.claims.extend(referenced.deletion(id, None));
    }
}
