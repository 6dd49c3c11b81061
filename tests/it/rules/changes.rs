//! Changes that rules permit and deny.

use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use super::{Stage, ask, put, send};
use crate::support::at_once;

const NOTES: &str = "/models/note/instances";

#[test]
fn what_owners_may_do_and_others_may_not() {
    let stage = Stage::with_notes();
    put(&stage, "open", json!({"owner": "alice", "public": true}));
    put(&stage, "own", json!({"owner": "alice", "public": false}));
    let api = stage.api();
    let (alice, bob, reader, admin) = (&stage.alice, &stage.bob, &stage.reader, &stage.admin);
    let data = |owner: &str| json!({"data": {"owner": owner, "public": true}});
    let new = |id: &str, owner: &str| json!({"id": id, "data": {"owner": owner}});
    let (open, own) = ("/models/note/instances/open", "/models/note/instances/own");
    let batch = |operation: Value| json!({"operations": [{"op": "create", "model": "note", "id": "batched", "data": {"owner": "bob"}}, operation]});
    let rows: Vec<(&str, &String, &str, &str, Value, u16)> = vec![
        ("a record of one's own", alice, "POST", NOTES, new("a", "alice"), 201),
        ("a record of somebody else", bob, "POST", NOTES, new("b", "alice"), 403),
        ("the same only tried", bob, "POST", "/models/note/instances?dry-run=true", new("b", "alice"), 403),
        ("a reader", reader, "POST", NOTES, new("c", "rita"), 403),
        ("an admin", admin, "POST", NOTES, new("d", "nobody"), 201),
        ("an update", alice, "PUT", open, data("alice"), 200),
        ("an update by somebody else", bob, "PUT", open, data("alice"), 403),
        ("a patch by somebody else", bob, "PATCH", open, json!({"text": "x"}), 403),
        ("the owner given away", alice, "PATCH", open, json!({"owner": "bob"}), 403),
        ("the owner taken", bob, "PATCH", open, json!({"owner": "bob"}), 403),
        ("what cannot be read", bob, "PATCH", own, json!({"text": "x"}), 404),
        ("what cannot be read, deleted", bob, "DELETE", own, json!(null), 404),
        ("a deletion by somebody else", bob, "DELETE", open, json!(null), 403),
        ("data that does not fit and is not allowed", bob, "POST", NOTES, json!({"data": {"score": 1}}), 422),
        (
            "a batch with one change that is not allowed",
            bob,
            "POST",
            "/batch",
            batch(json!({"op": "patch", "model": "note", "id": "open", "data": {"text": "x"}})),
            403,
        ),
        (
            "a batch with what cannot be read",
            bob,
            "POST",
            "/batch",
            batch(json!({"op": "delete", "model": "note", "id": "own"})),
            404,
        ),
        ("nothing of a batch that failed is there", bob, "GET", "/models/note/instances/batched", json!(null), 404),
        (
            "a batch that sees its own changes",
            bob,
            "POST",
            "/batch",
            batch(json!({"op": "patch", "model": "note", "id": "batched", "data": {"text": "x"}})),
            200,
        ),
        ("one's own", alice, "DELETE", own, json!(null), 204),
    ];
    for (what, token, method, path, body, status) in rows {
        let answer = match body {
            Value::Null => ask(&api, token, method, path),
            body => send(&api, token, method, path, &body),
        };
        assert_eq!(answer.status, status, "{what}: {}", answer.text());
        if status == 403 && *token != *reader {
            let detail = answer.expect_problem(403, "forbidden")["detail"].to_string();
            assert!(detail.contains("of the model `note` does not allow this"), "{what}: {detail}");
        }
    }
}

#[test]
fn lines_of_an_import_are_changes_like_others() {
    let stage = Stage::with_notes();
    put(&stage, "hidden", json!({"owner": "alice"}));
    put(&stage, "shown", json!({"owner": "alice", "public": true}));
    let lines: Vec<String> =
        [("mine", "bob"), ("foreign", "alice"), ("shown", "bob"), ("hidden", "bob"), ("mine", "bob")]
            .iter()
            .map(|(id, owner)| json!({"id": id, "data": {"owner": owner, "text": "new"}}).to_string())
            .collect();
    let api = stage.api();
    let request = api.request("POST", "/models/note/import?upsert=true");
    let request = request.header("Authorization", &format!("Bearer {}", stage.bob));
    let answer = request.body("application/x-ndjson", lines.join("\n")).send().expect(200).json();
    assert_eq!(
        (&answer["created"], &answer["updated"], &answer["failed"]),
        (&json!(1), &json!(1), &json!(3)),
        "{answer}"
    );
    let errors: Vec<_> =
        answer["errors"].as_array().expect("errors").iter().map(|e| (&e["line"], &e["type"])).collect();
    let expected = [(2, "forbidden"), (3, "forbidden"), (4, "exists")].map(|(line, kind)| (json!(line), json!(kind)));
    assert_eq!(errors, expected.iter().map(|(line, kind)| (line, kind)).collect::<Vec<_>>(), "{answer}");
    let hidden = ask(&api, &stage.admin, "GET", "/models/note/instances/hidden").expect(200).json();
    assert_eq!(hidden["data"], json!({"owner": "alice"}));
}

/// Another client may change a record while it is open, and the owner keeps opening and closing it. Every accepted
/// change must have been made to an open record.
#[test]
fn no_race_lets_a_change_through() {
    let stage = Stage::start("");
    let api = stage.api();
    let model = json!({
        "id": "door",
        "schema": {"type": "object", "properties": {"open": {"type": "boolean"}, "by": {"type": "string"}}},
        "rules": {
            "read": {},
            "update": {"or": [
                {"before.by": {"ne": "nobody"}, "before.open": {"eq": true}, "after.by": {"eq": "$actor.id"}},
                {"after.by": {"eq": "owner"}},
            ]},
        },
    });
    send(&api, &stage.admin, "POST", "/models", &model).expect(201);
    let door = "/models/door/instances/a";
    let body = json!({"id": "a", "data": {"open": true, "by": "owner"}});
    send(&api, &stage.admin, "POST", "/models/door/instances", &body).expect(201);
    let ended = AtomicBool::new(false);
    let counts = at_once(&stage.server, 3, |number, api| {
        let mut done = [0_u32; 2];
        if number == 0 {
            for round in 0..150 {
                let data = json!({"data": {"open": round % 2 == 1, "by": "owner"}});
                let answer = send(api, &stage.alice, "PUT", door, &data);
                assert!(matches!(answer.status, 200 | 409), "{}", answer.text());
            }
            ended.store(true, Ordering::Relaxed);
            return done;
        }
        while !ended.load(Ordering::Relaxed) {
            let answer = send(api, &stage.bob, "PATCH", door, &json!({"by": "bob"}));
            match answer.status {
                200 => done[0] += 1,
                403 => done[1] += 1,
                409 => {}
                _ => panic!("{}", answer.text()),
            }
        }
        done
    });
    let written: u32 = counts.iter().map(|done| done[0]).sum();
    let events = ask(&api, &stage.admin, "GET", "/events?model=door&instance=a&limit=1000").expect(200).json();
    let events = events["items"].as_array().expect("items");
    let mut by_bob = 0;
    for pair in events.windows(2) {
        if pair[1]["actor"]["id"] == "bob" {
            by_bob += 1;
            assert_eq!(pair[0]["data"]["open"], true, "{} after {}", pair[1], pair[0]);
        }
    }
    assert!(
        by_bob <= written as usize && (events.len() == 1000 || by_bob == written as usize),
        "{by_bob} of {written}"
    );
}

#[test]
fn an_idempotency_key_is_of_its_actor() {
    let stage = Stage::with_notes();
    let api = stage.api();
    let create = |token: &str| {
        let request = api.request("POST", NOTES).header("Authorization", &format!("Bearer {token}"));
        request.header("Idempotency-Key", "k").json(&json!({"id": "a", "data": {"owner": "alice"}})).send()
    };
    create(&stage.alice).expect(201);
    create(&stage.alice).expect(201);
    create(&stage.bob).expect_problem(422, "idempotency-key-reused");
}
