//! Lets an admin inspect and skip an event that cannot be applied.
//!
//! Skipping is an event itself (`model.event-skipped`), so it applies to every later rebuild. Only the event at which a
//! model is stuck can be skipped, never an applied one. If the event's instance has no later event, a second event
//! restores the instance to its previous state; otherwise the log and the model store would disagree on its position,
//! and no later change would be possible.

use std::sync::Arc;

use serde::Serialize;
use snaphook_driver::{
    Append, Claim, Event, EventFilter, EventKind, EventQuery, EventStore, Expected, Json, ModelStore, Position, Stream,
    time,
};

use super::carried::carried;
use super::change::{DefinitionChange, Skip, changes_definition};
use super::command::Origin;
use super::error::{Error, ErrorKind, Result};
use super::referring::target;
use super::replay::{self, Replayed};
use super::stuck::{Stored, Stuck, stored};
use crate::catalog::{ModelRecord, unique};

/// Longest reason, in characters.
const REASON_MAX: usize = 1000;
/// Skips of one model per page.
const PAGE: u32 = 100;

/// One event and its state.
#[derive(Clone, Debug, Serialize)]
pub struct Inspected {
    pub event: Event,
    /// The event's data, if it is not JSON; then the event itself has none here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_text: Option<String>,
    /// Set if the event's model is stuck, at this event or at another.
    pub stuck: Option<Stuck>,
    /// Set if the event is skipped.
    pub skipped: Option<SkippedBy>,
}

/// Who skipped an event, and why.
#[derive(Clone, Debug, Serialize)]
pub struct SkippedBy {
    pub position: Position,
    pub reason: String,
}

/// The event at a position, and whether it can be applied, while no server runs.
pub async fn inspect_offline(
    events: &Arc<dyn EventStore>,
    store: &Arc<dyn ModelStore>,
    position: Position,
) -> Result<Inspected> {
    let shapes = store.definitions().await?;
    let stuck = shapes.iter().filter_map(|shape| stored(shape).ok()).filter_map(|Stored { stuck, .. }| stuck);
    inspect(events, &stuck.collect::<Vec<_>>(), position).await
}

/// Skips an event while no server runs, and brings the model store up to date without it.
pub async fn skip_offline(
    events: &Arc<dyn EventStore>,
    store: &Arc<dyn ModelStore>,
    position: Position,
    reason: &str,
    progress: &replay::Progress,
) -> Result<Replayed> {
    let Replayed { stuck, .. } = replay::run(events, store, progress).await?;
    let Skipping { restored, skip } = skip(events, &stuck, position, reason, &Origin::default()).await?;
    for append in restored.into_iter().chain([skip]) {
        if !events.append(&[append], false).await?.iter().all(std::result::Result::is_ok) {
            return Err(changed(position));
        }
    }
    replay::run(events, store, progress).await
}

pub(super) async fn inspect(events: &Arc<dyn EventStore>, stuck: &[Stuck], position: Position) -> Result<Inspected> {
    let mut event = at(events, position).await?;
    let is_json = event.data.as_ref().is_none_or(|data| data.to_value().is_ok());
    let data_text = event.data.take_if(|_| !is_json).map(|data| data.to_string());
    let stuck = stuck.iter().find(|stuck| stuck.model == event.model).cloned();
    let filter = EventFilter {
        model: Some(event.model.clone()),
        definitions_only: true,
        kinds: vec![EventKind::ModelEventSkipped],
        ..EventFilter::default()
    };
    let mut query = EventQuery { after: position, limit: PAGE, filter };
    let mut skipped = None;
    while skipped.is_none() {
        let page = events.read(&query, None).await?;
        for later in &page.events {
            let Skip { position: of, reason } = Skip::from_event(later)?;
            if of == position {
                skipped = Some(SkippedBy { position: later.position, reason });
            }
        }
        match page.next() {
            Some(next) => query.after = next,
            None => break,
        }
    }
    Ok(Inspected { event, data_text, stuck, skipped })
}

async fn at(events: &Arc<dyn EventStore>, position: Position) -> Result<Event> {
    let query = EventQuery { after: position.saturating_sub(1), limit: 1, filter: EventFilter::default() };
    let page = events.read(&query, None).await?;
    page.events.into_iter().find(|event| event.position == position).ok_or_else(|| {
        Error::not_found(format!("there is no event at position {position}, the log ends at {}", page.head))
    })
}

/// The events that skip another one, ready to append.
pub(super) struct Skipping {
    /// Restores the event's instance. Appended first: without the skip it has no visible effect, and if only it is in
    /// the log, a retry needs only the skip.
    pub(super) restored: Option<Append>,
    pub(super) skip: Append,
}

/// The event that skips another one, and the one that restores its instance.
pub(super) async fn skip(
    events: &Arc<dyn EventStore>,
    stuck: &[Stuck],
    position: Position,
    reason: &str,
    origin: &Origin,
) -> Result<Skipping> {
    let reason = reason.trim();
    if reason.is_empty() || reason.chars().count() > REASON_MAX {
        return Err(Error::bad_request(format!(
            "`reason` has {} characters, expected 1 to {REASON_MAX}: readers of the log need to know why",
            reason.chars().count()
        )));
    }
    let event = at(events, position).await?;
    if !stuck.iter().any(|stuck| stuck.model == event.model && stuck.position == position) {
        return Err(Error::new(
            ErrorKind::Conflict,
            format!(
                "the event at {position} is not what keeps `{}` unavailable; only an event that cannot be applied can be \
                 skipped, /readyz names those",
                event.model
            ),
        ));
    }
    if event.kind == EventKind::ModelCreated {
        return Err(Error::new(
            ErrorKind::Conflict,
            format!(
                "the event at {position} created model `{}`, so the model cannot exist without it; delete the model",
                event.model
            ),
        ));
    }
    let stream = Stream::of_model(&event.model);
    let last = events.last(&stream, Position::MAX).await?.ok_or_else(|| changed(position))?;
    let data = serde_json::to_string(&Skip { position, reason: reason.to_owned() })
        .map_err(|error| Error::new(ErrorKind::Storage, format!("the skip cannot be written: {error}")))?;
    let time = time::now().max(last.time);
    let skip = Append {
        event: Event {
            position: 0,
            id: uuid::Uuid::now_v7().to_string(),
            kind: EventKind::ModelEventSkipped,
            model: event.model.clone(),
            model_version: last.model_version,
            instance: None,
            revision: last.revision,
            data: Some(Json::trusted(data)),
            actor: origin.actor.clone(),
            cause: origin.cause.clone(),
            hooks: Vec::new(),
            request_id: origin.request_id.clone(),
            trace: origin.trace.clone(),
            time,
        },
        expected: Expected::At(last.position),
        requires: Vec::new(),
        quiet: None,
        claims: Vec::new(),
        releases: Vec::new(),
    };
    let restored = restored(events, event, &skip).await?;
    Ok(Skipping { skip, restored })
}

/// The event that restores an instance to its state before `event`; `None` if later events determine its state.
async fn restored(events: &Arc<dyn EventStore>, event: Event, skip: &Append) -> Result<Option<Append>> {
    if !event.kind.is_instance() {
        return Ok(None);
    }
    let stream = event.stream();
    if events.last(&stream, Position::MAX).await?.is_none_or(|last| last.position != event.position) {
        return Ok(None);
    }
    let before = events.last(&stream, event.position - 1).await?.filter(|before| !before.kind.ends_stream());
    let data = match before {
        Some(Event { data: Some(data), position, .. }) => {
            Some(carried(&**events, &event.model, data, position, Position::MAX).await?)
        }
        _ => None,
    };
    let definition = last_definition(&**events, &event.model).await?;
    let references = references(&**events, definition.as_ref(), &event, data.as_ref()).await?;
    let keys = |data: Option<&Json>| -> Vec<String> {
        let value = data.and_then(|data| data.to_value().ok()).unwrap_or_default();
        let keys = definition.as_ref().map_or_else(Vec::new, |definition| unique::keys(definition, &value));
        keys.into_iter().map(|key| key.key).collect()
    };
    let (old, new) = (keys(event.data.as_ref()), keys(data.as_ref()));
    let (kind, expected, revision) = match (event.kind, &data) {
        (EventKind::InstanceDeleted, Some(_)) => (EventKind::InstanceCreated, Expected::New, 1),
        (EventKind::InstanceDeleted, None) => return Ok(None),
        (_, Some(_)) => (EventKind::InstanceUpdated, Expected::At(event.position), event.revision + 1),
        (_, None) => (EventKind::InstanceDeleted, Expected::At(event.position), event.revision + 1),
    };
    Ok(Some(Append {
        releases: old.into_iter().filter(|key| !new.contains(key)).chain(references.releases).collect(),
        claims: new.into_iter().map(Claim::new).chain(references.claims).collect(),
        expected,
        event: Event {
            id: uuid::Uuid::now_v7().to_string(),
            kind,
            revision,
            instance: event.instance,
            data,
            ..skip.event.clone()
        },
        requires: Vec::new(),
        quiet: None,
    }))
}

/// Claims that keep references consistent when an instance is restored; see [`crate::catalog::references`].
#[derive(Default)]
struct References {
    claims: Vec<Claim>,
    releases: Vec<String>,
}

/// `data`: the data of the instance without `event`; `None`: the instance does not exist.
async fn references(
    events: &dyn EventStore,
    definition: Option<&ModelRecord>,
    event: &Event,
    data: Option<&Json>,
) -> Result<References> {
    let mut found = References::default();
    let (Some(definition), Some(id)) = (definition, &event.instance) else { return Ok(found) };
    let value = |data: Option<&Json>| data.and_then(|data| data.to_value().ok()).unwrap_or_default();
    let (old, new) = (value(event.data.as_ref()), value(data));
    for reference in &definition.references {
        let Some(to) = target(reference, &new).filter(|to| target(reference, &old) != Some(*to)) else { continue };
        if reference.model == event.model && to == id {
            continue;
        }
        let last = events.last(&Stream::of_instance(&reference.model, to), Position::MAX).await?;
        if last.is_none_or(|last| last.kind.ends_stream()) {
            let detail = format!(
                "without the event at {}, `{}/{id}` would refer to `{}/{to}` through `{}`, which was deleted since; create \
                 that one again first",
                event.position, event.model, reference.model, reference.property
            );
            return Err(Error::new(ErrorKind::Conflict, detail));
        }
        let of_target = last_definition(events, &reference.model).await?.and_then(|definition| definition.referenced);
        found.claims.extend(of_target.map(|referenced| referenced.claim(&reference.model, to)));
    }
    let Some(referenced) = &definition.referenced else { return Ok(found) };
    if event.kind == EventKind::InstanceDeleted {
        // Its deletion blocks new references to it.
        found.releases.push(referenced.key(id));
    } else if data.is_none() {
        let holder = events.holder(&referenced.key(id)).await?;
        if holder.as_ref().is_some_and(|holder| holder.stream == Stream::of_model(&event.model)) {
            let detail = format!(
                "without the event at {} there would be no `{}/{id}`, and others refer to it, or did",
                event.position, event.model
            );
            return Err(Error::new(ErrorKind::Conflict, detail));
        }
        found.releases.push(referenced.prefix());
        found.claims.extend(referenced.deletion(id, holder.map(|holder| holder.position)));
    }
    Ok(found)
}

/// The last definition of a model.
pub(super) async fn last_definition(events: &dyn EventStore, model: &str) -> Result<Option<ModelRecord>> {
    let stream = Stream::of_model(model);
    let mut at_most = Position::MAX;
    while let Some(event) = events.last(&stream, at_most).await? {
        if changes_definition(event.kind) {
            return Ok(DefinitionChange::from_event(&event).ok().map(|change| change.definition));
        }
        at_most = event.position - 1;
    }
    Ok(None)
}

fn changed(position: Position) -> Error {
    Error::new(
        ErrorKind::Conflict,
        format!("the model of the event at {position} was changed by somebody else meanwhile; check it again"),
    )
}
