//! Histograms that count with two atomic additions: no lock, no allocation.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of the buckets for latencies, in nanoseconds: 50 µs to 10 s.
pub const LATENCY: [u64; 16] = [
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    10_000_000_000,
];

const NANOS: f64 = 1e9;

/// A distribution of whole numbers over fixed buckets.
#[derive(Debug)]
pub struct Histogram<const N: usize> {
    bounds: &'static [u64; N],
    buckets: [AtomicU64; N],
    /// Above the last bound.
    over: AtomicU64,
    sum: AtomicU64,
}

impl<const N: usize> Histogram<N> {
    /// `bounds`: the largest number of each bucket, in order.
    pub const fn new(bounds: &'static [u64; N]) -> Self {
        let buckets = [const { AtomicU64::new(0) }; N];
        Histogram { bounds, buckets, over: AtomicU64::new(0), sum: AtomicU64::new(0) }
    }

    pub fn observe(&self, duration: Duration) {
        self.count(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX));
    }

    pub fn count(&self, value: u64) {
        // Relaxed: a reader may see one of the two a moment earlier.
        let bucket = self.bounds.iter().position(|bound| value <= *bound);
        bucket.map_or(&self.over, |bucket| &self.buckets[bucket]).fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    /// Its durations, in seconds.
    pub fn seconds(&self) -> Buckets<'_> {
        self.buckets(NANOS)
    }

    /// Its numbers as they are.
    pub fn numbers(&self) -> Buckets<'_> {
        self.buckets(1.0)
    }

    fn buckets(&self, unit: f64) -> Buckets<'_> {
        let counts: Vec<u64> = self.buckets.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        let total = counts.iter().sum::<u64>() + self.over.load(Ordering::Relaxed);
        Buckets { bounds: self.bounds, counts, total, sum: self.sum.load(Ordering::Relaxed), unit }
    }
}

/// A snapshot of a histogram.
#[derive(Debug)]
pub struct Buckets<'a> {
    bounds: &'a [u64],
    counts: Vec<u64>,
    total: u64,
    sum: u64,
    /// The divisor of its numbers.
    unit: f64,
}

impl Buckets<'_> {
    pub(super) fn count(&self) -> u64 {
        self.total
    }

    pub(super) fn sum(&self) -> f64 {
        self.sum as f64 / self.unit
    }

    /// Each bound with the cumulative count.
    pub(super) fn cumulative(&self) -> impl Iterator<Item = (f64, u64)> + '_ {
        let below = self.counts.iter().scan(0, |below, count| {
            *below += count;
            Some(*below)
        });
        self.bounds.iter().map(|bound| *bound as f64 / self.unit).zip(below)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_belongs_to_its_bucket() {
        let histogram = Histogram::new(&[1, 10]);
        for value in [0, 1, 2, 10, 11, 1000] {
            histogram.count(value);
        }
        let numbers = histogram.numbers();
        assert_eq!(numbers.cumulative().collect::<Vec<_>>(), [(1.0, 2), (10.0, 4)]);
        assert_eq!((numbers.count(), numbers.sum()), (6, 1024.0));
    }

    #[test]
    fn bounds_go_up() {
        assert!(LATENCY.is_sorted_by(|a, b| a < b));
        let histogram = Histogram::new(&LATENCY);
        histogram.observe(Duration::MAX);
        assert_eq!(histogram.seconds().cumulative().last(), Some((10.0, 0)));
    }
}
