//! Long runs take turns: as many of their processes run as there are cores, and the others are stopped.
//!
//! Otherwise the kernel would share the cores among all of them, and 64 endless loops would leave little for the
//! threads that serve requests. Short runs end before this begins.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::process::{Signal, pidfd_send_signal};

use crate::hooks::fair::{self, FairSemaphore, Share};

/// Time after which a run counts as long.
const PATIENCE: Duration = Duration::from_millis(2);

/// Length of a turn.
const TURN: Duration = Duration::from_millis(10);

/// The permits for running processes.
pub(super) fn places() -> FairSemaphore {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    FairSemaphore::new(cores, Share::All)
}

/// The turns of one run's process.
pub(super) struct Turns {
    process: Arc<OwnedFd>,
    /// Set while the process waits for a host call: then it uses no core and needs no turn.
    is_waiting: Arc<AtomicBool>,
    is_stopped: bool,
}

impl Turns {
    pub(super) const fn new(process: Arc<OwnedFd>, is_waiting: Arc<AtomicBool>) -> Self {
        Turns { process, is_waiting, is_stopped: false }
    }

    /// Lets the process run in turns. Dropping this lets it run freely.
    pub(super) async fn take<T>(mut self, places: &FairSemaphore, key: fair::Key) -> T {
        tokio::time::sleep(PATIENCE).await;
        loop {
            // Relaxed: an outdated value costs one turn.
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
        // The process may have ended already, which its socket shows.
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
