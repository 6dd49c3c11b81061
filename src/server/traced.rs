//! One request as a part of a trace: what its headers say of it, and its span.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::RawPathParams;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, StatusCode};

use crate::config::{Config, ConfigHandle, Trust, is_model_id};
use crate::telemetry::trace::{Scope, Span, SpanKind, TraceContext, begin as traces, scope, tracer};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// The span of a request, and on behalf of what it is worked on: nothing, unless requests are traced or the log names them.
/// `is_probe`: what only watches the server is no part of a trace. `peer`: the address of the connection. A request that came
/// through modules has a span already, of which its work in the API is a part.
pub(super) fn begin(
    head: &Parts,
    request_id: &HeaderValue,
    is_probe: bool,
    peer: Option<IpAddr>,
    config: &ConfigHandle,
) -> (Span, Option<Arc<Scope>>) {
    if let Some(scope) = scope::current() {
        let span = Span::of(&scope, "", SpanKind::Internal);
        let scope = span.scope().unwrap_or(scope);
        return (span, Some(scope));
    }
    let id = || Arc::from(request_id.to_str().unwrap_or_default());
    match tracer::tracer().filter(|_| !is_probe) {
        Some(tracer) => {
            let parent = parent(&head.headers);
            let is_trusted = parent.is_some() && is_trusted(&config.load(), peer);
            let (span, scope) = traces::request(tracer, id(), parent, is_trusted);
            (span, Some(scope))
        }
        None if scope::are_ids_logged() => (Span::default(), Some(Arc::new(Scope::of_request(id())))),
        None => (Span::default(), None),
    }
}

/// What is known of the request before it is answered.
pub(super) fn describe(span: &mut Span, route: Option<&str>, method: &Method, params: Option<&RawPathParams>) {
    if !span.is_kept() {
        return;
    }
    let method = known(method);
    span.name(|| match route {
        Some(route) => format!("{method} {route}"),
        None => method.to_owned(),
    });
    span.note("http.request.method", || method);
    if let Some(route) = route {
        span.note("http.route", || route.to_owned());
    }
    let mut params = params.into_iter().flatten();
    if let Some((_, model)) = params.find(|(name, model)| *name == "model" && is_model_id(model)) {
        span.note("snaphook.model", || model.to_owned());
    }
}

/// How it was answered.
pub(super) fn end(mut span: Span, request_id: &HeaderValue, status: StatusCode) {
    span.note("http.response.status_code", || u64::from(status.as_u16()));
    span.note("snaphook.request_id", || request_id.to_str().unwrap_or_default().to_owned());
    // A client's mistake is none of the server's.
    if status.is_server_error() {
        span.fail(|| status.to_string());
    }
}

/// Methods that a client invents make no names of spans.
fn known(method: &Method) -> &'static str {
    let known = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
    known.into_iter().find(|known| method.as_str() == *known).unwrap_or("_OTHER")
}

/// Whether a request from this address decides whether it is traced.
fn is_trusted(config: &Config, peer: Option<IpAddr>) -> bool {
    let trust = config.telemetry.traces.as_ref().map(|traces| traces.trust).unwrap_or_default();
    trust == Trust::All || config.server.trusted_proxies.trusts(peer)
}

/// Where the client says that the request belongs; nothing if it does not say so once and well.
fn parent(headers: &HeaderMap) -> Option<TraceContext> {
    let mut parents = headers.get_all(TRACEPARENT).iter();
    let (Some(parent), None) = (parents.next(), parents.next()) else { return None };
    let states: Option<Vec<&str>> = headers.get_all(TRACESTATE).iter().map(|state| state.to_str().ok()).collect();
    TraceContext::parse(parent.to_str().ok()?, states.unwrap_or_default())
}
