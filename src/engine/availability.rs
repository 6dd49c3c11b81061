//! Whether the model store can be asked: not while it is made again, not while it misses events that are durable.
//!
//! A store that is half there gives wrong answers, so reads and writes are refused and post hooks wait.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use tokio::sync::Notify;

use super::error::{Error, ErrorKind, Result};

/// Why the model store cannot be asked; each is over for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Outage {
    /// A rebuild runs.
    Rebuild = 1,
    /// It failed, and catches up from the log.
    Behind = 2,
}

/// The outages that there are, one bit each.
#[derive(Debug, Default)]
pub(super) struct Availability {
    outages: AtomicU8,
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

    /// `unavailable` while there is an outage.
    pub(super) fn check(&self) -> Result<()> {
        let outages = self.outages.load(Ordering::Acquire);
        if outages == 0 {
            return Ok(());
        }
        let detail = match outages & Outage::Rebuild as u8 {
            0 => "the model store failed and catches up from the log; try again in a moment",
            _ => "the model store is being rebuilt from the log; GET /rebuild shows how far it is",
        };
        Err(Error::new(ErrorKind::Unavailable, detail))
    }

    /// Ends when there is no outage.
    pub(super) async fn wait(&self) {
        loop {
            let ended = self.ended.notified();
            tokio::pin!(ended);
            // From here on no end is missed.
            ended.as_mut().enable();
            if self.check().is_ok() {
                return;
            }
            ended.await;
        }
    }

    /// Outages that began so far. If it is another number later, or there is an outage now, what was asked between
    /// may have gone wrong because of that.
    pub(super) fn begun(&self) -> u64 {
        self.begun.load(Ordering::Acquire)
    }
}
