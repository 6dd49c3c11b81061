//! Chooses where a call runs: first on the caller's thread, and on separate threads (the lane) if it turns out to be
//! long.
//!
//! Most calls end within a fraction of a tick, and handing them to another thread would cost more than the call. A call
//! that has used [`PATIENCE`] of CPU time is moved to a few threads of low priority, so that the threads that serve
//! other requests get their share of the cores, however many hooks loop at once.
//!
//! CPU time is measured, not wall-clock time: a thread that other programs keep off the cores would seem to run for
//! long. If its call were moved for that, then on a busy machine every call would wait behind all others until it times
//! out.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use tokio::runtime::Runtime as Tokio;
use tokio::task::{JoinError, JoinHandle};

use super::config::Runtime;
use super::ticker::{Running, TICK};
use crate::hooks::engines::clock::{Clock, bounded};
use crate::hooks::engines::limits::Broken;
use crate::hooks::fair::{FairSemaphore, Share};

/// CPU time that a call gets on the caller's thread. The guest yields at ticks of 1 ms, so this is exceeded by at most
/// one tick.
const PATIENCE: Duration = Duration::from_millis(2);

/// On Linux: weight 110, compared to 1024 for a thread of normal priority.
#[cfg(target_os = "linux")]
const NICENESS: i32 = 10;

/// Runs `call` to its end and returns its CPU time. `Err` if it timed out, while it ran or while it waited.
pub(in crate::hooks::engines) async fn run<T, F>(
    runtime: &Runtime,
    clock: Arc<Clock>,
    call: F,
) -> (Result<T, Broken>, Duration)
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let call = Box::pin(bounded(Arc::clone(&clock), call));
    let mut metered =
        Metered { call, clock, cpu: Duration::ZERO, used: Duration::ZERO, _running: runtime.ticker.enter() };
    match poll_fn(|context| metered.poll(context, PATIENCE)).await {
        Some(value) => (value, metered.cpu),
        None => slow(metered).await,
    }
}

async fn slow<T: Send + 'static>(mut metered: Metered<T>) -> (Result<T, Broken>, Duration) {
    let lane = match slow_lane() {
        Ok(lane) => lane,
        Err(broken) => return (Err(broken), metered.cpu),
    };
    let task = lane.tokio.spawn(async move {
        let (turns, key) = (&lane.turns, metered.clock.share_key());
        let mut turn = turns.acquire(key, 1).await;
        let value = loop {
            // For one tick at most.
            let (polled, goes_on) = poll_fn(|context| Poll::Ready(turn_of(&mut metered, context))).await;
            turn = match polled {
                Poll::Ready(value) => break value,
                // Even if nobody waits for the turn, others may wait for the thread in order to ask for one.
                Poll::Pending if goes_on => tokio::join!(turn.pass(), woken()).0,
                Poll::Pending => {
                    drop(turn);
                    woken().await;
                    turns.acquire(key, 1).await
                }
            };
        };
        (value, metered.cpu)
    });
    match AbortOnDrop(task).await {
        Ok((Some(value), cpu)) => (value, cpu),
        // With endless patience there is no `None`; if the task is gone, it has panicked or the process is ending.
        Ok((None, cpu)) => (Err(Broken::internal("the call was abandoned".into())), cpu),
        Err(error) => (Err(Broken::internal(format!("the call was lost: {error}"))), Duration::ZERO),
    }
}

/// Runs a call until its next tick or until it has to wait; also returns whether it can continue at once.
fn turn_of<T>(call: &mut Metered<T>, context: &Context<'_>) -> (Poll<Option<Result<T, Broken>>>, bool) {
    let woken = Arc::new(Woken { by_now: AtomicBool::new(false), task: context.waker().clone() });
    let waker = Waker::from(Arc::clone(&woken));
    let polled = call.poll(&mut Context::from_waker(&waker), Duration::MAX);
    (polled, woken.by_now.load(Ordering::Acquire))
}

/// Wakes a task and remembers that it was woken.
struct Woken {
    by_now: AtomicBool,
    task: Waker,
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.by_now.store(true, Ordering::Release);
        self.task.wake_by_ref();
    }
}

/// Yields the thread until this task is woken again by whatever it polled last.
async fn woken() {
    let mut is_first = true;
    poll_fn(|_| if std::mem::take(&mut is_first) { Poll::Pending } else { Poll::Ready(()) }).await;
}

struct Metered<T> {
    call: Pin<Box<dyn Future<Output = Result<T, Broken>> + Send>>,
    clock: Arc<Clock>,
    cpu: Duration,
    /// The part that counts against its patience.
    used: Duration,
    _running: Running,
}

impl<T> Metered<T> {
    /// `None` if it has used more than `patience` and is not done.
    fn poll(&mut self, context: &mut Context<'_>, patience: Duration) -> Poll<Option<Result<T, Broken>>> {
        let start = Instant::now();
        let poll = self.call.as_mut().poll(context);
        let ran = start.elapsed();
        self.cpu += ran;
        // It yields at each tick, so any longer time was not its own. Asking the kernel would cost half a microsecond.
        self.used += ran.min(TICK);
        self.clock.ran(ran);
        match poll {
            Poll::Ready(value) => Poll::Ready(Some(value)),
            Poll::Pending if self.used > patience => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    }
}

/// Aborts the call when its caller is dropped.
struct AbortOnDrop<T>(JoinHandle<T>);

impl<T> Future for AbortOnDrop<T> {
    type Output = Result<T, JoinError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context)
    }
}

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The threads for long calls.
struct Lane {
    /// Never dropped: a tokio runtime must not be dropped inside another.
    tokio: Tokio,
    /// One permit per thread: hooks get the cores in turns, however many calls each of them has.
    turns: FairSemaphore,
}

fn slow_lane() -> Result<&'static Lane, Broken> {
    static LANE: OnceLock<Result<Lane, String>> = OnceLock::new();
    let lane = LANE.get_or_init(|| {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.thread_name("hook-lane").on_thread_start(lower_priority).enable_all();
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let tokio = builder.worker_threads(cores).build().map_err(|error| error.to_string())?;
        Ok(Lane { tokio, turns: FairSemaphore::new(cores, Share::All) })
    });
    lane.as_ref().map_err(|error| Broken::internal(format!("cannot start the threads for long calls: {error}")))
}

#[cfg(target_os = "linux")]
fn lower_priority() {
    // On Linux this only affects the calling thread. Without it, long calls compete as equals, which is worse but not
    // wrong.
    if let Err(error) = rustix::process::setpriority_process(None, NICENESS) {
        tracing::debug!(%error, "threads for long hook calls keep the normal priority");
    }
}

#[cfg(not(target_os = "linux"))]
const fn lower_priority() {}
