//! Deliveries: events on their way to post hooks, the failures among them, and the logs of runs.
//!
//! The [`dispatcher`] takes events from the log, `delivery` runs their hooks, `failures` handles those in the error
//! store.

mod claims;
mod delivery;
pub(super) mod dispatcher;
mod failures;
mod pace;
mod runs;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use self::claims::Claims;
use super::core::Core;

/// The service for the runs of hooks.
#[derive(Clone)]
pub struct Deliveries {
    core: Arc<Core>,
    /// Locks on instances whose recorded errors are being retried or dropped.
    claims: Arc<Claims>,
}

impl Deliveries {
    pub(super) fn new(core: Arc<Core>) -> Deliveries {
        Deliveries { core, claims: Arc::default() }
    }
}
