//! Long calls take turns: as many of their processes run at once as there are cores, and the others stand still.
//!
//! The kernel would share the cores among all of them, and 64 loops would leave little to those who answer requests.
//! A short call is over before any of this begins.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::process::{Signal, pidfd_send_signal};

use crate::hooks::fair::{self, FairSemaphore, Share};

/// Time from the start of a call after which it counts as long.
const PATIENCE: Duration = Duration::from_millis(2);

/// How long one runs before the next may.
const TURN: Duration = Duration::from_millis(10);

/// The places of those that run.
pub(super) fn places() -> FairSemaphore {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    FairSemaphore::new(cores, Share::All)
}

/// One call's process, as far as turns are concerned.
pub(super) struct Turns {
    process: Arc<OwnedFd>,
    /// Set while the host works for it: then it uses no core, and needs no turn.
    is_waiting: Arc<AtomicBool>,
    is_stopped: bool,
}

impl Turns {
    pub(super) const fn new(process: Arc<OwnedFd>, is_waiting: Arc<AtomicBool>) -> Self {
        Turns { process, is_waiting, is_stopped: false }
    }

    /// Lets the process run in its turns until this is dropped, which lets it run freely.
    pub(super) async fn take<T>(mut self, places: &FairSemaphore, key: fair::Key) -> T {
        tokio::time::sleep(PATIENCE).await;
        loop {
            // Relaxed: a look that comes too late costs one turn.
            if self.is_waiting.load(Ordering::Relaxed) {
                tokio::time::sleep(TURN).await;
                continue;
            }
            self.signal(Signal::STOP);
            let _place = places.acquire(key, 1).await;
            self.signal(Signal::CONT);
            tokio::time::sleep(TURN).await;
        }
    }

    fn signal(&mut self, signal: Signal) {
        self.is_stopped = signal == Signal::STOP;
        // It may be gone already, which its socket tells.
        let _ = pidfd_send_signal(&*self.process, signal);
    }
}

impl Drop for Turns {
    fn drop(&mut self) {
        if self.is_stopped {
            self.signal(Signal::CONT);
        }
    }
}
