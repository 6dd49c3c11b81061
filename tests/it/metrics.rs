//! `/metrics`: Prometheus's own tool accepts both formats, and the values match what happened.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use serde_json::json;

use crate::support::{Client, Server, ServerOptions, create_orders, eventually, skip};

/// Runs promtool with this standard input; `None` if it is not installed.
fn promtool(arguments: &[&str], input: &str) -> Option<Output> {
    let spawned = Command::new("promtool")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match spawned {
        Ok(child) => child,
        Err(error) => {
            skip("promtool", &format!("{error}; Debian's package `prometheus` has it"));
            return None;
        }
    };
    let mut stdin = child.stdin.take().expect("piped");
    // If it ends early, its output says why.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    Some(child.wait_with_output().expect("its output"))
}

/// A server on which nearly every counted event has happened, including paths with hostile names.
fn busy() -> Server {
    let server = Server::start_with(ServerOptions {
        hooks: "max-attempts = 1".to_owned(),
        tables: "[[grants]]\nmodel = 'order'\nphase = 'preCreate'\namend = true".to_owned(),
        ..ServerOptions::default()
    });
    let api = server.client();
    create_orders(&api, "order");
    api.put_javascript(
        "order",
        "preCreate",
        "export function preCreate({ after }) {
             if (after.name === 'no') throw new Reject('no');
             if (after.name === 'bad') throw new Error('bad');
             return { ...after, count: 1 };
         }",
    )
    .expect(200);
    api.put_javascript("order", "postCreate", "export function postCreate() { throw new Error('never'); }").expect(200);
    let create = |name: &str, key: &str| {
        let request = api.request("POST", "/models/order/instances").header("Idempotency-Key", key);
        request.json(&json!({"data": {"name": name}})).send()
    };
    create("a", "1").expect(201);
    create("a", "1").expect(201);
    create("b", "1").expect_problem(422, "idempotency-key-reused");
    create("no", "2").expect_problem(422, "rejected");
    create("bad", "3").expect_problem(502, "hook-failed");
    api.get("/models/order/instances?limit=5").expect(200);
    api.get("/%22%5C%0Ano/such").expect_problem(404, "not-found");
    eventually("the post hook is given up", || (metric(&api, "snaphook_errors") == Some(1.0)).then_some(()));
    server
}

fn metric(api: &Client, name: &str) -> Option<f64> {
    let text = api.get("/metrics").expect(200).text();
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

#[test]
fn promtool_has_nothing_to_say() {
    let server = busy();
    let text = server.client().get("/metrics").expect(200).text();
    let Some(output) = promtool(&["check", "metrics"], &text) else { return };
    let told = [&output.stdout[..], &output.stderr[..]].map(String::from_utf8_lossy).concat();
    assert!(output.status.success() && told.is_empty(), "{told}\n{text}");
    // The tool does detect errors.
    let output = promtool(&["check", "metrics"], "# TYPE a counter\na 1\n").expect("it is there");
    assert!(!output.status.success());
}

#[test]
fn open_metrics_is_what_prometheus_reads() {
    let server = busy();
    let api = server.client();
    let accept = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
    let response = api.request("GET", "/metrics").header("Accept", accept).send().expect(200);
    let kind = response.header("content-type").expect("a type").to_owned();
    assert_eq!(kind, "application/openmetrics-text; version=1.0.0; charset=utf-8");
    let text = response.text();
    assert!(text.ends_with("\n# EOF\n"), "{text}");
    for part in [
        "# TYPE snaphook_http_requests counter\n# HELP ",
        "# TYPE snaphook_build info\n# HELP snaphook_build What runs here\nsnaphook_build_info{version=",
        "# TYPE process_resident_memory_bytes gauge\n# UNIT process_resident_memory_bytes bytes\n",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    // Importing a file requires timestamps.
    let stamped: String = text
        .lines()
        .map(|line| if line.starts_with('#') { format!("{line}\n") } else { format!("{line} 1700000000\n") })
        .collect();
    let folder = tempfile::tempdir().expect("a folder");
    let (file, blocks) = (folder.path().join("metrics"), folder.path().join("blocks"));
    let import = |text: &str| {
        std::fs::write(&file, text).expect("written");
        let (file, blocks) = (file.display().to_string(), blocks.display().to_string());
        promtool(&["tsdb", "create-blocks-from", "openmetrics", &file, &blocks], "")
    };
    let Some(output) = import(&stamped) else { return };
    assert!(output.status.success(), "{}\n{stamped}", String::from_utf8_lossy(&output.stderr));
    let output = import(&stamped.replace("# EOF", "")).expect("it is there");
    assert!(!output.status.success(), "its parser wants the end");
    // By default the response has Prometheus's own format.
    let plain = api.get("/metrics").expect(200);
    assert_eq!(plain.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    assert!(!plain.text().contains("# EOF"));
}

/// The endpoint needs no token.
#[test]
fn whoever_asks_often_does_not_have_the_stores_asked_as_often() {
    let server = busy();
    let api = server.client();
    let calls = |name: &str| metric(&api, name).unwrap_or_default();
    let [lag, count] = [("event", "lag"), ("error", "count")].map(|(store, operation)| {
        format!("snaphook_driver_call_seconds_count{{store=\"{store}\",driver=\"sqlite\",operation=\"{operation}\"}}")
    });
    let before = std::time::Instant::now();
    let at_first = [calls(&lag), calls(&count)];
    for _ in 0..200 {
        api.get("/metrics").expect(200);
    }
    let more = [calls(&lag) - at_first[0], calls(&count) - at_first[1]];
    // At the start, at the end, and once a second in between.
    let most = before.elapsed().as_secs_f64() + 2.0;
    assert!(more.iter().all(|more| *more <= most), "{more:?} in {most} s");
    assert!(at_first.iter().all(|calls| *calls > 0.0), "{at_first:?}");
}

#[test]
fn what_happened_is_counted() {
    let server = busy();
    let api = server.client();
    let _stream = api.stream("/events/stream", &[]);
    eventually("the stream is open", || (metric(&api, "snaphook_listeners") == Some(1.0)).then_some(()));
    let backlog = r#"snaphook_post_hook_backlog{model="order"}"#;
    eventually("nothing waits", || (metric(&api, backlog) == Some(0.0)).then_some(()));
    let text = api.get("/metrics").expect(200).text();
    let value = |name: &str| -> f64 {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name} in\n{text}")).parse().expect("a number")
    };
    for (name, expected) in [
        (r#"snaphook_http_requests_total{route="/models/{model}/instances",method="POST",status="502"}"#, 1.0),
        (r#"snaphook_http_requests_total{route="unknown",method="GET",status="404"}"#, 1.0),
        // This request.
        ("snaphook_http_requests_in_flight", 1.0),
        (r#"snaphook_hook_runs_total{model="order",phase="preCreate",outcome="amend"}"#, 1.0),
        (r#"snaphook_hook_runs_total{model="order",phase="preCreate",outcome="reject"}"#, 1.0),
        (r#"snaphook_hook_runs_total{model="order",phase="preCreate",outcome="failed"}"#, 1.0),
        (r#"snaphook_hook_failures_total{model="order",phase="postCreate",cause="exception"}"#, 1.0),
        (r#"snaphook_hook_seconds_count{model="order",phase="preCreate"}"#, 3.0),
        (r#"snaphook_idempotency_keys_known_total{request="same"}"#, 1.0),
        (r#"snaphook_idempotency_keys_known_total{request="other"}"#, 1.0),
        ("snaphook_post_hooks_given_up_total", 1.0),
        ("snaphook_errors", 1.0),
        (r#"snaphook_post_hook_backlog{model="order"}"#, 0.0),
        ("snaphook_node_lag", 0.0),
        ("snaphook_log_head", value("snaphook_applied_position")),
        (r#"snaphook_driver_errors_total{store="event",driver="sqlite",operation="append"}"#, 0.0),
    ] {
        assert_eq!(value(name), expected, "{name} in\n{text}");
    }
    for (name, least) in [
        ("snaphook_connections", 2.0),
        ("snaphook_connections_accepted_total", 2.0),
        ("snaphook_applied_position", 4.0),
        ("snaphook_commit_batch_size_count", 3.0),
        ("snaphook_commit_batch_size_sum", 4.0),
        ("snaphook_commit_batch_seconds_count", 3.0),
        (r#"snaphook_driver_call_seconds_count{store="model",driver="sqlite",operation="query"}"#, 1.0),
        ("snaphook_memory_limit_bytes", 1e6),
        ("process_cpu_seconds_total", 0.01),
        ("process_resident_memory_bytes", 1e6),
        ("process_open_fds", 5.0),
        ("process_start_time_seconds", 1.6e9),
    ] {
        // Only Linux reports a process's resources.
        if cfg!(target_os = "linux") || !name.starts_with("process_") {
            assert!(value(name) >= least, "{name} in\n{text}");
        }
    }
    // Replacing a hook does not reset its counters.
    api.put_javascript("order", "preCreate", "export function preCreate() {}").expect(200);
    api.post("/models/order/instances", &json!({"data": {"name": "c"}})).expect(201);
    let amended = r#"snaphook_hook_runs_total{model="order",phase="preCreate",outcome="amend"}"#;
    assert_eq!(metric(&api, amended), Some(1.0));
}
