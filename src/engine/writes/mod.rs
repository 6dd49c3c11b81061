//! Writes: changes of instances, one at a time or many in one request.
//!
//! A change goes through these files in this order: `change` (the order of the steps), `prepare` (model, data, schema),
//! `prehooks`, `submit`, and from there through the committer to the log. A `batch` prepares one after the other in the same way,
//! and submits them as one.

mod batch;
mod batch_results;
mod change;
mod conflicts;
pub(super) mod guard;
mod import;
mod import_order;
mod prehooks;
mod prepare;
mod steps;
mod submit;

use std::sync::Arc;

use super::core::Core;

/// The service that changes instances.
pub struct Writes {
    pub(super) core: Arc<Core>,
}
