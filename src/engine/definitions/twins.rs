//! Finds instances that share a unique key, with little memory: 36 bytes per instance and list, and the concatenated
//! ids. These are a few large allocations, which return to the system when the review ends.

use std::collections::HashMap;

use sha2::{Digest, Sha256};

#[derive(Default)]
pub(super) struct Twins {
    /// By digest of list and values: the number of the instance that came first.
    holders: HashMap<u128, u32>,
    /// The ids of all instances, and where each ends.
    ids: String,
    ends: Vec<usize>,
}

impl Twins {
    /// Starts with the next instance.
    pub(super) fn instance(&mut self, id: &str) {
        self.ids.push_str(id);
        self.ends.push(self.ids.len());
    }

    /// Adds a key of the last instance; returns the instance that already has it.
    pub(super) fn key(&mut self, list: usize, values: &str) -> Option<&str> {
        let mut hash = Sha256::new();
        hash.update(list.to_le_bytes());
        hash.update(values);
        let digest = hash.finalize();
        let digest = digest.iter().take(16).fold(0_u128, |bytes, byte| bytes << 8 | u128::from(*byte));
        let number = u32::try_from(self.ends.len() - 1).unwrap_or(u32::MAX);
        let first = *self.holders.entry(digest).or_insert(number) as usize;
        let start = first.checked_sub(1).map_or(0, |before| self.ends[before]);
        (first != number as usize).then(|| &self.ids[start..self.ends[first]])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_holder_is_named() {
        let mut twins = Twins::default();
        twins.instance("a");
        assert_eq!(twins.key(0, "1,"), None);
        assert_eq!(twins.key(1, "1,"), None);
        twins.instance("bc");
        assert_eq!(twins.key(0, "2,"), None);
        assert_eq!(twins.key(1, "1,"), Some("a"));
        twins.instance("d");
        assert_eq!(twins.key(0, "2,"), Some("bc"));
        assert_eq!(twins.key(1, "2,"), None);
    }
}
