//! `/plugins`: the libraries with drivers that are loaded.

use serde::Serialize;

use super::problem::{Problem, Result};
use super::reply::{Reply, Response};
use super::request::{Call, Verb};
use crate::drivers::PluginInfo;

#[derive(Serialize)]
struct Plugins<'a> {
    items: &'a [PluginInfo],
}

/// `GET /plugins`
pub(super) async fn list(call: &Call) -> Result<Response> {
    if call.verb() != Verb::Get {
        return Err(Problem::method_not_allowed("GET, HEAD"));
    }
    call.no_query()?;
    Reply::ok().serialize(&Plugins { items: call.engine().operations.plugins() })
}
