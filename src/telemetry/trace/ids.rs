//! Ids of traces and spans: a random start for each process and a counter, mixed so that all their bits look random. They
//! are no secrets, and cost no randomness for each request.

use std::sync::atomic::{AtomicU64, Ordering};

use uuid::Uuid;

#[derive(Debug)]
pub(super) struct Ids {
    next: AtomicU64,
    /// So that two processes that share a half by chance do not share the other.
    other: u64,
}

impl Ids {
    pub(super) fn new() -> Ids {
        // A version 7 UUID ends in 62 random bits.
        let random = || Uuid::now_v7().as_u64_pair().1;
        Ids { next: AtomicU64::new(mixed(random())), other: mixed(random()) }
    }

    /// Never 0.
    pub(super) fn span(&self) -> u64 {
        // Weyl's sequence meets each number once; mixing is one to one, so of all only one is 0.
        let number = self.next.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        mixed(number).max(1)
    }

    /// Never 0. Its low half decides whether the trace is kept, as it does elsewhere.
    pub(super) fn trace(&self) -> u128 {
        let low = self.span();
        u128::from(mixed(low ^ self.other)) << 64 | u128::from(low)
    }
}

/// The end of splitmix64.
fn mixed(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn ids_differ_and_are_spread() {
        let (one, two) = (Ids::new(), Ids::new());
        let spans: HashSet<u64> = (0..1000).flat_map(|_| [one.span(), two.span()]).collect();
        assert_eq!(spans.len(), 2000);
        let traces: HashSet<u128> = (0..1000).map(|_| one.trace()).collect();
        assert_eq!(traces.len(), 1000);
        let low = traces.iter().filter(|trace| (**trace as u64) < u64::MAX / 4).count();
        assert!((150..350).contains(&low), "{low}");
    }
}
