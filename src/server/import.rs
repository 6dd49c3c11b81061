//! `POST /models/{model}/import`: many creations, or with `upsert=true` replacements, in one request.

use super::body::{self, RequestBody};
use super::prefer::Prefer;
use super::problem::{Problem, Result};
use super::reply::{Reply, Response};
use super::request::Call;
use crate::engine::command::Precondition;

const NDJSON: &str = "application/x-ndjson";

/// The body may have any length, since it is never in memory as a whole; each of its lines may have `max-body` bytes.
pub(super) async fn import(call: &Call, body: RequestBody) -> Result<Response> {
    let model = call.model()?;
    let mut query = call.query()?;
    // With an idempotency key, each line has its own key.
    let options = call.write_options(&mut query, &Prefer::of(call.headers()), true)?;
    let upsert = query.flag("upsert")?;
    query.finish()?;
    if options.precondition != Precondition::None {
        return Err(Problem::bad_request(
            "an import has no `If-Match` or `If-None-Match`; `?upsert=true` replaces what exists",
        ));
    }
    match body::media_type(call.headers())?.as_deref() {
        None | Some(NDJSON | "application/ndjson") => {}
        Some(other) => return Err(body::unsupported(other, NDJSON)),
    }
    // The model is looked up before the body is read, so that an import into a missing model fails immediately.
    call.engine().definitions.get(model)?;
    let lines = body::lines(call, body, call.app.max_body_bytes())?;
    let imported = call.engine().writes.import(model, lines, upsert, &options, &call.origin()).await?;
    Reply::ok().serialize(&imported)
}
