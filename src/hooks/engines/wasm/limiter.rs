//! The memory of one sandbox: all its memories and tables together, and the server's memory for its call.

use std::sync::Arc;

use wasmtime::ResourceLimiter;

use crate::hooks::host_memory::HostMemory;

/// Bytes that one table element takes on a 64-bit host.
const TABLE_ELEMENT_BYTES: usize = 8;

/// Counts the memory of a sandbox and rejects growth beyond the limit. This is not a trap: `memory.grow` returns -1 and
/// the guest's allocator decides what to do. Whether the call failed for lack of memory is told by
/// [`Limiter::refused`].
#[derive(Debug, Default)]
pub(super) struct Limiter {
    limit: usize,
    used: usize,
    peak: usize,
    refused: Option<usize>,
    host: Option<Arc<HostMemory>>,
}

impl Limiter {
    /// Prepares the next call of the same sandbox: its memory stays, the records of the last call are reset. `host` is
    /// the server's memory for the call.
    pub(super) fn begin(&mut self, limit: usize, host: Option<Arc<HostMemory>>) {
        if let Some(host) = &host {
            host.set_sandbox(self.used);
        }
        self.host = host;
        self.limit = limit;
        self.peak = self.used;
        self.refused = None;
    }

    /// Bytes now.
    pub(super) const fn used(&self) -> usize {
        self.used
    }

    /// Most bytes since [`Limiter::begin`].
    pub(super) const fn peak(&self) -> usize {
        self.peak
    }

    pub(super) const fn limit(&self) -> usize {
        self.limit
    }

    /// The size that the last rejected growth would have reached.
    pub(super) const fn refused(&self) -> Option<usize> {
        self.refused
    }

    /// The server's memory for the call.
    pub(super) fn host(&self) -> usize {
        self.host.as_ref().map_or(0, |host| host.held())
    }

    fn grow(&mut self, more: usize) -> bool {
        let wanted = self.used.saturating_add(more);
        let with_host = wanted.saturating_add(self.host());
        if with_host > self.limit {
            self.refused = Some(with_host);
            return false;
        }
        if let Some(host) = &self.host {
            host.set_sandbox(wanted);
        }
        self.used = wanted;
        self.peak = self.peak.max(wanted);
        true
    }
}

impl ResourceLimiter for Limiter {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        Ok(self.grow(desired.saturating_sub(current)))
    }

    fn table_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        Ok(self.grow(desired.saturating_sub(current).saturating_mul(TABLE_ELEMENT_BYTES)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_memories_and_tables_together() {
        let mut limiter = Limiter::default();
        limiter.begin(1_000, None);
        assert!(limiter.memory_growing(0, 900, None).unwrap());
        assert!(limiter.table_growing(0, 10, None).unwrap());
        assert!(!limiter.memory_growing(900, 930, None).unwrap());
        assert_eq!((limiter.used(), limiter.peak(), limiter.refused()), (980, 980, Some(1_010)));
        let host = Arc::new(HostMemory::new(2_000));
        limiter.begin(2_000, Some(Arc::clone(&host)));
        assert!(limiter.refused().is_none());
        assert!(limiter.memory_growing(900, 930, None).unwrap());
        host.keep(900).unwrap();
        assert!(host.keep(100).is_err(), "the sandbox has 1,010");
        assert!(!limiter.memory_growing(930, 1_030, None).unwrap());
        assert_eq!((limiter.used(), limiter.refused(), limiter.host()), (1_010, Some(2_010), 900));
    }
}
