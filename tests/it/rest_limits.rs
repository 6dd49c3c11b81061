//! Problems of an overloaded or failing server: full queues, lost races, a store that fails.

use std::time::Duration;

use serde_json::json;

use crate::support::{Server, ServerOptions, create_orders};

const INSTANCES: &str = "/models/order/instances";

#[test]
fn a_full_queue_says_when_to_come_back() {
    let options = ServerOptions { hooks: "concurrency = 1\ntimeout = '200 ms'".into(), ..ServerOptions::default() };
    let server = Server::start_with(options);
    let api = server.client();
    create_orders(&api, "order");
    create_orders(&api, "other");
    api.put_javascript("order", "preCreate", "export function preCreate() { for (;;) {} }").expect(200);
    let answers: Vec<_> = std::thread::scope(|scope| {
        let send = || server.client().post(INSTANCES, &json!({"data": {"name": "x"}}));
        let clients: Vec<_> = (0..150).map(|_| scope.spawn(send)).collect();
        clients.into_iter().map(|client| client.join().expect("an answer")).collect()
    });
    let (full, ran): (Vec<_>, Vec<_>) = answers.into_iter().partition(|answer| answer.status == 503);
    assert!(!full.is_empty() && !ran.is_empty(), "{} of {}", full.len(), full.len() + ran.len());
    for answer in full {
        assert_eq!(answer.header("retry-after"), Some("1"));
        answer.expect_problem(503, "overloaded");
    }
    for answer in ran {
        answer.expect_problem(502, "hook-failed");
    }
    api.post("/models/other/instances", &json!({"data": {"name": "x"}})).expect(201);
}

#[test]
fn a_race_that_is_lost_too_often_is_a_conflict() {
    let server = Server::start();
    let api = server.client();
    create_orders(&api, "order");
    api.post(INSTANCES, &json!({"id": "a", "data": {"name": "x"}})).expect(201);
    let slow = "export function preUpdate() { const end = Date.now() + 20; while (Date.now() < end) {} }";
    api.put_javascript("order", "preUpdate", slow).expect(200);
    let answers: Vec<_> = std::thread::scope(|scope| {
        let send = |n: usize| server.client().patch(&format!("{INSTANCES}/a"), &json!({"count": n}));
        let clients: Vec<_> = (0..16).map(|n| scope.spawn(move || send(n))).collect();
        clients.into_iter().map(|client| client.join().expect("an answer")).collect()
    });
    let (won, lost): (Vec<_>, Vec<_>) = answers.into_iter().partition(|answer| answer.status == 200);
    assert!(!won.is_empty() && !lost.is_empty(), "{} won, {} lost", won.len(), lost.len());
    let written = won.len() as u64 + 1;
    assert_eq!(api.get(&format!("{INSTANCES}/a")).expect(200).json()["revision"], written);
    for answer in lost {
        answer.expect_problem(409, "conflict");
    }
}

#[test]
fn a_store_that_fails_acknowledges_nothing() {
    let server = Server::start();
    let api = server.client();
    create_orders(&api, "order");
    // Another process holds the event store's write lock.
    let other = rusqlite::Connection::open(server.directory().join("data/events.db")).expect("the event store");
    other.busy_timeout(Duration::from_secs(5)).expect("a setting");
    other.execute_batch("BEGIN IMMEDIATE").expect("the lock");
    let body = json!({"id": "a", "data": {"name": "x"}});
    let problem = api.post(INSTANCES, &body).expect_problem(503, "storage");
    assert!(problem["detail"].as_str().expect("text").contains("nothing was written"), "{problem}");
    // Existing data can still be read.
    api.get("/models/order").expect(200);
    api.get(&format!("{INSTANCES}/a")).expect_problem(404, "not-found");
    other.execute_batch("ROLLBACK").expect("the lock is given back");
    api.post(INSTANCES, &body).expect(201);
}
