//! How rules are defined, stored, shown and rejected.

use serde_json::{Value, json};

use super::{Stage, ask, note_rules, note_schema, send};

#[test]
fn rules_stay_until_they_are_removed() {
    let stage = Stage::with_notes();
    let api = stage.api();
    let admin = &stage.admin;
    let rules = || ask(&api, admin, "GET", "/models/note").expect(200).json()["rules"].clone();
    assert_eq!(rules(), note_rules());
    let listed = ask(&api, admin, "GET", "/models").expect(200).json();
    assert_eq!(listed["items"][0]["rules"], note_rules());
    // A definition without rules keeps the existing ones.
    let mut body = json!({"schema": note_schema(), "unique": [["slug"]]});
    let version = send(&api, admin, "PUT", "/models/note", &body).expect(200).json()["version"].clone();
    assert_eq!((version, rules()), (json!(1), note_rules()), "it is the same definition");
    body["rules"] = json!({"read": {}});
    let version = send(&api, admin, "PUT", "/models/note", &body).expect(200).json()["version"].clone();
    assert_eq!((version, rules()), (json!(2), json!({"read": {}})));
    let old = ask(&api, admin, "GET", "/models/note?version=1").expect(200).json();
    assert_eq!(old["rules"], note_rules());
    // Rules are restored from the log.
    let server = stage.server.restart();
    let api = server.client();
    let again = ask(&api, admin, "GET", "/models/note").expect(200).json();
    assert_eq!(again["rules"], json!({"read": {}}));
    send(&api, &stage.bob, "POST", "/models/note/instances", &json!({"data": {"owner": "bob"}})).expect(403);
    body["rules"] = Value::Null;
    let model = send(&api, admin, "PUT", "/models/note", &body).expect(200).json();
    assert!(model.get("rules").is_none(), "{model}");
    send(&api, &stage.bob, "POST", "/models/note/instances", &json!({"data": {"owner": "bob"}})).expect(201);
}

#[test]
fn what_rules_cannot_say() {
    let stage = Stage::start("");
    let api = stage.api();
    let schema = json!({"type": "object", "properties": {
        "a": {"type": "string"}, "n": {"type": ["number", "null"]}, "ok": {"type": "boolean"}, "any": {},
        "tags": {"type": "array"}, "map": {"type": "object", "properties": {"x": {"type": "string"}}},
        "or": {"type": "integer"}, "$odd": {"type": "string"},
    }});
    let deep = |depth: usize| (0..depth).fold(json!({"a": {"eq": "x"}}), |inner, _| json!({"not": inner}));
    let many = |count: usize, condition: Value| json!({"and": vec![condition; count]});
    let rows: Vec<(Value, &str, &str)> = vec![
        (json!([]), "/rules", "is an array"),
        (json!({"write": {}}), "/rules/write", "expected one of read, create, update, delete"),
        (json!({"read": null}), "/rules/read", "expected an object of paths"),
        (json!({"read": {"b": {"eq": 1}}}), "/rules/read/b", "no property `b`"),
        (json!({"read": {"map.y": {"eq": 1}}}), "/rules/read/map.y", "no property `map.y`"),
        (json!({"read": {"$actr.id": {"eq": 1}}}), "/rules/read/$actr.id", "not a field of an instance"),
        (json!({"read": {"a": "x"}}), "/rules/read/a", "expected an object of operators"),
        (json!({"read": {"a": {}}}), "/rules/read/a", "the operator is missing"),
        (json!({"read": {"$actor.id": {}}}), "/rules/read/$actor.id", "the operator is missing"),
        (json!({"read": {"path": "a"}}), "/rules/read", "the operator is missing"),
        (json!({"read": {"a": {"is": "x"}}}), "/rules/read/a/is", "`is` is not an operator"),
        (json!({"read": {"a": {"eq": 1}}}), "/rules/read/a/eq", "is a number, but the property is string"),
        (json!({"read": {"a": {"eq": null}}}), "/rules/read/a/eq", "expected a string, number or boolean"),
        (json!({"read": {"a": {"in": "x"}}}), "/rules/read/a/in", "expected a list or a claim"),
        (json!({"read": {"a": {"in": ["x", 1]}}}), "/rules/read/a/in/1", "is a number"),
        (json!({"read": {"n": {"like": "x"}}}), "/rules/read/n/like", "of type string"),
        (json!({"read": {"a": {"like": "$actor.id"}}}), "/rules/read/a/like", "must be a constant"),
        (json!({"read": {"a": {"has": "x"}}}), "/rules/read/a/has", "of type array"),
        (json!({"read": {"tags": {"eq": "x"}}}), "/rules/read/tags/eq", "supports only `has` and `exists`"),
        (json!({"read": {"a": {"exists": "yes"}}}), "/rules/read/a/exists", "expected true or false"),
        (json!({"read": {"a": {"eq": "$actor"}}}), "/rules/read/a/eq", "is not a valid value in a rule"),
        (json!({"read": {"a": {"eq": "$actor.name"}}}), "/rules/read/a/eq", "an actor has no `name`"),
        (json!({"read": {"a": {"eq": "$actor.claims."}}}), "/rules/read/a/eq", "0 bytes"),
        (json!({"read": {"n": {"eq": "$actor.id"}}}), "/rules/read/n/eq", "of type string"),
        (json!({"read": {"ok": {"lt": "$now"}}}), "/rules/read/ok/lt", "of type string"),
        (json!({"read": {"$created_at": {"lt": "soon"}}}), "/rules/read/$created_at/lt", "is not a time"),
        (
            json!({"read": {"$created_at": {"lt": "$actor.id"}}}),
            "/rules/read/$created_at/lt",
            "a time cannot be compared",
        ),
        (json!({"read": {"map": {"eq": "$actor.claims.x"}}}), "/rules/read/map/eq", "supports only `exists`"),
        (json!({"read": {"a": {"eq": "$before.a"}}}), "/rules/read/a/eq", "is not a valid value in a rule"),
        (
            json!({"read": {"not": {"tags": {"has": "$actor.claims.x"}}}}),
            "/rules/read/not/tags/has",
            "cannot be used under `not`",
        ),
        (json!({"read": {"or": {"eq": 1}}}), "/rules/read/or", "expected an array of filters"),
        (json!({"read": {"or": [1]}}), "/rules/read/or/0", "expected an object of paths"),
        (
            json!({"read": {"$actor.claims.x": {"exists": true}}}),
            "/rules/read/$actor.claims.x/exists",
            "does not apply to the caller",
        ),
        (
            json!({"read": {"$actor.id": {"eq": "$actor.claims.x"}}}),
            "/rules/read/$actor.id/eq",
            "only be compared with constants",
        ),
        (json!({"read": {"$actor.id": {"in": ["a", 1]}}}), "/rules/read/$actor.id/in", "several types"),
        (json!({"create": {"a": {"eq": "x"}}}), "/rules/create/a", "must begin with `after.`"),
        (json!({"create": {"before.a": {"eq": "x"}}}), "/rules/create/before.a", "must begin with `after.`"),
        (json!({"delete": {"after.a": {"eq": "x"}}}), "/rules/delete/after.a", "must begin with `before.`"),
        (json!({"update": {"a": {"eq": "x"}}}), "/rules/update/a", "must begin with `before.` or `after.`"),
        (json!({"update": {"after.$revision": {"eq": 1}}}), "/rules/update/after.$revision", "is not known"),
        (json!({"update": {"after.a": {"eq": "$before.b"}}}), "/rules/update/after.a/eq", "no property `b`"),
        (json!({"read": deep(6)}), "/rules/read/not/not/not/not/not/not", "at most 5 levels"),
        (json!({"read": many(161, json!({"a": {"eq": "x"}}))}), "/rules/read", "weighs 161"),
        (json!({"read": many(41, json!({"a": {"eq": "$actor.id"}}))}), "/rules/read", "weighs 164"),
        (json!({"read": {"a": {"in": vec!["x"; 201]}}}), "/rules/read/a/in", "201 values"),
        (json!({"read": {"a": {"eq": "x".repeat(33_000)}}}), "/rules", "at most 32768"),
    ];
    for (rules, pointer, message) in rows {
        let body = json!({"id": "m", "schema": schema, "rules": rules});
        let answer = send(&api, &stage.admin, "POST", "/models", &body);
        assert_eq!(answer.status, 422, "{rules}: {}", answer.text());
        let problem = answer.expect_problem(422, "invalid");
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{problem}");
        assert!(problem["errors"][0]["message"].to_string().contains(message), "{message}: {problem}");
    }
    let good = json!({
        "read": {"path": "or", "gte": 1},
        "create": {"after.$$odd": {"eq": "$$x"}, "after.any": {"eq": "$actor.claims.a.b"}},
        "update": {"and": [{"not": {"before.tags": {"has": "$actor.id"}}}, deep_update()], "after.n": {"ne": "$before.n"}},
    });
    let body = json!({"id": "m", "schema": schema, "rules": good});
    let made = send(&api, &stage.admin, "POST", "/models", &body).expect(201).json();
    assert_eq!(made["rules"], good);
}

fn deep_update() -> Value {
    json!({"or": [{"before.$created_at": {"lte": "$now"}}, {"before.map.x": {"in": ["$actor.id", "$after.a", "y"]}}]})
}

/// Rules that stay must not use properties that the new schema lacks.
#[test]
fn rules_that_stay_fit_the_new_schema() {
    let stage = Stage::with_notes();
    let api = stage.api();
    let mut schema = note_schema();
    schema["properties"].as_object_mut().expect("properties").remove("public");
    let body = json!({"schema": schema, "unique": [["slug"]]});
    let problem = send(&api, &stage.admin, "PUT", "/models/note", &body).expect_problem(422, "invalid");
    assert_eq!(problem["errors"][0]["pointer"], "/rules/read/or/0/public", "{problem}");
    assert!(problem["detail"].to_string().contains("the model keeps its rules"), "{problem}");
}

/// In open mode every caller is anonymous, and the rules still apply.
#[test]
fn rules_count_in_open_mode() {
    let server = crate::support::Server::start();
    let api = server.client();
    let rules =
        json!({"read": {"owner": {"eq": "$actor.id"}}, "create": {}, "delete": {"$actor.kind": {"eq": "anonymous"}}});
    let schema = json!({"type": "object", "properties": {"owner": {"type": "string"}}});
    api.post("/models", &json!({"id": "m", "schema": schema, "rules": rules})).expect(201);
    for (id, owner) in [("a", "anonymous"), ("b", "alice")] {
        api.post("/models/m/instances", &json!({"id": id, "data": {"owner": owner}})).expect(201);
    }
    api.get("/models/m/instances/a").expect(200);
    api.get("/models/m/instances/b").expect_problem(404, "not-found");
    assert_eq!(crate::support::list(&api, "m").len(), 1);
    api.patch("/models/m/instances/a", &json!({"owner": "x"})).expect_problem(403, "forbidden");
    api.delete("/models/m/instances/b").expect_problem(404, "not-found");
    api.delete("/models/m/instances/a").expect(204);
}
