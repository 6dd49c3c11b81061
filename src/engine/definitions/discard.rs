//! The deletion of a model that is stuck. The model store does not have its instances as they are, so the log says which
//! there are; no hook runs.

use std::sync::Arc;

use snaphook_driver::{
    Append, Conflict, Event, EventFilter, EventKind, EventQuery, Expected, Position, Quiet, Stream, time,
};

use super::faults::{changed, check_unused, written_on};
use super::pace::Pace;
use super::{Definitions, lists};
use crate::catalog::unique;
use crate::engine::carried::carried;
use crate::engine::command::{Defined, DryRun, Origin, Precondition, WriteOptions};
use crate::engine::committer::Draft;
use crate::engine::error::{Error, ErrorKind, Result};
use crate::engine::locks::OneModel;
use crate::engine::stuck::Stuck;

/// Events that are read, and instances that are deleted, at once.
const PAGE: u32 = 1000;
/// How often it is looked at what others wrote meanwhile.
const PASSES_MAX: u32 = 10;

impl Definitions {
    /// Deletes a stuck model. Like [`Definitions::delete`], whose lock the caller gives.
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
            let (living, next) = self.living(id, page_after, head, origin).await?;
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
            let mut from = if cascade { 0 } else { head };
            // Other nodes, for which the model may not be stuck, write on: what came meanwhile is looked at again.
            for _ in 0..PASSES_MAX {
                let head = definitions.core.stores.event.head().await?;
                let (mut after, mut found) = (Some(from), 0);
                while let Some(page_after) = after {
                    let (living, next) = definitions.living(&id, page_after, head, &origin).await?;
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

    /// The deletions of the instances whose last event is in one page of the log, and where the next page begins.
    async fn living(
        &self,
        model: &str,
        after: Position,
        head: Position,
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
                deletions.push(deletion);
            }
        }
        Ok((deletions, next))
    }

    /// The unique keys that an instance may hold: those of its data as it was written, and as the model's changes since
    /// then left it. Data that cannot be read holds none.
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
