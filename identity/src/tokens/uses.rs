//! When tokens were last used: recorded in memory, and written for all tokens at once.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use snaphook_driver::ErrorKind;
use snaphook_driver::time::Millis;

use super::document::{USES, Uses, load, use_key};
use super::error::TokenError;
use super::live::Live;
use super::store::TokenStore;

/// How many times writing is retried because another node wrote first. After that, the next write includes the changes.
const TRIES_MAX: usize = 5;

impl TokenStore {
    /// Writes the uses since the last write.
    pub(super) async fn write_uses(&self) -> Result<(), TokenError> {
        let is_new = |live: &Live| {
            let mut entries = live.entries.iter();
            entries.any(|entry| entry.last_used.load(Ordering::Relaxed) > entry.written.load(Ordering::Relaxed))
        };
        if !is_new(&self.live.load()) {
            return Ok(());
        }
        for _ in 0..TRIES_MAX {
            let stored = load(&self.store, USES).await?;
            let version = stored.as_ref().map_or(0, |stored| stored.version);
            // An unreadable list is replaced: nothing depends on it.
            let known = stored.and_then(|stored| Uses::decode(&stored.bytes).ok()).unwrap_or_default();
            let live = self.live.load_full();
            let (used, noted) = merged(&known, &live);
            match self.store.put(USES, &Uses::encode(used)?, Some(version)).await {
                Ok(_) => {
                    let entries = live.entries.iter().zip(noted);
                    entries.for_each(|(entry, noted)| entry.written.store(noted, Ordering::Relaxed));
                    return Ok(());
                }
                Err(error) if error.kind() == ErrorKind::Conflict => {}
                Err(error) => {
                    return Err(TokenError::store(
                        "the last uses of tokens cannot be written to the secure storage",
                        &error,
                    ));
                }
            }
        }
        Ok(())
    }
}

/// The latest use of each existing token, and this node's uses in the order of the tokens.
fn merged(known: &Uses, live: &Live) -> (BTreeMap<String, Millis>, Vec<Millis>) {
    let noted: Vec<Millis> = live.entries.iter().map(|entry| entry.last_used.load(Ordering::Relaxed)).collect();
    let used = live.entries.iter().zip(&noted).filter_map(|(entry, noted)| {
        let key = use_key(&entry.record.digest);
        let latest = known.used.get(&key).copied().unwrap_or(super::live::NEVER).max(*noted);
        (latest != super::live::NEVER).then_some((key, latest))
    });
    (used.collect(), noted)
}
