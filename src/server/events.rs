//! `/events`: the log, in pages and live.

use std::sync::Arc;

use futures::{StreamExt, future};
use snaphook_driver::{EventFilter, EventKind, EventQuery, Position};

use super::problem::{Problem, Result};
use super::query::{Query, shorten};
use super::reply::Response;
use super::request::{Call, Verb};
use super::{id, list, sse};

const LAST_EVENT_ID: &str = "last-event-id";

/// `GET /events`
pub(super) async fn list(call: &Call) -> Result<Response> {
    only_get(call)?;
    let mut query = call.query()?;
    let after = query.number("after", 0, Position::MAX)?.unwrap_or(0);
    let limit = list::limit(&mut query)?;
    let filter = filter(&mut query)?;
    query.finish()?;
    let page = call.engine().events(&EventQuery { after, limit, filter }).await?;
    Ok(list::events(&page))
}

/// `GET /models/{model}/instances/{id}/events`
pub(super) async fn history(call: &Call, model: &str, id: &str) -> Result<Response> {
    id::model(model)?;
    id::instance(id)?;
    only_get(call)?;
    let mut query = call.query()?;
    let after = query.number("after", 0, Position::MAX)?.unwrap_or(0);
    let limit = list::limit(&mut query)?;
    query.finish()?;
    let page = call.engine().instance_events(model, id, after, limit).await?;
    Ok(list::events(&page))
}

/// `GET /events/stream`
pub(super) async fn stream(call: &Call) -> Result<Response> {
    only_get(call)?;
    let mut query = call.query()?;
    let after = query.number("after", 0, Position::MAX)?;
    let filter = filter(&mut query)?;
    query.finish()?;
    // A browser that comes back sends the id of the last event with the URL that it first used.
    let after = match call.header(LAST_EVENT_ID)? {
        Some(last) => Some(last.parse().map_err(|_| {
            Problem::bad_request(format!("`Last-Event-ID` is `{}`, expected the position of an event", shorten(last)))
        })?),
        None => after,
    };
    let after = after.unwrap_or_else(|| call.engine().head());
    let app = Arc::clone(&call.app);
    let events = call.engine().follow(EventQuery { after, limit: list::LIMIT_DEFAULT, filter });
    let frames = events
        .take_while(|event| {
            if let Err(error) = event {
                // The listener comes back with its last id.
                tracing::warn!("an event stream ends: {error}");
            }
            future::ready(event.is_ok())
        })
        .filter_map(move |event| future::ready(event.ok().map(|event| app.frames.of(&event))));
    Ok(sse::respond(frames, call.app.stopping.clone()))
}

fn only_get(call: &Call) -> Result<()> {
    match call.verb() {
        Verb::Get => Ok(()),
        _ => Err(Problem::method_not_allowed("GET, HEAD")),
    }
}

/// `model`, `instance` and `type`, which may be a list.
fn filter(query: &mut Query<'_>) -> Result<EventFilter> {
    let model = query.text("model")?;
    let instance = query.text("instance")?;
    model.as_deref().map(id::model).transpose()?;
    instance.as_deref().map(id::instance).transpose()?;
    if instance.is_some() && model.is_none() {
        return Err(Problem::bad_request("`instance` needs `model` beside it: ids are unique within a model only"));
    }
    let kinds = match query.text("type")? {
        Some(names) => names.split(',').map(kind).collect::<Result<_>>()?,
        None => Vec::new(),
    };
    Ok(EventFilter { model, instance, definitions_only: false, kinds })
}

fn kind(name: &str) -> Result<EventKind> {
    EventKind::from_name(name).ok_or_else(|| {
        let known = EventKind::ALL.map(EventKind::as_str).join(" ");
        Problem::bad_request(format!("`type` has `{}`, expected some of {known}", shorten(name)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters() {
        let of = |text: &'static str| filter(&mut Query::parse(text).expect("a query"));
        assert_eq!(of("").expect("valid"), EventFilter::default());
        let filter = of("model=m&instance=i&type=instance.created,model.deleted").expect("valid");
        assert_eq!((filter.model.as_deref(), filter.instance.as_deref()), (Some("m"), Some("i")));
        assert_eq!(filter.kinds, [EventKind::InstanceCreated, EventKind::ModelDeleted]);
        for bad in [
            "instance=i",
            "model=M",
            "model=",
            "type=created",
            "type=",
            "type=instance.created,",
            "model=m&instance=%20",
        ] {
            assert!(of(bad).is_err(), "{bad}");
        }
    }
}
