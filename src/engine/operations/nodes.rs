//! The nodes that share the log: each announces itself in the event store, so that every node can list all of them.

use std::time::Duration;

use serde::Serialize;
use snaphook_driver::{ErrorKind as DriverErrorKind, Node, Position};

use super::Operations;
use crate::engine::error::Result;

/// How often a node announces itself, and how long the others remember it.
const EVERY: Duration = Duration::from_secs(2);
const KEPT: Duration = Duration::from_secs(10);

/// A node and its lag behind the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NodeInfo {
    pub id: String,
    pub address: String,
    pub version: String,
    /// The position up to which it has applied the log.
    pub position: Position,
    /// The distance to the head of the log, as last reported by the node.
    pub lag: u64,
}

impl From<Node> for NodeInfo {
    fn from(node: Node) -> Self {
        let Node { id, address, version, position, head } = node;
        NodeInfo { id, address, version, position, lag: head.saturating_sub(position) }
    }
}

impl Operations {
    /// Announces this node, whose API is at that address, periodically. Never returns.
    pub async fn keep_announcing(&self, address: &str) {
        let mut was_announced = true;
        let mut interval = tokio::time::interval(EVERY);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            let announced = self.announce(address, KEPT).await;
            if let Err(error) = &announced
                && was_announced
            {
                tracing::warn!("the other nodes cannot be notified of this one: {error}");
            }
            was_announced = announced.is_ok();
        }
    }

    /// Removes this node from the list.
    pub async fn leave(&self, address: &str) {
        // If this fails, the other nodes remove it after a few seconds.
        let _ = tokio::time::timeout(EVERY, self.announce(address, Duration::ZERO)).await;
    }

    /// The nodes that share the log, by id; this one is among them once it is announced.
    pub async fn nodes(&self) -> Result<Vec<NodeInfo>> {
        match self.core.stores.event.nodes().await {
            Ok(nodes) => Ok(nodes.into_iter().map(Into::into).collect()),
            // A driver of an earlier version.
            Err(error) if error.kind() == DriverErrorKind::Unsupported => Ok(Vec::new()),
            Err(error) => Err(error.into()),
        }
    }

    /// The head of the log; `None` if the event store does not respond in time.
    pub(super) async fn log_head(&self) -> Option<Position> {
        tokio::time::timeout(EVERY, self.core.stores.event.head()).await.ok()?.ok()
    }

    async fn announce(&self, address: &str, keep: Duration) -> snaphook_driver::Result<()> {
        let position = self.core.tail.head();
        let head = self.core.stores.event.head().await?.max(position);
        let node = Node {
            id: self.core.stores.node.clone(),
            address: address.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            position,
            head,
        };
        match self.core.stores.event.announce(&node, keep).await {
            Err(error) if error.kind() != DriverErrorKind::Unsupported => Err(error),
            _ => Ok(()),
        }
    }
}
