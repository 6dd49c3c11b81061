//! Decides appends: the same code for every event store.
//!
//! [`judge`] gets a batch, the end of the log, and a [`LogState`] to query. It returns the result of each append and
//! the rows to write. It is pure: it uses no clock, no randomness and no order except that of the batch and of keys, so
//! nodes that judge the same batches from the same log agree without communicating.
//!
//! The state is queried while the batch is judged, or loaded before: [`Needs`] lists what a batch needs, and [`Known`]
//! is a state built from that.

mod batch;
mod needs;
mod state;

pub use batch::{Accepted, Judged, judge};
pub use needs::{Known, Needs};
pub use state::{HolderRef, LogEnd, LogState, REMOVAL_MILLIS, REMOVALS_MAX, Tail};

/// The version of the rules. A store whose nodes judge independently writes it with each batch, and stops at a batch
/// with an unknown version.
///
/// Increase it with every change after which any batch on any log gets another result or effect, however rare;
/// otherwise nodes with old and new rules would no longer have the same log. Batches in a log keep their version, so
/// its rules must stay available as long as such logs are read. Changes that only make the judge faster or clearer do
/// not increase it. `tests/judge` compares the verdicts on many batches with the stored verdicts of this version.
pub const VERSION: u32 = 1;
