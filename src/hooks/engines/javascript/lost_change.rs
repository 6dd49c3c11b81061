//! Warns in the hook's log if a change of `after` is not returned and therefore lost; once for each bound hook.

use std::borrow::Cow;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use super::source::Source;
use crate::config::Phase;
use crate::hooks::context::LogLevel;
use crate::hooks::session::Session;

const MESSAGE: &str =
    "`after` was changed and not returned, so the change is lost: write `return after` (this is logged once)";

/// The first runs that are checked, and the interval for later ones. Code that changes `after` usually returns it, and
/// each check serializes it once more.
const FIRST: u32 = 64;
const ONE_OF: u32 = 64;

/// The state for one hook.
pub(in crate::hooks::engines) struct LostChange {
    /// Whether it may happen and was not reported yet.
    is_looked_for: AtomicBool,
    calls: AtomicU32,
}

impl LostChange {
    pub(in crate::hooks::engines) fn of(source: &Source) -> LostChange {
        LostChange { is_looked_for: AtomicBool::new(source.changes_after), calls: AtomicU32::new(0) }
    }

    /// The phase for the runner: with a trailing `?`, the runner checks for a lost change.
    pub(in crate::hooks::engines) fn phase(&self, phase: Phase) -> Cow<'static, str> {
        // Relaxed, here and below: one more check costs only time.
        match phase.may_amend() && self.is_looked_for.load(Ordering::Relaxed) && self.is_next_looked_at() {
            true => Cow::Owned(format!("{}?", phase.as_str())),
            false => Cow::Borrowed(phase.as_str()),
        }
    }

    fn is_next_looked_at(&self) -> bool {
        let calls = self.calls.fetch_add(1, Ordering::Relaxed);
        calls < FIRST || calls.is_multiple_of(ONE_OF)
    }

    /// Reports that a run lost a change.
    pub(in crate::hooks::engines) fn tell(&self, session: &Session) {
        if self.is_looked_for.swap(false, Ordering::Relaxed) {
            // If the log is full, the warning is dropped.
            let _ = session.log(LogLevel::Warn, MESSAGE.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_calls_are_looked_at_now_and_then() {
        let lost = LostChange { is_looked_for: AtomicBool::new(true), calls: AtomicU32::new(0) };
        let looked = |calls: u32| (0..calls).filter(|_| lost.phase(Phase::PreCreate) == "preCreate?").count();
        assert_eq!((looked(FIRST), looked(10 * ONE_OF)), (FIRST as usize, 10));
        assert_eq!(lost.phase(Phase::PostCreate), "postCreate");
    }
}
