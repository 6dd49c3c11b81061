//! Sandboxes that wait for their next call: restored to their initial state or, with `isolation = 'reuse'`, in the
//! state that the last call left.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How many sandboxes are kept, over all hooks of an engine. The one that has been idle longest is evicted first.
const IDLE_MAX: usize = 64;

/// Idle sandboxes by hook. A sandbox is never given to another hook, even if the same code is bound to another model:
/// data of one model must not leak to another.
pub(super) struct IdlePool<T> {
    // Oldest first. At most IDLE_MAX rows, so looking through them is cheaper than any map.
    rows: Mutex<Vec<Row<T>>>,
    /// Maximum total weight, in the caller's unit.
    weight_max: usize,
}

struct Row<T> {
    /// Number of the prepared code, which identifies one phase and name.
    code: u64,
    model: String,
    since: Instant,
    weight: usize,
    sandbox: T,
}

impl<T> Default for IdlePool<T> {
    fn default() -> Self {
        IdlePool::weighing_at_most(usize::MAX)
    }
}

impl<T> IdlePool<T> {
    pub(super) fn weighing_at_most(weight_max: usize) -> Self {
        IdlePool { rows: Mutex::new(Vec::with_capacity(IDLE_MAX)), weight_max }
    }

    /// Takes the most recently used sandbox of the code bound to `model`.
    pub(super) fn take(&self, code: u64, model: &str) -> Option<T> {
        self.take_after(code, model, Duration::ZERO)
    }

    /// The same, among those that have been idle for at least this long.
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
        self.put_weighing(code, model, sandbox, 0);
    }

    /// Evicts the sandboxes that have been idle longest until there is room.
    pub(super) fn put_weighing(&self, code: u64, model: &str, sandbox: T, weight: usize) {
        let row = Row { code, model: model.to_owned(), since: Instant::now(), weight, sandbox };
        let mut rows = self.rows();
        let mut evicted = Vec::new();
        while !rows.is_empty() && !self.has_room(&rows, weight) {
            evicted.push(rows.remove(0));
        }
        rows.push(row);
        drop(rows);
        // Tearing down a sandbox takes longer than a lock should be held.
        drop(evicted);
    }

    /// How long a sandbox of that weight can expect to stay before it is evicted: `None` while there is room.
    pub(super) fn lifetime(&self, weight: usize) -> Option<Duration> {
        let rows = self.rows();
        (!self.has_room(&rows, weight)).then(|| rows.first().map(|row| row.since.elapsed())).flatten()
    }

    fn has_room(&self, rows: &[Row<T>], weight: usize) -> bool {
        rows.len() < IDLE_MAX && rows.iter().map(|row| row.weight).sum::<usize>() + weight <= self.weight_max
    }

    /// Drops all sandboxes of code that is not bound any more.
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

    #[test]
    fn the_heaviest_take_no_more_room_than_there_is() {
        let pool = IdlePool::weighing_at_most(10);
        for (code, weight) in [(1, 4), (2, 4), (3, 1)] {
            assert_eq!(pool.lifetime(weight), None);
            pool.put_weighing(code, "a", code, weight);
        }
        assert!(pool.lifetime(2).is_some());
        pool.put_weighing(4, "a", 4, 2);
        assert_eq!((pool.take(1, "a"), pool.take(2, "a")), (None, Some(2)), "only the oldest had to go");
        pool.put_weighing(5, "a", 5, 100);
        assert_eq!((pool.take(3, "a"), pool.take(4, "a"), pool.take(5, "a")), (None, None, Some(5)));
        pool.put(6, "a", 6);
        assert_eq!(pool.take_after(6, "a", Duration::from_secs(3600)), None, "it has not rested");
        assert_eq!(pool.take(6, "a"), Some(6));
    }
}
