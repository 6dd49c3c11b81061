//! Finds earlier events of a stream by their revision, and past states of instances.

use snaphook_driver::time::Millis;
use snaphook_driver::{Event, EventKind, EventStore, Instance, Stream};

use super::core::Core;
use super::error::Result;

/// The state of the instance after this event, in the form of that time; `None` after a deletion.
pub(super) async fn left_by(core: &Core, event: Event) -> Result<Option<Instance>> {
    let (Some(id), false) = (event.instance.clone(), event.kind.ends_stream()) else { return Ok(None) };
    let created_at = match event.kind {
        EventKind::InstanceCreated => event.time,
        _ => match created_of_living(core, &event, &id).await {
            Some(created_at) => created_at,
            None => {
                let stream = event.stream();
                let created = at(&*core.stores.event, &stream, event.clone(), 1).await?;
                created.map_or(event.time, |created| created.time)
            }
        },
    };
    Ok(event.data.map(|data| Instance {
        id,
        model: event.model,
        model_version: event.model_version,
        revision: event.revision,
        position: event.position,
        created_at,
        updated_at: event.time,
        data,
    }))
}

/// The creation time of an event's instance, if it is the current one, which avoids the way back through all of its
/// revisions. The log's times never go back, so an instance that was created before the event is not a later one of the
/// same id.
async fn created_of_living(core: &Core, event: &Event, id: &str) -> Option<Millis> {
    let instance = core.stores.model.get(&event.model, id).await.ok().flatten()?;
    (instance.position >= event.position && instance.created_at < event.time).then_some(instance.created_at)
}

/// The event of a stream that led to a revision, searched backwards from a later event. Each event increases the
/// revision by one, or keeps it.
pub(super) async fn at(events: &dyn EventStore, stream: &Stream, later: Event, revision: u64) -> Result<Option<Event>> {
    let mut event = later;
    while event.revision > revision {
        let skip = event.revision - revision;
        match events.last_but(stream, event.position, skip).await? {
            Some(earlier) if earlier.revision <= event.revision => event = earlier,
            _ => return Ok(None),
        }
    }
    Ok((event.revision == revision).then_some(event))
}
