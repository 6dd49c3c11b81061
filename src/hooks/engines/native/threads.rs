//! The threads that run libraries: started as needed, kept for a while, and replaced when they are lost.

use std::collections::VecDeque;
use std::sync::{Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::hooks::context::{Failure, FailureCause};
use crate::hooks::fair::{FairSemaphore, Share};

/// How many threads may serve calls at once; further calls wait.
const SERVING_MAX: usize = 64;

/// The same, including given-up threads, each of which keeps its stack for good.
const ALL_MAX: usize = 512;

/// A thread without work ends after this time.
const IDLE_MAX: Duration = Duration::from_secs(10);

/// The stack size of a program's main thread, which libraries usually expect.
const STACK_BYTES: usize = 8 << 20;

/// What a thread does after some work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum After {
    /// It continues to serve.
    Serve,
    /// It ends: the code that ran on it may have left it in an unusual state.
    End,
    /// It was given up, but returned.
    CameBack,
}

/// Work for a thread, with a fallback if there is none.
pub(super) trait Work: Send {
    fn run(self: Box<Self>) -> After;
    fn refuse(self: Box<Self>, failure: Failure);
}

struct Threads {
    work: VecDeque<Box<dyn Work>>,
    idle: usize,
    serving: usize,
    all: usize,
}

static THREADS: Mutex<Threads> = Mutex::new(Threads { work: VecDeque::new(), idle: 0, serving: 0, all: 0 });
static MORE_WORK: Condvar = Condvar::new();

/// Permits for calls on threads, which hooks get in turns.
pub(super) fn permits() -> &'static FairSemaphore {
    static PERMITS: LazyLock<FairSemaphore> = LazyLock::new(|| FairSemaphore::new(SERVING_MAX, Share::LeavesSome));
    &PERMITS
}

/// Runs `work` on one of the threads as soon as one is free.
pub(super) fn run(work: impl Work + 'static) {
    let mut threads = lock();
    threads.work.push_back(Box::new(work));
    match threads.idle >= threads.work.len() {
        true => MORE_WORK.notify_one(),
        false => start(&mut threads),
    }
}

/// Notes that one of the threads is lost unless its call returns.
pub(super) fn gave_up() {
    let mut threads = lock();
    threads.serving = threads.serving.saturating_sub(1);
    if !threads.work.is_empty() && threads.idle == 0 {
        start(&mut threads);
    }
}

/// Starts another thread, if allowed. If there is no thread at all, rejects the waiting work, which would never run.
fn start(threads: &mut Threads) {
    if threads.serving >= SERVING_MAX {
        return;
    }
    let failure = match threads.all >= ALL_MAX {
        true => Failure {
            cause: FailureCause::Overloaded,
            message: format!(
                "native hooks block {ALL_MAX} threads that did not return, so none are left; fix the libraries and \
                 restart the server"
            ),
            limit: Some(format!("threads {ALL_MAX}")),
        },
        false => {
            let builder = std::thread::Builder::new().name("hook-native".into()).stack_size(STACK_BYTES);
            match builder.spawn(serve) {
                Ok(_) => {
                    threads.serving += 1;
                    threads.all += 1;
                    return;
                }
                Err(error) => {
                    let message = format!("no thread can be started for the hook: {error}");
                    Failure { cause: FailureCause::Overloaded, message, limit: None }
                }
            }
        }
    };
    if threads.serving == 0 {
        threads.work.drain(..).for_each(|work| work.refuse(failure.clone()));
    }
}

fn serve() {
    let mut threads = lock();
    loop {
        let Some(work) = threads.work.pop_front() else {
            threads.idle += 1;
            let (guard, wait) = MORE_WORK.wait_timeout(threads, IDLE_MAX).unwrap_or_else(PoisonError::into_inner);
            threads = guard;
            threads.idle -= 1;
            if wait.timed_out() && threads.work.is_empty() {
                threads.serving -= 1;
                break;
            }
            continue;
        };
        drop(threads);
        let after = work.run();
        threads = lock();
        match after {
            After::Serve => {}
            After::End => {
                threads.serving -= 1;
                break;
            }
            // It no longer counts as serving.
            After::CameBack => break,
        }
    }
    threads.all -= 1;
    if !threads.work.is_empty() && threads.idle == 0 {
        start(&mut threads);
    }
}

fn lock() -> MutexGuard<'static, Threads> {
    // Code that holds this lock never leaves the state inconsistent.
    THREADS.lock().unwrap_or_else(PoisonError::into_inner)
}
