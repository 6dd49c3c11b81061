//! Traces: which spans belong to one request, on whichever node, and how they come to a collector.
//!
//! A request's work runs within a [`scope`], from which its spans and its log lines take where they belong. An event keeps the
//! place in the trace where it was written, so the post hooks that it starts have their parent, whenever and wherever they run.
//!
//! This is no OpenTelemetry SDK: that one does not count what its queue drops, and its bridge to the log makes spans for all
//! requests, traced or not. What goes out is OTLP, which the tests read with OpenTelemetry's own messages.

pub mod begin;
mod context;
pub mod exporter;
mod ids;
mod otlp;
mod record;
mod recording;
pub mod scope;
mod span;
pub mod tracer;

pub use self::context::TraceContext;
pub use self::scope::Scope;
pub use self::span::{Span, SpanKind};
