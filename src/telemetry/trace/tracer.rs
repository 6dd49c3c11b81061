//! The one tracer of a process: which requests are traced, and where their spans go when they end.
//!
//! Spans wait in a queue of fixed length for the exporter. One that finds no room is dropped and counted: a collector that
//! does not answer costs nobody anything else.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use tokio::sync::mpsc;

use super::ids::Ids;
use super::record::SpanRecord;
use crate::telemetry::exposition::Exposition;

/// Spans that may wait: a span takes a kilobyte or less, as its texts are short.
pub(super) const QUEUE_MAX: usize = 8_192;

/// Where the spans go.
#[derive(Debug)]
pub struct Tracer {
    queue: mpsc::Sender<SpanRecord>,
    /// A trace is kept if the low half of its id is below.
    below: u128,
    pub(super) ids: Ids,
    pub(super) counts: Arc<Counts>,
}

/// What became of spans, since the start.
#[derive(Debug, Default)]
pub struct Counts {
    pub(super) exported: AtomicU64,
    /// The queue was full.
    pub(super) no_room: AtomicU64,
    /// Their trace had too many.
    pub(super) over_limit: AtomicU64,
    /// The collector was not reached, or did not take them.
    pub(super) not_taken: AtomicU64,
}

static TRACER: OnceLock<Arc<Tracer>> = OnceLock::new();

/// The tracer of this process, if it has one.
pub fn tracer() -> Option<&'static Arc<Tracer>> {
    TRACER.get()
}

impl Tracer {
    /// `sample`: the share of traces that begin here and are kept.
    pub(super) fn new(sample: f64, counts: Arc<Counts>) -> (Arc<Tracer>, mpsc::Receiver<SpanRecord>) {
        let (queue, receiver) = mpsc::channel(QUEUE_MAX);
        let below = (sample.clamp(0.0, 1.0) * 2f64.powi(64)) as u128;
        (Arc::new(Tracer { queue, below, ids: Ids::new(), counts }), receiver)
    }

    /// Makes it that of the process; the first one stays.
    pub(super) fn install(self: &Arc<Tracer>) {
        let _ = TRACER.set(Arc::clone(self));
    }

    /// Whether a trace that begins here is kept.
    pub(super) fn draws(&self, trace: u128) -> bool {
        u128::from(trace as u64) < self.below
    }

    /// A span has ended.
    pub(super) fn keep(&self, record: SpanRecord) {
        if self.queue.try_send(record).is_err() {
            self.counts.no_room.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub fn write_metrics(&self, out: &mut Exposition) {
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let help = "Spans that the collector has taken";
        out.counter("snaphook_trace_spans_exported", help).sample(&[], get(&self.counts.exported));
        let mut dropped = out.counter("snaphook_trace_spans_dropped", "Spans that no collector gets, by the reason");
        dropped.sample(&[("reason", "queue-full")], get(&self.counts.no_room));
        dropped.sample(&[("reason", "trace-too-large")], get(&self.counts.over_limit));
        dropped.sample(&[("reason", "not-taken")], get(&self.counts.not_taken));
        let waiting = self.queue.max_capacity() - self.queue.capacity();
        out.gauge("snaphook_trace_queue_length", "Spans that wait for the collector").sample(&[], waiting);
    }
}
