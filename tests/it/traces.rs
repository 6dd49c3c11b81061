//! Traces and the log from a collector's view: from a request to the requests of its post hooks, in OTLP messages.

mod collector;
mod endpoints;
mod logs;
mod modules;
mod otlp;

use serde_json::{Value, json};

use self::collector::{Collector, SpanExt};
use crate::peer::{Peer, PeerResponse};
use crate::support::{Client, Server, ServerOptions, create_orders, eventually};

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// A server that sends traces to the collector, whose hooks may do what `lines` grant.
fn start(collector: &Collector, telemetry: &str, lines: &str) -> Server {
    let tables = format!(
        "[telemetry]\notlp = '{}'\n{telemetry}\n\
         [[grants]]\nmodel = '*'\nphase = 'preCreate'\namend = true\n\
         [[grants]]\nmodel = '*'\nphase = 'postCreate'\n{lines}",
        collector.url()
    );
    Server::start_with(ServerOptions { tables, ..ServerOptions::default() })
}

#[track_caller]
fn create(api: &Client, headers: &[(&str, &str)]) -> Value {
    let mut request = api.request("POST", "/models/order/instances");
    for (name, value) in headers {
        request = request.header(name, value);
    }
    request.json(&json!({"data": {"name": "a"}})).send().expect(201).json()
}

/// The value of a header in the last request to a path.
fn header(peer: &Peer, path: &str, name: &str) -> Option<String> {
    let asked = peer.asked();
    let asked = asked.iter().rfind(|asked| asked.target == path)?;
    let values = asked.headers(name);
    assert!(values.len() <= 1, "{name}: {values:?}");
    values.first().map(|value| (*value).to_owned())
}

fn span_of(traceparent: &str) -> &str {
    traceparent.split('-').nth(2).expect("a span")
}

#[test]
fn from_the_request_to_the_post_hooks_own_request() {
    let collector = Collector::start();
    let peer = Peer::saying("fine");
    let lines = format!("http = ['POST {0}', 'GET {0}']\nwrite = ['audit']", peer.url("/*"));
    let server = start(&collector, "service-name = 'shop'", &lines);
    let api = server.client();
    create_orders(&api, "order");
    api.post("/models", &json!({"id": "audit", "schema": {"type": "object"}})).expect(201);
    api.put_javascript("order", "preCreate", "export function preCreate({ after }) { return { ...after, count: 1 }; }")
        .expect(200);
    let post = format!(
        "export async function postCreate({{ write, fetch }}) {{
             await fetch('{}', {{ method: 'POST', body: 'x' }});
             await fetch('{}', {{ headers: {{ traceparent: 'mine' }} }});
             await write.create('audit', {{}}, {{ id: 'a' }});
         }}",
        peer.url("/plain"),
        peer.url("/own"),
    );
    api.put_javascript("order", "postCreate", &post).expect(200);
    api.put_javascript("audit", "postCreate", "export function postCreate() {}").expect(200);

    let headers = [("traceparent", PARENT), ("tracestate", "a=1,b=2"), ("X-Request-Id", "r-1")];
    create(&api, &headers);
    let spans = eventually("the last hook's span is collected", || {
        let spans = collector.spans_of(TRACE);
        spans.iter().any(|span| span.name == "hook audit.postCreate/postCreate").then_some(spans)
    });
    let named = |name: &str| {
        let found: Vec<_> = spans.iter().filter(|span| span.name == name).collect();
        assert!(!found.is_empty(), "no span {name} in {:?}", spans.iter().map(|span| &span.name).collect::<Vec<_>>());
        found[0]
    };
    let request = named("POST /models/{model}/instances");
    assert_eq!((request.parent(), request.kind), (span_of(PARENT).to_owned(), collector::SERVER));
    assert_eq!(request.trace_state, "a=1,b=2");
    for (key, value) in [
        ("http.route", json!("/models/{model}/instances")),
        ("http.request.method", json!("POST")),
        ("http.response.status_code", json!(201)),
        ("snaphook.model", json!("order")),
        ("snaphook.request_id", json!("r-1")),
    ] {
        assert_eq!(request.attribute(key), Some(value), "{key}");
    }
    let pre = named("hook order.preCreate/preCreate");
    assert_eq!((pre.parent(), pre.attribute("snaphook.outcome")), (request.id(), Some(json!("amend"))));
    // The order's commit, and that of the hook's write.
    let commits: Vec<_> = spans.iter().filter(|span| span.name == "commit").collect();
    let commit = commits.iter().find(|commit| commit.parent() == request.id()).expect("the request's commit");
    let append = spans.iter().find(|span| span.name == "event append" && span.parent() == commit.id());
    assert_eq!(append.expect("its append").attribute("snaphook.batch.size"), Some(json!(1)));

    let post = named("hook order.postCreate/postCreate");
    assert_eq!((post.parent(), post.kind), (request.id(), collector::CONSUMER));
    assert_eq!(post.attribute("snaphook.outcome"), Some(json!("accept")));
    assert_eq!(post.attribute("snaphook.attempt"), Some(json!(1)));
    let sent = spans.iter().find(|span| span.name == "POST" && span.parent() == post.id()).expect("the hook's request");
    assert_eq!((sent.kind, sent.attribute("http.response.status_code")), (collector::CLIENT, Some(json!(200))));
    let traceparent = header(&peer, "/plain", "traceparent").expect("it says where it belongs");
    assert_eq!(traceparent, format!("00-{TRACE}-{}-01", sent.id()));
    assert_eq!(header(&peer, "/plain", "tracestate").as_deref(), Some("a=1,b=2"));
    assert_eq!(header(&peer, "/own", "traceparent").as_deref(), Some("mine"));
    assert_eq!(header(&peer, "/own", "tracestate"), None);

    // The hook's write belongs to the hook's span, and so do its consequences.
    assert!(commits.iter().any(|commit| commit.parent() == post.id()), "{commits:?}");
    assert_eq!(named("hook audit.postCreate/postCreate").parent(), post.id());
    // All parts of a request lie within its span.
    for part in [pre, commit] {
        assert!(request.start_time_unix_nano <= part.start_time_unix_nano, "{part:?}");
        assert!(part.end_time_unix_nano <= request.end_time_unix_nano + 1_000_000, "{part:?}");
    }
    let resource = collector.resource();
    assert_eq!(resource["service.name"], "shop");
    assert_eq!(resource["service.version"], env!("CARGO_PKG_VERSION"));
}

#[test]
fn a_hook_that_runs_after_a_restart_has_its_parent() {
    let collector = Collector::start();
    let may_work = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let works = std::sync::Arc::clone(&may_work);
    let peer = Peer::start(move |_| match works.load(std::sync::atomic::Ordering::SeqCst) {
        true => PeerResponse::ok("fine"),
        false => PeerResponse::new(500, "not yet"),
    });
    let server = start(&collector, "", &format!("http = ['{}']", peer.url("/*")));
    let api = server.client();
    create_orders(&api, "order");
    let post = format!(
        "export async function postCreate({{ fetch }}) {{
             if (!(await fetch('{}')).ok) throw new Error('not yet');
         }}",
        peer.url("/")
    );
    api.put_javascript("order", "postCreate", &post).expect(200);
    create(&api, &[("traceparent", PARENT)]);
    eventually("it was tried", || (!peer.asked().is_empty()).then_some(()));
    // After a kill the next process knows only the log.
    let _server = server.kill_and_restart();
    may_work.store(true, std::sync::atomic::Ordering::SeqCst);
    let spans = eventually("it works", || {
        let spans = collector.spans_of(TRACE);
        spans.iter().any(|span| span.attribute("snaphook.outcome") == Some(json!("accept"))).then_some(spans)
    });
    let done =
        spans.iter().find(|span| span.attribute("snaphook.outcome") == Some(json!("accept"))).expect("it is there");
    assert!(done.attribute("snaphook.attempt").and_then(|attempt| attempt.as_i64()) > Some(1), "{done:?}");
    let sent = spans.iter().find(|span| span.name == "GET" && span.parent() == done.id()).expect("its request");
    assert_eq!(header(&peer, "/", "traceparent"), Some(format!("00-{TRACE}-{}-01", sent.id())));
    // The request's span may be lost with the first process, but the event preserved its context.
    let others = spans.iter().filter(|span| span.name == done.name);
    assert!(others.map(|span| span.parent()).all(|parent| parent == done.parent() && parent != span_of(PARENT)));
}

#[test]
fn where_a_trace_begins_it_is_decided_and_hostile_parents_are_none() {
    let collector = Collector::start();
    let peer = Peer::saying("fine");
    let server =
        start(&collector, "sample = 0.0\ntrust-traceparent = 'all'", &format!("http = ['{}']", peer.url("/*")));
    let api = server.client();
    create_orders(&api, "order");
    let post = format!("export async function postCreate({{ fetch }}) {{ await fetch('{}'); }}", peer.url("/"));
    api.put_javascript("order", "postCreate", &post).expect(200);
    let asked = |count: usize| eventually("the hook ran", || (peer.asked().len() == count).then_some(()));
    // The client does not sample the trace, so no spans are exported; but peers still get its context.
    let unsampled = PARENT.replace("-01", "-00");
    create(&api, &[("traceparent", &unsampled)]);
    asked(1);
    assert_eq!(header(&peer, "/", "traceparent").as_deref(), Some(unsampled.as_str()));
    let hostile = [
        String::new(),
        "00".to_owned(),
        PARENT.to_uppercase(),
        PARENT.replace("00-4", "ff-4"),
        PARENT.replace("00f067aa0ba902b7", "0000000000000000"),
        format!("{PARENT}-x"),
        "x".repeat(5_000),
        "00-".repeat(1_000),
    ];
    for (count, parent) in hostile.iter().enumerate() {
        create(&api, &[("traceparent", parent)]);
        asked(count + 2);
        assert_eq!(header(&peer, "/", "traceparent"), None, "{parent}");
    }
    create(&api, &[("traceparent", PARENT), ("traceparent", PARENT)]);
    asked(hostile.len() + 2);
    assert_eq!(header(&peer, "/", "traceparent"), None);
    // Only traces that the client samples are exported.
    create(&api, &[("traceparent", PARENT), ("tracestate", &format!("a={}", "x".repeat(600)))]);
    asked(hostile.len() + 3);
    eventually("it is collected", || collector.spans_of(TRACE).iter().any(|span| span.name == "GET").then_some(()));
    assert!(collector.spans().iter().all(|span| span.trace() == TRACE));
    assert_eq!(header(&peer, "/", "tracestate"), None);
}

#[test]
fn strangers_cannot_have_everything_traced_and_proxies_can() {
    let collector = Collector::start();
    let mut server = start(&collector, "sample = 0.0", "write = ['*']");
    create_orders(&server.client(), "order");
    create(&server.client(), &[("traceparent", PARENT)]);
    assert!(server.stop().success());
    assert_eq!(collector.spans().len(), 0, "a stranger");
    let tables = format!(
        "[server.limits]\ntrusted-proxies = ['127.0.0.0/8']\n[telemetry]\notlp = '{}'\nsample = 0.0",
        collector.url()
    );
    let server = Server::start_with(ServerOptions { tables, ..ServerOptions::default() });
    create_orders(&server.client(), "order");
    create(&server.client(), &[]);
    create(&server.client(), &[("traceparent", PARENT)]);
    eventually("a proxy's is traced", || (!collector.spans_of(TRACE).is_empty()).then_some(()));
    assert!(collector.spans().iter().all(|span| span.trace() == TRACE));
}

#[test]
fn the_last_spans_come_when_the_server_stops() {
    let collector = Collector::start();
    let mut server = start(&collector, "headers = { x-key = 'letmein' }", "write = ['*']");
    create_orders(&server.client(), "order");
    create(&server.client(), &[("traceparent", PARENT)]);
    assert!(server.stop().success());
    assert!(collector.spans_of(TRACE).iter().any(|span| span.name == "POST /models/{model}/instances"));
    assert!(collector.asked().iter().all(|asked| asked.headers("x-key") == ["letmein"]));
    assert!(!server.log().iter().any(|line| line.contains("letmein")));
}

#[test]
fn headers_may_be_secrets_and_a_missing_one_is_said() {
    let collector = Collector::start();
    let mut server = start(&collector, "", "write = ['*']");
    server.client().request("PUT", "/secrets/otlp").body("text/plain", "s3cret").send().expect(204);
    assert!(server.stop().success());
    let tables = format!("[telemetry]\notlp = '{}'\nheaders = {{ authorization = 'secret:otlp' }}", collector.url());
    let mut server = Server::start_in(server.folder(), ServerOptions { tables, ..ServerOptions::default() });
    create_orders(&server.client(), "order");
    assert!(server.stop().success());
    assert!(collector.asked().iter().any(|asked| asked.headers("authorization") == ["s3cret"]));
    assert!(!server.log().iter().any(|line| line.contains("s3cret")));
    let config = std::fs::read_to_string(server.config_file()).expect("its config");
    std::fs::write(server.config_file(), config.replace("secret:otlp", "secret:none")).expect("written");
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_snaphook"))
        .current_dir(server.directory())
        .output()
        .expect("it runs");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && told.contains("is the secret `none`, but there is none"), "{told}");
}

#[test]
fn a_collector_that_is_not_there_or_does_not_answer_harms_nobody() {
    let silent = Peer::start(|_| PeerResponse::stalled());
    let broken = Peer::start(|_| PeerResponse::new(400, "no"));
    for (endpoint, is_quick) in
        [("http://127.0.0.1:1".to_owned(), true), (silent.url(""), false), (broken.url(""), true)]
    {
        let tables = format!("[telemetry]\notlp = '{endpoint}'");
        let mut server = Server::start_with(ServerOptions { tables, ..ServerOptions::default() });
        let api = server.client();
        create_orders(&api, "order");
        let before = std::time::Instant::now();
        create(&api, &[]);
        assert!(before.elapsed() < crate::support::PATIENCE / 4, "nobody waits for a collector");
        eventually("the collector is asked", || (is_quick || !silent.asked().is_empty()).then_some(()));
        let dropped = || {
            let text = api.get("/metrics").expect(200).text();
            let name = "snaphook_trace_spans_dropped_total{reason=\"not-taken\"} ";
            text.lines().find_map(|line| line.strip_prefix(name)?.parse::<u64>().ok())
        };
        if is_quick {
            eventually("spans are dropped, and counted", || {
                create(&api, &[]);
                (dropped() > Some(0)).then_some(())
            });
            let lines = server.log().iter().filter(|line| line.contains("accepts no spans")).count();
            assert_eq!(lines, 1, "{endpoint}: it is said once");
        }
        let before = std::time::Instant::now();
        assert!(server.stop().success());
        // Three seconds for the collector, ten for running hooks.
        assert!(before.elapsed() < crate::support::PATIENCE / 2, "{:?}", before.elapsed());
    }
}

#[test]
fn without_telemetry_there_is_nothing_of_it() {
    let peer = Peer::saying("fine");
    let tables = format!("[[grants]]\nmodel = '*'\nphase = 'postCreate'\nhttp = ['{}']", peer.url("/*"));
    let server = Server::start_with(ServerOptions { tables, ..ServerOptions::default() });
    let api = server.client();
    create_orders(&api, "order");
    let post = format!("export async function postCreate({{ fetch }}) {{ await fetch('{}'); }}", peer.url("/"));
    api.put_javascript("order", "postCreate", &post).expect(200);
    create(&api, &[("traceparent", PARENT)]);
    eventually("the hook ran", || (!peer.asked().is_empty()).then_some(()));
    assert_eq!(header(&peer, "/", "traceparent"), None);
    assert!(!api.get("/metrics").expect(200).text().contains("snaphook_trace_"));
}
