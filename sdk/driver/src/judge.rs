//! What decides an append: the same code for every event store.
//!
//! [`judge`] gets a batch, where the log ends, and a [`LogState`] to ask. It returns the answer of each append and what
//! there is to write. It is pure: it has no clock, no chance and no order but that of the batch and of keys, so nodes
//! that judge the same batches from the same log agree without talking to each other.
//!
//! The state is asked while the batch is judged, or loaded before: [`Needs`] says what a batch asks for, and [`Known`] is
//! the state made of that.

mod batch;
mod needs;
mod state;

pub use batch::{Accepted, Judged, judge};
pub use needs::{Known, Needs};
pub use state::{HolderRef, LogEnd, LogState, REMOVAL_MILLIS, REMOVALS_MAX, Tail};

/// The version of the rules. A store whose nodes judge for themselves writes it with each batch, and stops at a batch with
/// a version that it does not know.
///
/// Raise it with a change after which any batch on any log gets another answer or another effect than before, however
/// rare: nodes with the old rules and with the new ones would no longer have the same log. Batches that are in a log keep
/// their version, so its rules stay available for as long as such logs are read. What only makes the judge faster or
/// clearer leaves it alone. `tests/judge` compares the verdicts on many batches with those that this version gave.
pub const VERSION: u32 = 1;
