//! Schedules reads that may take long.
//!
//! A read that may be long first gets a short turn, of which many run at once. If it does not finish, it starts again
//! as one of the few long reads, which leave cores for other work. Reads that are known to be short need no turn, so
//! nothing here delays them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use snaphook_driver::{Budget, DriverError, ErrorKind, Result};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::database::{Turn, off_thread};

/// Steps of a short turn: a few milliseconds.
pub(crate) const SHORT_STEPS: u64 = 50_000;

/// How many reads may wait for a turn of one kind.
const WAITING_MAX: usize = 128;

pub(crate) struct Lanes {
    short: Lane,
    long: Lane,
}

struct Lane {
    places: Arc<Semaphore>,
    waiting: AtomicUsize,
}

impl Default for Lanes {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Lanes { short: Lane::new(cores.max(2)), long: Lane::new((cores / 2).max(1)) }
    }
}

impl Lanes {
    /// Runs a read that may take long. `work` gets the number of steps of its turn (`None`: unlimited) and returns
    /// whether it finished within them. When the future is dropped, the work ends soon.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        operation: &'static str,
        budget: &Budget,
        work: impl Fn(&Budget, Option<u64>) -> Result<Turn<T>> + Send + Sync + 'static,
    ) -> Result<T> {
        let guard = budget.cancel_on_drop();
        let work = Arc::new(work);
        let mut result = self.short.run(operation, budget, Some(SHORT_STEPS), &work).await;
        if let Ok(Turn::Over) = result {
            result = self.long.run(operation, budget, None, &work).await;
        }
        guard.disarm();
        match result? {
            Turn::Done(value) => Ok(value),
            Turn::Over => {
                Err(DriverError::new(ErrorKind::Unexpected, operation, "a query without a time slice was interrupted"))
            }
        }
    }
}

impl Lane {
    fn new(places: usize) -> Self {
        Lane { places: Arc::new(Semaphore::new(places)), waiting: AtomicUsize::new(0) }
    }

    async fn run<T: Send + 'static>(
        &self,
        operation: &'static str,
        budget: &Budget,
        steps: Option<u64>,
        work: &Arc<impl Fn(&Budget, Option<u64>) -> Result<Turn<T>> + Send + Sync + 'static>,
    ) -> Result<Turn<T>> {
        let place = self.place(operation, budget).await?;
        let (budget, work) = (budget.clone(), Arc::clone(work));
        off_thread(operation, move || {
            // Moved into the work, so that it is released when the work ends, whether or not anybody still waits.
            let _place = place;
            if steps.is_none() {
                budget.start();
            }
            work(&budget, steps)
        })
        .await
    }

    async fn place(&self, operation: &'static str, budget: &Budget) -> Result<Option<OwnedSemaphorePermit>> {
        if let Ok(place) = Arc::clone(&self.places).try_acquire_owned() {
            return Ok(Some(place));
        }
        if tokio::runtime::Handle::try_current().is_err() {
            return Ok(None);
        }
        let overloaded =
            |why: String| DriverError::new(ErrorKind::Overloaded, operation, format!("{why}; try again in a moment"));
        let _waiting = WaitingRead::new(&self.waiting);
        if self.waiting.load(Ordering::Relaxed) > WAITING_MAX {
            return Err(overloaded(format!("{WAITING_MAX} queries are already waiting for their turn")));
        }
        // A wait too long for the clock is unlimited.
        let wait = budget.wait_left().min(std::time::Duration::from_secs(24 * 60 * 60));
        match tokio::time::timeout(wait, Arc::clone(&self.places).acquire_owned()).await {
            Ok(place) => Ok(place.ok()),
            Err(_) => Err(overloaded(format!(
                "the query waited {:.1} s for its turn, too many others are running",
                budget.limits().wait.as_secs_f64()
            ))),
        }
    }
}

/// Counts as a waiting read until it is dropped.
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
