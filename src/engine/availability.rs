//! Whether the model store is available: not during a rebuild and not while it misses durable events. A single model is
//! unavailable while it is stuck.
//!
//! An incomplete store returns wrong results, so reads and writes are rejected and post hooks wait.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::error::{Error, ErrorKind, Result};
use super::stuck::Stuck;

/// Reasons that the whole model store is unavailable. Each starts and ends independently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Outage {
    /// A rebuild runs.
    Rebuild = 1,
    /// The store failed, and is catching up from the log.
    Behind = 2,
}

/// The bit beside those of [`Outage`]: some model is stuck.
const STUCK: u8 = 4;

/// The current outages, one bit each.
#[derive(Debug, Default)]
pub(super) struct Availability {
    outages: AtomicU8,
    stuck: Mutex<BTreeMap<String, Stuck>>,
    /// Counts the beginnings of outages.
    begun: AtomicU64,
    ended: Notify,
}

impl Availability {
    pub(super) fn begin(&self, outage: Outage) {
        if self.outages.fetch_or(outage as u8, Ordering::AcqRel) & outage as u8 == 0 {
            self.begun.fetch_add(1, Ordering::AcqRel);
        }
    }

    pub(super) fn end(&self, outage: Outage) {
        self.outages.fetch_and(!(outage as u8), Ordering::AcqRel);
        self.ended.notify_waiters();
    }

    /// Sets the stuck models. Logs the new ones.
    pub(super) fn set_stuck(&self, stuck: impl IntoIterator<Item = Stuck>) {
        let stuck: BTreeMap<String, Stuck> = stuck.into_iter().map(|stuck| (stuck.model.clone(), stuck)).collect();
        let mut known = self.lock();
        for new in stuck.values().filter(|stuck| known.get(&stuck.model) != Some(stuck)) {
            new.log();
            self.begun.fetch_add(1, Ordering::AcqRel);
        }
        for gone in known.keys().filter(|model| !stuck.contains_key(*model)) {
            tracing::info!(model = gone, "the model store no longer has an event of this model that it cannot apply");
        }
        match stuck.is_empty() {
            true => self.outages.fetch_and(!STUCK, Ordering::AcqRel),
            false => self.outages.fetch_or(STUCK, Ordering::AcqRel),
        };
        *known = stuck;
        drop(known);
        self.ended.notify_waiters();
    }

    /// The models that are stuck, by id.
    pub(super) fn all_stuck(&self) -> BTreeMap<String, Stuck> {
        self.lock().clone()
    }

    /// Why a model is stuck; `None` if it is not.
    pub(super) fn stuck(&self, model: &str) -> Option<Stuck> {
        if self.outages.load(Ordering::Acquire) & STUCK == 0 {
            return None;
        }
        self.lock().get(model).cloned()
    }

    /// `unavailable` while there is an outage of the whole store.
    pub(super) fn check(&self) -> Result<()> {
        let outages = self.outages.load(Ordering::Acquire) & !STUCK;
        if outages == 0 {
            return Ok(());
        }
        let detail = match outages & Outage::Rebuild as u8 {
            0 => "the model store failed and catches up from the log; try again in a moment",
            _ => "the model store is being rebuilt from the log; GET /rebuild shows how far it is",
        };
        Err(Error::new(ErrorKind::Unavailable, detail))
    }

    /// `unavailable` while this model is unavailable. A single atomic load in the normal case.
    pub(super) fn check_model(&self, model: &str) -> Result<()> {
        if self.outages.load(Ordering::Acquire) == 0 {
            return Ok(());
        }
        self.check()?;
        self.stuck(model).map_or(Ok(()), |stuck| Err(stuck.error()))
    }

    /// Waits until the model is available.
    pub(super) async fn wait(&self, model: &str) {
        loop {
            let ended = self.ended.notified();
            tokio::pin!(ended);
            // Registered before the check, so no notification is missed.
            ended.as_mut().enable();
            if self.check_model(model).is_ok() {
                return;
            }
            ended.await;
        }
    }

    /// The number of outages so far. If the number differs later, or there is an outage now, results from in between
    /// may be wrong because of it.
    pub(super) fn begun(&self) -> u64 {
        self.begun.load(Ordering::Acquire)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Stuck>> {
        self.stuck.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
