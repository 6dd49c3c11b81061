//! A hook whose code ends its process in a way that no limit foresaw costs the server more than a call: it backs off.
//!
//! Its calls fail at once for a second, after the next such end for two, up to a minute; then it runs again by itself. A call
//! that its limits ended is none of this, whatever it did to its process.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use snaphook_driver::time::{self, Millis};

use crate::config::format_duration;
use crate::hooks::context::{Failure, FailureCause};
use crate::hooks::engines::HookState;

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);

/// Of one hook. Times are milliseconds after `began`.
pub(super) struct Backoff {
    began: Instant,
    /// Until then its calls fail at once; 0: never.
    until: AtomicU64,
    /// The last pause.
    pause: AtomicU64,
}

impl Default for Backoff {
    fn default() -> Self {
        Backoff { began: Instant::now(), until: AtomicU64::new(0), pause: AtomicU64::new(0) }
    }
}

impl Backoff {
    /// Now; what [`Backoff::died`] and [`Backoff::went_well`] take as the start of a call.
    pub(super) fn now(&self) -> u64 {
        self.began.elapsed().as_millis() as u64
    }

    fn left(&self) -> Option<Duration> {
        // Relaxed: a call that comes a moment too early runs.
        let until = self.until.load(Ordering::Relaxed);
        if until == 0 {
            return None;
        }
        until.checked_sub(self.now()).filter(|left| *left > 0).map(Duration::from_millis)
    }

    /// A failure while it backs off.
    pub(super) fn failure(&self) -> Option<Failure> {
        let left = self.left()?;
        Some(Failure {
            cause: FailureCause::Load,
            message: format!(
                "the hook ended its V8 process in a way that no limit foresaw, so it is not run for another {}; bind it anew \
                 to try it at once",
                format_duration(left)
            ),
            limit: None,
        })
    }

    /// As `GET …/hooks` shows it.
    pub(super) fn state(&self) -> HookState {
        match self.left() {
            Some(left) => HookState::BackingOff { retry_at: time::now() + left.as_millis() as Millis },
            None => HookState::Ok,
        }
    }

    /// A call that began at `start` ended its process. Those that ran beside it count once.
    pub(super) fn died(&self, start: u64) {
        let until = self.until.load(Ordering::Relaxed);
        if until > 0 && start < until {
            return;
        }
        let pause = self.pause.load(Ordering::Relaxed) * 2;
        let pause = pause.clamp(FIRST.as_millis() as u64, LONGEST.as_millis() as u64);
        let next = self.now() + pause;
        if self.until.compare_exchange(until, next, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            self.pause.store(pause, Ordering::Relaxed);
        }
    }

    /// A call that began at `start` came to an answer.
    pub(super) fn went_well(&self, start: u64) {
        if self.pause.load(Ordering::Relaxed) > 0 && start >= self.until.load(Ordering::Relaxed) {
            self.pause.store(0, Ordering::Relaxed);
        }
    }

    /// What it did before is forgotten.
    pub(super) fn forget(&self) {
        self.until.store(0, Ordering::Relaxed);
        self.pause.store(0, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_death_doubles_the_pause_and_a_good_call_ends_the_series() {
        let backoff =
            Backoff { began: Instant::now().checked_sub(Duration::from_secs(10)).unwrap(), ..Backoff::default() };
        assert!(backoff.failure().is_none());
        let mut start = backoff.now();
        for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
            backoff.died(start);
            // Calls that ran beside it.
            backoff.died(start);
            backoff.died(0);
            let pause = Duration::from_millis(backoff.pause.load(Ordering::Relaxed));
            assert_eq!(pause, Duration::from_secs(seconds));
            assert!(backoff.failure().unwrap().message.contains("is not run for another"));
            assert!(matches!(backoff.state(), HookState::BackingOff { .. }));
            backoff.went_well(start);
            start = backoff.until.load(Ordering::Relaxed);
        }
        backoff.went_well(start);
        backoff.died(start);
        assert_eq!(backoff.pause.load(Ordering::Relaxed), 1000);
        backoff.forget();
        assert_eq!((backoff.failure().is_none(), backoff.state()), (true, HookState::Ok));
    }
}
