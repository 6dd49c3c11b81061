//! Replayable randomness: all random values of a test come from one seed, which is printed.

use std::time::{SystemTime, UNIX_EPOCH};

/// A stream of random numbers (SplitMix64).
#[derive(Clone)]
pub(crate) struct Chance(u64);

impl Chance {
    /// Seeded from `SNAPHOOK_TEST_SEED`, else from the clock. The output of a failed test contains the seed.
    pub(crate) fn new() -> Chance {
        const VARIABLE: &str = "SNAPHOOK_TEST_SEED";
        let seed = match std::env::var(VARIABLE) {
            Ok(text) => text.parse().unwrap_or_else(|_| panic!("{VARIABLE} is `{text}`, expected a whole number")),
            Err(_) => SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_nanos() as u64),
        };
        println!("seed {seed}; {VARIABLE}={seed} draws the same again");
        Chance(seed)
    }

    /// A separate stream, for a thread.
    pub(crate) fn fork(&mut self) -> Chance {
        Chance(self.next())
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From 0 to `bound` - 1.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        assert!(bound > 0, "there is nothing to choose from");
        (self.next() % bound as u64) as usize
    }

    pub(crate) fn within(&mut self, range: std::ops::Range<usize>) -> usize {
        range.start + self.below(range.end - range.start)
    }

    pub(crate) fn one_in(&mut self, bound: usize) -> bool {
        self.below(bound) == 0
    }

    pub(crate) fn pick<'a, T: ?Sized>(&mut self, items: &[&'a T]) -> &'a T {
        items[self.below(items.len())]
    }
}
