//! Sandboxes that wait for their next call, for `isolation = 'reuse'`.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Sandboxes kept in all, over all hooks of an engine. The one that waited longest goes first.
const IDLE_MAX: usize = 64;

/// Idle sandboxes by hook. One hook's sandbox is never given to another.
pub(in crate::hooks::engines) struct IdlePool<T> {
    // Oldest first. At most IDLE_MAX rows, so looking through them is cheaper than any map.
    rows: Mutex<Vec<(u64, T)>>,
}

impl<T> Default for IdlePool<T> {
    fn default() -> Self {
        IdlePool { rows: Mutex::new(Vec::with_capacity(IDLE_MAX)) }
    }
}

impl<T> IdlePool<T> {
    /// The sandbox of `hook` that was used last.
    pub(in crate::hooks::engines) fn take(&self, hook: u64) -> Option<T> {
        let mut rows = self.rows();
        let index = rows.iter().rposition(|(owner, _)| *owner == hook)?;
        Some(rows.remove(index).1)
    }

    pub(in crate::hooks::engines) fn put(&self, hook: u64, sandbox: T) {
        let mut rows = self.rows();
        let evicted = (rows.len() >= IDLE_MAX).then(|| rows.remove(0));
        rows.push((hook, sandbox));
        drop(rows);
        // Taking a sandbox down costs more than a lock should be held.
        drop(evicted);
    }

    /// Drops all of a hook that is not bound any more.
    pub(in crate::hooks::engines) fn forget(&self, hook: u64) {
        let mut rows = self.rows();
        let gone: Vec<_> = rows.extract_if(.., |(owner, _)| *owner == hook).collect();
        drop(rows);
        drop(gone);
    }

    fn rows(&self) -> MutexGuard<'_, Vec<(u64, T)>> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_hook_gets_only_its_own_and_the_oldest_goes() {
        let pool = IdlePool::default();
        for index in 0..IDLE_MAX as u64 + 1 {
            pool.put(index, index);
        }
        assert_eq!(pool.take(0), None, "the oldest was evicted");
        assert_eq!(pool.take(1), Some(1));
        assert_eq!(pool.take(1), None);
        pool.put(2, 200);
        assert_eq!(pool.take(2), Some(200), "the last one used comes first");
        pool.forget(2);
        assert_eq!(pool.take(2), None);
    }
}
