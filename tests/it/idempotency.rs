//! `Idempotency-Key`: its scope, and its lifetime.

use serde_json::{Value, json};

use crate::support::{Client, Response, Server, ServerOptions, create_orders};

#[track_caller]
fn post(api: &Client, path: &str, key: &str, body: &Value) -> Response {
    api.request("POST", path).header("Idempotency-Key", key).json(body).send()
}

const ORDERS: &str = "/models/order/instances";

fn count(api: &Client) -> u64 {
    api.get(&format!("{ORDERS}?count=true")).expect(200).json()["count"].as_u64().expect("a count")
}

#[test]
fn a_key_belongs_to_one_request() {
    let mut server = Server::start();
    let api = server.client();
    create_orders(&api, "order");
    create_orders(&api, "other");
    let body = json!({"data": {"name": "a"}});
    let first = post(&api, ORDERS, "k", &body).expect(201).json();
    assert_eq!(post(&api, ORDERS, "k", &body).expect(201).json(), first);
    for other in [
        json!({"data": {"name": "b"}}),
        json!({"data": {"name": "a", "total": 1}}),
        json!({"id": "mine", "data": {"name": "a"}}),
    ] {
        let problem = post(&api, ORDERS, "k", &other).expect_problem(422, "idempotency-key-reused");
        assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains("new key")), "{problem}");
    }
    assert_eq!(count(&api), 1);
    // Another model has separate keys, and a failed request uses up none.
    post(&api, "/models/other/instances", "k", &body).expect(201);
    post(&api, ORDERS, "l", &json!({"data": {}})).expect_problem(422, "invalid");
    post(&api, ORDERS, "l", &body).expect(201);

    server = server.restart();
    let api = server.client();
    assert_eq!(post(&api, ORDERS, "k", &body).expect(201).json(), first);
    post(&api, ORDERS, "k", &json!({"data": {"name": "b"}})).expect_problem(422, "idempotency-key-reused");
    assert_eq!(count(&api), 2);
}

#[test]
fn a_model_that_is_made_again_knows_no_key_of_its_predecessor() {
    let server = Server::start();
    let api = server.client();
    let body = json!({"id": "one", "data": {"name": "a"}});
    for round in 0..3 {
        create_orders(&api, "order");
        let made = post(&api, ORDERS, "k", &body).expect(201).json();
        assert_eq!(api.get(&format!("{ORDERS}/one")).expect(200).json(), made, "round {round}");
        assert_eq!(post(&api, ORDERS, "k", &body).expect(201).json(), made);
        // The same key with other data works again too.
        let other = json!({"data": {"name": format!("round {round}")}});
        post(&api, ORDERS, "other", &other).expect(201);
        assert_eq!(count(&api), 2);
        api.delete("/models/order?cascade=true").expect(204);
    }
}

#[test]
fn a_model_is_made_once_by_its_key() {
    let server = Server::start();
    let api = server.client();
    let model = json!({"id": "m", "schema": {"type": "object"}});
    let first = post(&api, "/models", "k", &model).expect(201).json();
    assert_eq!(post(&api, "/models", "k", &model).expect(201).json(), first);
    for other in [
        json!({"id": "n", "schema": {"type": "object"}}),
        json!({"id": "m", "schema": {"type": "object", "properties": {"a": {}}}}),
        json!({"id": "m", "schema": {"type": "object", "properties": {"a": {"type": "string"}}}, "unique": [["a"]]}),
    ] {
        post(&api, "/models", "k", &other).expect_problem(422, "idempotency-key-reused");
    }
}

#[test]
fn retries_while_the_first_is_in_flight_write_once() {
    let server = Server::start_with(ServerOptions { hooks: "concurrency = 64".into(), ..ServerOptions::default() });
    let api = server.client();
    create_orders(&api, "order");
    // Long enough that all requests are in their pre hook at the same time.
    let hook = "export async function preCreate() { await new Promise((done) => setTimeout(done, 100)); }";
    api.put_javascript("order", "preCreate", hook).expect(200);
    let body = json!({"data": {"name": "a"}});
    let answers: Vec<Value> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| {
                let (client, body) = (server.client(), &body);
                scope.spawn(move || post(&client, ORDERS, "k", body).expect(201).json())
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("an answer")).collect()
    });
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:#?}");
    assert_eq!(count(&api), 1);
}

#[test]
fn lines_of_an_import_are_remembered_each() {
    let server = Server::start();
    let api = server.client();
    create_orders(&api, "order");
    let import = |lines: &str| {
        let request = api.request("POST", "/models/order/import").header("Idempotency-Key", "k");
        request.body("application/x-ndjson", lines).send().expect(200).json()
    };
    let lines = "{\"data\":{\"name\":\"a\"}}\n{\"data\":{\"name\":\"b\"}}\n";
    assert_eq!(import(lines)["created"], 2);
    assert_eq!(import(lines)["created"], 2);
    assert_eq!(count(&api), 2);
    let changed = import("{\"data\":{\"name\":\"a\"}}\n{\"data\":{\"name\":\"c\"}}\n");
    assert_eq!((&changed["created"], &changed["failed"]), (&json!(1), &json!(1)), "{changed}");
    assert_eq!(changed["errors"][0]["type"], "idempotency-key-reused", "{changed}");
    assert_eq!(count(&api), 2);
}
