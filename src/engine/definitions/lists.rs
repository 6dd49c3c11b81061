//! Adds and removes the keys of `unique` lists when a definition changes.
//!
//! A new list has its own id, so its keys can be taken before the definition is in use, a few hundred at a time,
//! without affecting anybody. If the change fails or the server crashes, they are removed. Keys of a removed list are
//! removed in the same way, after the change.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use snaphook_driver::{EventStore, Holder, InstanceQuery, Stream};
use tokio::runtime::Handle;

use super::pace::Pace;
use super::review::{Review, incompatible};
use super::{LISTED_MAX, PAGE};
use crate::catalog::{ModelRecord, Referenced, references, unique};
use crate::drivers::Stores;
use crate::engine::error::{Error, Result};
use crate::engine::models::Models;
use crate::engine::tail::Tail;
use crate::engine::unstoppable::unstoppable;

/// Keys per step: about a millisecond of the event store's writer.
const KEYS_AT_ONCE: usize = 200;

/// The key prefixes of a model's lists, and of its target keys.
pub(super) fn all(record: &ModelRecord) -> Vec<String> {
    let lists = (0..record.unique.len()).map(|list| unique::prefix(record, list));
    lists.chain(record.referenced.iter().map(Referenced::prefix)).collect()
}

/// The key prefixes of lists that are not in the new definition.
pub(super) fn gone(old: &ModelRecord, new: &ModelRecord) -> Vec<String> {
    let kept = all(new);
    all(old).into_iter().filter(|prefix| !kept.contains(prefix)).collect()
}

/// Keys of new lists, removed unless the definition comes into use.
pub(super) struct Reserved {
    events: Arc<dyn EventStore>,
    prefixes: Vec<String>,
    /// Held while keys are taken, which continues if the caller is dropped; then they are removed.
    taking: Arc<tokio::sync::Mutex<()>>,
    tail: Arc<Tail>,
    runtime: Handle,
}

impl Reserved {
    /// Takes the keys of all instances in the new lists of `record`. The model's gate is closed. `incompatible` if two
    /// instances have the same key.
    pub(super) async fn take(
        stores: &Stores,
        review: &mut Review,
        record: &ModelRecord,
        pace: &mut Pace,
    ) -> Result<Reserved> {
        let wanted = review.new_lists();
        let prefixes = wanted.iter().map(|list| unique::prefix(record, *list)).collect();
        let events = Arc::clone(&stores.event);
        let reserved =
            Reserved { events, prefixes, taking: Arc::default(), tail: pace.tail(), runtime: Handle::current() };
        let mut query = InstanceQuery { limit: PAGE, ..InstanceQuery::default() };
        let mut misfits = BTreeMap::new();
        while !wanted.is_empty() {
            let page = stores.model.query(&record.id, &query, &snaphook_driver::Budget::unlimited()).await?;
            let began = Instant::now();
            let mut keys = Vec::with_capacity(page.items.len() * wanted.len());
            for instance in &page.items {
                let stream = Stream::of_instance(&record.id, &instance.id);
                keys.extend(review.keys(record, &wanted, instance)?.into_iter().map(|key| (key, stream.clone())));
            }
            pace.rest(began).await;
            for keys in keys.chunks(KEYS_AT_ONCE) {
                let began = Instant::now();
                for (index, holder) in reserved.reserve(keys.to_vec()).await? {
                    let (key, stream) = &keys[index];
                    let other = holder.stream.instance.unwrap_or_default();
                    let message = unique::list_of(record, key).map(|list| list.clash(&other)).unwrap_or_default();
                    misfits.insert(stream.instance.clone().unwrap_or_default(), message);
                }
                pace.rest(began).await;
            }
            match page.next {
                Some(next) if misfits.len() < LISTED_MAX => query.cursor = Some(next),
                _ => break,
            }
        }
        incompatible(&record.id, &misfits)?;
        Ok(reserved)
    }

    async fn reserve(&self, keys: Vec<(String, Stream)>) -> Result<Vec<(usize, Holder)>> {
        let taking = Arc::clone(&self.taking).lock_owned().await;
        let events = Arc::clone(&self.events);
        let reserve = async move {
            let taken = events.reserve(&keys).await;
            drop(taking);
            Ok(taken?)
        };
        unstoppable(reserve).await
    }

    /// The definition is in use.
    pub(super) fn keep(mut self) {
        self.prefixes.clear();
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        let prefixes = std::mem::take(&mut self.prefixes);
        if !prefixes.is_empty() {
            let (events, pace, taking) = (Arc::clone(&self.events), Pace::new(&self.tail), Arc::clone(&self.taking));
            self.runtime.spawn(async move {
                drop(taking.lock().await);
                forget_all(events, prefixes, pace).await;
            });
        }
    }
}

/// Removes all keys with these prefixes, in the background.
pub(super) fn forget(events: Arc<dyn EventStore>, prefixes: Vec<String>, pace: Pace) {
    if !prefixes.is_empty() {
        tokio::spawn(forget_all(events, prefixes, pace));
    }
}

async fn forget_all(events: Arc<dyn EventStore>, prefixes: Vec<String>, mut pace: Pace) {
    for prefix in prefixes {
        loop {
            let began = Instant::now();
            match events.forget_claims(&prefix, KEYS_AT_ONCE as u32).await {
                Ok(count) if count < KEYS_AT_ONCE as u64 => break,
                Ok(_) => pace.rest(began).await,
                // They affect nobody; the next start removes them.
                Err(error) => return tracing::info!("keys that are no longer used are kept for now: {error}"),
            }
        }
    }
}

/// At the start, before any model can change: removes keys of lists and targets without a model, which a crash left
/// behind.
pub(in crate::engine) async fn sweep(events: &Arc<dyn EventStore>, models: &Models, tail: &Arc<Tail>) -> Result<()> {
    if events.capabilities().shared {
        return Ok(());
    }
    let known: HashSet<String> = models.all().iter().flat_map(|entry| all(&entry.model.record)).collect();
    let mut left = Vec::new();
    for (family, end) in [(unique::PREFIX, " "), (references::PREFIX, "")] {
        let mut from = family.to_owned();
        while let Some(key) = events.next_claim(&from).await.map_err(Error::from)? {
            let Some(rest) = key.strip_prefix(family) else { break };
            let id = rest.split(' ').next().unwrap_or_default();
            let prefix = format!("{family}{id}{end}");
            // Behind all keys with this id: `!` follows the space.
            from = format!("{family}{id}!");
            if !known.contains(&prefix) {
                left.push(prefix);
            }
        }
    }
    forget(Arc::clone(events), left, Pace::new(tail));
    Ok(())
}
