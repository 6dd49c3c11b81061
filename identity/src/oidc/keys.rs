//! The issuer's keys in memory, and the one task that fetches them.
//!
//! Requests never fetch keys themselves: they notify the task and wait for the result. So a client that disconnects
//! cancels nothing, and the issuer gets one request however many clients wait.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

use super::discovery::Discovery;
use super::jwk::KeySet;

/// How often keys are fetched: a key that the issuer withdrew is rejected after this time at the latest.
const REFRESH_INTERVAL: Duration = Duration::from_secs(300);
/// Minimum pause between two requests to the issuer.
pub(super) const PAUSE: Duration = Duration::from_secs(10);
/// How long keys stay in use while the issuer does not respond.
pub const KEYS_AGE_MAX: Duration = Duration::from_secs(6 * 3600);
/// How long a request waits for the task: two responses of the issuer, and a little more.
const WAIT_MAX: Duration = Duration::from_secs(12);

pub(super) struct Keys {
    current: ArcSwap<Current>,
    wanted: Notify,
    attempts: watch::Sender<Attempt>,
    issuer: String,
}

/// The keys, and when the issuer last confirmed them.
#[derive(Debug, Default)]
pub(super) struct Current {
    pub(super) set: KeySet,
    /// Changes whenever the set changes.
    pub(super) generation: u64,
    confirmed: Option<Instant>,
}

impl Current {
    pub(super) fn is_usable(&self, now: Instant) -> bool {
        self.confirmed.is_some_and(|confirmed| now.saturating_duration_since(confirmed) < KEYS_AGE_MAX)
    }
}

/// The last attempt to fetch.
#[derive(Clone, Debug, Default)]
struct Attempt {
    ended: Option<Instant>,
    failed: bool,
}

/// The result of asking the issuer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// It responded recently: a key that is not in the set does not exist.
    Answered,
    Unavailable,
}

impl Keys {
    pub(super) fn new(issuer: &str) -> Keys {
        let current = ArcSwap::from_pointee(Current::default());
        Keys { current, wanted: Notify::new(), attempts: watch::Sender::default(), issuer: issuer.to_owned() }
    }

    pub(super) fn current(&self) -> arc_swap::Guard<Arc<Current>> {
        self.current.load()
    }

    /// Triggers a fetch, unless there was one within [`PAUSE`].
    pub(super) async fn ask(&self) -> Asked {
        let mut attempts = self.attempts.subscribe();
        let outcome = |attempt: &Attempt| match attempt.failed {
            true => Asked::Unavailable,
            false => Asked::Answered,
        };
        let last = attempts.borrow_and_update().clone();
        if last.ended.is_some_and(|ended| ended.elapsed() < PAUSE) {
            return outcome(&last);
        }
        self.wanted.notify_one();
        match timeout(WAIT_MAX, attempts.changed()).await {
            Ok(Ok(())) => outcome(&attempts.borrow()),
            _ => Asked::Unavailable,
        }
    }

    /// Fetches keys until it is aborted.
    pub(super) async fn follow(&self, mut discovery: Discovery) {
        loop {
            let failed = match discovery.fetch().await {
                Ok(set) => {
                    self.confirm(set);
                    false
                }
                Err(reason) => {
                    self.report(&reason);
                    true
                }
            };
            self.attempts.send_replace(Attempt { ended: Some(Instant::now()), failed });
            tokio::time::sleep(PAUSE).await;
            if !failed {
                // A request for newer keys ends the wait.
                let _ = timeout(REFRESH_INTERVAL - PAUSE, self.wanted.notified()).await;
            }
        }
    }

    fn confirm(&self, set: KeySet) {
        let before = self.current.load();
        if self.attempts.borrow().failed {
            tracing::info!("the issuer `{}` responds again", self.issuer);
        }
        let is_new = before.set != set;
        if is_new && before.confirmed.is_some() {
            tracing::info!("the keys of the issuer `{}` have changed", self.issuer);
        }
        let generation = before.generation + u64::from(is_new);
        self.current.store(Arc::new(Current { set, generation, confirmed: Some(Instant::now()) }));
    }

    /// Logs one line when fetching begins to fail.
    fn report(&self, reason: &str) {
        if self.attempts.borrow().failed {
            return;
        }
        let consequence = match self.current.load().confirmed {
            Some(_) => "the known keys stay in use for up to six hours",
            None => "its tokens cannot be verified until it responds",
        };
        tracing::warn!("the keys of the issuer `{}` cannot be fetched: {reason}; {consequence}", self.issuer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_used_for_six_hours_after_the_issuer_named_them() {
        let now = Instant::now();
        let mut current = Current::default();
        assert!(!current.is_usable(now));
        current.confirmed = Some(now);
        assert!(current.is_usable(now + KEYS_AGE_MAX - Duration::from_secs(1)));
        assert!(!current.is_usable(now + KEYS_AGE_MAX));
    }

    #[tokio::test]
    async fn the_same_keys_again_are_no_new_generation() {
        let keys = Keys::new("https://id.test");
        let set = |x: char| {
            let x = x.to_string().repeat(43);
            KeySet::parse(format!(r#"{{"keys":[{{"kty":"OKP","crv":"Ed25519","x":"{x}"}}]}}"#).as_bytes()).unwrap()
        };
        let generation = |set: KeySet| {
            keys.confirm(set);
            keys.current().generation
        };
        let first = generation(set('A'));
        assert_eq!(generation(set('A')), first);
        assert_ne!(generation(set('Q')), first);
        assert_ne!(generation(set('A')), first);
    }
}
