//! Optional features of a store: read when the store is opened, and constant while it is open.

use crate::limits::PAYLOAD_BYTES_MAX;

/// The capabilities of an opened store. Flags that do not apply to its kind are `false`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Stored data still exists when the store is opened again.
    pub durable: bool,
    /// Several nodes may share the store.
    pub shared: bool,
    /// Event stores: `append` with `atomic` works; otherwise it returns `ErrorKind::Unsupported`.
    pub atomic_batch: bool,
    /// Event stores: `next_claim` returns keys in the order of bytes; otherwise it returns `ErrorKind::Unsupported`.
    pub ordered_claims: bool,
    /// Error stores: records can be read back. A store that only forwards returns an empty page, `None` and `false`.
    pub readable: bool,
    /// Event stores: maximum bytes of data per event.
    pub event_bytes_max: u64,
    /// Event stores: maximum bytes of data for all events of one `append` together; at least `event_bytes_max`. The
    /// server splits larger batches, unless they are atomic.
    pub batch_bytes_max: u64,
}

impl Capabilities {
    /// No optional features; events of the size that every store should accept, in batches of any size.
    pub const LEAST: Capabilities = Capabilities {
        durable: false,
        shared: false,
        atomic_batch: false,
        ordered_claims: false,
        readable: false,
        event_bytes_max: PAYLOAD_BYTES_MAX as u64,
        batch_bytes_max: u64::MAX,
    };
}
