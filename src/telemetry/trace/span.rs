//! Spans: what took how long, as part of what. A span that is not kept costs nothing but a look at the scope.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use super::context::TraceContext;
pub use super::record::SpanKind;
use super::record::{SpanRecord, Value, shorten};
use super::recording::Recording;
use super::scope::{self, Scope};

/// A span that has begun, or nothing. It ends when it is dropped, also with a task that is dropped.
#[must_use = "a span ends when it is dropped"]
#[derive(Debug, Default)]
pub struct Span(Option<Box<Open>>);

#[derive(Debug)]
struct Open {
    recording: Recording,
    request_id: Option<Arc<str>>,
    record: SpanRecord,
    started: Instant,
}

impl Span {
    /// A part of what the current task does.
    pub fn begin(name: impl Into<Cow<'static, str>>, kind: SpanKind) -> Span {
        scope::look(|scope| Span::of(scope, name, kind)).unwrap_or_default()
    }

    /// A part of what is done for `scope`.
    pub fn of(scope: &Scope, name: impl Into<Cow<'static, str>>, kind: SpanKind) -> Span {
        match (&scope.recording, &scope.trace) {
            (Some(recording), Some(trace)) if recording.take() => {
                Span::open(recording.clone(), scope.request_id.clone(), trace, Some(trace.span), name.into(), kind)
            }
            _ => Span(None),
        }
    }

    /// The first span of a recording. `trace`: of which it takes all but the id of the span.
    pub(super) fn first(
        recording: Recording,
        request_id: Option<Arc<str>>,
        trace: &TraceContext,
        parent: Option<u64>,
        kind: SpanKind,
    ) -> Span {
        Span::open(recording, request_id, trace, parent, Cow::Borrowed(""), kind)
    }

    fn open(
        recording: Recording,
        request_id: Option<Arc<str>>,
        trace: &TraceContext,
        parent: Option<u64>,
        name: Cow<'static, str>,
        kind: SpanKind,
    ) -> Span {
        let context = TraceContext { span: recording.tracer.ids.span(), ..trace.clone() };
        let record =
            SpanRecord { context, parent, name, kind, start: now(), end: 0, attributes: Vec::new(), error: None };
        Span(Some(Box::new(Open { recording, request_id, record, started: Instant::now() })))
    }

    /// For what is part of this span. `None`: the span is not kept, so the task's own scope remains.
    pub fn scope(&self) -> Option<Arc<Scope>> {
        let open = self.0.as_deref()?;
        Some(Arc::new(Scope {
            request_id: open.request_id.clone(),
            trace: Some(open.record.context.clone()),
            recording: Some(open.recording.clone()),
        }))
    }

    /// The scope of this span, or the task's own if it is not kept.
    pub fn scope_or_current(&self) -> Option<Arc<Scope>> {
        self.scope().or_else(scope::current)
    }

    pub fn is_kept(&self) -> bool {
        self.0.is_some()
    }

    /// What `traceparent` and `tracestate` say to whom this span asks.
    pub fn context(&self) -> Option<&TraceContext> {
        Some(&self.0.as_deref()?.record.context)
    }

    /// Names it; `name` runs only if the span is kept.
    pub fn name(&mut self, name: impl FnOnce() -> String) {
        if let Some(open) = &mut self.0 {
            open.record.name = shorten(name()).into();
        }
    }

    /// Notes something; `value` runs only if the span is kept.
    pub fn note<V: Into<Value>>(&mut self, key: &'static str, value: impl FnOnce() -> V) {
        if let Some(open) = &mut self.0 {
            open.record.attributes.push((key, value().into()));
        }
    }

    /// Notes that it failed; `message` runs only if the span is kept.
    pub fn fail(&mut self, message: impl FnOnce() -> String) {
        if let Some(open) = &mut self.0 {
            open.record.error = Some(shorten(message()));
        }
    }

    /// It began earlier than it was made, at that moment.
    pub fn began_at(&mut self, started: Instant) {
        if let Some(open) = &mut self.0 {
            let earlier = open.started.saturating_duration_since(started);
            open.record.start = open.record.start.saturating_sub(u64::try_from(earlier.as_nanos()).unwrap_or(0));
            open.started = started;
        }
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        let Some(open) = self.0.take() else { return };
        let Open { recording, mut record, started, .. } = *open;
        let took = u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        record.end = record.start.saturating_add(took);
        recording.tracer.keep(record);
    }
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
