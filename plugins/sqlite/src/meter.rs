//! Charges a connection's work to the budget of the current read: SQLite's steps, and the text that our functions read.

use std::sync::{Mutex, PoisonError};

use snaphook_driver::{Budget, Exceeded};

/// Steps of SQLite's virtual machine between two checks of the budget.
pub(crate) const STEPS_PER_LOOK: u32 = 1000;

/// The meter of one connection.
#[derive(Default)]
pub(crate) struct Meter {
    reading: Mutex<Option<Reading>>,
}

struct Reading {
    budget: Budget,
    /// Steps left in this turn; `None` if the read may run to its end.
    turn_left: Option<u64>,
    stopped: Option<Stop>,
}

/// Why a read was stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The read exceeded its budget.
    Exceeded(Exceeded),
    /// The read's turn is over: it is longer than a short read.
    Turn,
}

impl Meter {
    /// Charges a read with this budget until [`Meter::end`].
    pub(crate) fn begin(&self, budget: &Budget, turn: Option<u64>) {
        *self.locked() = Some(Reading { budget: budget.clone(), turn_left: turn, stopped: None });
    }

    /// Why the read was stopped, if it was.
    pub(crate) fn end(&self) -> Option<Stop> {
        self.locked().take().and_then(|reading| reading.stopped)
    }

    /// Counts steps.
    pub(crate) fn charge(&self, steps: u64) -> Result<(), Stop> {
        self.with(steps, |budget| budget.charge(steps))
    }

    /// Charges for reading text.
    pub(crate) fn charge_text(&self, bytes: usize) -> Result<(), Stop> {
        self.with((bytes / snaphook_driver::STEP_BYTES) as u64, |budget| budget.charge_text(bytes))
    }

    /// Charges memory that SQLite uses for sorting.
    pub(crate) fn hold(&self, bytes: usize) -> Result<(), Stop> {
        self.with(0, |budget| budget.hold(bytes))
    }

    fn with(&self, steps: u64, charge: impl FnOnce(&Budget) -> Result<(), Exceeded>) -> Result<(), Stop> {
        let mut reading = self.locked();
        let Some(reading) = reading.as_mut() else { return Ok(()) };
        let mut stop = charge(&reading.budget).err().map(Stop::Exceeded);
        if let Some(left) = &mut reading.turn_left {
            match left.checked_sub(steps) {
                Some(rest) => *left = rest,
                None => stop = stop.or(Some(Stop::Turn)),
            }
        }
        match stop {
            None => Ok(()),
            Some(stop) => {
                reading.stopped = Some(stop);
                Err(stop)
            }
        }
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, Option<Reading>> {
        self.reading.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
