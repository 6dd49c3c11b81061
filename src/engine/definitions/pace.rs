//! Paces work beside the commits: steps of milliseconds, with rests in between while others write.

use std::sync::Arc;
use std::time::Instant;

use snaphook_driver::Position;

use crate::engine::tail::Tail;

/// The rest after a step, as a multiple of its duration: this leaves three quarters of a core to others.
const REST: u32 = 3;

/// The pace of one piece of work.
pub(super) struct Pace {
    tail: Arc<Tail>,
    /// The head of the log after the last step.
    head: Position,
}

impl Pace {
    pub(super) fn new(tail: &Arc<Tail>) -> Pace {
        Pace { tail: Arc::clone(tail), head: tail.head() }
    }

    pub(super) fn tail(&self) -> Arc<Tail> {
        Arc::clone(&self.tail)
    }

    /// After a step that began then: rests, if anything was written meanwhile.
    pub(super) async fn rest(&mut self, began: Instant) {
        let head = self.tail.head();
        match std::mem::replace(&mut self.head, head) == head {
            true => tokio::task::yield_now().await,
            false => tokio::time::sleep(began.elapsed() * REST).await,
        }
    }
}
