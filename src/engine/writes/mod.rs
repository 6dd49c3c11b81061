//! Writes: changes of instances, one at a time or many in one request.
//!
//! A change goes through these files in this order: `change` (the order of the steps), `prepare` (model, data, schema),
//! `prehooks`, `submit`, and from there through the committer to the log. A `batch` prepares its operations one after
//! the other in the same way, and submits them as one. If models refer to each other, `references` handles writes, and
//! `referrers` deletions.

mod batch;
mod batch_results;
mod change;
mod conflicts;
mod delete;
pub(super) mod drafts;
mod guard;
pub(super) mod import;
mod import_order;
mod prehooks;
mod prepare;
mod references;
mod referrers;
mod steps;
mod submit;

use std::sync::Arc;

use super::core::Core;

/// The service that changes instances.
pub struct Writes {
    pub(super) core: Arc<Core>,
}
