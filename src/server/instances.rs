//! `/models/{model}/instances`: the data itself.

use hyper::StatusCode;
use snaphook_driver::time::{self, Millis};
use snaphook_driver::{Instance, InstancePage};

use super::body::{self, RequestBody};
use super::etag::EntityTag;
use super::expand::Expansion;
use super::list::{self, ListInput};
use super::log_position::LogPosition;
use super::precondition::{self, Read};
use super::prefer::Prefer;
use super::problem::{Problem, ProblemType, Result};
use super::query::shorten;
use super::reply::{Reply, Response};
use super::request::Call;
use super::{identify, json, readable};
use crate::engine::command::{InstanceChange, Precondition, Written};
use crate::engine::{At, Expand, input};

/// `GET /models/{model}/instances`
pub(super) async fn list(call: &Call) -> Result<Response> {
    let model = call.model()?;
    let mut query = call.query()?;
    let input = ListInput::take(&mut query)?;
    query.finish()?;
    if let Some(projection) = &input.projection {
        call.engine().history.check_fields(model, projection.paths())?;
    }
    let expands = expands(call, model, input.expand.as_deref())?;
    let right = call.right();
    let seen = call.engine().history.seen_by(&right);
    let (page, count) = match input.count {
        true => {
            let (page, count) = seen.query_and_count(model, &input.query).await?;
            (page, Some(count))
        }
        false => (seen.query(model, &input.query).await?, None),
    };
    send_page(call, &page, &input, expands, count).await
}

/// `GET /models/{model}/instances/{id}/referring/{other}`
pub(super) async fn referring(call: &Call) -> Result<Response> {
    let (model, id, other) = (call.model()?, call.instance()?, call.param("other"));
    super::id::model(other)?;
    identify::check_model(call, other)?;
    let mut query = call.query()?;
    let via = query.text("via")?;
    let input = ListInput::take(&mut query)?;
    query.finish()?;
    let history = &call.engine().history;
    let reference = history.reference_between(other, model, via.as_deref())?;
    if let Some(projection) = &input.projection {
        history.check_fields(other, projection.paths())?;
    }
    let expands = expands(call, other, input.expand.as_deref())?;
    let right = call.right();
    let seen = history.seen_by(&right);
    let (page, count) = seen.referring(model, id, other, &reference, &input.query, input.count).await?;
    send_page(call, &page, &input, expands, count).await
}

fn expands(call: &Call, model: &str, expand: Option<&str>) -> Result<Option<Vec<Expand>>> {
    let may_read = |model: &str| identify::may_read(call, model);
    Ok(expand.map(|text| call.engine().history.expansion(model, text, may_read)).transpose()?)
}

async fn send_page(
    call: &Call,
    page: &InstancePage,
    input: &ListInput,
    expands: Option<Vec<Expand>>,
    count: Option<u64>,
) -> Result<Response> {
    let expansion = match expands {
        Some(expands) => Some(Expansion::read(call, expands, &page.items).await?),
        None => None,
    };
    list::instances(call, page, input.projection.as_ref(), expansion.as_ref(), count)
}

/// `GET /models/{model}/instances/{id}`
pub(super) async fn get(call: &Call) -> Result<Response> {
    let (model, id) = (call.model()?, call.instance()?);
    let mut query = call.query()?;
    let at = query.text("at")?;
    let expand = query.list("expand")?;
    query.finish()?;
    if at.is_some() && expand.is_some() {
        return Err(Problem::bad_request("`expand` shows the present state, so it cannot be combined with `at`"));
    }
    let expands = expands(call, model, expand.as_deref())?;
    let at = match at {
        Some(text) => Some(moment(call, &text).await?),
        None => None,
    };
    let right = call.right();
    let seen = call.engine().history.seen_by(&right);
    let instance = match at {
        None => seen.get(model, id).await?,
        Some(at) => seen.get_at(model, id, at).await?,
    };
    let expansion = match expands {
        Some(expands) => Some(Expansion::read(call, expands, std::slice::from_ref(&instance)).await?),
        None => None,
    };
    let besides = expansion.as_ref().map(|expansion| expansion.digest(0));
    let tag = EntityTag { besides, ..EntityTag::of_instance(call.app.log, &instance) };
    match precondition::of_read(call.headers(), tag)? {
        Read::NotModified => Ok(Reply::new(StatusCode::NOT_MODIFIED).etag(tag).empty()),
        Read::Send => {
            if instance.data.len() > list::COUNTED_LATE_BYTES {
                call.hold(2 * instance.data.len())?;
            }
            let mut text = text(&instance);
            if let Some(expansion) = &expansion {
                expansion.write(&mut text, 0);
            }
            Ok(Reply::ok().etag(tag).json(text))
        }
    }
}

/// A time, or a position in the log.
async fn moment(call: &Call, text: &str) -> Result<At> {
    match time_or_place(text)? {
        Moment::Time(time) => Ok(At::Time(time)),
        Moment::Place(place) => call.find(&place).await.map(At::Position),
    }
}

#[derive(Debug, PartialEq)]
enum Moment {
    Time(Millis),
    Place(LogPosition),
}

fn time_or_place(text: &str) -> Result<Moment> {
    if let Some(time) = time::parse(text) {
        return Ok(Moment::Time(time));
    }
    LogPosition::parse("at", text).map(Moment::Place).map_err(|_| {
        Problem::bad_request(format!(
            "`at` is `{}`, expected a position or a time such as 2026-01-31T12:00:00.000Z",
            shorten(text)
        ))
    })
}

/// `POST /models/{model}/instances`
pub(super) async fn create(call: &Call, body: RequestBody) -> Result<Response> {
    let model = call.model()?;
    let bytes = body::json(call, body).await?;
    let input::NewInstance { id, data } = input::new_instance(&bytes)?;
    write(call, model, InstanceChange::Create { id, data }).await
}

/// `PUT /models/{model}/instances/{id}`
pub(super) async fn replace(call: &Call, body: RequestBody) -> Result<Response> {
    let (model, id) = (call.model()?, call.instance()?);
    let bytes = body::json(call, body).await?;
    let data = input::replacement(&bytes)?;
    let create = precondition::of_write(call.headers(), call.app.log)? == Precondition::Absent;
    write(call, model, InstanceChange::Replace { id: id.to_owned(), data, create }).await
}

/// `PATCH /models/{model}/instances/{id}`
pub(super) async fn patch(call: &Call, body: RequestBody) -> Result<Response> {
    let (model, id) = (call.model()?, call.instance()?);
    let bytes = body::json_of_type(call, body, body::MERGE_PATCH).await?;
    let patch = input::value(&bytes)?;
    write(call, model, InstanceChange::Patch { id: id.to_owned(), patch }).await
}

/// `DELETE /models/{model}/instances/{id}`
pub(super) async fn delete(call: &Call) -> Result<Response> {
    let (model, id) = (call.model()?, call.instance()?);
    write(call, model, InstanceChange::Delete { id: id.to_owned() }).await
}

async fn write(call: &Call, model: &str, change: InstanceChange) -> Result<Response> {
    let prefer = Prefer::of(call.headers());
    let mut query = call.query()?;
    let is_create = matches!(change, InstanceChange::Create { .. });
    let options = call.write_options(&mut query, &prefer, is_create)?;
    query.finish()?;
    if is_create && matches!(options.precondition, Precondition::Exists | Precondition::At(_)) {
        let detail = "`If-Match` cannot match for an instance that is to be created";
        return Err(Problem::new(ProblemType::PreconditionFailed, detail));
    }
    let changed = call.engine().writes.change(model, change, &options, &call.origin()).await;
    match changed.map_err(|error| readable::problem(call, error))? {
        Written::Created(instance) => {
            let location = call.location(&["models", model, "instances", &instance.id]);
            Ok(written(call, Reply::new(StatusCode::CREATED).location(&location), prefer, &instance))
        }
        Written::Updated(instance) => {
            let status = if prefer.minimal { StatusCode::NO_CONTENT } else { StatusCode::OK };
            Ok(written(call, Reply::new(status), prefer, &instance))
        }
        Written::Deleted(_) => Ok(prefer.applied(Reply::new(StatusCode::NO_CONTENT)).empty()),
        Written::DryRun(dry_run) => Reply::ok().serialize(&readable::dry_run(call, dry_run)),
    }
}

fn written(call: &Call, reply: Reply, prefer: Prefer, instance: &Instance) -> Response {
    let reply = prefer.applied(reply.etag(EntityTag::of_instance(call.app.log, instance)));
    if prefer.minimal { reply.empty() } else { reply.json(text(instance)) }
}

fn text(instance: &Instance) -> Vec<u8> {
    let mut out = Vec::new();
    json::write_instance(&mut out, instance);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments() {
        let place = |text: &str| Moment::Place(LogPosition::parse("at", text).expect("a place"));
        assert_eq!(time_or_place("12").expect("valid"), place("12"));
        assert_eq!(
            time_or_place("01890a5d-ac96-774b-bcce-b302099a8057.12").expect("valid"),
            place("01890a5d-ac96-774b-bcce-b302099a8057.12")
        );
        assert_eq!(time_or_place("2023-11-14T22:13:20.007Z").expect("valid"), Moment::Time(1_700_000_000_007));
        assert_eq!(time_or_place("2023-11-14T23:13:20+01:00").expect("valid"), Moment::Time(1_700_000_000_000));
        for bad in ["-1", "now", "1.5", "2023-11-14", "99999999999999999999999"] {
            assert!(time_or_place(bad).is_err(), "{bad}");
        }
    }
}
