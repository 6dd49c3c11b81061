//! Components that fail or attack: each affects only its own request; the response says little, and the log has the
//! reason.

use super::{begin, read_to_end, server, with};
use crate::support::{ServerOptions, eventually};

/// Task, cause, and text in the log.
const FAILURES: [(&str, &str, &str); 13] = [
    ("nothing", "exception", "without setting a response"),
    ("error", "exception", "set an error instead of a response"),
    ("panic", "exception", "hunter2 is what the log says"),
    ("leak", "exception", "without setting a response"),
    ("short", "exception", "middle of its response"),
    ("loop", "timeout", "the limit `timeout` is 300 ms"),
    ("sleep", "timeout", "the limit `timeout` is 300 ms"),
    ("memory", "memory", "the limit `memory` is 64 MiB"),
    ("stack", "trap", "out of bounds memory access"),
    ("calls", "host-calls", "10001 host calls"),
    ("flood-log", "output", "the limit is 64 KiB"),
    ("handles", "memory", "more streams"),
    ("status?103", "", "set the status 103"),
];

#[test]
fn a_failure_costs_its_request_and_tells_the_client_little() {
    // Tasks that test other limits get enough time.
    let tables = "[[server.endpoints]]\nname = 'brief'\npath = '/brief'\ncomponent = 'tool.wasm'\n\
                  [[grants]]\nendpoint = 'brief'\ntimeout = '300 ms'\n[[grants]]\nendpoint = 'tool'\ntimeout = '1 m'\n";
    let Some(server) = server(tables) else { return };
    let api = server.client();
    for (task, cause, says) in FAILURES {
        let name = if cause == "timeout" { "brief" } else { "tool" };
        let problem = api.get(&format!("/{name}/{task}")).expect_problem(502, "endpoint-failed");
        let detail = problem["detail"].as_str().expect("a detail");
        assert!(
            detail.contains(&format!("the endpoint `{name}`")) && !problem.to_string().contains("hunter2"),
            "{task}: {problem}"
        );
        assert!(cause.is_empty() || detail.contains(&format!("failed ({cause})")), "{task}: {problem}");
        eventually(&format!("the log says `{says}` of {task}"), || {
            server.log().iter().any(|line| line.contains(says)).then_some(())
        });
        api.get("/tool/echo").expect(200);
    }
    let metrics = api.get("/metrics").expect(200).text();
    for line in [
        "snaphook_endpoint_failures_total{endpoint=\"brief\",cause=\"timeout\"} 2",
        "snaphook_endpoint_failures_total{endpoint=\"tool\",cause=\"trap\"} 1",
        "snaphook_http_requests_total{route=\"/tool\",method=\"GET\",status=\"502\"} 11",
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
    assert!(!server.log().iter().any(|line| line.contains("the hook")), "{:?}", server.log());
}

#[test]
fn a_response_that_fails_after_its_head_is_broken_off() {
    let grant = "[[grants]]\nendpoint = 'tool'\ntimeout = '100 ms'\n";
    let Some(server) = server(grant) else { return };
    for (task, first) in [("hang", "begun"), ("forever", "xxxx")] {
        let mut stream = begin(&server, "GET", &format!("/tool/{task}"), "");
        let bytes = read_to_end(&mut stream);
        let text = String::from_utf8_lossy(&bytes);
        assert!(text.starts_with("HTTP/1.1 200") && text.contains(first), "{task}: {} bytes", bytes.len());
        assert!(!bytes.ends_with(b"0\r\n\r\n"), "{task}: it must not look whole");
    }
    let api = server.client();
    api.get("/tool/echo").expect(200);
    let metrics = api.get("/metrics").expect(200).text();
    assert!(metrics.contains("snaphook_endpoint_failures_total{endpoint=\"tool\",cause=\"timeout\"} 2"), "{metrics}");
}

#[test]
fn loops_leave_the_server_to_others() {
    let options = ServerOptions {
        hooks: "concurrency = 16".into(),
        tables: "[[grants]]\nendpoint = 'tool'\ntimeout = '10 m'\n".into(),
        ..ServerOptions::default()
    };
    let Some(server) = with(options) else { return };
    let loops: Vec<_> = (0..8).map(|_| begin(&server, "GET", "/tool/loop", "")).collect();
    let api = server.client();
    for _ in 0..20 {
        api.get("/healthz").expect(200);
        api.get("/tool/echo").expect(200);
    }
    drop(loops);
}

#[test]
fn what_a_component_logs_is_in_the_log_and_cannot_look_like_another_line() {
    let Some(server) = server("") else { return };
    let api = server.client();
    api.request("GET", "/tool/log").header("X-Request-Id", "logs-1").send().expect(200);
    api.get("/tool/late").expect(200);
    for words in [
        &["INFO", "first\\n", "endpoint=\"tool\"", "logs-1"][..],
        &["ERROR", "third\u{fffd}[31m", "logs-1"],
        &["INFO", "came to its end"],
    ] {
        eventually(&format!("{words:?} in the log"), || {
            let log = server.log();
            log.iter().any(|line| words.iter().all(|word| line.contains(word))).then_some(())
        });
    }
    assert!(!server.log().iter().any(|line| line.starts_with("INFO second")), "{:?}", server.log());
}
