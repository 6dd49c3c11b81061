//! The pause before the next attempt: exponential backoff with jitter, so that many clients do not retry at the same
//! time.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::time::Duration;

/// The pauses between the attempts of one operation.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    max: Duration,
    failures: u32,
}

impl Backoff {
    /// The first pause is at most `first`, the following ones at most twice the one before, and never more than `max`.
    pub fn new(first: Duration, max: Duration) -> Backoff {
        Backoff { first, max, failures: 0 }
    }

    /// The pause after one more failure: between half and the whole of its bound.
    pub fn next_pause(&mut self) -> Duration {
        let bound = self.first.saturating_mul(1 << self.failures.min(20)).min(self.max);
        self.failures += 1;
        // The standard library's only source of randomness is the keys of a hasher.
        let random = RandomState::new().build_hasher().finish() as f64 / u64::MAX as f64;
        bound.mul_f64(0.5 + random / 2.0)
    }

    /// Starts over after an attempt that succeeded.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_their_bound_and_begin_again() {
        let (first, max) = (Duration::from_millis(100), Duration::from_secs(5));
        let mut backoff = Backoff::new(first, max);
        for round in 0..2 {
            for failures in 0..40 {
                let bound = first.saturating_mul(1 << failures.min(20)).min(max);
                let pause = backoff.next_pause();
                assert!(pause >= bound / 2 && pause <= bound, "{pause:?} after {failures} failures, round {round}");
            }
            backoff.reset();
        }
    }
}
