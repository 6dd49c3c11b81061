//! A change of `after` that is not returned is lost. The log of the hook says so, once for each hook that is bound.

use std::borrow::Cow;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use super::source::Source;
use crate::config::Phase;
use crate::hooks::context::LogLevel;
use crate::hooks::session::Session;

const MESSAGE: &str =
    "`after` was changed and not returned, so the change is lost: write `return after` (this is said once)";

/// Calls that are looked at first, and of how many later ones one is: what changes `after` most often returns it, and each look
/// makes JSON of it once more.
const FIRST: u32 = 64;
const ONE_OF: u32 = 64;

/// Of one hook.
pub(in crate::hooks::engines) struct LostChange {
    /// Whether it may happen and was not said yet.
    is_looked_for: AtomicBool,
    calls: AtomicU32,
}

impl LostChange {
    pub(in crate::hooks::engines) fn of(source: &Source) -> LostChange {
        LostChange { is_looked_for: AtomicBool::new(source.changes_after), calls: AtomicU32::new(0) }
    }

    /// The phase as the runner gets it: with `?` behind it, it looks whether a change was lost.
    pub(in crate::hooks::engines) fn phase(&self, phase: Phase) -> Cow<'static, str> {
        // Relaxed, here and below: to look once more costs nothing but time.
        match phase.may_amend() && self.is_looked_for.load(Ordering::Relaxed) && self.is_next_looked_at() {
            true => Cow::Owned(format!("{}?", phase.as_str())),
            false => Cow::Borrowed(phase.as_str()),
        }
    }

    fn is_next_looked_at(&self) -> bool {
        let calls = self.calls.fetch_add(1, Ordering::Relaxed);
        calls < FIRST || calls.is_multiple_of(ONE_OF)
    }

    /// A call lost a change.
    pub(in crate::hooks::engines) fn tell(&self, session: &Session) {
        if self.is_looked_for.swap(false, Ordering::Relaxed) {
            // A log that is full is full of other things to look at.
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
