//! Limits the denials in the audit log, so that denied callers cannot flood it.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use snaphook_identity::RateLimit;

/// Per address and second.
const PER_SECOND: u32 = 10;

/// Counts denials by address.
pub(super) struct Denials {
    rate: RateLimit,
    /// Since the last logged one.
    left_out: AtomicU64,
}

impl Default for Denials {
    fn default() -> Denials {
        Denials { rate: RateLimit::new(PER_SECOND), left_out: AtomicU64::new(0) }
    }
}

impl Denials {
    /// Whether a denial of this address is logged, and then how many were left out since the last one.
    pub(super) fn note(&self, address: IpAddr) -> Option<u64> {
        match self.rate.check(None, address) {
            Ok(()) => Some(self.left_out.swap(0, Ordering::Relaxed)),
            Err(_) => {
                self.left_out.fetch_add(1, Ordering::Relaxed);
                None
            }
        }
    }
}
