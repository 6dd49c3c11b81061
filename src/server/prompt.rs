//! A connection that wakes itself while it is polled goes on at once.
//!
//! hyper fetches a request's body when the handler asks for it, and tells itself so by waking its own task. A runtime takes
//! a task that does this as one that gives way to others: it goes to the end of the queue and another thread is woken,
//! which as often as not takes the connection away. At one request at a time that was half of what a request took.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures::task::AtomicWaker;

/// Polls in a row; then others have their turn.
const POLLS_MAX: usize = 8;

const WAITS: u8 = 0;
const POLLED: u8 = 1;
const WOKEN: u8 = 2;

/// A future that goes on at once when it wakes itself.
pub(super) struct Prompt<F> {
    future: F,
    state: Arc<State>,
    /// The state's.
    waker: Waker,
}

struct State {
    phase: AtomicU8,
    task: AtomicWaker,
}

impl<F> Prompt<F> {
    pub(super) fn new(future: F) -> Self {
        let state = Arc::new(State { phase: AtomicU8::new(WAITS), task: AtomicWaker::new() });
        let waker = Waker::from(Arc::clone(&state));
        Prompt { future, state, waker }
    }
}

impl<F: Future + Unpin> Future for Prompt<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let Prompt { future, state, waker } = &mut *self;
        state.task.register(context.waker());
        let mut inner = Context::from_waker(waker);
        for _ in 0..POLLS_MAX {
            state.phase.store(POLLED, Ordering::Release);
            let polled = Pin::new(&mut *future).poll(&mut inner);
            if polled.is_ready() {
                return polled;
            }
            // From here on who wakes it wakes the task.
            if state.phase.compare_exchange(POLLED, WAITS, Ordering::AcqRel, Ordering::Acquire).is_ok() {
                return Poll::Pending;
            }
        }
        state.phase.store(WAITS, Ordering::Release);
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Wake for State {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        match self.phase.compare_exchange(POLLED, WOKEN, Ordering::AcqRel, Ordering::Acquire) {
            // Whoever polls it sees that.
            Ok(_) | Err(WOKEN) => {}
            Err(_) => self.task.wake(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Polls once; gives the answer and how often the task was woken.
    fn poll<F: Future + Unpin>(future: &mut Prompt<F>) -> (Poll<F::Output>, usize) {
        let count = Arc::new(Count::default());
        let waker = Waker::from(Arc::clone(&count));
        let polled = Pin::new(future).poll(&mut Context::from_waker(&waker));
        (polled, count.0.load(Ordering::Relaxed))
    }

    #[test]
    fn it_goes_on_at_once_when_it_wakes_itself() {
        let mut polls = 0;
        let mut future = Prompt::new(poll_fn(|context| {
            polls += 1;
            context.waker().wake_by_ref();
            if polls == 3 { Poll::Ready(polls) } else { Poll::Pending }
        }));
        assert_eq!(poll(&mut future), (Poll::Ready(3), 0));
    }

    #[test]
    fn one_that_never_stops_waking_itself_gives_way() {
        let mut polls = 0;
        let mut future = Prompt::new(poll_fn(|context| {
            polls += 1;
            context.waker().wake_by_ref();
            Poll::<()>::Pending
        }));
        assert_eq!(poll(&mut future), (Poll::Pending, 1));
        assert_eq!(poll(&mut future), (Poll::Pending, 1));
        drop(future);
        assert_eq!(polls, 2 * POLLS_MAX);
    }

    #[test]
    fn who_wakes_it_later_wakes_the_task_that_polled_it_last() {
        let kept = AtomicWaker::new();
        let mut future = Prompt::new(poll_fn(|context| {
            kept.register(context.waker());
            Poll::<()>::Pending
        }));
        let counts = [Arc::new(Count::default()), Arc::new(Count::default())];
        for count in &counts {
            let waker = Waker::from(Arc::clone(count));
            assert!(Pin::new(&mut future).poll(&mut Context::from_waker(&waker)).is_pending());
        }
        kept.wake();
        assert_eq!(counts.map(|count| count.0.load(Ordering::Relaxed)), [0, 1]);
    }
}
