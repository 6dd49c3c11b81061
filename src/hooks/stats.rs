//! Costs and outcomes of runs, per hook; and the last log lines, per phase of a model.
//!
//! Counters are atomic, and histograms are small (1 KiB each, allocated at the first run), so a thousand hooks that
//! never ran cost almost nothing, and a busy hook never waits for a lock.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value, json};
use snaphook_driver::time::{self, Millis};
use tokio::sync::broadcast;

use super::context::{FailureCause, LogLevel, Outcome, Run};
use crate::config::Limits;
use crate::telemetry::line::shorten;

/// Statistics of one hook since it was bound.
#[derive(Default)]
pub struct HookStats {
    runs: AtomicU64,
    amendments: AtomicU64,
    refusals: AtomicU64,
    failures: [AtomicU64; FailureCause::ALL.len()],
    shadow_refusals: AtomicU64,
    shadow_amendments: AtomicU64,
    shadow_failures: AtomicU64,
    costs: OnceLock<Box<Costs>>,
}

#[derive(Default)]
struct Costs {
    /// Wall time without host calls, as the limit counts it, in microseconds.
    wall: Histogram,
    cpu: Histogram,
    /// Memory in bytes.
    memory: Histogram,
    /// Time in host calls, in microseconds.
    host: Histogram,
}

impl HookStats {
    /// Counts one run. `shadow` means that its outcome had no effect.
    pub fn record(&self, run: &Run, shadow: bool) {
        let add = |counter: &AtomicU64| counter.fetch_add(1, Ordering::Relaxed);
        add(&self.runs);
        match &run.outcome {
            Outcome::Accept => {}
            Outcome::Amend(_) => {
                add(if shadow { &self.shadow_amendments } else { &self.amendments });
            }
            Outcome::Reject(_) => {
                add(if shadow { &self.shadow_refusals } else { &self.refusals });
            }
            Outcome::Failed(failure) => {
                add(&self.failures[failure.cause as usize]);
                if shadow {
                    add(&self.shadow_failures);
                }
                if matches!(failure.cause, FailureCause::Load | FailureCause::Overloaded) {
                    // The hook did not run, so there is nothing to measure.
                    return;
                }
            }
        }
        let costs = self.costs.get_or_init(Box::default);
        costs.wall.add(micros(run.wall.saturating_sub(run.host)));
        costs.cpu.add(micros(run.cpu));
        costs.memory.add(run.memory_bytes);
        if !run.host.is_zero() {
            costs.host.add(micros(run.host));
        }
    }

    /// All statistics, as the REST API shows them; `limits` are the current ones.
    pub fn to_json(&self, limits: Limits) -> Value {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let mut failures = Map::new();
        for cause in FailureCause::ALL {
            failures.insert(cause.as_str().to_owned(), json!(get(&self.failures[cause as usize])));
        }
        let timeout_us = micros(limits.timeout);
        let costs = self.costs.get();
        json!({
            "runs": get(&self.runs),
            "amendments": get(&self.amendments),
            "refusals": get(&self.refusals),
            "failures": failures,
            "shadow": {
                "refusals": get(&self.shadow_refusals),
                "amendments": get(&self.shadow_amendments),
                "failures": get(&self.shadow_failures),
            },
            "wall_ms": milliseconds(costs.map(|costs| &costs.wall), Some(timeout_us)),
            "cpu_ms": milliseconds(costs.map(|costs| &costs.cpu), Some(timeout_us)),
            "host_ms": milliseconds(costs.map(|costs| &costs.host), None),
            "memory_bytes": bytes(costs.map(|costs| &costs.memory), limits.memory_bytes as u64),
        })
    }
}

/// A histogram of integers whose quantiles are at most 6 % off: 8 steps per power of two, up to 2^33.
struct Histogram {
    counts: [AtomicU32; Histogram::BUCKETS],
}

impl Default for Histogram {
    fn default() -> Self {
        Histogram { counts: [const { AtomicU32::new(0) }; Histogram::BUCKETS] }
    }
}

impl Histogram {
    const STEP_BITS: u32 = 3;
    /// Numbers below 8 have their own buckets; then 8 for each of the 30 powers 2^3 to 2^32.
    const BUCKETS: usize = 8 + 30 * 8;

    fn add(&self, value: u64) {
        // Relaxed: a reader may see one run more or less. A full counter stays full.
        let count = &self.counts[Self::bucket(value)];
        if count.fetch_add(1, Ordering::Relaxed) == u32::MAX {
            count.store(u32::MAX, Ordering::Relaxed);
        }
    }

    fn bucket(value: u64) -> usize {
        if value < 8 {
            return value as usize;
        }
        let power = value.ilog2();
        let step = (value >> (power - Self::STEP_BITS)) & 7;
        let index = 8 + u64::from(power - Self::STEP_BITS) * 8 + step;
        (index as usize).min(Self::BUCKETS - 1)
    }

    /// The middle of a bucket.
    fn value(bucket: usize) -> u64 {
        if bucket < 8 {
            return bucket as u64;
        }
        let power = (bucket - 8) / 8;
        let low = ((8 + (bucket - 8) % 8) as u64) << power;
        low + (1 << power) / 2
    }

    /// The quantiles for these shares; `None` if nothing was counted.
    fn quantiles<const N: usize>(&self, shares: [f64; N]) -> Option<[u64; N]> {
        let counts: Vec<u64> = self.counts.iter().map(|count| count.load(Ordering::Relaxed).into()).collect();
        let total: u64 = counts.iter().sum();
        (total > 0).then(|| {
            shares.map(|share| {
                let rank = ((total as f64 * share).ceil() as u64).max(1);
                let mut seen = 0;
                let bucket = counts.iter().position(|count| {
                    seen += count;
                    seen >= rank
                });
                Self::value(bucket.unwrap_or(Self::BUCKETS - 1))
            })
        })
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn milliseconds(histogram: Option<&Histogram>, limit_us: Option<u64>) -> Value {
    let Some([p50, p99]) = histogram.and_then(|histogram| histogram.quantiles([0.5, 0.99])) else {
        return Value::Null;
    };
    let ms = |us: u64| us as f64 / 1000.0;
    match limit_us {
        Some(limit) => json!({
            "p50": ms(p50), "p99": ms(p99), "limit": ms(limit),
            "p50_share": share(p50, limit), "p99_share": share(p99, limit),
        }),
        None => json!({ "p50": ms(p50), "p99": ms(p99) }),
    }
}

fn bytes(histogram: Option<&Histogram>, limit: u64) -> Value {
    let Some([p50, p99]) = histogram.and_then(|histogram| histogram.quantiles([0.5, 0.99])) else {
        return Value::Null;
    };
    json!({
        "p50": p50, "p99": p99, "limit": limit, "p50_share": share(p50, limit), "p99_share": share(p99, limit),
    })
}

/// With three decimals: the histogram is not more precise.
fn share(value: u64, limit: u64) -> f64 {
    (value as f64 / limit.max(1) as f64 * 1000.0).round() / 1000.0
}

/// One line of the log of a phase.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PhaseLine {
    #[serde(with = "time")]
    pub time: Millis,
    /// The hook's name.
    pub hook: String,
    /// The instance that the run was for.
    pub instance: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// Present if the run is part of a trace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
    pub level: LogLevel,
    pub message: String,
}

/// The last log lines of all runs of one phase of one model, and their followers.
#[derive(Default)]
pub struct PhaseLog {
    ring: Mutex<Ring>,
    /// Created by the first follower.
    followers: OnceLock<broadcast::Sender<PhaseLine>>,
}

#[derive(Default)]
struct Ring {
    lines: VecDeque<PhaseLine>,
    bytes: usize,
}

impl PhaseLog {
    /// How many lines are kept.
    pub const LINES_MAX: usize = 200;
    /// Total size of the kept lines, so that long lines cannot fill the memory.
    const BYTES_MAX: usize = 256 * 1024;
    /// Size of one line; longer ones are truncated.
    const LINE_BYTES_MAX: usize = 8 * 1024;
    /// How many lines a follower may lag behind before it loses some.
    const LAG_MAX: usize = 1024;

    /// Adds lines in order.
    pub fn append(&self, lines: impl Iterator<Item = PhaseLine>) {
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        for mut line in lines {
            shorten(&mut line.message, Self::LINE_BYTES_MAX);
            if let Some(followers) = self.followers.get() {
                // An error means that nobody is following.
                let _ = followers.send(line.clone());
            }
            ring.bytes += line.message.len();
            ring.lines.push_back(line);
            while ring.lines.len() > Self::LINES_MAX || ring.bytes > Self::BYTES_MAX {
                let Some(oldest) = ring.lines.pop_front() else { break };
                ring.bytes -= oldest.message.len();
            }
        }
    }

    /// The kept lines, oldest first.
    pub fn lines(&self) -> Vec<PhaseLine> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner).lines.iter().cloned().collect()
    }

    /// The kept lines, and a channel with every later one, without a gap in between. A follower that lags far behind
    /// gets `Lagged` and continues with the newest.
    pub fn follow(&self) -> (Vec<PhaseLine>, broadcast::Receiver<PhaseLine>) {
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let receiver = self.followers.get_or_init(|| broadcast::Sender::new(Self::LAG_MAX)).subscribe();
        (ring.lines.iter().cloned().collect(), receiver)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::{Histogram, HookStats, PhaseLine, PhaseLog};
    use crate::config::{Limits, Phase};
    use crate::hooks::context::{Failure, FailureCause, LogLevel, Outcome, Rejection, Retry, Run};
    use crate::hooks::grants::HookId;
    use crate::telemetry::trace::Span;

    fn run(outcome: Outcome, wall_ms: u64) -> Run {
        let id = HookId { model: "m".into(), phase: Phase::PreCreate, name: "h".into(), artifact: "sha256:00".into() };
        Run {
            hook: Arc::new(id),
            outcome,
            wall: Duration::from_millis(wall_ms),
            host: Duration::ZERO,
            cpu: Duration::from_millis(wall_ms / 2),
            memory_bytes: 1 << 20,
            retry: Retry::Usual,
            log: Vec::new(),
            asked: Vec::new(),
            span: Span::default(),
        }
    }

    #[test]
    fn buckets_are_close_to_their_values() {
        let mut last = 0;
        for exponent in 0..33 {
            for value in [1_u64 << exponent, (1 << exponent) + (1 << exponent) / 3] {
                let bucket = Histogram::bucket(value);
                assert!(bucket >= last, "{value}");
                last = bucket;
                let middle = Histogram::value(bucket) as f64;
                assert!((middle - value as f64).abs() <= value as f64 * 0.0625, "{value}: {middle}");
            }
        }
        assert_eq!(Histogram::bucket(u64::MAX), Histogram::BUCKETS - 1);
        assert!(size_of::<Histogram>() <= 1024);
    }

    #[test]
    fn quantiles() {
        let histogram = Histogram::default();
        assert_eq!(histogram.quantiles([0.5]), None);
        for value in 1..=1000 {
            histogram.add(value);
        }
        let [p50, p99] = histogram.quantiles([0.5, 0.99]).unwrap();
        assert!((470..=530).contains(&p50), "{p50}");
        assert!((930..=1050).contains(&p99), "{p99}");
    }

    #[test]
    fn counts_and_shares() {
        let stats = HookStats::default();
        let limits = Limits { timeout: Duration::from_millis(500), memory_bytes: 64 << 20 };
        assert!(stats.to_json(limits)["wall_ms"].is_null());
        let rejection = || Outcome::Reject(Rejection { message: "no".into(), fields: vec![] });
        let failure = |cause| Outcome::Failed(Failure { cause, message: String::new(), limit: None });
        stats.record(&run(Outcome::Accept, 100), false);
        stats.record(&run(rejection(), 100), false);
        stats.record(&run(rejection(), 100), true);
        stats.record(&run(failure(FailureCause::Timeout), 100), false);
        stats.record(&run(failure(FailureCause::Load), 0), false);
        let json = stats.to_json(limits);
        assert_eq!(json["runs"], 5);
        assert_eq!(json["refusals"], 1);
        assert_eq!(json["shadow"]["refusals"], 1);
        assert_eq!(json["failures"]["timeout"], 1);
        assert_eq!(json["failures"]["load"], 1);
        assert_eq!(json["failures"]["memory"], 0);
        let share = json["wall_ms"]["p99_share"].as_f64().unwrap();
        assert!((0.18..=0.22).contains(&share), "{json}");
        assert!((json["memory_bytes"]["p50_share"].as_f64().unwrap() - 1.0 / 64.0).abs() < 0.002, "{json}");
    }

    fn line(message: String) -> PhaseLine {
        PhaseLine {
            time: 0,
            hook: "h".into(),
            instance: "i".into(),
            request_id: None,
            trace_id: None,
            level: LogLevel::Info,
            message,
        }
    }

    #[test]
    fn the_log_keeps_the_last_lines_within_its_bytes() {
        let log = PhaseLog::default();
        log.append((0..500).map(|n| line(n.to_string())));
        let lines = log.lines();
        assert_eq!((lines.len(), lines[0].message.as_str()), (200, "300"));
        log.append((0..100).map(|_| line("ü".repeat(10_000))));
        let lines = log.lines();
        assert!(lines.len() < 40, "{}", lines.len());
        assert!(lines.iter().all(|line| line.message.len() <= PhaseLog::LINE_BYTES_MAX + 3));
    }

    #[tokio::test]
    async fn followers_miss_nothing() {
        let log = PhaseLog::default();
        log.append([line("a".into())].into_iter());
        let (before, mut after) = log.follow();
        log.append([line("b".into())].into_iter());
        assert_eq!(before[0].message, "a");
        assert_eq!(after.recv().await.unwrap().message, "b");
    }
}
