//! `/nodes`: the nodes that share the log.

use serde::Serialize;

use super::problem::Result;
use super::reply::{Reply, Response};
use super::request::Call;
use crate::engine::NodeInfo;

#[derive(Serialize)]
struct Nodes {
    items: Vec<NodeInfo>,
    next: Option<String>,
}

/// `GET /nodes`
pub(super) async fn list(call: &Call) -> Result<Response> {
    call.no_query()?;
    Reply::ok().serialize(&Nodes { items: call.engine().operations.nodes().await?, next: None })
}
