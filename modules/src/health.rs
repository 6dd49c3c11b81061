//! The health of a module. The third failure within a minute deactivates it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::fault::Fault;

/// This many failures within the time below deactivate a module.
const STRIKES: usize = 3;
const STRIKES_WITHIN: Duration = Duration::from_secs(60);

/// The labels that [`Fault::label`] returns.
pub(crate) const LABELS: [&str; 5] = ["exception", "failed", "timeout", "invalid", "overloaded"];

/// One module's failures.
#[derive(Default)]
pub struct Health {
    is_deactivated: AtomicBool,
    strikes: Mutex<VecDeque<Instant>>,
    /// Why it was deactivated.
    last: Mutex<String>,
    counts: [AtomicU64; LABELS.len()],
}

impl Health {
    pub fn is_deactivated(&self) -> bool {
        self.is_deactivated.load(Ordering::Relaxed)
    }

    /// Why it was deactivated, as a sentence; empty if it was not.
    pub fn reason(&self) -> String {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Counts a failure. Returns `true` if this failure deactivates the module.
    pub(crate) fn strike(&self, fault: &Fault, now: Instant) -> bool {
        let label = LABELS.iter().position(|label| *label == fault.label());
        if let Some(count) = label.and_then(|label| self.counts.get(label)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        if !fault.is_strike() {
            return false;
        }
        let mut strikes = self.strikes.lock().unwrap_or_else(PoisonError::into_inner);
        strikes.push_back(now);
        while strikes.front().is_some_and(|first| now.duration_since(*first) > STRIKES_WITHIN) {
            strikes.pop_front();
        }
        strikes.len() >= STRIKES && self.deactivate(format!("it failed {STRIKES} times within a minute, last: {fault}"))
    }

    /// Returns `true` if the module was active.
    pub(crate) fn deactivate(&self, reason: String) -> bool {
        if self.is_deactivated.swap(true, Ordering::SeqCst) {
            return false;
        }
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = reason;
        true
    }

    /// Failures so far, by label.
    pub fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> {
        LABELS.into_iter().zip(&self.counts).map(|(label, count)| (label, count.load(Ordering::Relaxed)))
    }
}

/// A configured module and its health.
pub struct Standing {
    /// The name in the configuration.
    pub name: String,
    /// Whether requests are served without it when it is deactivated.
    pub is_optional: bool,
    pub health: Health,
    is_distrusted: AtomicBool,
}

impl Standing {
    pub fn new(name: String, is_optional: bool) -> Standing {
        Standing { name, is_optional, health: Health::default(), is_distrusted: AtomicBool::new(false) }
    }

    /// Whether quick hooks of the module may run on threads of the runtime.
    pub(crate) fn is_trusted(&self) -> bool {
        !self.is_distrusted.load(Ordering::Relaxed)
    }

    /// Called after a hook threw an exception or did not return. Such a hook may leave its thread in a bad state, so
    /// the module's hooks no longer run on threads that serve requests.
    pub(crate) fn distrust(&self) {
        self.is_distrusted.store(true, Ordering::Relaxed);
    }

    /// Counts and logs a failure.
    pub fn strike(&self, fault: &Fault) {
        tracing::warn!("module `{}` failed: {fault}", self.name);
        if self.health.strike(fault, Instant::now()) {
            let effect = if self.is_optional { "served without it" } else { "rejected with 503" };
            tracing::error!(
                "module `{}` is deactivated: {}; requests are {effect} until its library or its configuration changes, \
                 or the server restarts",
                self.name,
                self.health.reason()
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_third_within_a_minute() {
        let health = Health::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let strike = |fault: Fault, seconds| health.strike(&fault, at(seconds));
        assert_eq!([strike(Fault::Threw, 0), strike(Fault::Failed, 30)], [false; 2]);
        assert!(!strike(Fault::NoThread(String::new()), 31), "that is not the module's fault");
        assert_eq!([strike(Fault::Lost, 61), health.is_deactivated()], [false; 2], "the first was long ago");
        assert!(strike(Fault::Lied("it lied".into()), 70) && health.is_deactivated());
        assert!(health.reason().ends_with("last: it lied"));
        assert!(!strike(Fault::Threw, 71), "once only");
        let counts: Vec<_> = health.counts().collect();
        assert_eq!(counts, [("exception", 2), ("failed", 2), ("timeout", 0), ("invalid", 1), ("overloaded", 1)]);
    }
}
