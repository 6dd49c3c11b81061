//! Injects faults determined by a seed: before the call, or after it, so that its outcome is unknown.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use snaphook_driver::wire::Method;
use snaphook_driver::{DriverError, ErrorKind, Result};

/// A sequence of faults that is the same for the same seed and the same calls.
#[derive(Clone)]
pub(crate) struct Faults {
    state: Arc<AtomicU64>,
    per_thousand: Arc<AtomicU64>,
}

impl Faults {
    /// No call fails yet.
    pub(crate) fn new(seed: u64) -> Faults {
        Faults { state: Arc::new(AtomicU64::new(seed)), per_thousand: Arc::default() }
    }

    /// From now on this many of a thousand calls fail.
    pub(crate) fn set(&self, per_thousand: u64) {
        self.per_thousand.store(per_thousand, Ordering::Relaxed);
    }

    pub(super) async fn around<T>(&self, method: Method, call: impl Future<Output = Result<T>>) -> Result<T> {
        let number = self.next();
        let fails = number % 1000 < self.per_thousand.load(Ordering::Relaxed);
        let is_first = (number / 1000).is_multiple_of(2);
        if fails && is_first {
            return Err(DriverError::new(ErrorKind::Unavailable, method.name(), "it fails before it begins"));
        }
        let result = call.await;
        if fails && result.is_ok() {
            let kind = if method.changes() { ErrorKind::Uncertain } else { ErrorKind::Unavailable };
            return Err(DriverError::new(kind, method.name(), "the response is lost"));
        }
        result
    }

    /// SplitMix64.
    fn next(&self) -> u64 {
        let state = self.state.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        let mut number = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        number ^ (number >> 31)
    }
}
