//! Case-insensitive unique values: on every way to write, across changes of the model, and consistent with `ilike`.

use std::sync::Arc;

use serde_json::{Value, json};
use snaphook_driver_testkit::servers::{nats, postgres};

use crate::support::{Client, DriverHost, Response, Server, ServerOptions};

fn schema() -> Value {
    json!({"type": "object", "properties": {"email": {"type": "string"}, "team": {"type": "string"}, "n": {"type": "integer"}}})
}

fn definition(unique: Value) -> Value {
    json!({"schema": schema(), "unique": unique})
}

fn nocase(properties: &[&str]) -> Value {
    json!([{"properties": properties, "collation": "nocase"}])
}

#[track_caller]
fn is_taken(answer: Response, holder: &str) {
    let problem = answer.expect_problem(409, "not-unique");
    let message = problem["errors"][0]["message"].as_str().expect("a text");
    assert!(message.contains("apart from case") && message.contains(holder), "{problem}");
}

fn create(api: &Client, id: &str, email: &str) -> Response {
    api.post("/models/user/instances", &json!({"id": id, "data": {"email": email}}))
}

#[test]
fn case_does_not_count_however_a_value_is_written() {
    case_does_not_count("");
}

/// The event store keeps the claims of values; every driver distinguishes them only by their bytes.
#[test]
fn case_does_not_count_on_postgres() {
    let server = postgres::start(&[]);
    let url = postgres::url(&server);
    let store = |store: &str| format!("[driver-{store}-storage]\ndriver = 'postgres'\nconnection = 'main'\n");
    let stores = ["event", "model"].map(store).concat();
    case_does_not_count(&format!("[connections.main]\ndriver = 'postgres'\nurl = '{url}'\n{stores}"));
}

#[test]
fn case_does_not_count_on_nats() {
    let server = nats::start("always");
    let url = nats::url(&server);
    case_does_not_count(&format!(
        "[connections.bus]\ndriver = 'nats'\nurl = '{url}'\nreplicas = 1\n\
         [driver-event-storage]\ndriver = 'nats'\nconnection = 'bus'\npath = 'data/nats.db'\n"
    ));
}

#[test]
fn case_does_not_count_on_a_remote_store() {
    let host = DriverHost::start();
    let store = |store: &str| format!("[driver-{store}-storage]\ndriver = 'remote'\nurl = '{}'\n", host.url());
    case_does_not_count(&["event", "model"].map(store).concat());
}

fn case_does_not_count(tables: &str) {
    let server = Server::start_with(ServerOptions { tables: tables.to_owned(), ..ServerOptions::default() });
    let api = server.client();
    let mut model = definition(nocase(&["email"]));
    model["id"] = json!("user");
    let made = api.post("/models", &model).expect(201).json();
    assert_eq!(made["unique"], nocase(&["email"]));
    assert_eq!(api.get("/models/user").expect(200).json()["unique"], nocase(&["email"]));

    create(&api, "a", "Ada@Example.com").expect(201);
    is_taken(create(&api, "b", "ada@example.COM"), "user/a");
    create(&api, "b", "ÉLAN ΣΟΦΟΣ").expect(201);
    is_taken(create(&api, "c", "élan σοφος"), "user/b");
    // Values that differ in more than case do not conflict.
    create(&api, "c", "elan σοφος").expect(201);
    create(&api, "d", "straße").expect(201);
    create(&api, "e", "STRASSE").expect(201);
    // The original spelling is kept, and the value may be rewritten in another case.
    let put =
        |id: &str, email: &str| api.put(&format!("/models/user/instances/{id}"), &json!({"data": {"email": email}}));
    assert_eq!(api.get("/models/user/instances/a").expect(200).json()["data"]["email"], "Ada@Example.com");
    put("a", "ADA@example.com").expect(200);
    is_taken(put("b", "ada@EXAMPLE.com"), "user/a");
    let answer = api.patch("/models/user/instances/b", &json!({"email": "Ada@example.com"}));
    assert_eq!(answer.json()["errors"][0]["pointer"], "/email");
    is_taken(answer, "user/a");
    let dry = api.patch("/models/user/instances/b?dry-run=true", &json!({"email": "Ada@example.com"}));
    is_taken(dry, "user/a");

    let operation =
        |id: &str, email: &str| json!({"op": "create", "model": "user", "id": id, "data": {"email": email}});
    let batch = |operations: &[Value]| api.post("/batch", &json!({"operations": operations}));
    let problem = batch(&[operation("x", "New"), operation("y", "nEW")]).expect_problem(409, "not-unique");
    assert_eq!(problem["errors"][0]["pointer"], "/operations/1/data/email");
    batch(&[operation("x", "New"), json!({"op": "delete", "model": "user", "id": "x"}), operation("y", "nEW")])
        .expect(200);
    let lines =
        ["{\"id\":\"l1\",\"data\":{\"email\":\"Line\"}}", "{\"id\":\"l2\",\"data\":{\"email\":\"LINE\"}}"].join("\n");
    let report =
        api.request("POST", "/models/user/import").body("application/x-ndjson", lines).send().expect(200).json();
    assert_eq!((&report["created"], &report["failed"]), (&json!(1), &json!(1)), "{report}");

    // Deleting the instance releases its value, also after a restart and a rebuild.
    let server = server.kill_and_restart();
    let api = server.client();
    is_taken(create(&api, "f", "ada@EXAMPLE.com"), "user/a");
    api.delete("/models/user/instances/a").expect(204);
    create(&api, "f", "ada@EXAMPLE.com").expect(201);
    // `ilike` finds exactly the values that conflict; `eq` is case-sensitive.
    let found = |operator: &str, email: &str| -> Vec<String> {
        let page = api.get(&format!("/models/user/instances?filter[email][{operator}]={email}")).expect(200).json();
        let items = page["items"].as_array().expect("a list").iter();
        items.map(|item| item["id"].as_str().expect("an id").to_owned()).collect()
    };
    assert_eq!(found("ilike", "ADA@example.com"), ["f"]);
    assert!(found("eq", "ADA@example.com").is_empty());
    assert_eq!(found("ilike", "STRASSE"), ["e"]);
}

#[test]
fn the_collation_changes_only_where_every_instance_fits() {
    let server = Server::start();
    let api = server.client();
    let mut model = definition(json!([{"properties": ["email"]}, ["team", "n"]]));
    model["id"] = json!("user");
    let made = api.post("/models", &model).expect(201).json();
    assert_eq!(made["unique"], json!([["email"], ["team", "n"]]));
    for (id, email) in [("a", "Ada"), ("b", "ada"), ("c", "bob")] {
        create(&api, id, email).expect(201);
    }
    let wanted = definition(nocase(&["email"]));
    let problem = api.put("/models/user", &wanted).expect_problem(422, "incompatible");
    assert_eq!(problem["errors"].as_array().expect("rows").len(), 1, "{problem}");
    assert_eq!(api.get("/models/user").expect(200).json()["version"], 1);
    // The rejected change left nothing behind.
    create(&api, "d", "BOB").expect(201);
    for id in ["b", "d"] {
        api.delete(&format!("/models/user/instances/{id}")).expect(204);
    }
    let changed = api.put("/models/user", &wanted).expect(200).json();
    assert_eq!((&changed["version"], &changed["unique"]), (&json!(2), &nocase(&["email"])));
    is_taken(create(&api, "b", "aDA"), "user/a");
    // The same definition again is not a change; a rename keeps the claimed values.
    assert_eq!(api.put("/models/user", &wanted).expect(200).json()["version"], 2);
    let renamed = json!({"schema": {"type": "object", "properties": {"mail": {"type": "string"}}},
        "unique": nocase(&["mail"]), "renames": {"email": "mail"}});
    api.put("/models/user", &renamed).expect(200);
    let taken = api.post("/models/user/instances", &json!({"data": {"mail": "BOB"}}));
    is_taken(taken, "user/c");
    // And back: case matters again.
    let exact = json!({"schema": {"type": "object", "properties": {"mail": {"type": "string"}}}, "unique": [["mail"]]});
    api.put("/models/user", &exact).expect(200);
    api.post("/models/user/instances", &json!({"id": "e", "data": {"mail": "BOB"}})).expect(201);
    api.post("/models/user/instances", &json!({"data": {"mail": "BOB"}})).expect_problem(409, "not-unique");
    let problem = api.put("/models/user", &json!({"schema": exact["schema"], "unique": nocase(&["mail"])}));
    problem.expect_problem(422, "incompatible");
}

#[test]
fn what_is_no_list_is_refused_with_its_place() {
    let server = Server::start();
    let api = server.client();
    for (unique, status, pointer, expected) in [
        (json!([{"properties": ["email"], "collation": "binary"}]), 400, "/unique/0/collation", "expected `nocase`"),
        (json!([{"collation": "nocase"}]), 400, "/unique/0/properties", "is missing"),
        (json!([{"properties": "email", "collation": "nocase"}]), 400, "/unique/0/properties", "is a string"),
        (json!([{"properties": ["x"], "collation": "nocase"}]), 422, "/unique/0/properties/0", "no property `x`"),
        (
            json!([["email"], {"properties": ["email"], "collation": "nocase"}]),
            422,
            "/unique/1/properties",
            "two lists",
        ),
        (json!([{"properties": [], "collation": "nocase"}]), 422, "/unique/0/properties", "1 to 8"),
        // The same form without a collation.
        (json!([{"properties": ["x"]}]), 422, "/unique/0/properties/0", "no property `x`"),
        (json!([["email"], {"properties": ["email"]}]), 422, "/unique/1/properties", "two lists"),
        (json!([["x"]]), 422, "/unique/0/0", "no property `x`"),
    ] {
        let mut model = definition(unique);
        model["id"] = json!("user");
        let answer = api.post("/models", &model);
        assert_eq!(answer.status, status, "{model}: {}", answer.text());
        let problem = answer.json();
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{problem}");
        assert!(problem.to_string().contains(expected), "{problem}");
    }
}

#[test]
fn models_kept_as_files_may_have_it() {
    let folder = Arc::new(tempfile::tempdir().expect("a folder"));
    let model = folder.path().join("hooks/user");
    std::fs::create_dir_all(&model).expect("a folder");
    // Keys in an author's order, and one list in the long form.
    let text = r#"{"schema": {"type": "object", "properties": {"email": {"type": "string"}, "n": {}}},
        "unique": [{"collation": "nocase", "properties": ["email"]}, {"properties": ["n"]}]}"#;
    std::fs::write(model.join("model.json"), text).expect("a file");
    let options = ServerOptions { hooks: "apply = true".to_owned(), ..ServerOptions::default() };
    let server = Server::start_in(folder, options);
    let api = server.client();
    let made = api.get("/models/user").expect(200).json();
    assert_eq!(made["unique"], json!([{"properties": ["email"], "collation": "nocase"}, ["n"]]));
    create(&api, "a", "Ada").expect(201);
    is_taken(create(&api, "b", "ADA"), "user/a");
    // The form in the file does not count as a change.
    let server = server.restart();
    assert_eq!(server.client().get("/models/user").expect(200).json()["version"], 1);
}
