//! `/events`: the log, in pages and live.

use std::sync::Arc;

use futures::{StreamExt, future, stream};
use snaphook_driver::{Event, EventFilter, EventKind, EventQuery};
use tokio::sync::Mutex;

use super::log_position::LogPosition;
use super::problem::{Problem, Result};
use super::query::{Query, shorten};
use super::reply::Response;
use super::request::Call;
use super::{id, identify, list, sse};
use crate::engine::Visibility;

const LAST_EVENT_ID: &str = "last-event-id";

/// `GET /events`
pub(super) async fn list(call: &Call) -> Result<Response> {
    let mut query = call.query()?;
    let after = call.position(&mut query, "after").await?.unwrap_or(0);
    let limit = list::limit(&mut query)?;
    let filter = filter(&mut query)?;
    query.finish()?;
    check_model(call, &filter).await?;
    let right = call.right();
    let query = EventQuery { after, limit, filter };
    let seen = call.engine().history.seen_by(&right);
    let page = seen.events(&query, |model| identify::may_read(call, model)).await?;
    list::events(call, &page, call.engine().history.log())
}

/// `GET /models/{model}/instances/{id}/events`
pub(super) async fn history(call: &Call) -> Result<Response> {
    let (model, id) = (call.model()?, call.instance()?);
    let mut query = call.query()?;
    let after = call.position(&mut query, "after").await?.unwrap_or(0);
    let limit = list::limit(&mut query)?;
    query.finish()?;
    let right = call.right();
    let page = call.engine().history.seen_by(&right).instance_events(model, id, after, limit).await?;
    list::events(call, &page, call.engine().history.log())
}

/// `GET /events/stream`
pub(super) async fn stream(call: &Call) -> Result<Response> {
    let mut query = call.query()?;
    let after = query.take("after")?.map(|after| LogPosition::parse("after", &after)).transpose()?;
    let filter = filter(&mut query)?;
    query.finish()?;
    check_model(call, &filter).await?;
    // A browser that reconnects sends the id of the last event with its original URL.
    let after = match call.header(LAST_EVENT_ID)? {
        Some(last) => Some(LogPosition::parse("Last-Event-ID", last)?),
        None => after,
    };
    let after = match after {
        Some(after) => call.find(&after).await?,
        None => call.engine().history.head(),
    };
    let app = Arc::clone(&call.app);
    let caller = call.caller.clone();
    let visibility = Arc::new(Mutex::new(call.engine().history.visibility(&call.right())));
    // The start position, as an id without data, so that a client whose connection breaks before the first event can
    // resume.
    let start = sse::place(call.engine().history.log(), after);
    let events = call.engine().history.follow(EventQuery { after, limit: list::LIMIT_DEFAULT, filter });
    let events = events
        .take_while(|event| {
            if let Err(error) = event {
                // The listener reconnects with its last id.
                tracing::warn!("an event stream ends: {error}");
            }
            future::ready(event.is_ok())
        })
        .filter_map(|event| future::ready(event.ok()));
    let frames = identify::while_known(call, events)?
        .filter(move |event| future::ready(caller.as_ref().is_some_and(|caller| caller.may_read(&event.model))))
        .scan(visibility, |visibility, event| {
            let visibility = Arc::clone(visibility);
            async move { visible(&visibility, event).await }
        })
        .filter_map(future::ready)
        .then(move |event| {
            let app = Arc::clone(&app);
            async move { app.frames.of(&event, app.engine.history.log(), app.engine.memory()).await }
        });
    Ok(sse::respond(stream::iter([start]).chain(frames), call.app.stopping.clone()))
}

/// The event, unless it is hidden. `None` if this cannot be determined: then the stream ends, and its listener
/// reconnects with its last id.
async fn visible(visibility: &Mutex<Visibility>, event: Arc<Event>) -> Option<Option<Arc<Event>>> {
    match visibility.lock().await.of_event(&event).await {
        Ok(is_visible) => Some(is_visible.then_some(event)),
        Err(error) => {
            tracing::warn!(position = event.position, "an event stream ends: {error}");
            None
        }
    }
}

/// A name that never was in the log is an error, because the stream would stay empty.
async fn check_model(call: &Call, filter: &EventFilter) -> Result<()> {
    match &filter.model {
        Some(model) => {
            identify::check_model(call, model)?;
            Ok(call.engine().history.check_in_log(model).await?)
        }
        None => Ok(()),
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
    let kinds = match query.list("type")? {
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
