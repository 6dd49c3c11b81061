//! `hook test --replay`: lists exactly the decisions that would change, with their events, with and without a running
//! server.

use std::path::Path;

use serde_json::{Value, json};

use super::{ask, run, write};
use crate::support::{Server, ServerOptions, guest, skip};

/// Rejects, amends, fails or accepts, depending on the data; reading a model needs a grant.
const HOOK: &str = r#"
export function preUpdate({ before, after, read, id }) {
  const rule = read.get("rule", "limit");
  if (after.total > rule.data.total) throw new Reject(`${before.total} to ${after.total}`, { "/total": "too much" });
  if (after.total === 3) return { ...after, name: after.name.toUpperCase(), paid: undefined };
  if (after.total === 4) throw new Error("odd");
  if (after.total === 2) return { ...after };
}
"#;

#[test]
fn exactly_the_decisions_that_would_change() {
    of_a_source("quickjs");
}

#[test]
fn exactly_the_same_in_v8() {
    if Path::new(env!("CARGO_MANIFEST_DIR")).join("plugins/v8/libmini_racer.so").is_file() {
        return of_a_source("v8");
    }
    skip("back-tests in v8", "V8 is not in plugins/v8; `cargo xtask v8` fetches it");
}

#[track_caller]
fn of_a_source(engine: &str) {
    let plugins = Path::new(env!("CARGO_MANIFEST_DIR")).join("plugins");
    let tables = format!(
        "[plugins]\ndirectory = '{}'\n\
         [[grants]]\nmodel = 'order'\nphase = 'preUpdate'\nread = ['rule']\namend = true",
        plugins.display()
    );
    let mut server = Server::start_with(ServerOptions { tables, ..ServerOptions::default() });
    let api = server.client();
    crate::support::create_orders(&api, "order");
    api.post("/models", &json!({"id": "rule", "schema": {"type": "object"}})).expect(201);
    api.post("/models/rule/instances", &json!({"id": "limit", "data": {"total": 100}})).expect(201);
    // Events of other models and of other types come in between.
    let mut positions = Vec::new();
    for (id, total) in [("a", 1), ("b", 2), ("c", 3), ("d", 4), ("e", 1000), ("f", 5)] {
        api.post("/models/order/instances", &json!({"id": id, "data": {"name": "n", "total": 0, "paid": true}}))
            .expect(201);
        let path = format!("/models/order/instances/{id}");
        let put = api.put(&path, &json!({"data": {"name": "n", "total": total, "paid": true}})).expect(200).json();
        positions.push(put["position"].as_u64().expect("a position"));
    }
    api.request("DELETE", "/models/order/instances/f").send().expect(204);
    let head = api.get("/events?limit=1").expect(200).json()["head"].clone();
    write(server.directory(), "preUpdate.js", HOOK);
    let replay = ["hook", "test", "preUpdate.js", "--replay", "--model", "order", "--engine", engine];
    let json = [&replay[..], &["--json"]].concat();

    let check = |found: &str| {
        let found: Value = serde_json::from_str(found).expect("one document");
        let changes = found["changes"].as_array().expect("a list");
        let rows: Vec<_> = changes
            .iter()
            .map(|change| {
                (
                    change["position"].as_u64().expect("a position"),
                    change["instance"].as_str().expect("an id"),
                    change["verdict"].as_str().expect("a word"),
                )
            })
            .collect();
        assert_eq!(
            rows,
            [(positions[2], "c", "amend"), (positions[3], "d", "failed"), (positions[4], "e", "reject")],
            "{found}"
        );
        assert_eq!(
            changes[0]["differences"],
            json!([{"pointer": "/name", "stored": "n", "now": "N"}, {"pointer": "/paid", "stored": true, "now": null}])
        );
        assert!(changes[1]["message"].as_str().is_some_and(|message| message.contains("odd")), "{found}");
        assert_eq!(changes[2]["message"], "0 to 1000");
        assert_eq!(changes[2]["fields"], json!([{"pointer": "/total", "message": "too much"}]));
        let cost = &found["cost"];
        assert_eq!(cost["runs"], 6);
        let ms = |name: &str| cost[name].as_f64().expect("a number");
        assert!(ms("p50_ms") > 0.0 && ms("p50_ms") <= ms("p99_ms") && ms("memory_bytes_max") > 0.0, "{cost}");
    };
    check(&ask(&server, &json).ok());
    let text = ask(&server, &replay).ok();
    assert!(
        text.contains(&format!("event {} order/e: would reject: 0 to 1000\n  /total: too much\n", positions[4])),
        "{text}"
    );
    assert!(text.contains("  /name: \"N\", stored is \"n\"\n  /paid: nothing, stored is true\n"), "{text}");
    assert!(text.contains("3 of 6 decisions would change: 1 rejected, 1 amended, 1 failed\ncost: p50 "), "{text}");
    let last = ask(&server, &[&json[..], &["--last", "2"]].concat()).ok();
    let last: Value = serde_json::from_str(&last).expect("one document");
    assert_eq!((last["cost"]["runs"].as_u64(), last["changes"].as_array().map(Vec::len)), (Some(2), Some(1)));

    // The current version of the stored rule applies.
    api.put("/models/rule/instances/limit", &json!({"data": {"total": 5000}})).expect(200);
    let text = ask(&server, &replay).ok();
    assert!(text.contains("2 of 6 decisions would change: 0 rejected"), "{text}");
    api.put("/models/rule/instances/limit", &json!({"data": {"total": 100}})).expect(200);
    let head_now = api.get("/events?limit=1").expect(200).json()["head"].clone();
    assert_eq!(head_now.as_u64(), head.as_u64().map(|head| head + 2), "a back-test writes nothing");

    // Invalid combinations are rejected.
    write(server.directory(), "postCreate.js", "export function postCreate() {}");
    let post = ask(&server, &["hook", "test", "postCreate.js", "--replay", "--model", "order"]).fails();
    assert!(post.contains("`postCreate` runs after the change"), "{post}");
    let unknown = ask(&server, &["hook", "test", "preUpdate.js", "--replay", "--model", "gone"]).fails();
    assert!(unknown.contains("gone"), "{unknown}");
    // Without a data folder there is nothing to replay, and none is created.
    let empty = super::folder("[server]\nmount-address = '127.0.0.1:1'\n[auth]\nmode = 'open'\n");
    write(empty.path(), "preUpdate.js", "export default () => {};");
    let nothing = run(empty.path(), &["hook", "test", "preUpdate.js", "--replay", "--model", "order"]).fails();
    assert!(nothing.contains("there is nothing to replay: no server responds at http://127.0.0.1:1"), "{nothing}");
    assert!(!empty.path().join("data").exists());
    assert!(ask(&server, &["hook", "test", "preUpdate.js", "--replay"]).fails().contains("`--model`"));

    // The same on the stores of a stopped server.
    assert!(server.stop().success());
    check(&run(server.directory(), &json).ok());
    let gone = run(server.directory(), &["hook", "test", "preUpdate.js", "--replay", "--model", "gone"]).fails();
    assert!(gone.contains("the log has no model `gone`"), "{gone}");
    let server = server.restart_ended();
    assert_eq!(server.client().get("/events?limit=1").expect(200).json()["head"], head_now);
}

/// Creates an order for each item of `data`. Returns the server and the events' positions.
#[track_caller]
fn orders(tables: &str, data: &[Value]) -> (Server, Vec<u64>) {
    let server = Server::start_with(ServerOptions { tables: tables.into(), ..ServerOptions::default() });
    let api = server.client();
    for model in ["order", "customer"] {
        api.post("/models", &json!({"id": model, "schema": {"type": "object"}})).expect(201);
    }
    api.post("/models/customer/instances", &json!({"id": "ada", "data": {"currency": "GBP"}})).expect(201);
    let create = |data: &Value| {
        let made = api.post("/models/order/instances", &json!({ "data": data })).expect(201).json();
        made["position"].as_u64().expect("a position")
    };
    let positions = data.iter().map(create).collect();
    (server, positions)
}

/// Replays on the server and then on its stores. Expected for each change: the event, the verdict, and the rejection's
/// message or the changed value.
#[track_caller]
pub(super) fn decides(tables: &str, data: &[Value], file: &str, code: &[u8], expected: &[(usize, &str, Value)]) {
    let (mut server, positions) = orders(tables, data);
    std::fs::write(server.directory().join(file), code).expect("written");
    let args = ["hook", "test", file, "--replay", "--model", "order", "--phase", "preCreate", "--json"];
    let check = |found: &str| {
        let found: Value = serde_json::from_str(found).expect("one document");
        let change = |change: &Value| {
            let what = match change["verdict"].as_str() {
                Some("reject") => &change["message"],
                Some("amend") => &change["differences"],
                _ => &Value::Null,
            };
            (change["position"].clone(), change["verdict"].clone(), what.clone())
        };
        let changes: Vec<_> = found["changes"].as_array().expect("a list").iter().map(change).collect();
        let expected: Vec<_> = expected
            .iter()
            .map(|(index, verdict, what)| (json!(positions[*index]), json!(verdict), what.clone()))
            .collect();
        assert_eq!(changes, expected, "{file}: {found}");
        let cost = &found["cost"];
        let ms = |name: &str| cost[name].as_f64().expect("a number");
        assert_eq!(cost["runs"], data.len(), "{file}: {cost}");
        assert!(ms("p50_ms") > 0.0 && ms("p50_ms") <= ms("p99_ms"), "{file}: {cost}");
        // A library's memory is part of the process.
        assert_eq!(ms("memory_bytes_max") > 0.0, !file.ends_with(".so"), "{file}: {cost}");
    };
    check(&ask(&server, &args).ok());
    assert!(server.stop().success());
    check(&run(server.directory(), &args).ok());
}

/// One Rust source: its components for both targets and its library decide the same, and read the server's data.
#[test]
fn components_and_a_library() {
    let orders = [
        json!({"customer": "ada", "currency": "GBP"}),
        json!({"customer": "bob", "currency": "GBP"}),
        json!({"customer": "ada"}),
        json!({"no": "customer"}),
    ];
    let currency = json!([{"pointer": "/currency", "stored": null, "now": "GBP"}]);
    for file in ["order.wasm", "order_wasip2.wasm", "order.so"] {
        let Some(code) = guest(file) else { return };
        let tables = "[[grants]]\nmodel = 'order'\nphase = 'preCreate'\nread = ['customer']\namend = true";
        decides(
            tables,
            &orders,
            file,
            &code,
            &[
                (1, "reject", json!("unknown customer")),
                (2, "amend", currency.clone()),
                // A failure with a message, not a trap.
                (3, "failed", Value::Null),
            ],
        );
    }
}

/// Orders for the examples in other languages, which all read the same properties.
pub(super) fn totals() -> [Value; 3] {
    [json!({"total": 5, "currency": "EUR"}), json!({"total": 2e6}), json!({"total": 7, "currency": "eur"})]
}

pub(super) const MAY_AMEND: &str = "[[grants]]\nmodel = 'order'\nphase = 'preCreate'\namend = true";

#[test]
fn components_of_other_languages() {
    let amended = json!([{"pointer": "/currency", "stored": "eur", "now": "EUR"}]);
    for (file, amends) in [("check.wasm", true), ("check_c.wasm", false), ("javy_check.wasm", true)] {
        let Some(code) = guest(file) else { return };
        let mut expected = vec![(1, "reject", json!("at most a million"))];
        expected.extend(amends.then(|| (2, "amend", amended.clone())));
        decides(MAY_AMEND, &totals(), file, &code, &expected);
    }
}

#[test]
fn deletions_and_missing_grants() {
    let server = Server::start();
    let api = server.client();
    crate::support::create_orders(&api, "order");
    for total in 1..4 {
        let made =
            api.post("/models/order/instances", &json!({"data": {"name": "n", "total": total}})).expect(201).json();
        let path = format!("/models/order/instances/{}", made["id"].as_str().expect("an id"));
        api.request("DELETE", &path).send().expect(204);
    }
    let here = server.directory();
    write(
        here,
        "preDelete.js",
        "export const preDelete = ({ before }) => { if (before.total === 2) throw new Reject('kept'); }",
    );
    let found = ask(&server, &["hook", "test", "preDelete.js", "--replay", "--model", "order", "--json"]).ok();
    let found: Value = serde_json::from_str(&found).expect("one document");
    assert_eq!(found["cost"]["runs"], 3);
    assert_eq!(found["changes"].as_array().map(Vec::len), Some(1), "{found}");
    assert_eq!((&found["changes"][0]["verdict"], &found["changes"][0]["message"]), (&json!("reject"), &json!("kept")));
    // Without the grant each replay fails, and the output contains the missing grant.
    write(here, "preCreate.js", "export const preCreate = ({ after }) => ({ ...after, name: 'x' })");
    let text = ask(&server, &["hook", "test", "preCreate.js", "--replay", "--model", "order"]).ok();
    assert!(text.contains("3 of 3 decisions would change: 0 rejected, 0 amended, 3 failed"), "{text}");
    assert!(text.contains("amend = true"), "{text}");
}
