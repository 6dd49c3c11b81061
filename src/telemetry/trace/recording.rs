//! The part of a trace that this server does for one request or one post hook, and how many spans it may have.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::tracer::Tracer;

/// Spans of one trace that this server keeps: one request may lead to a hundred thousand calls of a store.
const SPANS_MAX: u32 = 1_000;

/// The part of a trace that this server does for one request or one post hook.
#[derive(Clone, Debug)]
pub(super) struct Recording {
    pub(super) tracer: Arc<Tracer>,
    spans: Arc<AtomicU32>,
}

impl Recording {
    pub(super) fn new(tracer: Arc<Tracer>) -> Recording {
        Recording { tracer, spans: Arc::default() }
    }

    /// Whether another span may be kept.
    pub(super) fn take(&self) -> bool {
        let is_free = self.spans.fetch_add(1, Ordering::Relaxed) < SPANS_MAX;
        if !is_free {
            self.spans.store(SPANS_MAX, Ordering::Relaxed);
            self.tracer.counts.over_limit.fetch_add(1, Ordering::Relaxed);
        }
        is_free
    }
}
