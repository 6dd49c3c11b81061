//! What a store can do beyond the least: read when it is opened, constant over its life.

use crate::limits::PAYLOAD_BYTES_MAX;

/// What an opened store says of itself. A flag that does not concern its kind of store is `false`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// What was stored is still there when the store is opened again.
    pub durable: bool,
    /// Several nodes may share the store.
    pub shared: bool,
    /// Event stores: `append` with `atomic` works; else it is `ErrorKind::Unsupported`.
    pub atomic_batch: bool,
    /// Event stores: `next_claim` gives keys in the order of bytes; else it is `ErrorKind::Unsupported`.
    pub ordered_claims: bool,
    /// Error stores: records can be read back. A store that only forwards answers an empty page, `None` and `false`.
    pub readable: bool,
    /// Event stores: bytes of data that one event may have.
    pub event_bytes_max: u64,
    /// Event stores: bytes of data that the events of one `append` may have together; at least `event_bytes_max`. The
    /// server splits what is more, unless it is atomic.
    pub batch_bytes_max: u64,
}

impl Capabilities {
    /// Nothing but events of the size that every store should take, in batches of any size.
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
