//! `/models`: definitions.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures::{Stream, stream};
use hyper::StatusCode;
use hyper::header::CONTENT_TYPE;
use snaphook_driver::time::Millis;
use snaphook_driver::{Json, PAGE_BYTES_MAX, Position};

use super::body::{self, RequestBody};
use super::etag::EntityTag;
use super::precondition::{self, Read};
use super::prefer::Prefer;
use super::problem::Result;
use super::reply::{Reply, ReplyBody, Response};
use super::request::Call;
use super::{id, identify, list};
use crate::catalog::{Model, ModelRecord, UniqueList};
use crate::config::Phase;
use crate::engine::command::Defined;
use crate::engine::input;

/// `GET /models`
pub(super) async fn list(call: &Call) -> Result<Response> {
    #[derive(serde::Serialize)]
    struct ModelPage<'a> {
        items: Vec<View<'a>>,
        /// There are few models, so one page contains all of them.
        next: Option<String>,
    }
    call.no_query()?;
    let mut models = call.engine().definitions.all();
    models.retain(|model| identify::may_read(call, &model.record.id));
    if models.iter().map(|model| model.record.schema.len()).sum::<usize>() > PAGE_BYTES_MAX {
        return Ok(Reply::ok()
            .fixed(CONTENT_TYPE, "application/json")
            .body(ReplyBody::Stream(Box::pin(pieces(models)))));
    }
    list::hold(call, models.iter().map(|model| model.record.schema.len()))?;
    Reply::ok()
        .serialize(&ModelPage { items: models.iter().map(|model| View::of(&model.record)).collect(), next: None })
}

/// The same page, one model at a time.
fn pieces(models: Vec<Arc<Model>>) -> impl Stream<Item = Bytes> + Send {
    let items = models.into_iter().enumerate().map(|(index, model)| {
        let mut out = if index == 0 { Vec::new() } else { vec![b','] };
        // Writing texts and numbers to memory cannot fail.
        let _ = serde_json::to_writer(&mut out, &View::of(&model.record));
        Bytes::from(out)
    });
    let (start, end) = (Bytes::from_static(b"{\"items\":["), Bytes::from_static(b"],\"next\":null}"));
    stream::iter([start].into_iter().chain(items).chain([end]))
}

/// `POST /models`
pub(super) async fn create(call: &Call, body: RequestBody) -> Result<Response> {
    let prefer = Prefer::of(call.headers());
    let mut query = call.query()?;
    let options = call.write_options(&mut query, &prefer, true)?;
    query.finish()?;
    let bytes = body::json(call, body).await?;
    let (model, definition) = input::new_model(&bytes)?;
    id::model(&model)?;
    let made = call.engine().definitions.create(&model, definition, &options, &call.origin()).await?;
    match made {
        Defined::Done(made) => {
            let reply = Reply::new(StatusCode::CREATED).location(&call.location(&["models", &model]));
            written(call, reply, prefer, &made.record)
        }
        Defined::DryRun(answer) => Reply::ok().serialize(&answer),
    }
}

/// `GET /models/{model}`
pub(super) async fn get(call: &Call) -> Result<Response> {
    let model = call.model()?;
    let mut query = call.query()?;
    let version = query.number("version", 1, u64::MAX)?;
    query.finish()?;
    match version {
        Some(version) => {
            let record = call.engine().history.model_version(model, version).await?;
            send(call, &record)
        }
        None => {
            let found = call.engine().definitions.get(model)?;
            send(call, &found.record)
        }
    }
}

fn send(call: &Call, record: &ModelRecord) -> Result<Response> {
    let tag = EntityTag::of_model(call.app.log, record);
    match precondition::of_read(call.headers(), tag)? {
        Read::NotModified => Ok(Reply::new(StatusCode::NOT_MODIFIED).etag(tag).empty()),
        Read::Send => Reply::ok().etag(tag).serialize(&View::of(record)),
    }
}

/// `PUT /models/{model}`
pub(super) async fn update(call: &Call, body: RequestBody) -> Result<Response> {
    let model = call.model()?;
    let prefer = Prefer::of(call.headers());
    let mut query = call.query()?;
    let options = call.write_options(&mut query, &prefer, false)?;
    query.finish()?;
    let bytes = body::json(call, body).await?;
    let definition = input::model_version(&bytes)?;
    let made = call.engine().definitions.update(model, definition, &options, &call.origin()).await?;
    match made {
        Defined::Done(made) => {
            let status = if prefer.minimal { StatusCode::NO_CONTENT } else { StatusCode::OK };
            written(call, Reply::new(status), prefer, &made.record)
        }
        Defined::DryRun(answer) => Reply::ok().serialize(&answer),
    }
}

/// `DELETE /models/{model}`
pub(super) async fn delete(call: &Call) -> Result<Response> {
    let model = call.model()?;
    let mut query = call.query()?;
    let cascade = query.flag("cascade")?;
    let options = call.write_options(&mut query, &Prefer::of(call.headers()), false)?;
    query.finish()?;
    match call.engine().definitions.delete(model, cascade, &options, &call.origin()).await? {
        Defined::Done(()) => Ok(Reply::new(StatusCode::NO_CONTENT).empty()),
        Defined::DryRun(answer) => Reply::ok().serialize(&answer),
    }
}

fn written(call: &Call, reply: Reply, prefer: Prefer, record: &ModelRecord) -> Result<Response> {
    // No hook runs after a change of a model, so there is nothing to wait for.
    let reply = Prefer { wait: None, ..prefer }.applied(reply.etag(EntityTag::of_model(call.app.log, record)));
    if prefer.minimal { Ok(reply.empty()) } else { reply.serialize(&View::of(record)) }
}

/// `Model` of the contract.
#[derive(serde::Serialize)]
struct View<'a> {
    id: &'a str,
    version: u64,
    schema: &'a Json,
    indexes: &'a [Vec<String>],
    unique: &'a [UniqueList],
    #[serde(skip_serializing_if = "Option::is_none")]
    rules: Option<&'a Json>,
    /// Names; phases without hooks are absent.
    hooks: BTreeMap<Phase, Vec<&'a str>>,
    position: Position,
    #[serde(with = "snaphook_driver::time")]
    created_at: Millis,
    #[serde(with = "snaphook_driver::time")]
    updated_at: Millis,
}

impl<'a> View<'a> {
    fn of(record: &'a ModelRecord) -> Self {
        let names = record.hooks.iter().filter(|(_, chain)| !chain.is_empty());
        View {
            id: &record.id,
            version: record.version,
            schema: &record.schema,
            indexes: &record.indexes,
            unique: &record.unique,
            rules: record.rules.as_ref(),
            hooks: names
                .map(|(phase, chain)| (*phase, chain.iter().map(|hook| hook.name.as_str()).collect()))
                .collect(),
            position: record.position,
            created_at: record.created_at,
            updated_at: record.updated_at,
        }
    }
}
