//! Sandboxes that wait for their next call, for `isolation = 'reuse'`.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Sandboxes kept in all, over all hooks of an engine. The one that waited longest goes first.
const IDLE_MAX: usize = 64;

/// Idle sandboxes by hook. One hook's sandbox is never given to another, be it the same code bound to another model:
/// what a sandbox has seen of one model is none of the other's business.
pub(super) struct IdlePool<T> {
    // Oldest first. At most IDLE_MAX rows, so looking through them is cheaper than any map.
    rows: Mutex<Vec<Row<T>>>,
}

struct Row<T> {
    /// Number of the prepared code, which stands for one phase and name.
    code: u64,
    model: String,
    since: Instant,
    sandbox: T,
}

impl<T> Default for IdlePool<T> {
    fn default() -> Self {
        IdlePool { rows: Mutex::new(Vec::with_capacity(IDLE_MAX)) }
    }
}

impl<T> IdlePool<T> {
    /// The sandbox of the code bound to `model` that was used last.
    pub(super) fn take(&self, code: u64, model: &str) -> Option<T> {
        self.take_after(code, model, Duration::ZERO)
    }

    /// The same of those that were left in peace for so long.
    pub(super) fn take_after(&self, code: u64, model: &str, rest: Duration) -> Option<T> {
        let mut rows = self.rows();
        let is_fit = |row: &Row<T>| row.code == code && row.model == model;
        let index = rows.iter().rposition(|row| is_fit(row) && (rest.is_zero() || row.since.elapsed() >= rest))?;
        Some(rows.remove(index).sandbox)
    }

    #[cfg(test)]
    pub(super) fn take_any(&self) -> Option<(u64, T)> {
        self.rows().pop().map(|row| (row.code, row.sandbox))
    }

    pub(super) fn put(&self, code: u64, model: &str, sandbox: T) {
        self.put_among(code, model, sandbox, IDLE_MAX);
    }

    /// The same, with at most so many in all.
    pub(super) fn put_among(&self, code: u64, model: &str, sandbox: T, most: usize) {
        let row = Row { code, model: model.to_owned(), since: Instant::now(), sandbox };
        let mut rows = self.rows();
        let over = (rows.len() + 1).saturating_sub(most.min(IDLE_MAX));
        let evicted: Vec<_> = rows.drain(..over).collect();
        rows.push(row);
        drop(rows);
        // Taking a sandbox down costs more than a lock should be held.
        drop(evicted);
    }

    /// How long one that is put now may expect to wait before it has to go for another: `None` while there is room.
    pub(super) fn lifetime(&self, most: usize) -> Option<Duration> {
        let rows = self.rows();
        (rows.len() >= most.min(IDLE_MAX)).then(|| rows.first().map(|row| row.since.elapsed())).flatten()
    }

    /// Drops all of code that is not bound any more.
    pub(super) fn forget(&self, code: u64) {
        let mut rows = self.rows();
        let gone: Vec<_> = rows.extract_if(.., |row| row.code == code).collect();
        drop(rows);
        drop(gone);
    }

    fn rows(&self) -> MutexGuard<'_, Vec<Row<T>>> {
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
            pool.put(index, "a", index);
        }
        assert_eq!(pool.take(0, "a"), None, "the oldest was evicted");
        assert_eq!(pool.take(1, "b"), None, "the same code of another model");
        assert_eq!(pool.take(1, "a"), Some(1));
        assert_eq!(pool.take(1, "a"), None);
        pool.put(2, "a", 200);
        assert_eq!(pool.take(2, "a"), Some(200), "the last one used comes first");
        pool.put(2, "b", 201);
        pool.forget(2);
        assert_eq!((pool.take(2, "a"), pool.take(2, "b")), (None, None));
    }
}
