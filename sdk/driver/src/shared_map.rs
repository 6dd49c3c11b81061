//! A sorted map with many readers and one writer.
//!
//! Entries are in blocks, and copies of the map share unchanged blocks. So a copy costs little more than one pointer
//! per block, and a later change copies one block, regardless of the number of entries.

use std::sync::Arc;

/// Maximum number of entries in a block.
const BLOCK_MAX: usize = 256;

/// See the head of this file.
#[derive(Clone, Debug)]
pub struct SharedMap<V> {
    /// Sorted; no block is empty.
    blocks: Vec<Arc<Block<V>>>,
    count: usize,
}

/// Sorted by key.
type Block<V> = Vec<(Arc<str>, V)>;

/// The block of a key, and its index in the block.
type BlockIndex = (usize, usize);

impl<V> Default for SharedMap<V> {
    fn default() -> Self {
        SharedMap { blocks: Vec::new(), count: 0 }
    }
}

impl<V> SharedMap<V> {
    pub fn len(&self) -> usize {
        self.count
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub fn get(&self, key: &str) -> Option<&V> {
        self.get_key_value(key).map(|(_, value)| value)
    }

    /// The map's own copy of the key, and the value.
    pub fn get_key_value(&self, key: &str) -> Option<(&Arc<str>, &V)> {
        let (block, at) = self.find(key).ok()?;
        let (key, value) = &self.blocks[block][at];
        Some((key, value))
    }

    /// Entries in the order of their keys, as bytes.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &V)> {
        self.starting_at((0, 0))
    }

    /// Entries at or after a key.
    pub fn at_or_after(&self, key: &str) -> impl Iterator<Item = (&Arc<str>, &V)> {
        let (Ok(place) | Err(place)) = self.find(key);
        self.starting_at(place)
    }

    /// Entries after a key.
    pub fn after(&self, key: &str) -> impl Iterator<Item = (&Arc<str>, &V)> {
        self.starting_at(self.find(key).map_or_else(|place| place, |(block, at)| (block, at + 1)))
    }

    pub fn keys(&self) -> impl Iterator<Item = &Arc<str>> {
        self.iter().map(|(key, _)| key)
    }

    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }

    fn starting_at(&self, (block, at): BlockIndex) -> impl Iterator<Item = (&Arc<str>, &V)> {
        self.blocks[block..].iter().flat_map(|block| block.iter()).skip(at).map(|(key, value)| (key, value))
    }

    fn find(&self, key: &str) -> Result<BlockIndex, BlockIndex> {
        let Some(block) = self.blocks.partition_point(|block| *block[0].0 <= *key).checked_sub(1) else {
            return Err((0, 0));
        };
        match self.blocks[block].binary_search_by(|(found, _)| (**found).cmp(key)) {
            Ok(at) => Ok((block, at)),
            Err(at) => Err((block, at)),
        }
    }
}

impl<V: Clone> SharedMap<V> {
    /// Inserts a value. Returns the previous one.
    pub fn insert(&mut self, key: Arc<str>, value: V) -> Option<V> {
        let (mut block, mut at) = match self.find(&key) {
            Ok((block, at)) => {
                let entries = Arc::make_mut(&mut self.blocks[block]);
                return Some(std::mem::replace(&mut entries[at].1, value));
            }
            Err(place) => place,
        };
        self.count += 1;
        let length = self.blocks.get(block).map_or(0, |block| block.len());
        let is_last = block + 1 >= self.blocks.len() && at == length;
        if length == 0 || (length >= BLOCK_MAX && is_last) {
            // Ascending keys, the most common case, leave full blocks behind.
            self.blocks.push(Arc::new(vec![(key, value)]));
            return None;
        }
        if length >= BLOCK_MAX {
            let behind = Arc::make_mut(&mut self.blocks[block]).split_off(length / 2);
            self.blocks.insert(block + 1, Arc::new(behind));
            if at > length / 2 {
                (block, at) = (block + 1, at - length / 2);
            }
        }
        Arc::make_mut(&mut self.blocks[block]).insert(at, (key, value));
        None
    }

    /// Removes a key. Returns its value.
    pub fn remove(&mut self, key: &str) -> Option<V> {
        let (block, at) = self.find(key).ok()?;
        let entries = Arc::make_mut(&mut self.blocks[block]);
        let (_, value) = entries.remove(at);
        self.count -= 1;
        if entries.is_empty() {
            self.blocks.remove(block);
        } else {
            self.join(block);
            self.join(block.wrapping_sub(1));
        }
        Some(value)
    }

    /// All values, mutably. Copies every shared block.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.blocks.iter_mut().flat_map(|block| Arc::make_mut(block).iter_mut()).map(|(_, value)| value)
    }

    /// Joins two nearly empty blocks, so that there are never many more blocks than needed.
    fn join(&mut self, block: usize) {
        let length = |block: usize| self.blocks.get(block).map(|block| block.len());
        let (Some(one), Some(next)) = (length(block), length(block.wrapping_add(1))) else { return };
        if one + next <= BLOCK_MAX / 2 {
            let behind = self.blocks.remove(block + 1);
            Arc::make_mut(&mut self.blocks[block]).extend(behind.iter().cloned());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::ops::Bound;

    use snaphook_driver_testkit::sample::Random;

    use super::*;

    fn key(number: usize) -> Arc<str> {
        format!("{number:05}").into()
    }

    fn check(map: &SharedMap<usize>, expected: &BTreeMap<Arc<str>, usize>) {
        assert!(map.iter().eq(expected.iter()));
        assert_eq!((map.len(), map.is_empty()), (expected.len(), expected.is_empty()));
        let blocks = || map.blocks.iter().map(|block| block.len());
        assert!(blocks().all(|length| (1..=BLOCK_MAX).contains(&length)));
        assert!(blocks().zip(blocks().skip(1)).all(|(one, next)| one + next > BLOCK_MAX / 2));
    }

    #[test]
    fn it_is_a_sorted_map_and_copies_stay_as_they_are() {
        let mut random = Random::new(3);
        let (mut map, mut expected) = (SharedMap::default(), BTreeMap::new());
        // The map grows, keeps its size, and shrinks.
        for (inserts, rounds) in [(9, 4000), (5, 4000), (1, 8000)] {
            for round in 0..rounds {
                let key = key(random.below(3000));
                if random.below(10) < inserts {
                    assert_eq!(map.insert(Arc::clone(&key), round), expected.insert(key, round));
                } else {
                    assert_eq!(map.remove(&key), expected.remove(&key));
                }
                if round % 500 == 0 {
                    let (copy, before) = (map.clone(), expected.clone());
                    for _ in 0..20 {
                        let key = self::key(random.below(3000));
                        assert_eq!(map.get(&key), expected.get(&key));
                        let found = map.get_key_value(&key).map(|(key, _)| key);
                        assert_eq!(found, expected.contains_key(&key).then_some(&key));
                        assert!(
                            map.at_or_after(&key)
                                .eq(expected.range::<str, _>((Bound::Included(&*key), Bound::Unbounded)))
                        );
                        assert!(
                            map.after(&key).eq(expected.range::<str, _>((Bound::Excluded(&*key), Bound::Unbounded)))
                        );
                        map.insert(Arc::clone(&key), 0);
                        expected.insert(key, 0);
                    }
                    map.values_mut().for_each(|value| *value += 1);
                    expected.values_mut().for_each(|value| *value += 1);
                    check(&copy, &before);
                    check(&map, &expected);
                }
            }
        }
        assert!(expected.len() < 1000, "{}", expected.len());
    }

    fn rising() -> SharedMap<usize> {
        let mut map = SharedMap::default();
        for number in 0..10 * BLOCK_MAX {
            map.insert(key(number), number);
        }
        map
    }

    #[test]
    fn keys_that_rise_fill_their_blocks() {
        assert_eq!(rising().blocks.len(), 10);
    }

    #[test]
    fn a_change_copies_one_block() {
        let mut map = rising();
        let copy = map.clone();
        map.insert(key(700), 0);
        map.remove(&key(701));
        let same = map.blocks.iter().zip(&copy.blocks).filter(|(one, other)| Arc::ptr_eq(one, other)).count();
        assert_eq!(same, 9);
    }
}
