//! Who holds which key: all of it in memory, made from the lines of the log.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use snaphook_driver::Holder;
use snaphook_driver::time::Millis;

/// Time between two looks for claims that have ended.
const REMOVAL_MILLIS: Millis = 60_000;

/// Claims that one removal takes away: an append waits for it.
const REMOVALS_MAX: usize = 256;

#[derive(Clone, Default)]
pub(super) struct Claims {
    holders: BTreeMap<Arc<str>, Arc<Holder>>,
    /// Those that end, by their ends.
    expiring: BTreeSet<(Millis, Arc<str>)>,
    next_removal: Millis,
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

    /// Removes claims that have ended, at most once a minute of the events' time. It is not written: who reads the log
    /// again removes them again.
    pub(super) fn remove_expired(&mut self, time: Millis) {
        if time < self.next_removal {
            return;
        }
        for _ in 0..REMOVALS_MAX {
            let Some((expires, _)) = self.expiring.first() else { break };
            if *expires > time {
                break;
            }
            if let Some((_, key)) = self.expiring.pop_first() {
                self.holders.remove(&key);
            }
        }
        let more = self.expiring.first().is_some_and(|(expires, _)| *expires <= time);
        self.next_removal = if more { time } else { time + REMOVAL_MILLIS };
    }

    /// Whether [`Claims::remove_expired`] would look.
    pub(super) fn is_removal_due(&self, time: Millis) -> bool {
        time >= self.next_removal
    }
}
