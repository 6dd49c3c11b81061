//! `/models`, row by row.

use serde_json::{Value, json};

use crate::support::{Server, create_orders, order_schema};

#[test]
fn create_get_list() {
    let server = Server::start();
    let api = server.client();
    assert_eq!(api.get("/models").expect(200).json(), json!({"items": [], "next": null}));
    let made = api
        .post(
            "/models",
            &json!({"id": "order", "schema": order_schema(), "indexes": [["-total", "name"]], "unique": [["name"]]}),
        )
        .expect(201);
    assert_eq!(made.header("location"), Some("/models/order"));
    let model = made.json();
    assert_eq!(model["id"], "order");
    assert_eq!(model["version"], 1);
    assert_eq!(model["schema"], order_schema());
    assert_eq!(model["indexes"], json!([["-total", "name"]]));
    assert_eq!(model["unique"], json!([["name"]]));
    assert_eq!(model["hooks"], json!({}));
    let position = model["position"].as_u64().expect("a position");
    assert!(position > 0);
    for time in ["created_at", "updated_at"] {
        let time = model[time].as_str().expect("a time");
        assert!(time.len() == 24 && time.ends_with('Z') && time.as_bytes()[10] == b'T', "{time}");
    }
    let keys: Vec<&String> = model.as_object().expect("an object").keys().collect();
    assert_eq!(keys, ["id", "version", "schema", "indexes", "unique", "hooks", "position", "created_at", "updated_at"]);

    let got = api.get("/models/order").expect(200);
    assert_eq!(got.json(), model);
    let tag = got.header("etag").expect("a tag").to_owned();
    assert!(tag.ends_with(&format!("-{position}-1\"")), "{tag}");
    assert_eq!(api.get("/models").expect(200).json(), json!({"items": [model], "next": null}));

    let unchanged = api.request("GET", "/models/order").header("If-None-Match", &tag).send();
    assert_eq!(unchanged.expect(304).header("etag"), Some(tag.as_str()));
    api.post("/models", &json!({"id": "order", "schema": order_schema()})).expect_problem(409, "exists");
}

#[test]
fn what_is_no_definition_is_refused() {
    let server = Server::start();
    let api = server.client();
    let object = json!({"type": "object"});
    for id in ["", "A", "-a", "_a", "a b", "a/b", "é", &"x".repeat(64)] {
        api.post("/models", &json!({"id": id, "schema": object})).expect_problem(400, "bad-request");
    }
    for (body, expected) in [
        (json!({"id": "a"}), "`/schema` is missing"),
        (json!({"schema": object}), "`/id` is missing"),
        (json!({"id": "a", "schema": object, "indices": []}), "`/indices` is unknown"),
        (
            json!({"id": "a", "schema": object, "indexes": ["a"]}),
            "`/indexes/0` is a string, expected a list of property names: write `[\"a\"]`",
        ),
        (json!({"id": 1, "schema": object}), "expected a string"),
        (json!([]), "expected"),
        (json!({"id": "a", "schema": object, "renames": {}}), "`/renames` is unknown"),
    ] {
        let problem = api.post("/models", &body).expect_problem(400, "bad-request");
        assert!(problem["detail"].as_str().expect("text").contains(expected), "{body}: {problem}");
    }
    // Valid JSON, but not a usable schema, index or unique list.
    for body in [
        json!({"id": "a", "schema": {"type": "array"}}),
        json!({"id": "a", "schema": {"type": "object", "properties": {"x": {"type": "nothing"}}}}),
        json!({"id": "a", "schema": {"type": "object", "properties": {"x": {"$ref": "https://example.com/x.json"}}}}),
        json!({"id": "a", "schema": {"type": "object", "properties": {"x": {"$ref": "file:///etc/passwd"}}}}),
        json!({"id": "a", "schema": object, "indexes": [["nothing"]]}),
        json!({"id": "a", "schema": object, "unique": [["nothing"]]}),
        json!({"id": "a", "schema": "object"}),
        json!({"id": "a", "schema": null}),
    ] {
        let answer = api.post("/models", &body);
        assert!(matches!(answer.status, 400 | 422), "{body}: {}", answer.text());
    }
    assert_eq!(api.get("/models").expect(200).json()["items"], json!([]));
}

#[test]
fn missing_models() {
    let server = Server::start();
    let api = server.client();
    api.get("/models/none").expect_problem(404, "not-found");
    api.put("/models/none", &json!({"schema": {"type": "object"}})).expect_problem(404, "not-found");
    api.delete("/models/none").expect_problem(404, "not-found");
    api.get("/models/NONE").expect_problem(400, "bad-request");
    api.get("/models/none/hooks").expect_problem(404, "not-found");
    api.get("/models/none/instances").expect_problem(404, "not-found");
    api.get("/models/none/instances/a").expect_problem(404, "not-found");
    api.post("/models/none/instances", &json!({"data": {}})).expect_problem(404, "not-found");
    api.put("/models/none/instances/a", &json!({"data": {}})).expect_problem(404, "not-found");
    api.delete("/models/none/instances/a").expect_problem(404, "not-found");
}

#[test]
fn a_new_version() {
    let server = Server::start();
    let api = server.client();
    let first = create_orders(&api, "order");
    let mut schema = order_schema();
    schema["properties"]["note"] = json!({"type": "string", "default": "none"});
    let second = api.put("/models/order", &json!({"schema": schema, "indexes": [["note"]]})).expect(200);
    let second_tag = second.header("etag").expect("a tag").to_owned();
    let second = second.json();
    assert_eq!(second["version"], 2);
    assert_eq!(second["schema"], schema);
    assert_eq!(second["created_at"], first["created_at"]);
    assert!(second_tag.ends_with(&format!("-{}-2\"", second["position"])), "{second_tag}");
    // Putting the same definition again changes nothing.
    let again = api.put("/models/order", &json!({"schema": schema, "indexes": [["note"]]})).expect(200).json();
    assert_eq!(again, second);
    // Old versions stay readable.
    assert_eq!(api.get("/models/order?version=1").expect(200).json(), first);
    assert_eq!(api.get("/models/order?version=2").expect(200).json(), second);
    api.get("/models/order?version=3").expect_problem(404, "not-found");
    for bad in ["0", "-1", "x", "", "1.0"] {
        api.get(&format!("/models/order?version={bad}")).expect_problem(400, "bad-request");
    }
}

#[test]
fn preconditions() {
    let server = Server::start();
    let api = server.client();
    create_orders(&api, "order");
    let tag = api.get("/models/order").expect(200).header("etag").expect("a tag").to_owned();
    let put = |name: &str, value: &str, schema: Value| {
        api.request("PUT", "/models/order").header(name, value).json(&json!({"schema": schema})).send()
    };
    put("If-Match", "\"999\"", json!({"type": "object"})).expect_problem(412, "precondition-failed");
    put("If-Match", "999", json!({"type": "object"})).expect_problem(400, "bad-request");
    put("If-Match", &tag, json!({"type": "object"})).expect(200);
    put("If-Match", &tag, json!({"type": "object", "title": "x"})).expect_problem(412, "precondition-failed");
    put("If-Match", "*", json!({"type": "object", "title": "x"})).expect(200);
    let delete = |value: &str| api.request("DELETE", "/models/order").header("If-Match", value).send();
    delete(&tag).expect_problem(412, "precondition-failed");
    delete("*").expect(204);
}

#[test]
fn renames_and_defaults_carry_instances_over() {
    let server = Server::start();
    let api = server.client();
    create_orders(&api, "order");
    api.post("/models/order/instances", &json!({"id": "a", "data": {"name": "x", "total": 1.50}})).expect(201);
    let mut schema = order_schema();
    let properties = schema["properties"].as_object_mut().expect("an object");
    let name = properties.remove("name").expect("there");
    properties.insert("title".into(), name);
    properties.insert("note".into(), json!({"type": "string", "default": "none"}));
    schema["required"] = json!(["title"]);
    api.put("/models/order", &json!({"schema": schema})).expect_problem(422, "incompatible");
    let renames = json!({"schema": schema, "renames": {"name": "title"}});
    assert_eq!(api.put("/models/order", &renames).expect(200).json()["version"], 2);
    let carried = api.get("/models/order/instances/a").expect(200).json();
    assert_eq!(carried["data"], json!({"title": "x", "total": 1.5, "status": "open", "note": "none"}));
    assert_eq!(carried["model_version"], 2);
    for bad in [json!({"name": 1}), json!({"nothing": "title"}), json!([])] {
        let answer = api.put("/models/order", &json!({"schema": schema, "renames": bad}));
        assert!(matches!(answer.status, 400 | 422), "{bad}: {}", answer.text());
    }
}

#[test]
fn incompatible_lists_the_first_twenty() {
    let server = Server::start();
    let api = server.client();
    create_orders(&api, "order");
    for number in 0..25 {
        let body = json!({"id": format!("i{number:02}"), "data": {"name": "x", "count": number}});
        api.post("/models/order/instances", &body).expect(201);
    }
    let mut schema = order_schema();
    schema["properties"]["count"] = json!({"type": "integer", "maximum": 2});
    let problem = api.put("/models/order", &json!({"schema": schema})).expect_problem(422, "incompatible");
    let rows = problem["errors"].as_array().expect("rows");
    assert_eq!(rows.len(), 20, "{problem}");
    assert!(problem.to_string().contains("i03"), "{problem}");
    assert_eq!(api.get("/models/order").expect(200).json()["version"], 1);
    schema["properties"]["count"] = json!({"type": "integer", "maximum": 24});
    api.put("/models/order", &json!({"schema": schema})).expect(200);
}

#[test]
fn delete() {
    let server = Server::start();
    let api = server.client();
    create_orders(&api, "order");
    api.post("/models/order/instances", &json!({"id": "a", "data": {"name": "x"}})).expect(201);
    api.delete("/models/order").expect_problem(409, "model-in-use");
    api.delete("/models/order?cascade=false").expect_problem(409, "model-in-use");
    api.delete("/models/order?cascade=yes").expect_problem(400, "bad-request");
    api.delete("/models/order?cascade=true").expect(204);
    api.get("/models/order").expect_problem(404, "not-found");
    api.get("/models/order/instances/a").expect_problem(404, "not-found");
    // The name is free again, and nothing of the old model is left.
    create_orders(&api, "order");
    api.get("/models/order/instances/a").expect_problem(404, "not-found");
    api.delete("/models/order").expect(204);
}

#[test]
fn preferences_and_dry_runs() {
    let server = Server::start();
    let api = server.client();
    let body = json!({"id": "order", "schema": order_schema()});
    let dry = api.post("/models?dry-run=true", &body).expect(200).json();
    assert_eq!(dry["event"]["type"], "model.created");
    assert_eq!((&dry["hooks"], &dry["post_hooks"]), (&json!([]), &json!([])));
    api.get("/models/order").expect_problem(404, "not-found");
    let minimal = api.request("POST", "/models").header("Prefer", "return=minimal").json(&body).send().expect(201);
    assert!(minimal.body.is_empty() && minimal.header("location") == Some("/models/order"));
    assert_eq!(minimal.header("preference-applied"), Some("return=minimal"));
    // No hook runs after a change of a model, so there is nothing to wait for.
    let put = api.request("PUT", "/models/order").header("Prefer", "return=minimal, wait=1");
    let minimal = put.json(&json!({"schema": order_schema()})).send().expect(204);
    assert!(minimal.body.is_empty());
    assert_eq!(minimal.header("preference-applied"), Some("return=minimal"));
    let dry = api.put("/models/order?dry-run=true", &json!({"schema": {"type": "object"}})).expect(200).json();
    assert_eq!(dry["event"]["type"], "model.updated");
    assert_eq!(dry["event"]["model_version"], 2);
    let dry = api.put("/models/order?dry-run=true", &json!({"schema": order_schema()})).expect(200).json();
    assert_eq!(dry["event"], Value::Null);
    assert_eq!(api.get("/models/order").expect(200).json()["version"], 1);
    api.post("/models?dry-run=true", &body).expect_problem(409, "exists");
    let dry = api.delete("/models/order?dry-run=true").expect(200).json();
    assert_eq!(dry["event"]["type"], "model.deleted");
    api.post("/models/order/instances", &json!({"data": {"name": "x"}})).expect(201);
    api.delete("/models/order?dry-run=true").expect_problem(409, "model-in-use");
    let dry = api.delete("/models/order?cascade=true&dry-run=true").expect(200).json();
    assert_eq!(dry["event"]["type"], "model.deleted");
    assert_eq!(api.get("/models/order/instances").expect(200).json()["items"].as_array().map(Vec::len), Some(1));
}

#[test]
fn idempotency() {
    let server = Server::start();
    let api = server.client();
    let post = |key: &str| {
        let body = json!({"id": "order", "schema": order_schema()});
        api.request("POST", "/models").header("Idempotency-Key", key).json(&body).send()
    };
    let first = post("key-1").expect(201);
    let again = post("key-1").expect(201);
    assert_eq!((&again.body, again.header("location")), (&first.body, first.header("location")));
    post("key-2").expect_problem(409, "exists");
    post("a b").expect_problem(400, "bad-request");
}

#[test]
fn models_survive_a_restart() {
    let server = Server::start();
    let api = server.client();
    create_orders(&api, "order");
    api.put("/models/order", &json!({"schema": {"type": "object"}})).expect(200);
    let models = api.get("/models").expect(200).text();
    let server = server.restart();
    assert_eq!(server.client().get("/models").expect(200).text(), models);
}
