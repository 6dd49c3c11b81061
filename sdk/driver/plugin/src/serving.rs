//! A call that is being served: a future that always ends with an answer, whatever the driver does.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use snaphook_driver::Result;

use crate::answer::PendingAnswer;

/// The driver's work and the answer that it produces.
pub(crate) struct Serving {
    work: Pin<Box<dyn Future<Output = Result<Vec<u8>>> + Send>>,
    /// `None` once the answer has been sent.
    answer: Option<PendingAnswer>,
}

impl Serving {
    pub(crate) fn new(work: impl Future<Output = Result<Vec<u8>>> + Send + 'static, answer: PendingAnswer) -> Serving {
        Serving { work: Box::pin(work), answer: Some(answer) }
    }
}

impl Future for Serving {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let Serving { work, answer } = &mut *self;
        let polled = match catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(context))) {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(result)) => Ok(result),
            Err(payload) => Err(payload),
        };
        if let Some(answer) = answer.take() {
            match polled {
                Ok(result) => answer.send(result),
                Err(payload) => answer.panicked(&*payload),
            }
        }
        Poll::Ready(())
    }
}
