//! Holds back writes to a model's instances on all nodes that share the log, by an event of the model's definition.
//!
//! A gate closes a model on its own node only. If writes of other nodes keep interrupting a change, the change appends
//! this event first. Every write that was prepared before it conflicts, on any node, and is prepared again; by then its
//! node has applied the event and holds the write back until the next event of the definition. If the node that changes
//! the model disappears, writes continue after [`WITHIN`]. The change is safe without this, since its event requires
//! that the model is quiet.

use std::sync::Arc;
use std::time::Duration;

use snaphook_driver::{EventKind, Expected, Position};
use tokio::runtime::Handle;

use super::event::definition_append;
use super::faults::changed;
use crate::catalog::ModelRecord;
use crate::engine::change::{Changing, DefinitionChange};
use crate::engine::command::Origin;
use crate::engine::committer::Draft;
use crate::engine::core::Core;
use crate::engine::error::Result;

/// How long writes are held back at most.
const WITHIN: Duration = Duration::from_secs(4);

/// Writes are held back. Dropping it releases them, unless the definition has reached its next event.
pub(super) struct HeldBack {
    core: Arc<Core>,
    record: ModelRecord,
    position: Position,
    origin: Origin,
    runtime: Handle,
}

impl HeldBack {
    /// When this returns, every earlier write is in the model store. `conflict` if the last event of the definition is
    /// no longer at `at`.
    pub(super) async fn new(core: &Arc<Core>, record: &ModelRecord, at: Position, origin: &Origin) -> Result<HeldBack> {
        let position = append(core, record, at, WITHIN, origin).await?;
        let (core, record, origin) = (Arc::clone(core), record.clone(), origin.clone());
        Ok(HeldBack { core, record, position, origin, runtime: Handle::current() })
    }

    /// The current position of the definition's stream.
    pub(super) fn position(&self) -> Position {
        self.position
    }
}

impl Drop for HeldBack {
    fn drop(&mut self) {
        let (core, record, at) = (Arc::clone(&self.core), self.record.clone(), self.position);
        let origin = self.origin.clone();
        self.runtime.spawn(async move {
            // A conflict means that the definition has a later event; after any other failure the time limit applies.
            let _ = append(&core, &record, at, Duration::ZERO, &origin).await;
        });
    }
}

async fn append(
    core: &Core,
    record: &ModelRecord,
    at: Position,
    within: Duration,
    origin: &Origin,
) -> Result<Position> {
    let change = DefinitionChange { definition: record.clone(), renames: Vec::new(), phase: None, is_target: false };
    let mut append = definition_append(EventKind::ModelChanging, record, &change, Expected::At(at), origin)?;
    let within_ms = u64::try_from(within.as_millis()).unwrap_or(u64::MAX);
    append.event.data = Some(Changing { within_ms }.to_json());
    let committed = core.append_one(Draft::new(append)).await?.map_err(|_| changed(&record.id))?;
    Ok(committed.position)
}
