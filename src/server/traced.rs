//! One request as a part of a trace: what its headers say of it, and its span.

use std::sync::Arc;

use axum::extract::RawPathParams;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, StatusCode};

use crate::config::is_model_id;
use crate::telemetry::trace::{Scope, Span, TraceContext, begin as traces, scope, tracer};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// The span of a request, and on behalf of what it is worked on: nothing, unless requests are traced or the log names them.
/// `is_probe`: what only watches the server is no part of a trace.
pub(super) fn begin(head: &Parts, request_id: &HeaderValue, is_probe: bool) -> (Span, Option<Arc<Scope>>) {
    let id = || Arc::from(request_id.to_str().unwrap_or_default());
    match tracer::tracer().filter(|_| !is_probe) {
        Some(tracer) => {
            let (span, scope) = traces::request(tracer, id(), parent(&head.headers));
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

/// Where the client says that the request belongs; nothing if it does not say so once and well.
fn parent(headers: &HeaderMap) -> Option<TraceContext> {
    let mut parents = headers.get_all(TRACEPARENT).iter();
    let (Some(parent), None) = (parents.next(), parents.next()) else { return None };
    let states: Option<Vec<&str>> = headers.get_all(TRACESTATE).iter().map(|state| state.to_str().ok()).collect();
    TraceContext::parse(parent.to_str().ok()?, states.unwrap_or_default())
}
