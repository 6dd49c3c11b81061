//! Controls whether a model accepts writes. A change on this node closes the gate for a moment while a new version is
//! put in use, and while the model is deleted. For changes on other nodes, the log holds writes back.

use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::error::{Error, ErrorKind, Result};

/// How long a write waits for a change of its model. Only claims of a new `unique` list, and holding back by the log,
/// take longer than milliseconds.
pub(super) const WAIT_MAX: Duration = Duration::from_secs(5);
/// Waiting writes of one model; beyond this callers get `overloaded`.
const WAITING_MAX: usize = 1000;

/// Why a gate is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Closing {
    Change = 1,
    Deletion = 2,
}

const OPEN: u8 = 0;

/// A model's gate. Writes that are in the committer's queue when it closes are still written.
#[derive(Debug, Default)]
pub(super) struct Gate {
    state: AtomicU8,
    /// Until when the log holds writes back, in milliseconds after [`START`]; 0: no.
    until: AtomicU64,
    waiting: AtomicUsize,
    opened: Notify,
}

/// Keeps a model closed for writes.
pub(super) struct Closed(Arc<Gate>);

impl Closed {
    pub(super) fn new(gate: &Arc<Gate>, why: Closing) -> Closed {
        gate.state.store(why as u8, Ordering::Release);
        Closed(Arc::clone(gate))
    }
}

impl Drop for Closed {
    fn drop(&mut self) {
        self.0.state.store(OPEN, Ordering::Release);
        self.0.opened.notify_waiters();
    }
}

/// The origin of the times in gates.
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

impl Gate {
    pub(super) fn is_open(&self) -> bool {
        self.state.load(Ordering::Acquire) == OPEN && self.held_back().is_none()
    }

    /// Holds writes back for this time, unless they are released before.
    pub(super) fn hold_back(&self, within: Duration) {
        let until = START.elapsed() + within;
        let until = if within.is_zero() { 0 } else { u64::try_from(until.as_millis()).unwrap_or(u64::MAX) };
        self.until.store(until, Ordering::Release);
    }

    pub(super) fn let_go(&self) {
        if self.until.swap(0, Ordering::AcqRel) > 0 {
            self.opened.notify_waiters();
        }
    }

    /// How long writes are still held back.
    fn held_back(&self) -> Option<Duration> {
        let until = Duration::from_millis(self.until.load(Ordering::Acquire));
        if until.is_zero() {
            return None;
        }
        until.checked_sub(START.elapsed()).filter(|left| !left.is_zero())
    }

    /// Waits until the gate is open. After that the model may have a new version, or be deleted.
    pub(super) async fn wait(&self, model: &str, deadline: Instant) -> Result<()> {
        let _one = GateWaiter::new(&self.waiting, model)?;
        loop {
            let opened = self.opened.notified();
            tokio::pin!(opened);
            // Registered before the check, so no opening is missed.
            opened.as_mut().enable();
            let held_back = self.held_back();
            match self.state.load(Ordering::Acquire) {
                OPEN if held_back.is_none() => return Ok(()),
                state if state == Closing::Deletion as u8 => {
                    return Err(Error::new(ErrorKind::Conflict, format!("model `{model}` is being deleted")));
                }
                _ => {}
            }
            // When the time limit of the log ends, no notification comes.
            let look = held_back.map_or(deadline, |left| deadline.min(Instant::now() + left));
            if tokio::time::timeout_at(look, opened).await.is_err() && Instant::now() >= deadline {
                return Err(Error::new(
                    ErrorKind::Unavailable,
                    format!("model `{model}` is being changed and accepts no writes yet; try again in a moment"),
                ));
            }
        }
    }
}

struct GateWaiter<'a>(&'a AtomicUsize);

impl<'a> GateWaiter<'a> {
    fn new(count: &'a AtomicUsize, model: &str) -> Result<GateWaiter<'a>> {
        let one = GateWaiter(count);
        if count.fetch_add(1, Ordering::Relaxed) >= WAITING_MAX {
            let detail = format!(
                "{WAITING_MAX} writes are already waiting for a change of model `{model}`; try again in a second"
            );
            return Err(Error::new(ErrorKind::Overloaded, detail));
        }
        Ok(one)
    }
}

impl Drop for GateWaiter<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
