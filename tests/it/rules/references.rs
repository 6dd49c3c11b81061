//! Rules and references: what `expand` and `referring` show, which references are permitted, and the effects of
//! deletions.

use serde_json::{Value, json};

use super::{Stage, ask, ids, note_rules, send};
use crate::workbench::grant;

fn to(model: &str, on_delete: &str) -> Value {
    json!({"type": ["string", "null"], "x-references": {"model": model, "on-delete": on_delete}})
}

/// Notes with parents; comments, locks and pins of notes, and replies to comments, which only their owner may read.
fn stage(tables: &str) -> Stage {
    let stage = Stage::start(tables);
    let (owner, text) = (json!({"type": "string"}), json!({"type": "string"}));
    let own = json!({"read": {"owner": {"eq": "$actor.id"}}, "create": {}, "update": {}, "delete": {}});
    let all = |reference: Value| json!({"owner": owner, "text": text, "of": reference});
    for (id, properties, rules) in [
        (
            "note",
            json!({"owner": owner, "public": {"type": "boolean"}, "text": text, "parent": to("note", "restrict")}),
            note_rules(),
        ),
        ("comment", all(to("note", "cascade")), own.clone()),
        ("reply", all(to("comment", "restrict")), own.clone()),
        ("lock", all(to("note", "restrict")), own.clone()),
        ("pin", all(to("note", "set-null")), own),
    ] {
        let model = json!({"id": id, "schema": {"type": "object", "properties": properties}, "rules": rules});
        send(&stage.api(), &stage.admin, "POST", "/models", &model).expect(201);
    }
    stage
}

#[track_caller]
fn make(stage: &Stage, model: &str, id: &str, data: Value) {
    let path = format!("/models/{model}/instances");
    send(&stage.api(), &stage.admin, "POST", &path, &json!({"id": id, "data": data})).expect(201);
}

#[test]
fn what_is_hidden_is_neither_expanded_nor_listed_as_referring() {
    let stage = stage("");
    let api = stage.api();
    make(&stage, "note", "hidden", json!({"owner": "alice", "text": "secret"}));
    make(&stage, "note", "shown", json!({"owner": "alice", "public": true, "parent": "hidden"}));
    make(&stage, "comment", "b1", json!({"owner": "bob", "of": "shown"}));
    make(&stage, "comment", "b2", json!({"owner": "bob", "of": "hidden"}));
    make(&stage, "comment", "a1", json!({"owner": "alice", "of": "shown", "text": "secret"}));
    let comments = "/models/comment/instances";
    let page = ask(&api, &stage.bob, "GET", &format!("{comments}?expand=of.parent&sort=$id&count=true")).expect(200);
    assert!(!page.text().contains("secret"), "{}", page.text());
    let page = page.json();
    let of = |at: usize| &page["items"][at]["expand"]["of"];
    assert_eq!((&page["count"], &of(0)["id"], of(1)), (&json!(2), &json!("shown"), &Value::Null), "{page}");
    assert_eq!(of(0)["expand"], json!({"parent": null}), "{page}");
    // The tag does not reveal changes of the hidden record.
    let one = format!("{comments}/b2?expand=of");
    let seen = |token: &str| ask(&api, token, "GET", &one).expect(200).header("etag").map(str::to_owned);
    let (bobs, admins) = (seen(&stage.bob), seen(&stage.admin));
    let change = json!({"data": {"owner": "alice", "text": "secret 2"}});
    send(&api, &stage.alice, "PUT", "/models/note/instances/hidden", &change).expect(200);
    assert_eq!(seen(&stage.bob), bobs);
    assert_ne!(seen(&stage.admin), admins);
    // A caller from whom nothing is hidden sees everything.
    let page = ask(&api, &stage.admin, "GET", &format!("{comments}?expand=of.parent&sort=$id")).expect(200).json();
    assert_eq!(page["items"][1]["expand"]["of"]["expand"]["parent"]["data"]["text"], "secret 2", "{page}");
    let referring = |note: &str| format!("/models/note/instances/{note}/referring/comment?count=true&sort=$id");
    let page = ask(&api, &stage.bob, "GET", &referring("shown")).expect(200).json();
    assert_eq!((&page["items"][0]["id"], &page["count"]), (&json!("b1"), &json!(1)), "{page}");
    assert_eq!(ids(&api, &stage.admin, &referring("shown")), ["a1", "b1"]);
    let problem = |note: &str| {
        let mut problem = ask(&api, &stage.bob, "GET", &referring(note)).expect_problem(404, "not-found");
        problem.as_object_mut().expect("an object").remove("request_id");
        problem.to_string().replace(note, "ID")
    };
    assert_eq!(problem("hidden"), problem("nothing"));
}

/// A new reference to a hidden record is rejected like one to a nonexistent record, on every route; an existing one may
/// stay.
#[test]
fn nobody_begins_to_refer_to_what_is_hidden() {
    let stage = stage("");
    let api = stage.api();
    make(&stage, "note", "hidden", json!({"owner": "alice"}));
    make(&stage, "pin", "own", json!({"owner": "bob", "of": "hidden"}));
    let pins = "/models/pin/instances";
    let problem = |method: &str, path: &str, body: Value, id: &str| {
        let body: Value = serde_json::from_str(&body.to_string().replace("ID", id)).expect("JSON");
        let mut problem = send(&api, &stage.bob, method, path, &body).expect_problem(422, "invalid");
        problem.as_object_mut().expect("an object").remove("request_id");
        problem.to_string().replace(id, "ID")
    };
    let data = json!({"owner": "bob", "of": "ID"});
    let create = json!({"operations": [{"op": "create", "model": "pin", "data": data}]});
    for (method, path, body) in [
        ("POST", pins.to_owned(), json!({"data": data})),
        ("POST", format!("{pins}?dry-run=true"), json!({"data": data})),
        ("POST", "/batch".to_owned(), create),
        ("PATCH", "/models/note/instances/mine".to_owned(), json!({"parent": "ID"})),
    ] {
        if path.ends_with("mine") {
            make(&stage, "note", "mine", json!({"owner": "bob"}));
        }
        assert_eq!(
            problem(method, &path, body.clone(), "hidden"),
            problem(method, &path, body, "nothing"),
            "{method} {path}"
        );
    }
    send(&api, &stage.bob, "PATCH", &format!("{pins}/own"), &json!({"text": "x"})).expect(200);
    send(&api, &stage.alice, "POST", pins, &json!({"data": {"owner": "alice", "of": "hidden"}})).expect(201);
    // References to records that an earlier operation created are permitted if the caller may read them.
    let batch = |owner: &str| {
        json!({"operations": [
            {"op": "create", "model": "note", "id": "new", "data": {"owner": owner}},
            {"op": "create", "model": "pin", "data": {"owner": "bob", "of": "new"}},
        ]})
    };
    send(&api, &stage.bob, "POST", "/batch", &batch("bob")).expect(200);
    let lines = ["hidden", "new"].map(|of| json!({"data": {"owner": "bob", "of": of}}).to_string()).join("\n");
    let request = api.request("POST", "/models/pin/import").header("Authorization", &format!("Bearer {}", stage.bob));
    let answer = request.body("application/x-ndjson", lines).send().expect(200).json();
    assert_eq!((&answer["created"], &answer["errors"][0]["type"]), (&json!(1), &json!("invalid")), "{answer}");
}

/// References that a pre hook sets are not subject to the client's rules.
#[test]
fn a_pre_hook_may_refer_to_what_is_hidden() {
    let stage = stage(&grant("pin", "*", "amend = true"));
    let api = stage.api();
    make(&stage, "note", "hidden", json!({"owner": "alice"}));
    let source = "export function preCreate({ after }) { return { ...after, of: 'hidden' }; }";
    let chain = json!({"chain": [{"engine": "quickjs", "source": source}]});
    send(&api, &stage.admin, "PUT", "/models/pin/hooks/preCreate", &chain).expect(200);
    let made = send(&api, &stage.bob, "POST", "/models/pin/instances", &json!({"data": {"owner": "bob"}})).expect(201);
    assert_eq!(made.json()["data"]["of"], "hidden");
    send(&api, &stage.bob, "POST", "/models/pin/instances", &json!({"data": {"owner": "bob", "of": "hidden"}}))
        .expect(422);
}

/// The server itself applies the consequences of a deletion, and the client learns only about those that it may read.
#[test]
fn what_follows_from_a_deletion_needs_no_rule() {
    let stage = stage("");
    let api = stage.api();
    make(&stage, "note", "n", json!({"owner": "bob"}));
    make(&stage, "comment", "mine", json!({"owner": "bob", "of": "n"}));
    for number in 0..3 {
        make(&stage, "comment", &format!("foreign{number}"), json!({"owner": "alice", "of": "n"}));
    }
    make(&stage, "pin", "foreign", json!({"owner": "alice", "of": "n"}));
    let path = "/models/note/instances/n";
    let trial =
        |token: &str| ask(&api, token, "DELETE", &format!("{path}?dry-run=true")).expect(200).json()["follows"].clone();
    assert_eq!(trial(&stage.bob), json!([{"model": "comment", "deleted": 1, "updated": 0}]));
    let all = [("comment", 4, 0), ("pin", 0, 1)];
    let all = all.map(|(model, deleted, updated)| json!({"model": model, "deleted": deleted, "updated": updated}));
    assert_eq!(trial(&stage.admin), json!(all));
    ask(&api, &stage.alice, "DELETE", path).expect_problem(404, "not-found");
    ask(&api, &stage.bob, "DELETE", path).expect(204);
    assert_eq!(ids(&api, &stage.admin, "/models/comment/instances"), Vec::<String>::new());
    let pin = ask(&api, &stage.alice, "GET", "/models/pin/instances/foreign").expect(200).json();
    assert_eq!(pin["data"], json!({"owner": "alice", "of": null}));
    let events = ask(&api, &stage.alice, "GET", "/models/pin/instances/foreign/events").expect(200).json();
    assert_eq!(
        (&events["items"][1]["actor"]["id"], &events["items"][1]["cause"]["hook"]),
        (&json!("bob"), &json!("note.on-delete/set-null"))
    );
    ask(&api, &stage.bob, "GET", "/models/pin/instances/foreign/events").expect(404);
}

/// Records that prevent a deletion are not named to callers who may not read them.
#[test]
fn what_is_in_the_way_of_a_deletion_is_not_told() {
    let stage = stage("");
    let api = stage.api();
    for id in ["locked", "deep", "hooked"] {
        make(&stage, "note", id, json!({"owner": "bob"}));
    }
    make(&stage, "lock", "tellme1", json!({"owner": "alice", "of": "locked", "text": "tellme"}));
    make(&stage, "comment", "tellme2", json!({"owner": "alice", "of": "deep"}));
    make(&stage, "reply", "tellme3", json!({"owner": "alice", "of": "tellme2"}));
    make(&stage, "comment", "tellme4", json!({"owner": "alice", "of": "hooked", "text": "tellme"}));
    let source = "export function preDelete({ before }) { throw new Reject(`is ${before.text}`); }";
    let chain = json!({"chain": [{"engine": "quickjs", "source": source}]});
    for (id, status) in [("locked", 409), ("deep", 409), ("hooked", 422)] {
        if id == "hooked" {
            send(&api, &stage.admin, "PUT", "/models/comment/hooks/preDelete", &chain).expect(200);
        }
        let one = format!("/models/note/instances/{id}");
        let batch = json!({"operations": [{"op": "delete", "model": "note", "id": id}]});
        for (method, path) in
            [("DELETE", one.clone()), ("DELETE", format!("{one}?dry-run=true")), ("POST", "/batch".into())]
        {
            let answer = match method {
                "POST" => send(&api, &stage.bob, method, &path, &batch),
                _ => ask(&api, &stage.bob, method, &path),
            };
            let expected = if id == "hooked" && path.ends_with("true") { 200 } else { status };
            assert_eq!(answer.status, expected, "{id} {path}: {}", answer.text());
            assert!(!answer.text().contains("tellme"), "{id} {path}: {}", answer.text());
            let told = match method {
                "POST" => send(&api, &stage.admin, method, &path, &batch),
                _ => ask(&api, &stage.admin, method, &path),
            };
            assert_eq!(told.status, expected, "{}", told.text());
            assert!(id == "locked" || told.text().contains("tellme"), "{id} {path}: {}", told.text());
        }
    }
}
