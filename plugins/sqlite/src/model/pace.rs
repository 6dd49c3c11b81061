//! Paces background work on the file: transactions of about a millisecond, with pauses in between while others write.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How long one step may hold the writer, including its commit.
const STEP: Duration = Duration::from_millis(1);
const ROWS_FIRST: usize = 32;
const ROWS_MAX: usize = 4096;

/// How long work pauses, as a multiple of its last step's duration.
#[derive(Clone, Copy)]
pub(super) enum Rest {
    /// Somebody waits for it: it runs at a quarter of the speed.
    Change = 3,
    /// Nobody waits for it.
    Garbage = 15,
}

/// The pace of one job.
pub(super) struct Pace<'a> {
    /// Counts the writes of others.
    writes: &'a AtomicU64,
    seen: u64,
    rest: Rest,
    /// Number of rows in the next step.
    pub(super) rows: usize,
}

impl Pace<'_> {
    pub(super) fn new(writes: &AtomicU64, rest: Rest) -> Pace<'_> {
        Pace { writes, seen: writes.load(Ordering::Relaxed), rest, rows: ROWS_FIRST }
    }

    /// Called after a step that held the writer for `held`: adjusts the size of the next step, and pauses if anybody
    /// wrote in the meantime.
    pub(super) fn rest(&mut self, began: Instant, held: Duration) {
        if held > STEP {
            self.rows = (self.rows / 2).max(1);
        } else if held < STEP / 2 {
            self.rows = (self.rows * 2).min(ROWS_MAX);
        }
        let writes = self.writes.load(Ordering::Relaxed);
        if std::mem::replace(&mut self.seen, writes) == writes {
            std::thread::yield_now();
        } else {
            std::thread::sleep(began.elapsed() * self.rest as u32);
        }
    }
}
