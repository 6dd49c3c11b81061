//! Deletes a stuck model. The model store does not have its current instances, so they are found in the log; no hook
//! runs.

use std::sync::Arc;

use snaphook_driver::{
    Append, Conflict, Event, EventFilter, EventKind, EventQuery, Expected, Position, Quiet, Require, Stream, time,
};

use super::delete::end_references;
use super::faults::{changed, check_unused, written_on};
use super::pace::Pace;
use super::references::refuse_referred;
use super::{Definitions, lists};
use crate::catalog::{ModelRecord, unique};
use crate::engine::carried::carried;
use crate::engine::command::{Defined, DryRun, Origin, Precondition, WriteOptions};
use crate::engine::committer::Draft;
use crate::engine::error::{Error, ErrorKind, Result};
use crate::engine::locks::OneModel;
use crate::engine::skip::last_definition;
use crate::engine::stuck::Stuck;

/// Events per page, and deletions per append.
const PAGE: u32 = 1000;
/// How often the log is read again for events that others wrote meanwhile.
const PASSES_MAX: u32 = 10;

impl Definitions {
    /// Deletes a stuck model. Like [`Definitions::delete`]; the caller passes the lock.
    pub(super) async fn delete_stuck(
        &self,
        one: OneModel,
        stuck: Stuck,
        cascade: bool,
        options: &WriteOptions,
        origin: &Origin,
    ) -> Result<Defined<()>> {
        let id = &stuck.model;
        let last = self.core.stores.event.last(&Stream::of_model(id), Position::MAX).await?;
        let last = last.ok_or_else(|| Error::not_found(format!("there is no model `{id}`")))?;
        let failed = |detail: String| Err(Error::new(ErrorKind::PreconditionFailed, detail));
        match &options.precondition {
            Precondition::At(expected) if !expected.iter().any(|seen| seen.position == last.position) => {
                return failed(format!(
                    "model `{id}` is at position {}, not where `If-Match` expected it",
                    last.position
                ));
            }
            Precondition::Absent => return failed(format!("model `{id}` exists")),
            _ => {}
        }
        let head = self.core.stores.event.head().await?;
        let (mut after, mut count) = (Some(0), 0);
        while let Some(page_after) = after.filter(|_| !cascade) {
            let (living, next) = self.living(id, page_after, head, &[], origin).await?;
            (after, count) = (next, count + living.len() as u64);
        }
        check_unused(id, count)?;
        let deletion = append(&last, EventKind::ModelDeleted, last.revision, origin);
        if options.dry_run {
            return Ok(Defined::DryRun(DryRun::unhooked(Some(deletion.event))));
        }
        let (definitions, id, origin) = (self.clone(), id.clone(), origin.clone());
        let known = self.core.models.get(&id);
        let delete = async move {
            let _one = one;
            // Nobody can begin to refer to the model, because that would first append an event to its definition.
            let mut requires = match &known {
                Some(entry) => definitions.unreferred_in_log(&entry.model.record).await?,
                None => Vec::new(),
            };
            let deletion = Append { requires: requires.clone(), ..deletion };
            requires.push(Require { stream: Stream::of_model(&id), position: last.position });
            let mut from = if cascade { 0 } else { head };
            // The model may not be stuck on other nodes, which continue to write: later events are read again.
            for _ in 0..PASSES_MAX {
                let head = definitions.core.stores.event.head().await?;
                let (mut after, mut found) = (Some(from), 0);
                while let Some(page_after) = after {
                    let (living, next) = definitions.living(&id, page_after, head, &requires, &origin).await?;
                    (after, found) = (next, found + living.len() as u64);
                    if cascade {
                        definitions.core.append_for_stuck(living).await?;
                    }
                }
                if !cascade {
                    check_unused(&id, found)?;
                }
                from = head;
                if found > 0 {
                    continue;
                }
                let quiet = Some(Quiet { model: id.clone(), since: head });
                match definitions.core.append_one(Draft::for_stuck(Append { quiet, ..deletion.clone() })).await? {
                    Ok(_) => {
                        if let Some(entry) = known {
                            let events = Arc::clone(&definitions.core.stores.event);
                            lists::forget(events, lists::all(&entry.model.record), Pace::new(&definitions.core.tail));
                        }
                        definitions.core.forget_post_hooks(&id).await;
                        return Ok(());
                    }
                    Err(Conflict::NotQuiet { .. }) => {}
                    Err(_) => return Err(changed(&id)),
                }
            }
            Err(written_on(&id))
        };
        self.core.commit(delete).await.map(Defined::Done)
    }

    /// Rejects the deletion of a model that others refer to, according to the log, since one of them may be stuck, too.
    /// Returns the conditions that must still hold at the append.
    async fn unreferred_in_log(&self, record: &ModelRecord) -> Result<Vec<Require>> {
        let events = &*self.core.stores.event;
        let mut requires = Vec::new();
        let others = record.referenced.iter().flat_map(|referenced| &referenced.by);
        for other in others.filter(|other| **other != record.id) {
            let stream = Stream::of_model(other);
            let last = events.last(&stream, Position::MAX).await?;
            if last.as_ref().is_some_and(|last| last.kind != EventKind::ModelDeleted) {
                refuse_referred(&record.id, last_definition(events, other).await?.iter())?;
            }
            requires.push(Require { stream, position: last.map_or(0, |last| last.position) });
        }
        Ok(requires)
    }

    /// The deletions of the instances whose last event is in one page of the log, with their conditions, and where the
    /// next page begins.
    async fn living(
        &self,
        model: &str,
        after: Position,
        head: Position,
        requires: &[Require],
        origin: &Origin,
    ) -> Result<(Vec<Append>, Option<Position>)> {
        let filter = EventFilter { model: Some(model.to_owned()), ..EventFilter::default() };
        let page = self.core.stores.event.read(&EventQuery { after, limit: PAGE, filter }, None).await?;
        let next = page.next().filter(|next| *next < head);
        let mut deletions = Vec::new();
        for event in page.events.into_iter().filter(|event| event.kind.is_instance() && event.position <= head) {
            let last = self.core.stores.event.last(&event.stream(), Position::MAX).await?;
            if event.kind != EventKind::InstanceDeleted && last.is_some_and(|last| last.position == event.position) {
                let mut deletion = append(&event, EventKind::InstanceDeleted, event.revision + 1, origin);
                deletion.releases = self.keys_of(&event).await;
                deletion.requires = requires.to_vec();
                if let Some(entry) = self.core.models.get(model) {
                    end_references(&entry.model.record, &mut deletion);
                }
                deletions.push(deletion);
            }
        }
        Ok((deletions, next))
    }

    /// The unique keys that an instance may hold: those of its data as written, and as converted by later changes of
    /// the model. Unreadable data has none.
    async fn keys_of(&self, event: &Event) -> Vec<String> {
        let (Some(entry), Some(data)) = (self.core.models.get(&event.model), &event.data) else { return Vec::new() };
        let record = &entry.model.record;
        if record.unique.is_empty() {
            return Vec::new();
        }
        let carried =
            carried(&*self.core.stores.event, &event.model, data.clone(), event.position, Position::MAX).await;
        let forms = [Some(data.clone()), carried.ok()];
        let values = forms.iter().flatten().filter_map(|data| data.to_value().ok());
        values.flat_map(|value| unique::keys(record, &value)).map(|key| key.key).collect()
    }
}

/// The event that ends the stream of `last`.
fn append(last: &Event, kind: EventKind, revision: u64, origin: &Origin) -> Append {
    let event = Event {
        position: 0,
        id: uuid::Uuid::now_v7().to_string(),
        kind,
        model: last.model.clone(),
        model_version: last.model_version,
        instance: last.instance.clone(),
        revision,
        data: None,
        actor: origin.actor.clone(),
        cause: origin.cause.clone(),
        hooks: Vec::new(),
        request_id: origin.request_id.clone(),
        trace: origin.trace.clone(),
        time: time::now(),
    };
    Append::new(event, Expected::At(last.position))
}
