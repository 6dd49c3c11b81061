//! The number of attempts of a post hook, and the delays between them.
//!
//! Code that fails is likely to fail again soon: it has a few attempts within half a minute, then the error store. The
//! receiver of a webhook may be unavailable for hours: its delays grow faster, and its attempts span about a day.

use std::time::Duration;

use crate::config::HooksConfig;
use crate::hooks::context::Retry;

/// Delay before the second attempt; grows with each further one.
const FIRST: Duration = Duration::from_millis(200);

/// For code: the delay doubles up to this.
const CODE_MAX: Duration = Duration::from_secs(60);

/// For a receiver: the delay quadruples up to this.
const RECEIVER_MAX: Duration = Duration::from_secs(600);

/// The maximum number of attempts, of a receiver if `patient`, otherwise of code.
pub(super) fn attempts_max(config: &HooksConfig, patient: bool) -> u32 {
    if patient { config.webhook_attempts_max } else { config.attempts_max }
}

/// Delay after this many failures of code, or crashes of the server that ran it.
pub(super) fn backoff(failed: u32) -> Duration {
    spread(grown(failed, 1, CODE_MAX))
}

/// The delay before a hook with this many failures runs again. The receiver's `Retry-After` is limited where it is
/// read.
pub(super) fn delay(failed: u32, retry: Retry) -> Duration {
    match retry {
        Retry::Patient(asked) => asked.max(spread(grown(failed, 2, RECEIVER_MAX))),
        Retry::Usual | Retry::Never => backoff(failed),
    }
}

/// [`FIRST`], shifted by so many bits with each failure after the first.
fn grown(failed: u32, bits: u32, max: Duration) -> Duration {
    FIRST.saturating_mul(1 << (failed.saturating_sub(1).min(15) * bits)).min(max)
}

/// Half of a delay is random, so that hooks that failed together do not retry together.
fn spread(full: Duration) -> Duration {
    // The low bits of a UUIDv7 are random.
    let random = uuid::Uuid::now_v7().as_u128() as u32;
    full / 2 + (full / 2).mul_f64(f64::from(random) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn within(found: Duration, full_ms: u64) {
        let full = Duration::from_millis(full_ms);
        assert!((full / 2..=full).contains(&found), "{found:?}, expected half to all of {full:?}");
    }

    #[test]
    fn delays_grow_and_end() {
        for (failed, code, receiver) in [
            (1, 200, 200),
            (2, 400, 800),
            (3, 800, 3_200),
            (4, 1_600, 12_800),
            (5, 3_200, 51_200),
            (6, 6_400, 204_800),
            (7, 12_800, 600_000),
            (16, 60_000, 600_000),
            (17, 60_000, 600_000),
            (u32::MAX, 60_000, 600_000),
        ] {
            within(backoff(failed), code);
            within(delay(failed, Retry::Usual), code);
            within(delay(failed, Retry::Patient(Duration::ZERO)), receiver);
        }
        let asked = Duration::from_secs(599);
        assert_eq!(delay(1, Retry::Patient(asked)), asked);
        within(delay(7, Retry::Patient(Duration::from_secs(1))), 600_000);
    }

    /// The figures that the documentation has.
    #[test]
    fn the_tries_of_a_receiver_span_about_a_day() {
        let mean = |failed| grown(failed, 2, RECEIVER_MAX).mul_f64(0.75);
        let span: Duration = (1..200).map(mean).sum();
        assert!((23 * 3600..26 * 3600).contains(&span.as_secs()), "{} h", span.as_secs() / 3600);
    }
}
