//! Work on the file beside the commits: in transactions of about a millisecond, with rests between them while others write.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How long one step may keep the writer, its commit included.
const STEP: Duration = Duration::from_millis(1);
const ROWS_FIRST: usize = 32;
const ROWS_MAX: usize = 4096;

/// How long work rests, in times of what its last step took.
#[derive(Clone, Copy)]
pub(super) enum Rest {
    /// Somebody waits for it: a quarter of the speed.
    Change = 3,
    /// Nobody does.
    Garbage = 15,
}

/// The pace of one piece of work.
pub(super) struct Pace<'a> {
    /// Counts the writes of others.
    writes: &'a AtomicU64,
    seen: u64,
    rest: Rest,
    /// Rows of the next step.
    pub(super) rows: usize,
}

impl Pace<'_> {
    pub(super) fn new(writes: &AtomicU64, rest: Rest) -> Pace<'_> {
        Pace { writes, seen: writes.load(Ordering::Relaxed), rest, rows: ROWS_FIRST }
    }

    /// After a step of which the writer was kept for `held`: makes the next one larger or smaller, and rests if
    /// anybody wrote meanwhile.
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
