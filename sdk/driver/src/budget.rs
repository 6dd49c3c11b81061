//! The budget of one read: steps, time and memory, counted by the code that does the work.
//!
//! Clients and hooks choose filters, patterns and sorts, and thereby the cost of a read, unless the work itself stops
//! at a limit. A [`Budget`] is passed with the call, and the driver charges it while it works.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crate::error::{DriverError, ErrorKind};

/// Limits of one read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The amount of work: one step takes about as long as an instruction of a database's virtual machine, or as
    /// reading [`STEP_BYTES`] of text.
    pub steps: u64,
    /// From [`Budget::start`] to the end.
    pub time: Duration,
    /// Bytes of memory for the work, in addition to the returned page.
    pub memory: u64,
    /// How long the read may wait for its turn, from [`Budget::new`] to [`Budget::start`].
    pub wait: Duration,
}

/// Bytes of text that count as one step.
pub const STEP_BYTES: usize = 16;

/// Steps between two checks of the time.
const STEPS_PER_CHECK: u64 = 4096;

/// The budget of one read. Clones share the rest of it.
#[derive(Clone, Debug)]
pub struct Budget(Arc<Account>);

#[derive(Debug)]
struct Account {
    limits: Limits,
    created: Instant,
    started: OnceLock<Instant>,
    steps: AtomicU64,
    memory: AtomicU64,
    cancelled: AtomicBool,
}

/// The limit that a read exceeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exceeded {
    Steps(u64),
    Time(Duration),
    Memory(u64),
    /// Nobody waits for the result.
    Cancelled,
}

impl Budget {
    pub fn new(limits: Limits) -> Self {
        Budget(Arc::new(Account {
            limits,
            created: Instant::now(),
            started: OnceLock::new(),
            steps: AtomicU64::new(0),
            memory: AtomicU64::new(0),
            cancelled: AtomicBool::new(false),
        }))
    }

    /// Without limits, for reads that clients do not influence. It can still be cancelled.
    pub fn unlimited() -> Self {
        let ever = Duration::from_secs(u64::MAX / 4);
        Budget::new(Limits { steps: u64::MAX, time: ever, memory: u64::MAX, wait: ever })
    }

    pub fn limits(&self) -> Limits {
        self.0.limits
    }

    /// Begins or continues the work: the first call starts the clock of [`Limits::time`].
    pub fn start(&self) {
        self.0.started.get_or_init(Instant::now);
    }

    /// The rest of [`Limits::wait`].
    pub fn wait_left(&self) -> Duration {
        self.0.limits.wait.saturating_sub(self.0.created.elapsed())
    }

    /// Steps so far.
    pub fn steps(&self) -> u64 {
        self.0.steps.load(Ordering::Relaxed)
    }

    /// Counts steps. Checks the time and [`Budget::cancel`] every few thousand steps.
    pub fn charge(&self, steps: u64) -> Result<(), Exceeded> {
        let before = self.0.steps.fetch_add(steps, Ordering::Relaxed);
        let after = before.saturating_add(steps);
        if after > self.0.limits.steps {
            return Err(Exceeded::Steps(self.0.limits.steps));
        }
        if before / STEPS_PER_CHECK != after / STEPS_PER_CHECK { self.check() } else { Ok(()) }
    }

    /// Counts reading this much text.
    pub fn charge_text(&self, bytes: usize) -> Result<(), Exceeded> {
        self.charge((bytes / STEP_BYTES) as u64 + 1)
    }

    /// Counts memory that is used until the read ends.
    pub fn hold(&self, bytes: usize) -> Result<(), Exceeded> {
        let held = self.0.memory.fetch_add(bytes as u64, Ordering::Relaxed).saturating_add(bytes as u64);
        if held > self.0.limits.memory { Err(Exceeded::Memory(self.0.limits.memory)) } else { Ok(()) }
    }

    /// Whether the read may continue.
    pub fn check(&self) -> Result<(), Exceeded> {
        let Account { limits, started, steps, memory, cancelled, .. } = &*self.0;
        if cancelled.load(Ordering::Relaxed) {
            return Err(Exceeded::Cancelled);
        }
        if steps.load(Ordering::Relaxed) > limits.steps {
            return Err(Exceeded::Steps(limits.steps));
        }
        if memory.load(Ordering::Relaxed) > limits.memory {
            return Err(Exceeded::Memory(limits.memory));
        }
        match started.get() {
            Some(started) if started.elapsed() > limits.time => Err(Exceeded::Time(limits.time)),
            _ => Ok(()),
        }
    }

    /// Makes the work end at its next check.
    pub fn cancel(&self) {
        self.0.cancelled.store(true, Ordering::Relaxed);
    }

    /// Cancels the work when the guard is dropped, unless it is disarmed first. If a future holds it while work runs on
    /// another thread, dropping the future ends the work.
    pub fn cancel_on_drop(&self) -> CancelOnDrop {
        CancelOnDrop(Some(self.clone()))
    }
}

/// See [`Budget::cancel_on_drop`].
#[must_use]
#[derive(Debug)]
pub struct CancelOnDrop(Option<Budget>);

impl CancelOnDrop {
    /// The work has ended.
    pub fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        if let Some(budget) = &self.0 {
            budget.cancel();
        }
    }
}

impl fmt::Display for Exceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Exceeded::Steps(max) => write!(f, "it needs more than {max} steps"),
            Exceeded::Time(max) => write!(f, "it takes longer than {:.1} s", max.as_secs_f64()),
            Exceeded::Memory(max) => write!(f, "it needs more than {} KiB of memory", max / 1024),
            Exceeded::Cancelled => f.write_str("the caller no longer waits for it"),
        }
    }
}

impl std::error::Error for Exceeded {}

impl Exceeded {
    /// The error that the trait's method returns.
    pub fn into_error(self, operation: &'static str) -> DriverError {
        match self {
            Exceeded::Cancelled => DriverError::new(ErrorKind::Unavailable, operation, "the read was cancelled"),
            limit => DriverError::new(
                ErrorKind::TooComplex,
                operation,
                format!(
                    "the query was stopped: {limit}; narrow the filter, or give the model an index that serves filter and \
                     sort"
                ),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits =
        Limits { steps: 10_000, time: Duration::from_secs(3600), memory: 1000, wait: Duration::from_secs(3600) };

    #[test]
    fn each_limit_is_named_when_it_is_exceeded() {
        let budget = Budget::new(LIMITS);
        assert_eq!(budget.charge(10_000), Ok(()));
        assert_eq!(budget.charge(1), Err(Exceeded::Steps(10_000)));
        assert_eq!(budget.check(), Err(Exceeded::Steps(10_000)));
        let budget = Budget::new(LIMITS);
        assert_eq!((budget.hold(1000), budget.hold(1)), (Ok(()), Err(Exceeded::Memory(1000))));
        let budget = Budget::new(Limits { time: Duration::ZERO, ..LIMITS });
        assert_eq!(budget.check(), Ok(()), "the clock has not started");
        budget.start();
        assert_eq!(budget.charge(STEPS_PER_CHECK), Err(Exceeded::Time(Duration::ZERO)));
        let error = Exceeded::Steps(5).into_error("query");
        assert_eq!(error.kind(), ErrorKind::TooComplex);
        assert!(error.to_string().contains("more than 5 steps"), "{error}");
    }

    #[test]
    fn a_dropped_guard_cancels_and_a_disarmed_one_does_not() {
        let budget = Budget::unlimited();
        budget.cancel_on_drop().disarm();
        assert_eq!(budget.check(), Ok(()));
        drop(budget.cancel_on_drop());
        assert_eq!(budget.charge(STEPS_PER_CHECK), Err(Exceeded::Cancelled));
    }
}
