//! A cache of verified tokens: checking a signature costs about fifty times as much as a lookup here.
//!
//! It has two halves: used entries move to the young half; when that is full, it becomes the old half, and the previous
//! old half, whose entries were not used recently, is dropped. So memory is bounded, and used entries stay.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use snaphook_driver::time::Millis;

use crate::caller::Caller;

/// Bytes of one half.
const HALF_BYTES_MAX: usize = 8 << 20;
/// Size of an entry without its claims.
const ENTRY_BYTES: usize = 512;

type Digest = [u8; 32];

#[derive(Debug, Default)]
pub(super) struct Cache(Mutex<Halves>);

#[derive(Debug, Default)]
struct Halves {
    young: HashMap<Digest, Known>,
    old: HashMap<Digest, Known>,
    young_bytes: usize,
}

/// The caller of a token, and how long the result is valid.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) caller: Arc<Caller>,
    pub(super) until: Millis,
    /// The generation of the keys with which it was verified.
    pub(super) keys: u64,
}

impl Known {
    fn memory(&self) -> usize {
        ENTRY_BYTES + self.caller.claims.as_ref().map_or(0, |claims| claims.memory())
    }
}

impl Cache {
    /// The caller of a token, if it was verified with these keys and is still valid.
    pub(super) fn get(&self, digest: &Digest, keys: u64, now: Millis) -> Option<Arc<Caller>> {
        let halves = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let holds = |known: &&Known| known.keys == keys && now < known.until;
        if let Some(known) = halves.young.get(digest) {
            return Some(known).filter(holds).map(|known| Arc::clone(&known.caller));
        }
        let known = halves.old.remove(digest)?;
        if !holds(&&known) {
            return None;
        }
        let caller = Arc::clone(&known.caller);
        halves.put(*digest, known);
        Some(caller)
    }

    pub(super) fn put(&self, digest: Digest, known: Known) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).put(digest, known);
    }
}

impl Halves {
    fn put(&mut self, digest: Digest, known: Known) {
        let bytes = known.memory();
        if self.young_bytes + bytes > HALF_BYTES_MAX {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = 0;
        }
        self.young_bytes += bytes;
        if let Some(replaced) = self.young.insert(digest, known) {
            self.young_bytes -= replaced.memory();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::claims::Claims;
    use crate::role::Role;
    use crate::scope::Scope;

    fn known(claims: Option<&str>, until: Millis) -> Known {
        let claims = Claims::parse(claims.unwrap_or("{}")).unwrap();
        Known { caller: Arc::new(Caller::of_issuer("u".to_owned(), claims, Role::Reader, Scope::ALL)), until, keys: 1 }
    }

    fn digest(number: u32) -> Digest {
        let mut digest = [0; 32];
        digest[..4].copy_from_slice(&number.to_be_bytes());
        digest
    }

    #[test]
    fn entries_hold_until_their_time_and_for_their_keys() {
        let cache = Cache::default();
        cache.put(digest(1), known(None, 100));
        assert!(cache.get(&digest(1), 1, 99).is_some());
        assert!(cache.get(&digest(1), 1, 100).is_none());
        assert!(cache.get(&digest(1), 2, 99).is_none());
        assert!(cache.get(&digest(2), 1, 99).is_none());
    }

    #[test]
    fn memory_is_bounded_and_what_is_used_stays() {
        let cache = Cache::default();
        let text = format!(r#"{{"a":"{}"}}"#, "x".repeat(8000));
        cache.put(digest(0), known(Some(&text), 100));
        for number in 1..10_000 {
            cache.put(digest(number), known(Some(&text), 100));
            assert!(cache.get(&digest(0), 1, 1).is_some(), "{number}");
        }
        let halves = cache.0.lock().unwrap();
        let bytes = |half: &HashMap<Digest, Known>| half.values().map(Known::memory).sum::<usize>();
        assert_eq!(bytes(&halves.young), halves.young_bytes);
        assert!(bytes(&halves.young) <= HALF_BYTES_MAX && bytes(&halves.old) <= HALF_BYTES_MAX);
        assert!(halves.young.len() + halves.old.len() > 400);
        drop(halves);
        assert!(cache.get(&digest(1), 1, 1).is_none());
    }
}
