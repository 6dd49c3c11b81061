//! The next table of a model, beside the current one; [`prepare`](super::prepare) builds it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rusqlite::Connection;
use snaphook_driver::{CarryOver, Event, ModelShape};

use super::rows::{self, Steps};
use super::table::Table;

/// A table that is being built or is complete.
pub(super) struct Shadow {
    pub(super) from: Arc<Table>,
    pub(super) to: Arc<Table>,
    pub(super) steps: Steps,
    /// The shape for which it was prepared.
    pub(super) shape: ModelShape,
    pub(super) carry: CarryOver,
    pub(super) complete: bool,
    /// Set when the caller of `prepare` is gone.
    pub(super) abandoned: Arc<AtomicBool>,
}

impl Shadow {
    /// Whether it fits this change. The record is not part of the table.
    pub(super) fn is_for(&self, new: &ModelShape, carry: &CarryOver) -> bool {
        self.complete && !self.abandoned.load(Ordering::Relaxed) && self.shape.is_like(new) && self.carry == *carry
    }

    pub(super) fn ticket(&self) -> u64 {
        self.to.names().table
    }

    /// Copies the instance of an applied event to the new table; `false` if the shadow has become unusable.
    pub(super) fn follow(&mut self, connection: &Connection, event: &Event) -> bool {
        let Some(id) = &event.instance else { return true };
        if self.abandoned.load(Ordering::Relaxed) {
            return false;
        }
        let followed = rows::mirror(connection, &self.from, &self.to, id, &mut self.steps);
        followed.inspect_err(|error| tracing::warn!("a prepared table is abandoned: {error}")).is_ok()
    }
}
