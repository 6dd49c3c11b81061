//! Failed attempts by address: after repeated failures, each further failure is delayed.
//!
//! Only failures are delayed, so nobody can lock others out: behind a shared address a valid token works at once, and
//! resets the count.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::table::Table;

/// The number of consecutive failures from which on failures are delayed.
const DELAYED_FROM: u32 = 10;
/// How much the delay grows with each further failure, and its maximum.
const DELAY_STEP: Duration = Duration::from_millis(100);
const DELAY_MAX: Duration = Duration::from_secs(1);
/// The count is reset when nothing has failed for this long.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(15 * 60);
/// How many addresses are remembered, in about 3 MB.
const ADDRESSES_MAX: usize = 65_536;

/// Consecutive failures, by address.
#[derive(Debug)]
pub struct Attempts {
    rows: Table<Failures>,
    total: AtomicU64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Failures {
    count: u32,
    last: Option<Instant>,
}

impl Failures {
    fn is_over(self, now: Instant) -> bool {
        self.last.is_none_or(|last| now.saturating_duration_since(last) >= FORGOTTEN_AFTER)
    }
}

impl Default for Attempts {
    fn default() -> Attempts {
        Attempts { rows: Table::new(ADDRESSES_MAX), total: AtomicU64::new(0) }
    }
}

impl Attempts {
    /// Counts a failure. Returns how long its response must be delayed.
    pub fn failed(&self, address: IpAddr, now: Instant) -> Duration {
        self.total.fetch_add(1, Ordering::Relaxed);
        let count = self.rows.update(
            &client_of(address),
            |failures| failures.is_over(now),
            |failures| {
                if failures.is_over(now) {
                    failures.count = 0;
                }
                failures.count = failures.count.saturating_add(1);
                failures.last = Some(now);
                failures.count
            },
        );
        let steps = (count + 1).saturating_sub(DELAYED_FROM);
        DELAY_STEP.saturating_mul(steps).min(DELAY_MAX)
    }

    /// Resets the count of an address after a valid token.
    pub fn succeeded(&self, address: IpAddr) {
        self.rows.remove(&client_of(address));
    }

    /// Failures since the start, of all addresses.
    pub fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }
}

/// What counts as one client: an IPv4 address, or the /64 network of an IPv6 address, which usually belongs to one
/// client.
pub fn client_of(address: IpAddr) -> u64 {
    match address.to_canonical() {
        IpAddr::V4(address) => u64::from(u32::from(address)),
        // `::/64` contains no public addresses, so only the loopback interface can be mistaken for an IPv4 address
        // there.
        IpAddr::V6(address) => (u128::from(address) >> 64) as u64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn failures_wait_from_the_tenth_on() {
        let (attempts, now) = (Attempts::default(), Instant::now());
        let guesser = address("192.0.2.1");
        let delays: Vec<u128> = (0..25).map(|_| attempts.failed(guesser, now).as_millis()).collect();
        assert_eq!(delays[..9], [0; 9]);
        assert_eq!(delays[9..19], [100, 200, 300, 400, 500, 600, 700, 800, 900, 1000]);
        assert_eq!(delays[19..], [1000; 6]);
        assert_eq!(attempts.failed(address("192.0.2.2"), now), Duration::ZERO);
        assert_eq!(attempts.total(), 26);
        attempts.succeeded(guesser);
        assert_eq!(attempts.failed(guesser, now), Duration::ZERO);
    }

    #[test]
    fn a_row_ends_after_a_while() {
        let (attempts, now) = (Attempts::default(), Instant::now());
        let guesser = address("192.0.2.1");
        (0..20).for_each(|_| {
            attempts.failed(guesser, now);
        });
        assert_eq!(attempts.failed(guesser, now + FORGOTTEN_AFTER / 2), DELAY_MAX);
        assert_eq!(attempts.failed(guesser, now + FORGOTTEN_AFTER), DELAY_MAX);
        assert_eq!(attempts.failed(guesser, now + 2 * FORGOTTEN_AFTER), Duration::ZERO);
    }

    #[test]
    fn one_client_is_one_client() {
        let same = [("2001:db8::1", "2001:db8::ffff:2"), ("192.0.2.1", "::ffff:192.0.2.1")];
        let different = [("2001:db8::1", "2001:db8:0:1::1"), ("192.0.2.1", "192.0.2.2")];
        same.iter().for_each(|(a, b)| assert_eq!(client_of(address(a)), client_of(address(b)), "{a} {b}"));
        different.iter().for_each(|(a, b)| assert_ne!(client_of(address(a)), client_of(address(b)), "{a} {b}"));
    }
}
