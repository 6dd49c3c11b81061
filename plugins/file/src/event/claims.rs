//! Who holds which key: all of it in memory, made from the lines of the log.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use snaphook_driver::Holder;
use snaphook_driver::judge::REMOVALS_MAX;
use snaphook_driver::time::Millis;

#[derive(Clone, Default)]
pub(super) struct Claims {
    holders: BTreeMap<Arc<str>, Arc<Holder>>,
    /// Those that end, by their ends.
    expiring: BTreeSet<(Millis, Arc<str>)>,
}

impl Claims {
    pub(super) fn get(&self, key: &str) -> Option<&Arc<Holder>> {
        self.holders.get(key)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.holders.is_empty()
    }

    /// All of them, by key.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<Holder>)> {
        self.holders.iter()
    }

    /// Keys from one on, in the order of bytes.
    pub(super) fn from(&self, key: &str) -> impl Iterator<Item = &str> {
        self.holders
            .range::<str, _>((std::ops::Bound::Included(key), std::ops::Bound::Unbounded))
            .map(|(key, _)| &**key)
    }

    pub(super) fn put(&mut self, key: &str, holder: Holder) {
        self.remove(key);
        let key = Arc::<str>::from(key);
        if let Some(expires) = holder.expires {
            self.expiring.insert((expires, Arc::clone(&key)));
        }
        self.holders.insert(key, Arc::new(holder));
    }

    pub(super) fn remove(&mut self, key: &str) {
        if let Some((key, holder)) = self.holders.remove_entry(key)
            && let Some(expires) = holder.expires
        {
            self.expiring.remove(&(expires, key));
        }
    }

    /// Removes claims that have ended, those first that ended first, and returns how many. It is not written: who reads
    /// the log again removes them again.
    pub(super) fn remove_expired(&mut self, time: Millis) -> usize {
        let mut count = 0;
        while count < REMOVALS_MAX
            && self.expiring.first().is_some_and(|(expires, _)| *expires <= time)
            && let Some((_, key)) = self.expiring.pop_first()
        {
            self.holders.remove(&key);
            count += 1;
        }
        count
    }
}
