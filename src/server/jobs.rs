//! `/jobs/{id}`: work that goes on after its request was answered.

use hyper::StatusCode;

use super::id;
use super::problem::{Problem, Result};
use super::reply::{Reply, Response};
use super::request::{Call, Verb};

/// `GET` and `DELETE /jobs/{id}`
pub(super) async fn one(call: &Call, id: &str) -> Result<Response> {
    id::job(id)?;
    match call.verb() {
        Verb::Get => {
            call.no_query()?;
            Reply::ok().serialize(&call.engine().operations.job(id)?)
        }
        Verb::Delete => {
            call.no_query()?;
            call.engine().operations.cancel_job(id)?;
            Ok(Reply::new(StatusCode::NO_CONTENT).empty())
        }
        _ => Err(Problem::method_not_allowed("GET, HEAD, DELETE")),
    }
}
