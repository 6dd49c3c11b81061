//! The log as JSON: each line is a document, and each line that belongs to a request has its id.

use serde_json::{Value, json};

use super::collector::Collector;
use super::{PARENT, TRACE};
use crate::support::{Client, Server, ServerOptions, create_orders, eventually};

/// The hook's log message, which tries to forge a second line.
const HOSTILE: &str = "a\\n{\"level\":\"error\",\"message\":\"forged\"}\\r\\u001b[31m";

/// The lines of the log; all but the address must be JSON.
#[track_caller]
fn lines(server: &Server) -> Vec<Value> {
    let lines = server.log();
    let logged = lines.iter().filter(|line| !line.starts_with("snaphook serves at"));
    logged.map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

fn work(api: &Client) {
    create_orders(api, "order");
    let hook = |phase: &str| {
        let source = format!("export function {phase}({{ log }}) {{ log.info('{HOSTILE}'); }}");
        api.put_javascript("order", phase, &source).expect(200);
    };
    hook("preCreate");
    hook("postCreate");
    let request = api.request("POST", "/models/order/instances").header("X-Request-Id", "r-1");
    request.header("traceparent", PARENT).json(&json!({"id": "a", "data": {"name": "a"}})).send().expect(201);
}

/// The hooks' lines for the request, once both hooks have run.
fn of_hooks(server: &Server) -> Vec<Value> {
    eventually("both hooks have logged", || {
        let lines = lines(server).into_iter().filter(|line| line["target"] == "hook").collect::<Vec<_>>();
        (lines.len() >= 2).then_some(lines)
    })
}

#[test]
fn every_line_of_a_request_has_its_id() {
    let collector = Collector::start();
    let tables = format!("[telemetry]\notlp = '{}'\nlog-format = 'json'", collector.url());
    let server = Server::start_with(ServerOptions {
        tables,
        by: &["env", "SNAPHOOK_LOG=info,hook=debug,snaphook::hooks=debug"],
        ..ServerOptions::default()
    });
    let api = server.client();
    work(&api);
    for line in of_hooks(&server) {
        assert_eq!((&line["request_id"], &line["trace_id"]), (&json!("r-1"), &json!(TRACE)), "{line}");
        assert_eq!((&line["level"], &line["fields"]["level"]), (&json!("debug"), &json!("info")));
        let message = line["message"].as_str().expect("a text");
        assert!(message.starts_with("a\\n{") && !message.contains('\n') && !message.contains('\u{1b}'), "{line}");
    }
    // The end of a run is logged after the hook's own lines.
    let (lines, ran) = eventually("both runs are logged", || {
        let lines = lines(&server);
        let ran: Vec<_> = lines.iter().filter(|line| line["message"] == "hook ran").cloned().collect();
        (ran.len() >= 2).then_some((lines, ran))
    });
    assert!(!lines.iter().any(|line| line["message"] == "forged"));
    assert!(ran.iter().all(|line| line["request_id"] == "r-1"), "{ran:?}");
    // Lines that do not belong to a request have no id.
    assert!(lines[0].get("request_id").is_none() && lines[0]["time"].is_string(), "{}", lines[0]);
    // Also in the log of the phase.
    let log = api.get("/models/order/hooks/postCreate/log").expect(200).json();
    assert_eq!((&log["items"][0]["request_id"], &log["items"][0]["trace_id"]), (&json!("r-1"), &json!(TRACE)));
}

#[test]
fn json_without_traces_and_the_flag_wins() {
    let server = Server::start_with(ServerOptions {
        by: &["env", "SNAPHOOK_LOG_FORMAT=json", "SNAPHOOK_LOG=info,hook=debug"],
        ..ServerOptions::default()
    });
    work(&server.client());
    for line in of_hooks(&server) {
        assert_eq!((&line["request_id"], line.get("trace_id")), (&json!("r-1"), None), "{line}");
    }
    let server = Server::start_with(ServerOptions {
        tables: "[telemetry]\nlog-format = 'json'".to_owned(),
        by: &["env", "SNAPHOOK_LOG_FORMAT=text"],
        ..ServerOptions::default()
    });
    assert!(server.log().iter().any(|line| line.contains("started in")));
    assert!(!server.log().iter().any(|line| line.starts_with('{')));
}
