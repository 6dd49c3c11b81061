//! Deliveries: events on their way to post hooks, the failures among them, and the logs of runs.
//!
//! The [`dispatcher`] takes events from the log, `delivery` runs their hooks, `failures` is about those that are kept in the
//! error store.

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
    /// Instances whose recorded errors somebody retries or drops.
    claims: Arc<Claims>,
}

impl Deliveries {
    pub(super) fn new(core: Arc<Core>) -> Deliveries {
        Deliveries { core, claims: Arc::default() }
    }
}
