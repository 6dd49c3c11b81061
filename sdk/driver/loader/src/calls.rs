//! The calls in progress, by number: this is how an answer reaches its waiter, however often and whenever the library
//! answers.
//!
//! Libraries get numbers, never pointers. A call stays in the table until it is answered and the library's function has
//! returned, so an answer to a number that is not in the table is either a duplicate or belongs to no call.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::loaded::Loaded;
use crate::outcome::{CallOutcome, LibraryAnswer, Stage};
use crate::outstanding::{Ending, Outstanding};

const SHARDS: usize = 16;

static TABLE: [Mutex<Option<HashMap<u64, Call>>>; SHARDS] = [const { Mutex::new(None) }; SHARDS];

/// The number of calls in the table.
static COUNT: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// While a runtime thread runs a library's function: the calls that were answered in the meantime.
    static HELD: RefCell<Option<Vec<u64>>> = const { RefCell::new(None) };
}

struct Call {
    plugin: Arc<Loaded>,
    /// `None` once there is an outcome or nobody waits any longer.
    waiter: Option<oneshot::Sender<CallOutcome>>,
    /// An answer that has not been delivered to its waiter yet.
    held: Option<LibraryAnswer>,
    answered: bool,
    stage: Stage,
    deadline: Instant,
    is_late: bool,
    /// For a change that nobody waits for any more: lets the next change wait until this one ends.
    ending: Option<Ending>,
    /// For an append: where it is counted while it is past its deadline and has not ended.
    overdue: Option<Arc<Outstanding>>,
    late: Option<Ending>,
}

/// Adds a call to the table; `None` if the plugin has too many unanswered calls.
pub(crate) fn begin(
    plugin: &Arc<Loaded>,
    time: Duration,
    overdue: Option<Arc<Outstanding>>,
) -> Option<(u64, oneshot::Receiver<CallOutcome>)> {
    let number = plugin.next_call()?;
    let now = Instant::now();
    let (sender, receiver) = oneshot::channel();
    let call = Call {
        plugin: Arc::clone(plugin),
        waiter: Some(sender),
        held: None,
        answered: false,
        stage: Stage::Queued,
        // If the deadline exceeds the clock's range, use a distant one.
        deadline: now.checked_add(time).unwrap_or(now + Duration::from_secs(1 << 30)),
        is_late: false,
        ending: None,
        overdue,
        late: None,
    };
    shard(number).get_or_insert_default().insert(number, call);
    COUNT.fetch_add(1, Ordering::SeqCst);
    Some((number, receiver))
}

/// Marks the call as running, just before the library's function is called; `false` if nobody waits any more.
pub(crate) fn enter(number: u64) -> bool {
    let entered = with(number, |call| {
        let is_awaited = call.waiter.is_some();
        if is_awaited {
            call.stage = Stage::Running;
        }
        is_awaited
    });
    entered.unwrap_or(false)
}

/// Records that the library's function returned or threw an exception. Returns whether the call must be cancelled.
pub(crate) fn leave(number: u64, is_thrown: bool) -> bool {
    let left = with(number, |call| {
        call.stage = Stage::Returned;
        if call.is_late {
            call.plugin.threads().came_back();
        }
        let outcome = match call.held.take() {
            Some(answer) => Some(CallOutcome::Answered(answer)),
            None if is_thrown && !call.answered => Some(CallOutcome::Thrown),
            None => None,
        };
        let waiter = if outcome.is_some() { call.waiter.take() } else { None };
        // If it is answered and has a waiter, another thread is about to deliver it.
        let is_over = call.waiter.is_none() && (is_thrown || call.answered);
        (outcome, waiter, is_over, call.waiter.is_none())
    });
    let Some((outcome, waiter, is_over, is_abandoned)) = left else { return false };
    if is_over {
        remove(number);
    }
    if let (Some(outcome), Some(waiter)) = (outcome, waiter) {
        // Ignored: the receiver is gone if nobody waits any more.
        let _ = waiter.send(outcome);
    }
    !is_over && is_abandoned
}

/// Records that nobody waits any longer. Returns whether the call must be cancelled. `ending` is kept until the call
/// ends or is given up.
pub(crate) fn abandon(number: u64, ending: Option<Ending>) -> bool {
    let stage = with(number, |call| {
        call.waiter = None;
        call.ending = ending;
        // Nobody waits any longer, so the ordinary call deadline is enough.
        call.deadline = call.deadline.min(Instant::now() + call.plugin.deadlines.call);
        (call.stage, call.answered)
    });
    match stage {
        Some((Stage::Queued, _)) => {
            remove(number);
            false
        }
        Some((Stage::Returned, answered)) => !answered,
        Some((Stage::Running, _)) | None => false,
    }
}

/// Handles a library's answer. `copy` reads the response and is only called if the response is needed.
pub(crate) fn complete(number: u64, status: u32, copy: impl FnOnce() -> Result<Vec<u8>, String>) {
    enum Then {
        Refuse,
        Deliver(Option<oneshot::Sender<CallOutcome>>, Stage),
        Hold,
    }
    // A thread that is terminating has no thread-locals any more; it is not a runtime thread.
    let is_held = HELD.try_with(|held| held.borrow().is_some()).unwrap_or(false);
    let then = with(number, |call| {
        if call.answered || call.stage == Stage::Queued {
            return Then::Refuse;
        }
        call.answered = true;
        if call.is_late {
            call.plugin.faults().answered_late(&call.plugin);
        }
        match is_held && call.waiter.is_some() {
            true => Then::Hold,
            false => Then::Deliver(call.waiter.take(), call.stage),
        }
    });
    match then {
        None | Some(Then::Refuse) => Loaded::answered_none(number),
        Some(Then::Deliver(waiter, stage)) => {
            if stage == Stage::Returned {
                remove(number);
            }
            if let Some(waiter) = waiter {
                let _ = waiter.send(CallOutcome::Answered(LibraryAnswer { status, bytes: copy() }));
            }
        }
        Some(Then::Hold) => {
            let answer = LibraryAnswer { status, bytes: copy() };
            with(number, |call| call.held = Some(answer));
            HELD.with_borrow_mut(|held| held.as_mut().map(|held| held.push(number)));
        }
    }
}

/// Runs a library's function on a thread of the server's runtime. A task that is woken on this thread is queued for
/// this thread alone, so no task is woken until the function has returned.
pub(crate) fn on_runtime_thread(run: impl FnOnce()) {
    HELD.with_borrow_mut(|held| *held = Some(Vec::new()));
    run();
    let held = HELD.with_borrow_mut(Option::take).unwrap_or_default();
    held.into_iter().for_each(deliver);
}

/// Whether the table is empty.
pub(crate) fn is_empty() -> bool {
    COUNT.load(Ordering::SeqCst) == 0
}

/// Gives up calls that are past their deadline, and delivers answers that are held back by a function that does not
/// return. Called periodically.
pub(crate) fn sweep(now: Instant) {
    let (mut held, mut over, mut cancelled) = (Vec::new(), Vec::new(), Vec::new());
    for shard in &TABLE {
        let mut shard = lock(shard);
        for (number, call) in shard.iter_mut().flatten() {
            if call.held.is_some() {
                held.push(*number);
            }
            if call.is_late || call.answered && call.stage != Stage::Running || now < call.deadline {
                continue;
            }
            call.is_late = true;
            call.ending = None;
            // Count it before the waiter learns that the call is late.
            call.late = call.overdue.as_ref().map(Outstanding::add);
            match call.stage {
                Stage::Queued => over.push(*number),
                Stage::Running => call.plugin.threads().lost(),
                Stage::Returned => cancelled.push((*number, Arc::clone(&call.plugin))),
            }
            if let Some(waiter) = call.waiter.take_if(|_| !call.answered) {
                call.plugin.faults().gave_up(&call.plugin);
                let _ = waiter.send(CallOutcome::Late(call.stage));
            }
        }
    }
    held.into_iter().for_each(deliver);
    over.into_iter().for_each(remove);
    cancelled.into_iter().for_each(|(number, plugin)| plugin.cancel(number));
}

fn deliver(number: u64) {
    let delivered = with(number, |call| {
        let is_over = call.stage == Stage::Returned;
        (call.held.take().zip(call.waiter.take()), is_over)
    });
    if let Some((delivered, is_over)) = delivered {
        if is_over {
            remove(number);
        }
        if let Some((answer, waiter)) = delivered {
            let _ = waiter.send(CallOutcome::Answered(answer));
        }
    }
}

fn remove(number: u64) {
    let removed = shard(number).as_mut().and_then(|calls| calls.remove(&number));
    if let Some(call) = removed {
        let plugin = Arc::clone(&call.plugin);
        // Drop the call first, so that a change that waits for its end resumes before the call is no longer counted.
        drop(call);
        plugin.call_ended();
        COUNT.fetch_sub(1, Ordering::SeqCst);
    }
}

fn with<T>(number: u64, change: impl FnOnce(&mut Call) -> T) -> Option<T> {
    shard(number).as_mut()?.get_mut(&number).map(change)
}

fn shard(number: u64) -> MutexGuard<'static, Option<HashMap<u64, Call>>> {
    lock(&TABLE[number as usize % SHARDS])
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
