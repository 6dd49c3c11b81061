//! Turns of reads that may take long, so that these never occupy all connections of the pool.
//!
//! A read first gets one of several short turns. If it does not finish, it starts again in one of the few long turns.
//! Reads that are known to be short need no turn.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use snaphook_driver::{Budget, DriverError, ErrorKind, Exceeded, Result};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

/// The number of steps in a short turn: a few milliseconds.
pub(super) const SHORT_STEPS: u64 = 50_000;

/// The maximum duration of a short turn, however few steps it has taken.
const SHORT_TIME: Duration = Duration::from_secs(1);

/// Maximum number of reads that wait for one kind of turn.
const WAITING_MAX: usize = 128;

/// How often a read checks its budget while it waits for the server.
const LOOK: Duration = Duration::from_millis(20);

/// Why a read stopped.
#[derive(Debug)]
pub(super) enum Halt {
    /// It does not fit into its turn.
    Turn,
    Failed(DriverError),
}

impl From<DriverError> for Halt {
    fn from(error: DriverError) -> Halt {
        Halt::Failed(error)
    }
}

/// The limits of one turn of a read.
#[derive(Clone, Debug)]
pub(super) struct Meter {
    pub(super) budget: Budget,
    operation: &'static str,
    began: u64,
    since: Instant,
    is_short: bool,
}

impl Meter {
    pub(super) fn new(budget: &Budget, operation: &'static str, is_short: bool) -> Meter {
        budget.start();
        Meter { budget: budget.clone(), operation, began: budget.steps(), since: Instant::now(), is_short }
    }

    pub(super) fn operation(&self) -> &'static str {
        self.operation
    }

    pub(super) fn charge(&self, steps: u64) -> Result<(), Halt> {
        self.look(self.budget.charge(steps))
    }

    /// Checks the result of charging the budget, and whether a short turn is over.
    pub(super) fn look<T>(&self, charged: Result<T, Exceeded>) -> Result<T, Halt> {
        let value = charged.map_err(|limit| limit.into_error(self.operation))?;
        // Rows that PostgreSQL skips take time, but no steps.
        let is_over = self.budget.steps().saturating_sub(self.began) > SHORT_STEPS || self.since.elapsed() > SHORT_TIME;
        if self.is_short && is_over {
            return Err(Halt::Turn);
        }
        Ok(value)
    }

    /// Waits for the server until the deadline, as long as the budget allows.
    pub(super) async fn wait<T>(&self, deadline: Instant, work: impl Future<Output = T>) -> Result<T, Halt> {
        let mut work = std::pin::pin!(work);
        loop {
            self.look(self.budget.check())?;
            if Instant::now() > deadline {
                let message = "PostgreSQL did not respond in time";
                return Err(DriverError::new(ErrorKind::Unavailable, self.operation, message).into());
            }
            if let Ok(value) = tokio::time::timeout(LOOK, work.as_mut()).await {
                return Ok(value);
            }
        }
    }
}

pub(super) struct Lanes {
    short: Lane,
    long: Lane,
}

struct Lane {
    places: Semaphore,
    waiting: AtomicUsize,
}

impl Lanes {
    /// Leaves connections for writers and for reads without a turn.
    pub(super) fn new(connections: usize) -> Lanes {
        Lanes { short: Lane::new((connections / 2).max(1)), long: Lane::new((connections / 4).max(1)) }
    }

    /// A permit for a short turn, or for a long one.
    pub(super) async fn place(
        &self,
        budget: &Budget,
        operation: &'static str,
        is_short: bool,
    ) -> Result<Option<SemaphorePermit<'_>>> {
        let lane = if is_short { &self.short } else { &self.long };
        lane.place(budget, operation).await
    }
}

impl Lane {
    fn new(places: usize) -> Lane {
        Lane { places: Semaphore::new(places), waiting: AtomicUsize::new(0) }
    }

    async fn place(&self, budget: &Budget, operation: &'static str) -> Result<Option<SemaphorePermit<'_>>> {
        if let Ok(place) = self.places.try_acquire() {
            return Ok(Some(place));
        }
        let overloaded =
            |why: String| DriverError::new(ErrorKind::Overloaded, operation, format!("{why}; try again in a moment"));
        let _waiting = WaitingRead::new(&self.waiting);
        if self.waiting.load(Ordering::Relaxed) > WAITING_MAX {
            return Err(overloaded(format!("{WAITING_MAX} queries are already waiting for their turn")));
        }
        // Keeps the wait within the range of the clock.
        let wait = budget.wait_left().min(Duration::from_secs(24 * 60 * 60));
        match tokio::time::timeout(wait, self.places.acquire()).await {
            Ok(place) => Ok(place.ok()),
            Err(_) => Err(overloaded(format!(
                "the query waited {:.1} s for its turn, too many others are running",
                budget.limits().wait.as_secs_f64()
            ))),
        }
    }
}

/// Counts a waiting read until it is dropped.
struct WaitingRead<'a>(&'a AtomicUsize);

impl<'a> WaitingRead<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        WaitingRead(count)
    }
}

impl Drop for WaitingRead<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
