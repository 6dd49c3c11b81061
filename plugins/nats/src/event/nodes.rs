//! The nodes that share the log: each announces itself with one value in a bucket.

use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;
use snaphook_driver::wire::proto;
use snaphook_driver::{ErrorKind, NODES_MAX, Node, Result, time};

use crate::bucket::{Bucket, Written};
use crate::connection::Link;
use crate::streams::Kind;

/// When the server forgets the announcement of a node that did not withdraw.
const FORGOTTEN: Duration = Duration::from_secs(24 * 60 * 60);

/// A node's announcement, with its expiry by the node's clock.
#[derive(Clone, PartialEq, prost::Message)]
struct Said {
    #[prost(message, optional, tag = "1")]
    node: Option<proto::Node>,
    #[prost(int64, tag = "2")]
    until: i64,
}

pub(super) struct Nodes(Bucket);

impl Nodes {
    pub(super) async fn open(link: &Arc<Link>) -> Result<Nodes> {
        Ok(Nodes(Bucket::open(link, "nodes", Kind::Leases(FORGOTTEN)).await?))
    }

    pub(super) async fn announce(&self, node: &Node, keep: Duration) -> Result<()> {
        let (key, keep) = (key(&node.id), i64::try_from(keep.as_millis()).unwrap_or(i64::MAX));
        if keep == 0 {
            let there = self.0.get("announce", &key).await?;
            if there.bytes.is_none() {
                return Ok(());
            }
            // A conflict means that this node announced itself again.
            return match self.0.set("announce", &key, None, there.revision).await? {
                Written::At(_) | Written::Conflict => Ok(()),
            };
        }
        let said = Said { node: Some(node.into()), until: time::now().saturating_add(keep) };
        match self.0.put("announce", &key, said.encode_to_vec().into()).await {
            // It will be announced again soon.
            Err(error) if error.kind() == ErrorKind::Uncertain => Err(error.as_kind(ErrorKind::Unavailable)),
            written => written,
        }
    }

    pub(super) async fn all(&self) -> Result<Vec<Node>> {
        let now = time::now();
        let mut nodes = Vec::new();
        for key in self.0.keys("nodes").await? {
            let Some(bytes) = self.0.get("nodes", &key).await?.bytes else { continue };
            // An unreadable value comes from a later version.
            let Ok(Said { node: Some(node), until }) = Said::decode(bytes) else { continue };
            if until > now && nodes.len() < NODES_MAX {
                nodes.push(Node::from(node));
            }
        }
        nodes.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        Ok(nodes)
    }
}

/// `n` and the bytes of the id as hexadecimal digits: a subject allows fewer characters than an id.
fn key(id: &str) -> String {
    let digits: String = id.bytes().map(|byte| format!("{byte:02x}")).collect();
    format!("n{digits}")
}
