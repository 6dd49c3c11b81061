//! `/plugins`: the loaded libraries with drivers.

use serde::Serialize;

use super::problem::Result;
use super::reply::{Reply, Response};
use super::request::Call;
use crate::drivers::PluginInfo;

#[derive(Serialize)]
struct Plugins<'a> {
    items: &'a [PluginInfo],
    next: Option<String>,
}

/// `GET /plugins`
pub(super) async fn list(call: &Call) -> Result<Response> {
    call.no_query()?;
    Reply::ok().serialize(&Plugins { items: call.engine().operations.plugins(), next: None })
}
