//! A map with a limited number of entries, for keys that clients control.
//!
//! Keys are hashes with a seed of this process, so nobody can construct collisions. If a shard is full, stale entries
//! are removed first, then arbitrary ones: an eighth at once, so that the search costs little per new entry.

use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, Hash, Hasher, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

const SHARDS: usize = 16;

/// Values by the hash of their key.
#[derive(Debug)]
pub(crate) struct Table<V> {
    seed: RandomState,
    shards: [Mutex<HashMap<u64, V, BuildHasherDefault<Hashed>>>; SHARDS],
    shard_max: usize,
    count: AtomicUsize,
}

type Shard<'a, V> = MutexGuard<'a, HashMap<u64, V, BuildHasherDefault<Hashed>>>;

impl<V> Table<V> {
    pub(crate) fn new(entries_max: usize) -> Table<V> {
        Table {
            seed: RandomState::new(),
            shards: std::array::from_fn(|_| Mutex::default()),
            shard_max: (entries_max / SHARDS).max(8),
            count: AtomicUsize::new(0),
        }
    }

    /// Changes the value of a key, which is `V::default()` if it is new. `is_stale` tells which values may be dropped.
    pub(crate) fn update<T>(&self, of: &impl Hash, is_stale: impl Fn(&V) -> bool, change: impl FnOnce(&mut V) -> T) -> T
    where
        V: Default,
    {
        let key = self.seed.hash_one(of);
        let mut shard = self.shard(key);
        if let Some(value) = shard.get_mut(&key) {
            return change(value);
        }
        if shard.len() >= self.shard_max {
            let before = shard.len();
            shard.retain(|_, value| !is_stale(value));
            let spare = self.shard_max - self.shard_max / 8;
            let victims: Vec<u64> = shard.keys().copied().take(shard.len().saturating_sub(spare)).collect();
            victims.iter().for_each(|victim| drop(shard.remove(victim)));
            self.count.fetch_sub(before - shard.len(), Ordering::Relaxed);
        }
        self.count.fetch_add(1, Ordering::Relaxed);
        change(shard.entry(key).or_default())
    }

    /// Removes a key. Costs only one read while the table is empty.
    pub(crate) fn remove(&self, of: &impl Hash) {
        if self.len() == 0 {
            return;
        }
        let key = self.seed.hash_one(of);
        if self.shard(key).remove(&key).is_some() {
            self.count.fetch_sub(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    fn shard(&self, key: u64) -> Shard<'_, V> {
        // A panic while the lock is held leaves the map consistent.
        self.shards[(key >> 32) as usize % SHARDS].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A hasher that passes on a hash unchanged.
#[derive(Debug, Default)]
pub(crate) struct Hashed(u64);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.0 = self.0.rotate_left(8) ^ u64::from(*byte));
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_keys_stays_within_the_bound() {
        let table = Table::<u32>::new(1600);
        for key in 0..100_000_u32 {
            table.update(&key, |_| false, |value| *value += 1);
        }
        let held: usize = table.shards.iter().map(|shard| shard.lock().unwrap().len()).sum();
        assert!((800..=1600).contains(&held), "{held}");
        assert_eq!(table.len(), held);
    }

    #[test]
    fn stale_entries_go_first() {
        let table = Table::<bool>::new(1600);
        (0..100_u32).for_each(|key| table.update(&key, |_| false, |kept| *kept = true));
        (1000..100_000_u32).for_each(|key| table.update(&key, |kept| !kept, |_| ()));
        assert!((0..100_u32).all(|key| table.update(&key, |_| false, |kept| *kept)));
    }

    #[test]
    fn keys_are_counted_and_forgotten() {
        let table = Table::<u32>::new(100);
        assert_eq!(table.update(&"a", |_| false, |value| std::mem::replace(value, 7)), 0);
        assert_eq!(table.update(&"a", |_| false, |value| *value), 7);
        table.remove(&"b");
        assert_eq!(table.len(), 1);
        table.remove(&"a");
        assert_eq!(table.len(), 0);
        assert_eq!(table.update(&"a", |_| false, |value| *value), 0);
    }
}
