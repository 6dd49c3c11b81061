//! Counts the threads that a hook's calls still occupy after a timeout, and disables hooks that occupy too many.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::hooks::context::{Failure, FailureCause};

/// How many threads one hook may occupy before its calls fail at once.
pub(super) const GIVEN_UP_MAX: usize = 3;

/// The counts of one bound hook.
#[derive(Default)]
pub(super) struct GivenUp {
    /// Calls that have timed out and not returned.
    stuck: AtomicUsize,
    /// The part of `stuck` that was forgiven when the hook was bound again.
    forgiven: AtomicUsize,
}

impl GivenUp {
    pub(super) fn gave_up(&self) {
        self.stuck.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes that one of them has returned after all.
    pub(super) fn came_back(&self) {
        self.stuck.fetch_sub(1, Ordering::Relaxed);
        let _ = self
            .forgiven
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |forgiven| Some(forgiven.saturating_sub(1)));
    }

    pub(super) fn forgive(&self) {
        self.forgiven.store(self.stuck.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// Why its calls fail at once; `None` if they do not.
    pub(super) fn kept_out(&self) -> Option<Failure> {
        let stuck = self.stuck.load(Ordering::Relaxed);
        if stuck.saturating_sub(self.forgiven.load(Ordering::Relaxed)) < GIVEN_UP_MAX {
            return None;
        }
        Some(Failure {
            cause: FailureCause::Timeout,
            message: format!(
                "the hook is disabled: {stuck} of its calls did not return and block their threads until the server \
                 ends; fix the library and bind it again"
            ),
            limit: Some(format!("threads given up {GIVEN_UP_MAX}")),
        })
    }
}
