//! `/models/{model}/import`.

use serde_json::json;

use crate::support::{Client, Response, Server, ServerOptions, create_orders};

#[track_caller]
fn import(api: &Client, lines: impl Into<Vec<u8>>) -> Response {
    api.request("POST", "/models/order/import").body("application/x-ndjson", lines).send()
}

#[test]
fn bad_lines_do_not_stop_the_rest() {
    let server = Server::start();
    let api = server.client();
    create_orders(&api, "order");
    let mut lines = Vec::new();
    lines.extend_from_slice(b"{\"id\":\"a\",\"data\":{\"name\":\"x\"}}\r\n");
    lines.extend_from_slice(b"\n");
    lines.extend_from_slice(b"{\"id\":\"b\",\"data\":{\"name\":1}}\n");
    lines.extend_from_slice(b"{broken\n");
    lines.extend_from_slice(b"{\"data\":{\"name\":\"\xff\"}}\n");
    lines.extend_from_slice(b"{\"id\":\"a\",\"data\":{\"name\":\"again\"}}\n");
    lines.extend_from_slice(b"{\"id\":\"../c\",\"data\":{\"name\":\"x\"}}\n");
    lines.extend_from_slice(b"{\"id\":\"d\",\"data\":{\"name\":\"x\"},\"more\":1}\n");
    lines.extend_from_slice(b"{\"id\":\"last\",\"data\":{\"name\":\"no line end\"}}");
    let done = import(&api, lines).expect(200).json();
    assert_eq!((&done["created"], &done["failed"]), (&json!(2), &json!(6)), "{done}");
    let rows: Vec<(u64, String)> = done["errors"]
        .as_array()
        .expect("rows")
        .iter()
        .map(|row| (row["line"].as_u64().expect("a line"), row["type"].as_str().expect("a type").to_owned()))
        .collect();
    let expected =
        [(3, "invalid"), (4, "bad-request"), (5, "bad-request"), (6, "exists"), (7, "bad-request"), (8, "bad-request")];
    assert_eq!(rows, expected.map(|(line, kind)| (line, kind.to_owned())), "{done}");
    assert_eq!(done["errors"][0]["errors"][0]["pointer"], "/data/name", "{done}");
    for id in ["a", "last"] {
        api.get(&format!("/models/order/instances/{id}")).expect(200);
    }
    assert_eq!(api.get("/models/order/instances/a").expect(200).json()["data"]["name"], "x");
}

#[test]
fn events_come_in_the_order_of_the_lines() {
    let server = Server::start();
    let api = server.client();
    create_orders(&api, "order");
    let lines: String =
        (0..3000).map(|n| format!("{{\"id\":\"i{n:04}\",\"data\":{{\"name\":\"x\",\"count\":{n}}}}}\n")).collect();
    let done = import(&api, lines).expect(200).json();
    assert_eq!(done, json!({"created": 3000, "updated": 0, "failed": 0, "errors": [], "errors_truncated": false}));
    let (mut next, mut ids) = (Some("0".to_owned()), Vec::new());
    while let Some(after) = next {
        let page = api.get(&format!("/events?type=instance.created&limit=1000&after={after}")).expect(200).json();
        let items = page["items"].as_array().expect("items");
        ids.extend(items.iter().map(|event| event["instance"].as_str().expect("an id").to_owned()));
        next = page["next"].as_str().map(str::to_owned);
    }
    assert!(ids.len() == 3000 && ids.is_sorted(), "{} events", ids.len());
}

#[test]
fn the_body_may_be_longer_than_one_request_but_no_line() {
    let server = Server::start_with(ServerOptions { server: "max-body = '16 KiB'".into(), ..ServerOptions::default() });
    let api = server.client();
    create_orders(&api, "order");
    let line = |length: usize| format!("{{\"data\":{{\"name\":\"{}\"}}}}\n", "x".repeat(length));
    let mut lines = String::new();
    for _ in 0..20 {
        lines.push_str(&line(10_000));
    }
    lines.push_str(&line(17_000));
    lines.push_str(&line(500_000));
    lines.push_str(&line(10));
    let done = import(&api, lines).expect(200).json();
    assert_eq!((&done["created"], &done["failed"]), (&json!(21), &json!(2)), "{done}");
    let failed: Vec<_> =
        done["errors"].as_array().expect("rows").iter().map(|row| (row["line"].clone(), row["type"].clone())).collect();
    assert_eq!(failed, [(json!(21), json!("too-large")), (json!(22), json!("too-large"))]);
}

#[test]
fn a_line_that_finds_no_place_waits_for_one() {
    // One running call and sixteen waiting ones, for sixty-four lines at once.
    let server = Server::start_with(ServerOptions { hooks: "concurrency = 1".into(), ..ServerOptions::default() });
    let api = server.client();
    create_orders(&api, "order");
    api.put_javascript("order", "preCreate", "export function preCreate() {}").expect(200);
    let lines: String = (0..300).map(|n| format!("{{\"id\":\"i{n}\",\"data\":{{\"name\":\"x\"}}}}\n")).collect();
    let done = import(&api, lines).expect(200).json();
    assert_eq!(done, json!({"created": 300, "updated": 0, "failed": 0, "errors": [], "errors_truncated": false}));
}

#[test]
fn what_is_no_import() {
    let server = Server::start();
    let api = server.client();
    api.request("POST", "/models/none/import")
        .body("application/x-ndjson", "{}")
        .send()
        .expect_problem(404, "not-found");
    create_orders(&api, "order");
    let nothing = json!({"created": 0, "updated": 0, "failed": 0, "errors": [], "errors_truncated": false});
    assert_eq!(import(&api, "").expect(200).json(), nothing);
    assert_eq!(import(&api, "\n\r\n \n").expect(200).json()["failed"], 0);
    api.request("POST", "/models/order/import?x=1")
        .body("application/x-ndjson", "")
        .send()
        .expect_problem(400, "bad-request");
    let tagged = api.request("POST", "/models/order/import").header("If-Match", "*").body("application/x-ndjson", "");
    tagged.send().expect_problem(400, "bad-request");
}

#[test]
fn a_dry_run_creates_nothing() {
    let server = Server::start();
    let api = server.client();
    create_orders(&api, "order");
    let lines = "{\"id\":\"a\",\"data\":{\"name\":\"x\"}}\n{\"data\":{}}\n";
    let dry =
        api.request("POST", "/models/order/import?dry-run=true").body("application/x-ndjson", lines).send().expect(200);
    assert_eq!((&dry.json()["created"], &dry.json()["failed"]), (&json!(1), &json!(1)));
    api.get("/models/order/instances/a").expect_problem(404, "not-found");
    // A line that a hook would reject is reported as failed, as without the dry run.
    let hook = "export function preCreate({ after }) { if (after.name === 'bad') throw new Reject('no such name'); }";
    api.put_javascript("order", "preCreate", hook).expect(200);
    let lines = "{\"data\":{\"name\":\"good\"}}\n{\"data\":{\"name\":\"bad\"}}\n";
    let path = "/models/order/import?dry-run=true";
    let dry = api.request("POST", path).body("application/x-ndjson", lines).send().expect(200).json();
    assert_eq!((&dry["created"], &dry["failed"]), (&json!(1), &json!(1)));
    assert_eq!(dry["errors"][0]["type"], "rejected");
    assert!(dry["errors"][0]["detail"].as_str().is_some_and(|detail| detail.contains("no such name")), "{dry}");
}

#[test]
fn only_the_first_thousand_failures_are_listed() {
    let server = Server::start();
    let api = server.client();
    create_orders(&api, "order");
    let done = import(&api, "{}\n".repeat(1500)).expect(200).json();
    assert_eq!(done["failed"], 1500);
    assert_eq!(done["errors"].as_array().expect("rows").len(), 1000);
}
