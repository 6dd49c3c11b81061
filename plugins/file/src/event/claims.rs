//! The holders of all keys: in memory, built from the lines of the log.

use std::collections::BTreeSet;
use std::sync::Arc;

use snaphook_driver::judge::REMOVALS_MAX;
use snaphook_driver::time::Millis;
use snaphook_driver::{Holder, SharedMap};

#[derive(Default)]
pub(super) struct Claims {
    holders: SharedMap<Arc<Holder>>,
    /// Claims that expire, by expiry.
    expiring: BTreeSet<(Millis, Arc<str>)>,
}

impl Claims {
    pub(super) fn get(&self, key: &str) -> Option<&Arc<Holder>> {
        self.holders.get(key)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.holders.is_empty()
    }

    /// A snapshot of all claims.
    pub(super) fn holders(&self) -> SharedMap<Arc<Holder>> {
        self.holders.clone()
    }

    /// The keys from `key` on, in byte order.
    pub(super) fn from(&self, key: &str) -> impl Iterator<Item = &str> {
        self.holders.at_or_after(key).map(|(key, _)| &**key)
    }

    pub(super) fn put(&mut self, key: &str, holder: Holder) {
        let key = Arc::<str>::from(key);
        let expires = holder.expires;
        let before = self.holders.insert(Arc::clone(&key), Arc::new(holder)).and_then(|before| before.expires);
        if let Some(before) = before {
            self.expiring.remove(&(before, Arc::clone(&key)));
        }
        if let Some(expires) = expires {
            self.expiring.insert((expires, key));
        }
    }

    pub(super) fn remove(&mut self, key: &str) {
        if let Some(expires) = self.holders.remove(key).and_then(|holder| holder.expires) {
            self.expiring.remove(&(expires, key.into()));
        }
    }

    /// Removes expired claims, the oldest expiry first, and returns their number. This is not written: reading the log
    /// again removes them again.
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
