//! Calls of drivers, counted by store, driver and operation.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use snaphook_driver::wire::Method;

use crate::telemetry::exposition::Exposition;
use crate::telemetry::histogram::Histogram;

/// Upper bounds of the histogram's buckets, in nanoseconds: 100 µs to 60 s.
const BOUNDS: [u64; 11] = [
    100_000,
    500_000,
    1_000_000,
    5_000_000,
    10_000_000,
    50_000_000,
    100_000_000,
    500_000_000,
    1_000_000_000,
    10_000_000_000,
    60_000_000_000,
];

/// Counts since the start. Relaxed, because each is read independently.
#[derive(Debug)]
pub struct Meters(Vec<Meter>);

#[derive(Debug)]
struct Meter {
    /// One store has one driver.
    driver: OnceLock<String>,
    errors: AtomicU64,
    times: Histogram<{ BOUNDS.len() }>,
}

impl Default for Meters {
    fn default() -> Self {
        let meter = || Meter { driver: OnceLock::new(), errors: AtomicU64::new(0), times: Histogram::new(&BOUNDS) };
        Meters(Method::ALL.iter().map(|_| meter()).collect())
    }
}

impl Meters {
    pub(super) fn record(&self, method: Method, driver: &str, took: Duration, is_ok: bool) {
        let Some(meter) = self.0.get(method as usize) else { return };
        if meter.driver.get().is_none() {
            let _ = meter.driver.set(driver.to_owned());
        }
        meter.times.observe(took);
        if !is_ok {
            meter.errors.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Methods that were never called are omitted.
    pub fn write(&self, out: &mut Exposition) {
        let called = || {
            let meters = Method::ALL.iter().zip(&self.0);
            meters.filter_map(|(method, meter)| Some((method, meter.driver.get()?, meter)))
        };
        let mut times = out.histogram("snaphook_driver_call_seconds", "Calls of drivers and how long they took");
        for (method, driver, meter) in called() {
            let labels = [("store", method.store().as_str()), ("driver", driver), ("operation", method.name())];
            times.distribution(&labels, &meter.times.seconds());
        }
        let mut errors = out.counter("snaphook_driver_errors", "Calls of drivers that failed");
        for (method, driver, meter) in called() {
            let labels = [("store", method.store().as_str()), ("driver", driver), ("operation", method.name())];
            errors.sample(&labels, meter.errors.load(Ordering::Relaxed));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::exposition::Format;

    #[test]
    fn calls_show_with_store_driver_and_operation() {
        let meters = Meters::default();
        meters.record(Method::EventAppend, "sqlite", Duration::from_millis(2), true);
        meters.record(Method::EventAppend, "sqlite", Duration::from_secs(100), false);
        let mut out = Exposition::new(Format::Prometheus);
        meters.write(&mut out);
        let text = out.finish();
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
