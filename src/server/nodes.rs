//! `/nodes`: the nodes that share the log.

use serde::Serialize;

use super::problem::{Problem, Result};
use super::reply::{Reply, Response};
use super::request::{Call, Verb};
use crate::engine::NodeInfo;

#[derive(Serialize)]
struct Nodes {
    items: Vec<NodeInfo>,
    next: Option<String>,
}

/// `GET /nodes`
pub(super) async fn list(call: &Call) -> Result<Response> {
    if call.verb() != Verb::Get {
        return Err(Problem::method_not_allowed("GET, HEAD"));
    }
    call.no_query()?;
    Reply::ok().serialize(&Nodes { items: call.engine().operations.nodes().await?, next: None })
}
