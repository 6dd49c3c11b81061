//! The server's memory for one run: the data that the hook reads, sends, writes and returns, and the memory needed to
//! process it. It counts toward the run's `memory` limit like the memory of its sandbox.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::context::{Failure, FailureCause};
use crate::config::format_size;

/// The memory of one run.
#[derive(Debug)]
pub struct HostMemory {
    limit: usize,
    held: AtomicUsize,
    /// Size of the sandbox; 0 if the sandbox is another process.
    sandbox: AtomicUsize,
}

/// Reserved bytes; released when this is dropped.
pub struct Held<'a> {
    memory: &'a HostMemory,
    bytes: usize,
}

impl HostMemory {
    pub fn new(limit: usize) -> Self {
        HostMemory { limit, held: AtomicUsize::new(0), sandbox: AtomicUsize::new(0) }
    }

    /// Bytes that are currently reserved.
    pub fn held(&self) -> usize {
        // Relaxed, here and below: only the number itself matters.
        self.held.load(Ordering::Relaxed)
    }

    /// Sets the sandbox's current size.
    pub fn set_sandbox(&self, bytes: usize) {
        self.sandbox.store(bytes, Ordering::Relaxed);
    }

    /// Reserves bytes until the run ends. A failure stops the guest.
    pub fn keep(&self, bytes: usize) -> Result<(), Failure> {
        let held = self.held.fetch_add(bytes, Ordering::Relaxed);
        let used = held.saturating_add(self.sandbox.load(Ordering::Relaxed));
        if used.saturating_add(bytes) <= self.limit {
            return Ok(());
        }
        self.held.fetch_sub(bytes, Ordering::Relaxed);
        let limit = format_size(self.limit);
        Err(Failure {
            cause: FailureCause::Memory,
            message: format!(
                "the server needs {} for what the hook reads, sends or returns, with {} in use, the limit `memory` is \
                 {limit}; read or send less at once, or raise it in `[hooks]` or in a grant",
                size(bytes),
                size(used)
            ),
            limit: Some(format!("memory {limit}")),
        })
    }

    /// Reserves bytes until the value is dropped.
    pub fn hold(&self, bytes: usize) -> Result<Held<'_>, Failure> {
        self.keep(bytes)?;
        Ok(Held { memory: self, bytes })
    }
}

impl Held<'_> {
    /// Reserves more bytes.
    pub fn grow(&mut self, bytes: usize) -> Result<(), Failure> {
        self.memory.keep(bytes)?;
        self.bytes += bytes;
        Ok(())
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.memory.held.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// The same with shared ownership.
#[derive(Default)]
pub struct MemoryShare(Option<(Arc<HostMemory>, usize)>);

impl MemoryShare {
    /// Reserves bytes until the value is dropped.
    pub fn new(memory: Arc<HostMemory>, bytes: usize) -> Result<MemoryShare, Failure> {
        memory.keep(bytes)?;
        Ok(MemoryShare(Some((memory, bytes))))
    }
}

impl Drop for MemoryShare {
    fn drop(&mut self) {
        if let Some((memory, bytes)) = &self.0 {
            memory.held.fetch_sub(*bytes, Ordering::Relaxed);
        }
    }
}

fn size(bytes: usize) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_and_the_sandbox_share_one_limit() {
        let memory = HostMemory::new(10 << 20);
        memory.set_sandbox(4 << 20);
        let mut held = memory.hold(3 << 20).unwrap();
        held.grow(2 << 20).unwrap();
        let failure = memory.keep(2 << 20).unwrap_err();
        assert_eq!((failure.cause, failure.limit.as_deref()), (FailureCause::Memory, Some("memory 10 MiB")));
        assert!(failure.message.contains("needs 2.0 MiB") && failure.message.contains("9.0 MiB in use"), "{failure:?}");
        assert!(held.grow(2 << 20).is_err());
        assert_eq!(memory.held(), 5 << 20);
        drop(held);
        memory.keep(6 << 20).unwrap();
        assert!(memory.keep(1).is_err());
        let memory = Arc::new(HostMemory::new(10));
        let kept = MemoryShare::new(Arc::clone(&memory), 8).unwrap();
        assert!(MemoryShare::new(Arc::clone(&memory), 3).is_err());
        drop((kept, MemoryShare::default()));
        assert_eq!(memory.held(), 0);
        assert!(HostMemory::new(1).keep(usize::MAX).is_err());
    }
}
