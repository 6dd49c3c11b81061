//! The next table of a model, beside the one that is read; [`prepare`](super::prepare) builds it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rusqlite::Connection;
use snaphook_driver::{CarryOver, Event, ModelShape};

use super::rows::{self, Steps};
use super::table::Table;

/// A table that is being built, or is complete.
pub(super) struct Shadow {
    pub(super) from: Arc<Table>,
    pub(super) to: Arc<Table>,
    pub(super) steps: Steps,
    /// What it was prepared for.
    pub(super) shape: ModelShape,
    pub(super) carry: CarryOver,
    pub(super) complete: bool,
    /// Set when the caller of `prepare` is gone.
    pub(super) abandoned: Arc<AtomicBool>,
}

impl Shadow {
    /// Whether it is what this change needs. The record is no part of the table.
    pub(super) fn is_for(&self, new: &ModelShape, carry: &CarryOver) -> bool {
        self.complete && !self.abandoned.load(Ordering::Relaxed) && self.shape.is_like(new) && self.carry == *carry
    }

    pub(super) fn ticket(&self) -> u64 {
        self.to.names().table
    }

    /// Brings the instance of an event that was applied over to the new table; `false` if the shadow is of no use any
    /// more.
    pub(super) fn follow(&mut self, connection: &Connection, event: &Event) -> bool {
        let Some(id) = &event.instance else { return true };
        if self.abandoned.load(Ordering::Relaxed) {
            return false;
        }
        let followed = rows::mirror(connection, &self.from, &self.to, id, &mut self.steps);
        followed.inspect_err(|error| tracing::warn!("a prepared table is given up: {error}")).is_ok()
    }
}
