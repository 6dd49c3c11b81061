//! The span of a custom endpoint's run, in the trace of its request.

use std::sync::Arc;

use serde_json::json;

use super::collector::{self, Collector, SpanExt};
use super::{PARENT, TRACE, header, span_of};
use crate::peer::Peer;
use crate::support::{Server, ServerOptions, eventually, guest};

#[test]
fn from_the_request_through_the_endpoint_to_its_own_request() {
    let Some(component) = guest("endpoint.wasm") else { return };
    let (collector, peer) = (Collector::start(), Peer::saying("fine"));
    let folder = tempfile::tempdir().expect("a folder for the test");
    std::fs::create_dir(folder.path().join("hooks")).expect("a folder for hooks");
    std::fs::write(folder.path().join("tool.wasm"), component).expect("a component");
    let tables = format!(
        "[telemetry]\notlp = '{}'\n[[server.endpoints]]\nname = 'tool'\npath = '/tool'\ncomponent = 'tool.wasm'\n\
         [[grants]]\nendpoint = 'tool'\nhttp = ['{}']\n",
        collector.url(),
        peer.url("/*")
    );
    let server = Server::start_in(Arc::new(folder), ServerOptions { tables, ..ServerOptions::default() });
    let api = server.client();
    let path = format!("/tool/capabilities?{}", peer.url("/asked"));
    api.request("GET", &path).header("traceparent", PARENT).send().expect(200);
    api.request("GET", "/tool/panic").header("traceparent", PARENT).send().expect(502);

    let spans = eventually("both requests are collected", || {
        let spans = collector.spans_of(TRACE);
        (spans.iter().filter(|span| span.name == "GET /tool").count() == 2).then_some(spans)
    });
    let runs: Vec<_> = spans.iter().filter(|span| span.name == "endpoint tool").collect();
    assert_eq!(runs.len(), 2, "{spans:?}");
    for run in &runs {
        let request = spans.iter().find(|span| span.id() == run.parent()).expect("its request");
        assert_eq!((&*request.name, request.parent()), ("GET /tool", span_of(PARENT).to_owned()));
        assert_eq!(request.attribute("http.route"), Some(json!("/tool")));
        assert_eq!(run.attribute("snaphook.endpoint"), Some(json!("tool")));
    }
    let failed: Vec<_> = runs.iter().filter(|run| run.status.as_ref().is_some_and(|status| status.code == 2)).collect();
    assert_eq!(failed.len(), 1, "the one that panicked: {runs:?}");
    let sent =
        spans.iter().find(|span| span.kind == collector::CLIENT && runs.iter().any(|run| run.id() == span.parent()));
    let traceparent = header(&peer, "/asked", "traceparent").expect("it says where it belongs");
    assert_eq!(traceparent, format!("00-{TRACE}-{}-01", sent.expect("the endpoint's request").id()));
}
