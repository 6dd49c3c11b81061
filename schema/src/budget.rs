//! The budget of one job, which the job itself charges.
//!
//! The work runs on one thread, so the budget is a few thread-local cells. Each step of the work calls [`spend`]; when
//! the budget is used up, the work unwinds to [`within`], which returns the reason. A library that knows nothing of
//! budgets can only be left by unwinding, and this unwinding runs no panic hook.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Steps between two checks of the clock: about 50 µs.
const CHUNK: u64 = 4096;
/// The stack size of threads that check documents and schemas. Only the used part takes memory.
pub const STACK_BYTES: usize = 64 * 1024 * 1024;

/// The limits of a job.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Steps: a visited value, a member, or 256 bytes of a string.
    pub steps: u64,
    /// CPU time of the thread; `None`: not measured.
    pub time: Option<Duration>,
    /// The time from which on nobody waits for the result.
    pub until: Option<Instant>,
    /// Bytes of stack below the caller.
    pub stack: usize,
    /// Number of errors created; each may quote a large value.
    pub errors: u64,
    /// Set when nobody waits for the result any more.
    pub cancelled: Option<Arc<AtomicBool>>,
}

impl Limits {
    /// Limits that fit into a millisecond and into the stack of any thread.
    pub const fn inline() -> Limits {
        Limits { steps: 20_000, time: None, until: None, stack: 192 * 1024, errors: 200, cancelled: None }
    }

    /// The limits for checking a document. Needs the stack of [`crate::on_large_stack`].
    pub fn document() -> Limits {
        let time = Some(Duration::from_millis(250));
        Limits {
            steps: 20_000_000,
            time,
            until: None,
            stack: STACK_BYTES - 1024 * 1024,
            errors: 10_000,
            cancelled: None,
        }
    }

    /// The limits for compiling a schema. Needs the stack of [`crate::on_large_stack`].
    pub fn schema() -> Limits {
        Limits { steps: 20_000_000, time: Some(Duration::from_millis(500)), ..Limits::document() }
    }
}

/// The exceeded limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Excess {
    Steps(u64),
    Time(Duration),
    /// The nesting used this many bytes of stack.
    Depth(usize),
    Errors(u64),
    /// A string is too long for a format or pattern: its length in bytes, and the maximum.
    Text(usize, usize),
    /// Nobody waits for the result any longer.
    Late,
    Cancelled,
}

impl fmt::Display for Excess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Excess::Steps(steps) => write!(f, "it takes more than {steps} steps"),
            Excess::Time(time) => write!(f, "it takes more than {} ms", time.as_millis()),
            Excess::Depth(_) => f.write_str("it is nested too deeply"),
            Excess::Errors(errors) => write!(f, "it has more than {errors} errors"),
            Excess::Text(bytes, max) => {
                write!(f, "a string of {bytes} bytes is checked by a pattern or format that accepts at most {max}")
            }
            Excess::Late => f.write_str("it did not finish in time: the server is busy"),
            Excess::Cancelled => f.write_str("the caller no longer waits for it"),
        }
    }
}

/// The payload of the unwinding.
struct Spent(Excess);

struct Budget {
    /// Steps until the next check of the clock. Without a budget, there are always enough.
    chunk: Cell<u64>,
    /// Steps after this chunk.
    rest: Cell<u64>,
    /// The lowest address that the stack may reach.
    floor: Cell<usize>,
    errors: Cell<u64>,
    /// Length in bytes of the longest member name so far: the locations of errors consist of names.
    longest: Cell<usize>,
    /// CPU time of the thread at which the budget ends.
    ends: Cell<Option<Duration>>,
    limits: RefCell<Option<Limits>>,
}

thread_local! {
    static BUDGET: Budget = const {
        Budget {
            chunk: Cell::new(u64::MAX),
            rest: Cell::new(0),
            floor: Cell::new(0),
            errors: Cell::new(u64::MAX),
            longest: Cell::new(0),
            ends: Cell::new(None),
            limits: RefCell::new(None),
        }
    };
}

/// Runs `work` and counts its steps. A nested budget replaces the outer one until it ends.
pub fn within<T>(limits: &Limits, work: impl FnOnce() -> T) -> Result<T, Excess> {
    let outer = swap(limits.clone());
    let result = catch_unwind(AssertUnwindSafe(work));
    outer.restore();
    result.map_err(|payload| match payload.downcast::<Spent>() {
        Ok(spent) => spent.0,
        Err(payload) => resume_unwind(payload),
    })
}

/// The previous values of the cells.
struct Outer {
    chunk: u64,
    rest: u64,
    floor: usize,
    errors: u64,
    longest: usize,
    ends: Option<Duration>,
    limits: Option<Limits>,
}

fn swap(limits: Limits) -> Outer {
    BUDGET.with(|budget| {
        let chunk = limits.steps.min(CHUNK);
        Outer {
            chunk: budget.chunk.replace(chunk),
            rest: budget.rest.replace(limits.steps - chunk),
            floor: budget.floor.replace(address().saturating_sub(limits.stack)),
            errors: budget.errors.replace(limits.errors),
            longest: budget.longest.replace(0),
            ends: budget.ends.replace(limits.time.map(|time| thread_time() + time)),
            limits: budget.limits.replace(Some(limits)),
        }
    })
}

impl Outer {
    fn restore(self) {
        BUDGET.with(|budget| {
            budget.chunk.set(self.chunk);
            budget.rest.set(self.rest);
            budget.floor.set(self.floor);
            budget.errors.set(self.errors);
            budget.longest.set(self.longest);
            budget.ends.set(self.ends);
            budget.limits.replace(self.limits);
        });
    }
}

/// Takes steps from the budget of this thread.
#[inline]
pub(crate) fn spend(steps: u64) {
    BUDGET.with(|budget| match budget.chunk.get().checked_sub(steps) {
        Some(left) => budget.chunk.set(left),
        None => budget.refill(steps),
    });
}

/// Steps for text that is scanned once.
pub(crate) fn text_steps(bytes: usize) -> u64 {
    1 + bytes as u64 / 256
}

/// Whether a budget is set.
pub fn is_limited() -> bool {
    BUDGET.with(|budget| budget.limits.borrow().is_some())
}

/// Counts steps of work outside this crate.
pub fn step(steps: u64) {
    spend(steps);
}

/// Counts a step that may recurse: also checks the stack.
#[inline]
pub(crate) fn enter() {
    BUDGET.with(|budget| {
        if address() < budget.floor.get() {
            budget.too_deep();
        }
        match budget.chunk.get().checked_sub(1) {
            Some(left) => budget.chunk.set(left),
            None => budget.refill(1),
        }
    });
}

/// Records the name of a member that is entered.
#[inline]
pub(crate) fn enter_name(bytes: usize) {
    BUDGET.with(|budget| {
        if bytes > budget.longest.get() {
            budget.longest.set(bytes);
        }
    });
}

/// Counts a created error.
pub(crate) fn spend_error() {
    BUDGET.with(|budget| match budget.errors.get().checked_sub(1 + budget.longest.get() as u64 / 16) {
        Some(left) => budget.errors.set(left),
        None => {
            let max = budget.limits.borrow().as_ref().map_or(0, |limits| limits.errors);
            give_up(Excess::Errors(max))
        }
    });
    spend(16);
}

/// Called before a step that may take long. If the budget has no time limit, such a step exceeds it.
#[cold]
pub(crate) fn look_at_clock() {
    let excess = BUDGET.with(|budget| {
        let limits = budget.limits.borrow();
        let limits = limits.as_ref()?;
        match limits.time {
            None => Some(Excess::Steps(limits.steps)),
            Some(_) => budget.overdue(limits),
        }
    });
    if let Some(excess) = excess {
        give_up(excess);
    }
}

/// Ends the work.
#[cold]
pub(crate) fn give_up(excess: Excess) -> ! {
    resume_unwind(Box::new(Spent(excess)))
}

impl Budget {
    /// Called when `steps` exceed the chunk: checks whether there is time left, and whether anybody still waits.
    #[cold]
    fn refill(&self, steps: u64) {
        let excess = match self.limits.borrow().as_ref() {
            None => {
                self.chunk.set(u64::MAX);
                return;
            }
            Some(limits) => self.overdue(limits).or_else(|| {
                let Some(left) = (self.chunk.get() + self.rest.get()).checked_sub(steps) else {
                    return Some(Excess::Steps(limits.steps));
                };
                let chunk = left.min(CHUNK);
                self.chunk.set(chunk);
                self.rest.set(left - chunk);
                None
            }),
        };
        if let Some(excess) = excess {
            give_up(excess);
        }
    }

    fn overdue(&self, limits: &Limits) -> Option<Excess> {
        if limits.cancelled.as_ref().is_some_and(|cancelled| cancelled.load(Ordering::Relaxed)) {
            return Some(Excess::Cancelled);
        }
        if limits.until.is_some_and(|until| Instant::now() > until) {
            return Some(Excess::Late);
        }
        let ended = self.ends.get().is_some_and(|ends| thread_time() > ends);
        limits.time.filter(|_| ended).map(Excess::Time)
    }

    #[cold]
    fn too_deep(&self) {
        let stack = self.limits.borrow().as_ref().map_or(0, |limits| limits.stack);
        give_up(Excess::Depth(stack));
    }
}

/// The current address of the stack.
#[inline]
fn address() -> usize {
    let here = 0u8;
    std::ptr::from_ref(std::hint::black_box(&here)) as usize
}

#[cfg(unix)]
pub(crate) fn thread_time() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec.try_into().unwrap_or(0), now.tv_nsec.try_into().unwrap_or(0))
}

/// Uses wall-clock time instead: delayed work ends too early, never too late.
#[cfg(not(unix))]
pub(crate) fn thread_time() -> Duration {
    static START: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);
    START.elapsed()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits =
        Limits { steps: 100_000, time: None, until: None, stack: 64 * 1024, errors: 10, cancelled: None };

    fn descend(depth: u64) -> u64 {
        enter();
        std::hint::black_box(if depth == 0 { 0 } else { descend(depth - 1) + 1 })
    }

    #[test]
    fn work_ends_at_each_limit() {
        let steps = |count: u64| within(&LIMITS, || (0..count).for_each(|_| spend(1)));
        assert_eq!(steps(100_000), Ok(()));
        assert_eq!(steps(100_001), Err(Excess::Steps(100_000)));
        assert_eq!(within(&LIMITS, || spend(u64::MAX)), Err(Excess::Steps(100_000)));
        assert_eq!(within(&LIMITS, || descend(100_000)), Err(Excess::Depth(64 * 1024)));
        assert_eq!(within(&LIMITS, || (0..11).for_each(|_| spend_error())), Err(Excess::Errors(10)));
        let endless = || loop {
            spend(1);
        };
        let time = Duration::from_millis(5);
        let limits = Limits { steps: u64::MAX, time: Some(time), ..LIMITS };
        assert_eq!(within(&limits, endless), Err::<(), _>(Excess::Time(time)));
        let limits = Limits { steps: u64::MAX, until: Some(Instant::now()), ..LIMITS };
        assert_eq!(within(&limits, endless), Err::<(), _>(Excess::Late));
        let limits = Limits { steps: u64::MAX, cancelled: Some(Arc::new(AtomicBool::new(true))), ..LIMITS };
        assert_eq!(within(&limits, endless), Err::<(), _>(Excess::Cancelled));
    }

    #[test]
    fn a_budget_within_another_one_leaves_it_as_it_was() {
        let result = within(&LIMITS, || {
            spend(99_000);
            assert_eq!(within(&LIMITS, || spend(99_000)), Ok(()));
            assert_eq!(within(&LIMITS, || spend(200_000)), Err(Excess::Steps(100_000)));
            spend(1_000);
            spend(1)
        });
        assert_eq!(result, Err(Excess::Steps(100_000)));
        // Without a budget, nothing is counted.
        spend(u64::MAX);
        spend(u64::MAX);
    }

    #[test]
    fn other_panics_go_on() {
        let caught = catch_unwind(|| within(&LIMITS, || resume_unwind(Box::new("mine"))));
        assert_eq!(*caught.unwrap_err().downcast::<&str>().unwrap(), "mine");
    }
}
