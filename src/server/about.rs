//! `/server`: which server this is, for tools that must not change another project's.

use serde::Serialize;

use super::problem::Result;
use super::reply::{Reply, Response};
use super::request::Call;

#[derive(Serialize)]
struct About<'a> {
    version: &'static str,
    /// The identity of the log.
    log: &'a str,
    /// Where the data is.
    data: String,
}

/// `GET /server`
pub(super) async fn get(call: &Call) -> Result<Response> {
    call.no_query()?;
    let about = About {
        version: env!("CARGO_PKG_VERSION"),
        log: call.engine().history.log(),
        data: call.app.config.load().data(),
    };
    Reply::ok().serialize(&about)
}
