//! Announcements of the nodes that share a store: their identity and their progress.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::event::Position;

/// The announcement of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// As in [`OpenContext::node`](crate::OpenContext::node).
    pub id: String,
    /// The address of its API, such as `10.0.0.5:1337`.
    pub address: String,
    /// The version of the server, such as `1.4.0`.
    pub version: String,
    /// The position up to which it has applied the log.
    pub position: Position,
    /// The head of the log at the time of the announcement.
    pub head: Position,
}

/// Maximum size in bytes of each text of a [`Node`] that a store must be able to keep.
pub const NODE_TEXT_BYTES_MAX: usize = 256;

/// Maximum number of stored nodes; if there are more, those with the latest announcements are kept.
pub const NODES_MAX: usize = 1000;

/// Nodes in memory: for a store that is served by one process. Nodes repeat their announcements after a restart.
#[derive(Debug, Default)]
pub struct Nodes(Mutex<BTreeMap<String, (Node, Instant)>>);

impl Nodes {
    /// [`EventStore::announce`](crate::EventStore::announce).
    pub fn announce(&self, node: &Node, keep: Duration) {
        let now = Instant::now();
        let mut nodes = self.locked(now);
        nodes.remove(&node.id);
        if keep.is_zero() {
            return;
        }
        if nodes.len() >= NODES_MAX {
            let next_to_go = nodes.values().min_by_key(|(_, until)| *until).map(|(node, _)| node.id.clone());
            next_to_go.map(|id| nodes.remove(&id));
        }
        nodes.insert(node.id.clone(), (node.clone(), now + keep));
    }

    /// [`EventStore::nodes`](crate::EventStore::nodes).
    pub fn all(&self) -> Vec<Node> {
        self.locked(Instant::now()).values().map(|(node, _)| node.clone()).collect()
    }

    /// The nodes whose announcements have not expired.
    fn locked(&self, now: Instant) -> MutexGuard<'_, BTreeMap<String, (Node, Instant)>> {
        let mut nodes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        nodes.retain(|_, (_, until)| *until > now);
        nodes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_keeps_so_many() {
        let nodes = Nodes::default();
        let node =
            |id: usize| Node { id: format!("{id:05}"), address: "a".into(), version: "1".into(), position: 1, head: 1 };
        for id in 0..NODES_MAX + 10 {
            nodes.announce(&node(id), Duration::from_secs(60 + id as u64));
        }
        let all = nodes.all();
        assert_eq!((all.len(), all[0].id.as_str()), (NODES_MAX, "00010"));
    }
}
