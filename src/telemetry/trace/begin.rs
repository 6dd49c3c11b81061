//! Entry points of traces: a request, or an event that was written within one.

use std::sync::Arc;

use super::context::TraceContext;
use super::record::SpanKind;
use super::recording::Recording;
use super::scope::{self, Scope};
use super::span::Span;
use super::tracer::{Tracer, tracer};

/// The span of a request, and the scope for its work. The origin of the trace decides on sampling: `parent`, or
/// otherwise this server. This server also decides if the parent is not trusted to, because a client that chooses trace
/// ids must not choose what is sampled.
pub fn request(
    tracer: &Arc<Tracer>,
    request_id: Arc<str>,
    parent: Option<TraceContext>,
    is_trusted: bool,
) -> (Span, Arc<Scope>) {
    let parent = parent.map(|parent| match is_trusted {
        true => parent,
        false => TraceContext { is_sampled: tracer.draws(tracer.ids.trace()), ..parent },
    });
    let trace = parent.clone().or_else(|| {
        let trace = tracer.ids.trace();
        // The request's own span replaces this one. A trace that is not sampled leaves no trace context.
        tracer.draws(trace).then_some(TraceContext { trace, span: 0, is_sampled: true, state: None })
    });
    let request_id = Some(request_id);
    match trace {
        Some(trace) if trace.is_sampled => {
            let recording = Recording::new(Arc::clone(tracer));
            let parent = parent.map(|parent| parent.span);
            let span = Span::first(recording, request_id, &trace, parent, SpanKind::Server);
            let scope = span.scope().unwrap_or_default();
            (span, scope)
        }
        // The client's context is passed on, without sampling.
        trace => (Span::default(), Arc::new(Scope { request_id, trace, recording: None })),
    }
}

/// The scope for work that follows from an event: its request and its trace. `None` if there is neither.
pub fn resume(request_id: Option<&str>, trace: Option<&str>) -> Option<Arc<Scope>> {
    let tracer = tracer();
    if tracer.is_none() && !scope::are_ids_logged() {
        return None;
    }
    let trace = tracer.and(trace).and_then(TraceContext::from_text);
    let is_kept = trace.as_ref().is_some_and(|trace| trace.is_sampled);
    let recording = tracer.filter(|_| is_kept).map(|tracer| Recording::new(Arc::clone(tracer)));
    Some(Arc::new(Scope { request_id: request_id.map(Arc::from), trace, recording }))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::super::record::{SpanRecord, Value};
    use super::super::tracer::QUEUE_MAX;
    use super::*;
    use crate::telemetry::exposition::{Exposition, Format};

    fn parent(is_sampled: bool) -> TraceContext {
        TraceContext { trace: 7, span: 8, is_sampled, state: Some("a=1".into()) }
    }

    #[test]
    fn where_a_trace_began_it_was_decided() {
        let (tracer, mut ended) = Tracer::new(0.0, Arc::default());
        let (span, scope) = request(&tracer, "r".into(), Some(parent(true)), true);
        drop(span);
        let record = ended.try_recv().unwrap();
        assert_eq!((record.context.trace, record.parent), (7, Some(8)));
        assert_eq!(scope.trace().unwrap().span, record.context.span);
        let (span, scope) = request(&tracer, "r".into(), Some(parent(false)), true);
        assert!(!span.is_kept());
        assert_eq!(scope.trace(), Some(&parent(false)));
        let (span, scope) = request(&tracer, "r".into(), None, true);
        assert!(!span.is_kept() && scope.trace().is_none());
        assert_eq!(scope.request_id(), Some("r"));
        let (tracer, _ended) = Tracer::new(1.0, Arc::default());
        assert!(request(&tracer, "r".into(), None, true).0.is_kept());
        assert!(!request(&tracer, "r".into(), Some(parent(false)), true).0.is_kept());
        let (tracer, _ended) = Tracer::new(0.5, Arc::default());
        let kept = (0..1000).filter(|_| request(&tracer, "r".into(), None, true).0.is_kept()).count();
        assert!((400..600).contains(&kept), "{kept}");
    }

    #[test]
    fn a_stranger_decides_nothing() {
        for (sample, is_kept) in [(0.0, false), (1.0, true)] {
            let (tracer, _ended) = Tracer::new(sample, Arc::default());
            for said in [true, false] {
                let (span, scope) = request(&tracer, "r".into(), Some(parent(said)), false);
                assert_eq!(span.is_kept(), is_kept);
                let trace = scope.trace().unwrap();
                assert_eq!((trace.trace, trace.is_sampled), (7, is_kept), "it is the client's trace all the same");
            }
        }
        let (tracer, _ended) = Tracer::new(0.5, Arc::default());
        let kept = (0..1000).filter(|_| request(&tracer, "r".into(), Some(parent(true)), false).0.is_kept()).count();
        assert!((400..600).contains(&kept), "{kept}");
    }

    #[tokio::test]
    async fn parts_have_their_parents() {
        let (tracer, mut ended) = Tracer::new(1.0, Arc::default());
        let (request, of_request) = request(&tracer, "r".into(), None, true);
        scope::within(Some(of_request), async {
            let hook = Span::begin("hook", SpanKind::Internal);
            scope::within(hook.scope(), async { drop(Span::begin("call", SpanKind::Client)) }).await;
        })
        .await;
        drop(request);
        assert!(!Span::begin("outside", SpanKind::Client).is_kept());
        let [call, hook, request] = std::array::from_fn(|_| ended.try_recv().unwrap());
        assert_eq!(call.parent, Some(hook.context.span));
        assert_eq!(hook.parent, Some(request.context.span));
        assert_eq!(request.parent, None);
        assert!([&call, &hook].iter().all(|span| span.context.trace == request.context.trace));
        assert!(request.start <= hook.start && hook.end <= request.end + 1_000_000);
    }

    #[test]
    fn what_has_no_room_is_counted() {
        let (tracer, mut ended) = Tracer::new(1.0, Arc::default());
        let (_request, of_request) = request(&tracer, "r".into(), None, true);
        // Of one trace.
        (0..2_000).for_each(|_| drop(Span::of(&of_request, "a", SpanKind::Client)));
        assert_eq!(tracer.counts.over_limit.load(Ordering::Relaxed), 1_000);
        assert_eq!(std::iter::from_fn(|| ended.try_recv().ok()).count(), 1_000);
        // Of all.
        (0..QUEUE_MAX + 5).for_each(|_| drop(request(&tracer, "r".into(), None, true)));
        assert_eq!(tracer.counts.no_room.load(Ordering::Relaxed), 5);
        let mut out = Exposition::new(Format::Prometheus);
        tracer.write_metrics(&mut out);
        let text = out.finish();
        assert!(text.contains("snaphook_trace_spans_dropped_total{reason=\"queue-full\"} 5\n"), "{text}");
        assert!(text.contains(&format!("snaphook_trace_queue_length {QUEUE_MAX}\n")), "{text}");
    }

    #[test]
    fn texts_are_short() {
        let (tracer, mut ended) = Tracer::new(1.0, Arc::default());
        let (mut span, _) = request(&tracer, "r".into(), None, true);
        span.name(|| "ü".repeat(1_000));
        span.note("a", || "x".repeat(1 << 20));
        span.fail(|| "y".repeat(1 << 20));
        drop(span);
        let SpanRecord { name, attributes, error, .. } = ended.try_recv().unwrap();
        let Some((_, Value::Text(noted))) = attributes.into_iter().next() else { panic!("no text") };
        // Their allocated memory counts, not their length.
        let taken = [name.into_owned(), noted.into_owned(), error.unwrap()].map(|text| text.capacity());
        assert!(taken.iter().all(|bytes| *bytes < 300), "{taken:?}");
    }
}
