//! A change of `after` that is not returned is lost. The log of the hook says so, once for each hook that is bound.

use std::borrow::Cow;
use std::sync::atomic::{AtomicBool, Ordering};

use super::source::Source;
use crate::config::Phase;
use crate::hooks::context::LogLevel;
use crate::hooks::session::Session;

const MESSAGE: &str =
    "`after` was changed and not returned, so the change is lost: write `return after` (this is said once)";

/// Of one hook.
pub(in crate::hooks::engines) struct LostChange {
    /// Whether a call is to look for one, which takes it some time.
    is_looked_for: AtomicBool,
}

impl LostChange {
    pub(in crate::hooks::engines) fn of(source: &Source) -> LostChange {
        LostChange { is_looked_for: AtomicBool::new(source.changes_after) }
    }

    /// The phase as the runner gets it: with `?` behind it, it looks whether a change was lost.
    pub(in crate::hooks::engines) fn phase(&self, phase: Phase) -> Cow<'static, str> {
        // Relaxed, here and below: to look once more costs nothing but time.
        match phase.may_amend() && self.is_looked_for.load(Ordering::Relaxed) {
            true => Cow::Owned(format!("{}?", phase.as_str())),
            false => Cow::Borrowed(phase.as_str()),
        }
    }

    /// A call lost a change.
    pub(in crate::hooks::engines) fn tell(&self, session: &Session) {
        if self.is_looked_for.swap(false, Ordering::Relaxed) {
            // A log that is full is full of other things to look at.
            let _ = session.log(LogLevel::Warn, MESSAGE.to_owned());
        }
    }
}
