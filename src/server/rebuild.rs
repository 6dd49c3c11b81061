//! `/rebuild`: the model store, made anew from the log.

use hyper::StatusCode;

use super::problem::{Problem, Result};
use super::reply::{Reply, Response};
use super::request::{Call, Verb};

/// `GET` and `POST /rebuild`
pub(super) async fn rebuild(call: &Call) -> Result<Response> {
    let status = match call.verb() {
        Verb::Get => StatusCode::OK,
        Verb::Post => StatusCode::ACCEPTED,
        _ => return Err(Problem::method_not_allowed("GET, HEAD, POST")),
    };
    call.no_query()?;
    if status == StatusCode::ACCEPTED {
        call.engine().operations.start_rebuild().await?;
    }
    Reply::new(status).serialize(&call.engine().operations.rebuild_progress())
}
