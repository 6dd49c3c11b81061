//! Calls of drivers, counted by store, driver and operation.

use std::fmt::Write as _;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use snaphook_driver::wire::Method;

/// Upper bounds of the buckets of the histogram.
const BUCKETS: [(Duration, &str); 7] = [
    (Duration::from_micros(100), "0.0001"),
    (Duration::from_millis(1), "0.001"),
    (Duration::from_millis(10), "0.01"),
    (Duration::from_millis(100), "0.1"),
    (Duration::from_secs(1), "1"),
    (Duration::from_secs(10), "10"),
    (Duration::from_secs(60), "60"),
];

/// Counts since the start. Relaxed: each is read for itself.
#[derive(Debug)]
pub struct Meters(Vec<Meter>);

#[derive(Debug, Default)]
struct Meter {
    /// One store has one driver.
    driver: OnceLock<String>,
    errors: AtomicU64,
    nanoseconds: AtomicU64,
    /// The last one: longer than all bounds.
    buckets: [AtomicU64; BUCKETS.len() + 1],
}

impl Default for Meters {
    fn default() -> Self {
        Meters(Method::ALL.iter().map(|_| Meter::default()).collect())
    }
}

impl Meters {
    pub(super) fn record(&self, method: Method, driver: &str, took: Duration, is_ok: bool) {
        let Some(meter) = self.0.get(method as usize) else { return };
        if meter.driver.get().is_none() {
            let _ = meter.driver.set(driver.to_owned());
        }
        let bucket = BUCKETS.iter().position(|(bound, _)| took <= *bound).unwrap_or(BUCKETS.len());
        meter.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        meter.nanoseconds.fetch_add(took.as_nanos() as u64, Ordering::Relaxed);
        if !is_ok {
            meter.errors.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Prometheus text. Methods that were never called are left out.
    pub fn write(&self, out: &mut String) {
        let (mut calls, mut errors) = (String::new(), String::new());
        for (method, meter) in Method::ALL.iter().zip(&self.0) {
            let Some(driver) = meter.driver.get() else { continue };
            // Writing into a `String` cannot fail.
            let labels = format!("store=\"{}\",driver=\"{driver}\",operation=\"{}\"", method.store(), method.name());
            let name = "snaphook_driver_call_seconds";
            let mut total = 0;
            for (bucket, bound) in meter.buckets.iter().zip(BUCKETS.map(|(_, bound)| bound).into_iter().chain(["+Inf"]))
            {
                total += bucket.load(Ordering::Relaxed);
                let _ = writeln!(calls, "{name}_bucket{{{labels},le=\"{bound}\"}} {total}");
            }
            let seconds = Duration::from_nanos(meter.nanoseconds.load(Ordering::Relaxed)).as_secs_f64();
            let _ = writeln!(calls, "{name}_sum{{{labels}}} {seconds}\n{name}_count{{{labels}}} {total}");
            let failed = meter.errors.load(Ordering::Relaxed);
            let _ = writeln!(errors, "snaphook_driver_errors_total{{{labels}}} {failed}");
        }
        for (name, help, kind, lines) in [
            ("snaphook_driver_call_seconds", "Calls of drivers and how long they took", "histogram", calls),
            ("snaphook_driver_errors_total", "Calls of drivers that failed", "counter", errors),
        ] {
            if !lines.is_empty() {
                let _ = write!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n{lines}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_show_with_store_driver_and_operation() {
        let meters = Meters::default();
        meters.record(Method::EventAppend, "sqlite", Duration::from_millis(2), true);
        meters.record(Method::EventAppend, "sqlite", Duration::from_secs(100), false);
        let mut text = String::new();
        meters.write(&mut text);
        let labels = "store=\"event\",driver=\"sqlite\",operation=\"append\"";
        for line in [
            format!("snaphook_driver_call_seconds_bucket{{{labels},le=\"0.001\"}} 0"),
            format!("snaphook_driver_call_seconds_bucket{{{labels},le=\"0.01\"}} 1"),
            format!("snaphook_driver_call_seconds_bucket{{{labels},le=\"+Inf\"}} 2"),
            format!("snaphook_driver_call_seconds_sum{{{labels}}} 100.002"),
            format!("snaphook_driver_errors_total{{{labels}}} 1"),
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        assert!(!text.contains("\"read\""), "{text}");
    }
}
