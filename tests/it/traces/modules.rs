//! The spans of sandboxed modules' hooks, in the trace of their request.

use std::sync::Arc;

use serde_json::json;

use super::collector::{self, Collector, SpanExt};
use super::{PARENT, TRACE, header, span_of};
use crate::peer::Peer;
use crate::support::{Server, ServerOptions, eventually, guest};

#[test]
fn from_the_request_through_its_modules_to_the_api() {
    let Some(component) = guest("module.wasm") else { return };
    let (collector, peer) = (Collector::start(), Peer::saying("fine"));
    let folder = tempfile::tempdir().expect("a folder for the test");
    std::fs::create_dir(folder.path().join("hooks")).expect("a folder for hooks");
    std::fs::write(folder.path().join("module.wasm"), component).expect("a component");
    let tables = format!(
        "[telemetry]\notlp = '{}'\n[[server.modules]]\nname = 'guard'\ncomponent = 'module.wasm'\n\
         [[grants]]\nmodule = 'guard'\nhttp = ['{}']\n",
        collector.url(),
        peer.url("/*")
    );
    let server = Server::start_in(Arc::new(folder), ServerOptions { tables, ..ServerOptions::default() });
    let api = server.client();
    let ask = |task: &str| {
        let request = api.request("GET", "/models").header("x-do", task).header("traceparent", PARENT);
        request.header("x-url", &peer.url("/asked")).send()
    };
    ask("capabilities").expect(200);
    ask("trap").expect(500);
    // Monitoring requests belong to no trace.
    api.request("GET", "/healthz").header("traceparent", PARENT).send().expect(200);

    let of_request = |span: &&super::otlp::Span| span.kind == collector::SERVER;
    let spans = eventually("both requests are collected", || {
        let spans = collector.spans_of(TRACE);
        (spans.iter().filter(of_request).count() == 2).then_some(spans)
    });
    for request in spans.iter().filter(of_request) {
        assert_eq!((&*request.name, request.parent()), ("GET", span_of(PARENT).to_owned()));
    }
    let parts_of = |status: u64| {
        let is_it = |span: &&super::otlp::Span| {
            of_request(span) && span.attribute("http.response.status_code") == Some(json!(status))
        };
        let request = spans.iter().find(is_it).expect("its request");
        spans.iter().filter(|span| span.parent() == request.id()).collect::<Vec<_>>()
    };
    let hooks = |parts: &[&super::otlp::Span]| {
        let of_module = parts.iter().filter(|span| span.name == "module guard");
        let mut hooks: Vec<_> = of_module.filter_map(|span| span.attribute("snaphook.hook")).collect();
        hooks.sort_unstable_by_key(ToString::to_string);
        hooks
    };
    let answered = parts_of(200);
    assert_eq!(hooks(&answered), ["before-request", "request", "response"]);
    let api_part = answered.iter().find(|span| span.name == "GET /models").expect("the part of the API");
    assert_eq!(api_part.attribute("http.route"), Some(json!("/models")));
    let failed: Vec<_> = parts_of(500)
        .into_iter()
        .filter(|span| span.status.as_ref().is_some_and(|status| status.code == 2))
        .filter_map(|span| span.attribute("snaphook.hook"))
        .collect();
    assert_eq!(failed, ["before-request"]);
    // Requests of the module belong to its hook's span.
    let first = answered.iter().find(|span| span.attribute("snaphook.hook") == Some(json!("before-request")));
    let first = first.expect("the first hook").id();
    let sent = spans.iter().find(|span| span.kind == collector::CLIENT && span.parent() == first);
    let traceparent = header(&peer, "/asked", "traceparent").expect("it says where it belongs");
    assert_eq!(traceparent, format!("00-{TRACE}-{}-01", sent.expect("the module's request").id()));
}
