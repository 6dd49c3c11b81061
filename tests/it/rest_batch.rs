//! `POST /batch`: all or nothing.

use std::sync::atomic::{AtomicI64, Ordering};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{Client, Response, Server, ServerOptions, at_once, create_orders, eventually, list};

#[track_caller]
fn batch(api: &Client, operations: &Value) -> Response {
    api.post("/batch", &json!({"operations": operations}))
}

fn stock_models(api: &Client) {
    let counted = |name: &str| json!({"type": "object", "properties": {name: {"type": "integer", "minimum": 0}}});
    api.post("/models", &json!({"id": "product", "schema": counted("stock")})).expect(201);
    api.post("/models", &json!({"id": "sale", "schema": counted("count")})).expect(201);
    api.post("/models/product/instances", &json!({"id": "p", "data": {"stock": 100_000}})).expect(201);
}

fn tables(driver: &str) -> String {
    let settings = |store| match driver {
        "file" => format!("driver = 'file'\npath = 'data/files/{store}'"),
        _ => format!("driver = '{driver}'"),
    };
    ["event", "model", "error"].map(|store| format!("[driver-{store}-storage]\n{}\n", settings(store))).concat()
}

/// Takes stock and records a sale. Whether it succeeded; `None` without a response.
fn sell(api: &Client, count: i64) -> Option<bool> {
    let response = api.request("GET", "/models/product/instances/p").try_send().ok()?;
    let (tag, stock) = (response.header("etag")?.to_owned(), response.json()["data"]["stock"].as_i64()?);
    let operations = json!([
        {"op": "patch", "model": "product", "id": "p", "data": {"stock": stock - count}, "if_match": tag},
        {"op": "create", "model": "sale", "data": {"count": count}},
    ]);
    let response = api.request("POST", "/batch").json(&json!({"operations": operations})).try_send().ok()?;
    match response.status {
        200 => Some(true),
        409 | 412 | 503 => Some(false),
        _ => panic!("{}: {}", response.status, response.text()),
    }
}

/// The stock has decreased by what was sold, after every batch in the log.
#[track_caller]
fn check_sales(api: &Client) -> i64 {
    let (mut after, mut stock, mut sold, mut taken) = (0, 100_000, 0, None);
    loop {
        let page = api.get(&format!("/events?after={after}&limit=1000")).expect(200).json();
        let items = page["items"].as_array().expect("items").clone();
        for event in &items {
            after = event["position"].as_u64().expect("a position");
            match (event["model"].as_str(), event["type"].as_str()) {
                (Some("product"), Some("instance.updated")) => {
                    assert_eq!(taken, None, "a sale is missing before {event}");
                    let now = event["data"]["stock"].as_i64().expect("a number");
                    taken = Some(stock - now);
                    stock = now;
                }
                (Some("sale"), Some("instance.created")) => {
                    assert_eq!(taken.take(), event["data"]["count"].as_i64(), "{event}");
                    sold += event["data"]["count"].as_i64().expect("a number");
                }
                _ => {}
            }
        }
        if items.is_empty() {
            break;
        }
    }
    assert_eq!((taken, stock + sold), (None, 100_000));
    let now = api.get("/models/product/instances/p").expect(200).json();
    assert_eq!(now["data"]["stock"], stock);
    assert_eq!(
        list(api, "sale").iter().map(|sale| sale["data"]["count"].as_i64().expect("a number")).sum::<i64>(),
        sold
    );
    sold
}

#[test]
fn stock_and_sales_change_together() {
    for driver in ["", "file", "memory"] {
        let tables = if driver.is_empty() { String::new() } else { tables(driver) };
        let server = Server::start_with(ServerOptions { tables, ..ServerOptions::default() });
        stock_models(&server.client());
        let sold = AtomicI64::new(0);
        at_once(&server, 64, |number, api| {
            for _ in 0..8 {
                let count = 1 + number as i64 % 5;
                if sell(api, count) == Some(true) {
                    sold.fetch_add(count, Ordering::Relaxed);
                }
            }
        });
        let sold = sold.into_inner();
        assert!(sold > 0);
        assert_eq!(check_sales(&server.client()), sold, "driver `{driver}`");
    }
}

#[test]
fn a_kill_leaves_whole_batches() {
    for tables in [String::new(), tables("file")] {
        let mut server = Server::start_with(ServerOptions { tables, ..ServerOptions::default() });
        stock_models(&server.client());
        for _ in 0..4 {
            let done = AtomicI64::new(0);
            std::thread::scope(|scope| {
                for _ in 0..8 {
                    let (api, done) = (server.client(), &done);
                    scope.spawn(move || {
                        while let Some(sold) = sell(&api, 1) {
                            done.fetch_add(i64::from(sold), Ordering::Relaxed);
                        }
                    });
                }
                eventually("something is sold", || (done.load(Ordering::Relaxed) >= 20).then_some(()));
                server.signal(Signal::KILL);
            });
            server.wait();
            server = server.restart_ended();
            assert!(check_sales(&server.client()) >= done.into_inner());
        }
    }
}

#[test]
fn one_request_in_all_its_forms() {
    let tables = "[[grants]]\nmodel = 'order'\nphase = 'preCreate'\nread = ['order']\namend = true".to_owned();
    let server = Server::start_with(ServerOptions { tables, ..ServerOptions::default() });
    let api = server.client();
    create_orders(&api, "order");
    let source = r#"export default async function ({ after, read }) {
        if (after.name !== "copy") return;
        const first = await read.get("order", "first");
        const all = await read.query("order", { sort: "-name", limit: 1 });
        return { ...after, name: first.data.name + " " + all.items[0].id };
    }"#;
    api.put_javascript("order", "preCreate", source).expect(200);
    let head = || api.get("/events").expect(200).json()["head"].clone();
    let create = |id: &str, name: &str| json!({"op": "create", "model": "order", "id": id, "data": {"name": name}});
    let before = head();
    // What a pre hook sees, the history, and the response.
    let operations = json!([
        create("first", "one"),
        create("second", "copy"),
        {"op": "update", "model": "order", "id": "first", "data": {"name": "two"}},
        {"op": "delete", "model": "order", "id": "second"},
    ]);
    let tried = api.post("/batch?dry-run=true", &json!({"operations": operations})).expect(200).json();
    assert_eq!(tried["operations"][1]["event"]["data"]["name"], "one first", "{tried}");
    assert_eq!((head(), tried["operations"].as_array().map(Vec::len)), (before, Some(4)));
    let keyed =
        || api.request("POST", "/batch").header("idempotency-key", "k").json(&json!({"operations": operations})).send();
    let first = keyed().expect(200);
    assert_eq!(first.header("snaphook-position"), Some(first.json()["position"].to_string().as_str()));
    let done = first.json();
    assert_eq!(
        (&done["results"][1]["data"]["name"], &done["results"][3]),
        (&json!("one first"), &Value::Null),
        "{done}"
    );
    assert_eq!(done["results"][2], api.get("/models/order/instances/first").expect(200).json());
    assert_eq!(keyed().expect(200).json(), done);
    let history = api.get("/models/order/instances/first/events").expect(200).json();
    assert_eq!(history["items"].as_array().map(Vec::len), Some(2), "{history}");
    // A failed batch has no effect.
    let before = head();
    let tag = api.get("/models/order/instances/first").header("etag").map(str::to_owned).expect("a tag");
    let fail = |operations: Value, status, kind: &str, pointer: &str| {
        let problem = batch(&api, &operations).expect_problem(status, kind);
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{problem}");
        assert_eq!(head(), before);
    };
    let patch =
        |tag: &str| json!({"op": "patch", "model": "order", "id": "first", "data": {"name": "x"}, "if_match": tag});
    fail(json!([create("a", "x"), create("b", "x"), create("a", "x")]), 409, "exists", "/operations/2");
    fail(
        json!([create("a", "x"), {"op": "create", "model": "order", "data": {"name": 1}}]),
        422,
        "invalid",
        "/operations/1/data/name",
    );
    fail(json!([create("a", "x"), patch("\"00000000-1-1\"")]), 412, "precondition-failed", "/operations/1");
    fail(json!([patch(&tag), patch(&tag)]), 412, "precondition-failed", "/operations/1");
    fail(json!([create("a", "x"), patch("1")]), 400, "bad-request", "/operations/1/if_match");
    fail(
        json!([create("a", "x"), {"op": "delete", "model": "../x", "id": "a"}]),
        400,
        "bad-request",
        "/operations/1/model",
    );
    fail(
        json!([create("a", "x"), {"op": "delete", "model": "order", "id": "first", "more": 1}]),
        400,
        "bad-request",
        "/operations/1/more",
    );
    fail(json!([]), 400, "bad-request", "/operations");
    fail(json!(vec![create("a", "x"); 101]), 400, "bad-request", "/operations");
    for body in ["", "[]", "{", "{\"operations\":", "{\"operations\":[{}],\"x\":1}", "{\"operations\":7}"] {
        api.request("POST", "/batch").body("application/json", body).send().expect_problem(400, "bad-request");
    }
    let one = json!({"operations": [create("a", "x")]});
    api.request("POST", "/batch").header("if-match", &tag).json(&one).send().expect_problem(400, "bad-request");
    api.request("POST", "/batch")
        .body("text/plain", one.to_string())
        .send()
        .expect_problem(415, "unsupported-media-type");
    assert_eq!(api.get("/batch").status, 405);
    assert_eq!(head(), before);
    // A batch that succeeds.
    batch(&api, &json!([patch(&tag), create("a", "x")])).expect(200);
    let minimal = api
        .request("POST", "/batch")
        .header("prefer", "return=minimal, wait=5")
        .json(&json!({"operations": [create("b", "x")]}));
    assert_eq!(minimal.send().expect(204).text(), "");
}
