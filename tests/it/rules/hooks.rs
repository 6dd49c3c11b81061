//! Hooks read and write with the server's permissions, or with the actor's.

use serde_json::{Value, json};

use super::{Stage, ask, notes, put, send};
use crate::support::eventually;
use crate::workbench::grant;

/// Stores in the record `{name}-{id}` of `seen` what it read and how its writes ended.
fn source(name: &str, write: bool) -> String {
    let writes = "
        for (const owner of [\"alice\", \"bob\"]) {
            try { await write.create(\"note\", { owner }, { id: `NAME-${owner}` }); done.push(owner); }
            catch (error) { done.push(error.code); }
        }
        try { await write.update(\"note\", \"bobs\", { owner: \"bob\", text: \"NAME\" }); done.push(\"updated\"); }
        catch (error) { done.push(error.code); }";
    format!(
        "export async function postCreate({{ actor, read, write, event }}) {{
            const page = await read.query(\"note\", {{ sort: \"$id\" }});
            const one = await read.get(\"note\", \"bobs\");
            const past = await read.event(FIRST);
            const done = [];
            {}
            await write.create(\"seen\", {{ actor, ids: page.items.map((item) => item.id), one: one !== null, past: past !== null, done }}, {{ id: \"NAME\" }});
        }}",
        if write { writes } else { "" }
    )
    .replace("NAME", name)
}

#[test]
fn a_hook_has_the_right_that_its_binding_says() {
    let tables = grant("job", "*", "read = ['note']\nwrite = ['seen', 'note']");
    let stage = Stage::start(&tables);
    let api = stage.api();
    let admin = &stage.admin;
    send(&api, admin, "POST", "/models", &notes()).expect(201);
    for id in ["job", "seen"] {
        send(&api, admin, "POST", "/models", &json!({"id": id, "schema": {"type": "object"}})).expect(201);
    }
    put(&stage, "alices", json!({"owner": "alice"}));
    put(&stage, "bobs", json!({"owner": "bob"}));
    let bobs = ask(&api, admin, "GET", "/models/note/instances/bobs").expect(200).json()["position"].to_string();
    let hook = |name: &str, acts_as: Value| {
        let mut hook = json!({"name": name, "engine": "quickjs", "source": source(name, true).replace("FIRST", &bobs)});
        if !acts_as.is_null() {
            hook["as"] = acts_as;
        }
        hook
    };
    let chain = json!({"chain": [hook("mine", json!("actor")), hook("servers", Value::Null)]});
    let bound = send(&api, admin, "PUT", "/models/job/hooks/postCreate", &chain).expect(200).json();
    assert_eq!((&bound[0]["as"], bound[1].get("as")), (&json!("actor"), None), "{bound}");
    let shown = ask(&api, admin, "GET", "/models/job/hooks").expect(200).json();
    assert_eq!(shown["postCreate"][0]["as"], "actor", "{shown}");
    send(&api, &stage.alice, "POST", "/models/job/instances", &json!({"data": {}})).expect(201);
    let seen = |name: &str| {
        eventually("the hook ran", || {
            let answer = ask(&api, admin, "GET", &format!("/models/seen/instances/{name}"));
            (answer.status == 200).then(|| answer.json()["data"].clone())
        })
    };
    let mine = seen("mine");
    assert_eq!(mine["actor"], json!({"id": "alice", "kind": "token"}));
    assert_eq!(
        (&mine["ids"], &mine["one"], &mine["past"], &mine["done"]),
        (&json!(["alices"]), &json!(false), &json!(false), &json!(["alice", "denied", "not-found"])),
        "{mine}"
    );
    let servers = seen("servers");
    assert_eq!(
        (&servers["ids"], &servers["one"], &servers["past"], &servers["done"]),
        (&json!(["alices", "bobs", "mine-alice"]), &json!(true), &json!(true), &json!(["alice", "bob", "updated"])),
        "{servers}"
    );
    // The actor of the write is the hook, whichever permissions it used.
    let note = ask(&api, admin, "GET", "/events?model=note&instance=mine-alice").expect(200).json();
    assert_eq!(note["items"][0]["actor"], json!({"id": "job.postCreate/mine", "kind": "hook"}), "{note}");
}

/// The same for a pre hook, including the results of earlier changes in its batch.
#[test]
fn a_pre_hook_reads_with_the_right_of_the_actor() {
    let stage = Stage::start(&grant("job", "*", "read = ['note']\namend = true"));
    let api = stage.api();
    let admin = &stage.admin;
    send(&api, admin, "POST", "/models", &notes()).expect(201);
    send(&api, admin, "POST", "/models", &json!({"id": "job", "schema": {"type": "object"}})).expect(201);
    put(&stage, "alices", json!({"owner": "alice"}));
    put(&stage, "bobs", json!({"owner": "bob"}));
    let source = "export async function preCreate({ read }) {
        const page = await read.query('note', { sort: '$id' });
        return { ids: page.items.map((item) => item.id), one: await read.get('note', 'new') !== null };
    }";
    let bind =
        |hook: Value| send(&api, admin, "PUT", "/models/job/hooks/preCreate", &json!({"chain": [hook]})).expect(200);
    let batch = json!({"operations": [
        {"op": "create", "model": "note", "id": "new", "data": {"owner": "alice"}},
        {"op": "create", "model": "job", "id": "job", "data": {}},
    ]});
    let amended = |token: &str| {
        let answer = send(&api, token, "POST", "/batch?dry-run=true", &batch).expect(200).json();
        answer["operations"][1]["event"]["data"].clone()
    };
    bind(json!({"engine": "quickjs", "source": source, "as": "actor"}));
    assert_eq!(amended(&stage.alice), json!({"ids": ["alices", "new"], "one": true}));
    bind(json!({"engine": "quickjs", "source": source}));
    assert_eq!(amended(&stage.alice), json!({"ids": ["alices", "bobs", "new"], "one": true}));
}
