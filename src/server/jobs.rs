//! `/jobs/{id}`: work that continues after the response to its request.

use hyper::StatusCode;

use super::id;
use super::problem::Result;
use super::reply::{Reply, Response};
use super::request::Call;

/// `GET /jobs/{id}`
pub(super) async fn get(call: &Call) -> Result<Response> {
    let id = job_id(call)?;
    call.no_query()?;
    Reply::ok().serialize(&call.engine().operations.job(id)?)
}

/// `DELETE /jobs/{id}`
pub(super) async fn cancel(call: &Call) -> Result<Response> {
    let id = job_id(call)?;
    call.no_query()?;
    call.engine().operations.cancel_job(id)?;
    Ok(Reply::new(StatusCode::NO_CONTENT).empty())
}

fn job_id(call: &Call) -> Result<&str> {
    let id = call.param("id");
    id::job(id)?;
    Ok(id)
}
