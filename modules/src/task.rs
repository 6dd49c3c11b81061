//! Tasks that run hooks. If a hook does not return, the waiter of its task is notified and continues without the task.

use std::any::Any;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

use futures::FutureExt as _;
use futures::task::AtomicWaker;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use crate::memory::Memory;

/// Shared by a task and its waiter.
pub struct Guard {
    is_given_up: AtomicBool,
    waiter: AtomicWaker,
    /// The memory budget for the output of its hooks.
    memory: Option<Arc<dyn Memory>>,
    /// The runtime that the task runs on.
    pub(crate) runtime: Option<Handle>,
}

impl Guard {
    /// For a task of the current runtime.
    pub(crate) fn new(memory: Option<Arc<dyn Memory>>) -> Arc<Guard> {
        let (is_given_up, waiter) = (AtomicBool::new(false), AtomicWaker::new());
        Arc::new(Guard { is_given_up, waiter, memory, runtime: Handle::try_current().ok() })
    }

    /// Notifies the waiter that a hook blocks the task's thread for too long.
    pub(crate) fn give_up(&self) {
        self.is_given_up.store(true, Ordering::Release);
        self.waiter.wake();
    }

    pub(crate) fn is_given_up(&self) -> bool {
        self.is_given_up.load(Ordering::Acquire)
    }

    /// The memory budget for the output of the task's hooks.
    pub(crate) fn memory(&self) -> Option<Arc<dyn Memory>> {
        self.memory.clone()
    }

    /// Waits for [`Guard::give_up`].
    pub(crate) async fn given_up(&self) {
        poll_fn(|cx| {
            self.waiter.register(cx.waker());
            if self.is_given_up() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

/// Why a task has no result.
#[derive(Debug)]
pub enum Lost {
    /// One of its hooks did not return in time.
    Late,
    /// It panicked, with this message.
    Panicked(String),
}

/// A task that is aborted when this is dropped.
pub(crate) struct Owned<T>(JoinHandle<T>);

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Runs work that calls hooks in a separate task; their output counts towards `memory`.
pub async fn run<T, F>(memory: Option<Arc<dyn Memory>>, work: impl FnOnce(Arc<Guard>) -> F) -> Result<T, Lost>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let guard = Guard::new(memory);
    let mut task = Owned(tokio::spawn(work(Arc::clone(&guard))));
    poll_fn(move |cx| {
        guard.waiter.register(cx.waker());
        match task.0.poll_unpin(cx) {
            Poll::Ready(Ok(done)) => Poll::Ready(Ok(done)),
            Poll::Ready(Err(error)) => Poll::Ready(Err(Lost::Panicked(match error.try_into_panic() {
                Ok(panic) => message(&*panic).to_owned(),
                Err(error) => error.to_string(),
            }))),
            Poll::Pending if guard.is_given_up() => Poll::Ready(Err(Lost::Late)),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

fn message(panic: &(dyn Any + Send)) -> &str {
    panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("?")
}
