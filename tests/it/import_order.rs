//! `/models/{model}/import`: lines take effect as if they were sent one by one.

use serde_json::{Value, json};

use crate::support::{Client, Server, ServerOptions, create_orders};

#[track_caller]
fn import(api: &Client, query: &str, lines: &[Value]) -> Value {
    let lines: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let path = format!("/models/order/import{query}");
    api.request("POST", &path).body("application/x-ndjson", lines).send().expect(200).json()
}

#[track_caller]
fn data(api: &Client, id: &str) -> Value {
    api.get(&format!("/models/order/instances/{id}")).expect(200).json()["data"].clone()
}

const READS: &str = "[[grants]]\nmodel = 'order'\nphase = ['preCreate', 'preUpdate']\nread = ['order']\namend = true\n";

#[test]
fn a_hook_sees_the_lines_before() {
    let server = Server::start_with(ServerOptions { tables: READS.into(), ..ServerOptions::default() });
    let api = server.client();
    create_orders(&api, "order");
    // Each line continues the previous one, which works only if that one is stored.
    let hook = "export async function preCreate({ id, after, read }) {
        const number = Number(id.slice(1));
        if (number === 0) return { ...after, count: 1 };
        const before = await read.get('order', 'i' + (number - 1));
        if (!before) throw new Reject('the line before is not there');
        const page = await read.query('order', { filter: { name: { eq: after.name } }, limit: 1000 });
        if (page.items.length !== number) throw new Reject(`${page.items.length} lines before ${number}`);
        return { ...after, count: before.data.count + 1 };
    }";
    api.put_javascript("order", "preCreate", hook).expect(200);
    let lines: Vec<Value> = (0..150).map(|n| json!({"id": format!("i{n}"), "data": {"name": "x"}})).collect();
    let done = import(&api, "", &lines);
    assert_eq!((&done["created"], &done["failed"]), (&json!(150), &json!(0)), "{done}");
    assert_eq!(data(&api, "i149")["count"], 150);
}

#[test]
fn upsert_replaces_what_exists_line_by_line() {
    let server = Server::start();
    let api = server.client();
    create_orders(&api, "order");
    api.post("/models/order/instances", &json!({"id": "old", "data": {"name": "before", "total": 1}})).expect(201);
    let again = import(&api, "", &[json!({"id": "old", "data": {"name": "x"}})]);
    assert_eq!(again["errors"][0]["type"], "exists", "{again}");

    let mut lines = vec![json!({"id": "old", "data": {"name": "after"}}), json!({"data": {"name": "without an id"}})];
    for n in 0..1000 {
        lines.push(json!({"id": format!("i{}", n % 7), "data": {"name": "x", "count": n}}));
    }
    lines.push(json!({"id": "i3", "data": {"name": 5}}));
    let done = import(&api, "?upsert=true", &lines);
    assert_eq!((&done["created"], &done["updated"], &done["failed"]), (&json!(8), &json!(994), &json!(1)), "{done}");
    assert_eq!(data(&api, "old"), json!({"name": "after", "status": "open"}));
    for id in 0..7 {
        let last = (0..1000).rev().find(|n| n % 7 == id).expect("a line");
        let instance = api.get(&format!("/models/order/instances/i{id}")).expect(200).json();
        assert_eq!(instance["data"]["count"], last);
        // Every line took effect exactly once.
        assert_eq!(instance["revision"], (0..1000).filter(|n| n % 7 == id).count());
    }
    // The same as a dry run, without effects.
    let dry = import(
        &api,
        "?upsert=true&dry-run=true",
        &[json!({"id": "i0", "data": {"name": "y"}}), json!({"id": "new", "data": {"name": "y"}})],
    );
    assert_eq!((&dry["created"], &dry["updated"]), (&json!(1), &json!(1)), "{dry}");
    api.get("/models/order/instances/new").expect_problem(404, "not-found");
    api.request("POST", "/models/order/import?upsert=perhaps")
        .body("application/x-ndjson", "")
        .send()
        .expect_problem(400, "bad-request");
}

#[test]
fn a_unique_value_goes_from_line_to_line_in_their_order() {
    let server = Server::start();
    let api = server.client();
    api.post(
        "/models",
        &json!({"id": "order", "schema": {"type": "object", "properties": {"key": {}}}, "unique": [["key"]]}),
    )
    .expect(201);
    // Each pair of lines moves the value: one releases it, the next claims it.
    let mut lines = vec![json!({"id": "i0", "data": {"key": "moves"}})];
    for n in 0..200 {
        lines.push(json!({"id": format!("i{n}"), "data": {"key": format!("own {n}")}}));
        lines.push(json!({"id": format!("i{}", n + 1), "data": {"key": "moves"}}));
    }
    // The first of the two gets it.
    lines.push(json!({"id": "winner", "data": {"key": "wanted"}}));
    lines.push(json!({"id": "loser", "data": {"key": "wanted"}}));
    let done = import(&api, "?upsert=true", &lines);
    assert_eq!(done["failed"], 1, "{done}");
    assert_eq!((&done["errors"][0]["line"], &done["errors"][0]["type"]), (&json!(lines.len()), &json!("not-unique")));
    assert_eq!(data(&api, "i200")["key"], "moves");
    assert_eq!(data(&api, "i199")["key"], "own 199");
}

#[test]
fn the_list_of_failures_ends_and_says_so() {
    let server = Server::start();
    let api = server.client();
    create_orders(&api, "order");
    let failing = |count: usize, name: &str| -> Vec<Value> {
        (0..count).map(|n| json!({"data": {"name": "x", name: n}})).collect()
    };
    let some = import(&api, "", &failing(1000, "unknown"));
    assert_eq!((&some["failed"], &some["errors_truncated"]), (&json!(1000), &json!(false)));
    assert_eq!(some["errors"].as_array().map(Vec::len), Some(1000));
    let many = import(&api, "", &failing(2345, "unknown"));
    assert_eq!((&many["failed"], &many["errors_truncated"]), (&json!(2345), &json!(true)));
    assert_eq!(many["errors"].as_array().map(Vec::len), Some(1000));
    assert_eq!(many["errors"][999]["line"], 1000);
    // Failures with long messages: the response stays small.
    let rows: Value = (0..100).map(|_| json!(1)).collect();
    let model = json!({"id": "texts", "schema": {"type": "object", "properties": {"a": {"items": {"type": "string", "enum": ["x".repeat(250)]}}}}});
    api.post("/models", &model).expect(201);
    let line = format!("{}\n", json!({"data": {"a": rows}}));
    let wordy =
        api.request("POST", "/models/texts/import").body("application/x-ndjson", line.repeat(900)).send().expect(200);
    assert!(wordy.body.len() < 4 << 20, "{} bytes", wordy.body.len());
    let wordy = wordy.json();
    assert_eq!((&wordy["failed"], &wordy["errors_truncated"]), (&json!(900), &json!(true)));
}

#[test]
fn null_is_no_id() {
    let server = Server::start();
    let api = server.client();
    create_orders(&api, "order");
    let done = import(&api, "", &[json!({"id": null, "data": {"name": "x"}}), json!({"data": {"name": "x"}})]);
    assert_eq!((&done["created"], &done["failed"]), (&json!(1), &json!(1)), "{done}");
    assert_eq!(done["errors"][0]["type"], "bad-request", "{done}");
    let single = api.post("/models/order/instances", &json!({"id": null, "data": {"name": "x"}}));
    let problem = single.expect_problem(400, "bad-request");
    assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains("null")), "{problem}");
}
