//! A collector for OTLP over HTTP: it reads OpenTelemetry's messages and stores the spans.

use std::collections::BTreeMap;

use prost::Message as _;
use serde_json::{Value, json};

use super::otlp::{ExportTraceServiceRequest, Span, SpanKind, Value as AnyValue};
use crate::peer::{Asked, Peer};

pub(super) const SERVER: i32 = SpanKind::Server as i32;
pub(super) const CLIENT: i32 = SpanKind::Client as i32;
pub(super) const CONSUMER: i32 = SpanKind::Consumer as i32;

pub(super) struct Collector(Peer);

impl Collector {
    pub(super) fn start() -> Collector {
        Collector(Peer::saying(""))
    }

    /// The value of `telemetry.otlp`.
    pub(super) fn url(&self) -> String {
        self.0.url("")
    }

    pub(super) fn asked(&self) -> Vec<Asked> {
        self.0.asked()
    }

    /// All spans so far.
    pub(super) fn spans(&self) -> Vec<Span> {
        let scopes = self.requests().into_iter().flat_map(|request| request.resource_spans);
        scopes.flat_map(|spans| spans.scope_spans).flat_map(|scope| scope.spans).collect()
    }

    pub(super) fn spans_of(&self, trace: &str) -> Vec<Span> {
        self.spans().into_iter().filter(|span| span.trace() == trace).collect()
    }

    /// The resource attributes in the first request.
    pub(super) fn resource(&self) -> BTreeMap<String, Value> {
        let request = self.requests().into_iter().next().expect("a request");
        let resource = request.resource_spans[0].resource.clone().expect("a resource");
        resource.attributes.into_iter().map(|entry| (entry.key, plain(entry.value.and_then(|any| any.value)))).collect()
    }

    #[track_caller]
    fn requests(&self) -> Vec<ExportTraceServiceRequest> {
        let read = |asked: &Asked| {
            assert_eq!((asked.method.as_str(), asked.target.as_str()), ("POST", "/v1/traces"));
            assert_eq!(asked.headers("content-type"), ["application/x-protobuf"]);
            ExportTraceServiceRequest::decode(&asked.body[..]).expect("a request of OTLP")
        };
        self.0.asked().iter().map(read).collect()
    }
}

/// What tests need of a span.
pub(super) trait SpanExt {
    fn id(&self) -> String;
    fn trace(&self) -> String;
    fn parent(&self) -> String;
    fn attribute(&self, key: &str) -> Option<Value>;
}

impl SpanExt for Span {
    fn id(&self) -> String {
        hex(&self.span_id)
    }

    fn trace(&self) -> String {
        hex(&self.trace_id)
    }

    fn parent(&self) -> String {
        hex(&self.parent_span_id)
    }

    fn attribute(&self, key: &str) -> Option<Value> {
        let entry = self.attributes.iter().find(|entry| entry.key == key)?;
        Some(plain(entry.value.clone().and_then(|any| any.value)))
    }
}

fn plain(value: Option<AnyValue>) -> Value {
    match value {
        Some(AnyValue::StringValue(text)) => json!(text),
        Some(AnyValue::IntValue(number)) => json!(number),
        other => panic!("an attribute is {other:?}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
