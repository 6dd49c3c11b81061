//! `/rebuild`: rebuilds the model store from the log.

use hyper::StatusCode;

use super::problem::Result;
use super::reply::{Reply, Response};
use super::request::Call;

/// `GET /rebuild`
pub(super) async fn progress(call: &Call) -> Result<Response> {
    call.no_query()?;
    Reply::ok().serialize(&call.engine().operations.rebuild_progress())
}

/// `POST /rebuild`
pub(super) async fn start(call: &Call) -> Result<Response> {
    call.no_query()?;
    call.engine().operations.start_rebuild().await?;
    Reply::new(StatusCode::ACCEPTED).serialize(&call.engine().operations.rebuild_progress())
}
