//! Rules of models: what they hide and forbid, on every path to a record.

mod agreement;
mod changes;
mod definitions;
mod hidden;
mod hooks;
mod leaks;
mod references;
mod unknown;

use serde_json::{Value, json};

use crate::support::{Client, Response, Server, ServerOptions};

/// A server with tokens: an admin's, and those of two writers and a reader, which differ only in the rules that apply.
struct Stage {
    server: Server,
    admin: String,
    alice: String,
    bob: String,
    reader: String,
}

impl Stage {
    fn start(tables: &str) -> Stage {
        let server = Server::start_with(ServerOptions {
            auth: "mode = 'tokens'",
            hooks: "max-attempts = 1".to_owned(),
            tables: tables.to_owned(),
            ..ServerOptions::default()
        });
        let admin = std::fs::read_to_string(server.directory().join("data/admin.token")).expect("the first token");
        let admin = admin.trim().to_owned();
        let api = server.client();
        let make = |name: &str, role: &str| {
            let made = send(&api, &admin, "POST", "/tokens", &json!({"name": name, "role": role})).expect(201);
            made.json()["token"].as_str().expect("a token").to_owned()
        };
        let [alice, bob, reader] =
            [("alice", "writer"), ("bob", "writer"), ("rita", "reader")].map(|(a, b)| make(a, b));
        Stage { server, admin, alice, bob, reader }
    }

    /// With the model `note`, whose records are visible to their owner, and to everybody if public.
    fn with_notes() -> Stage {
        let stage = Stage::start("");
        send(&stage.server.client(), &stage.admin, "POST", "/models", &notes()).expect(201);
        stage
    }

    fn api(&self) -> Client {
        self.server.client()
    }
}

fn notes() -> Value {
    json!({"id": "note", "schema": note_schema(), "unique": [["slug"]], "rules": note_rules()})
}

fn note_schema() -> Value {
    json!({"type": "object", "properties": {
        "owner": {"type": "string"}, "public": {"type": "boolean"}, "text": {"type": "string"},
        "score": {"type": "number"}, "slug": {"type": "string"},
    }, "required": ["owner"], "additionalProperties": false})
}

fn note_rules() -> Value {
    json!({
        "read": {"or": [{"public": {"eq": true}}, {"owner": {"eq": "$actor.id"}}]},
        "create": {"after.owner": {"eq": "$actor.id"}},
        "update": {"before.owner": {"eq": "$actor.id"}, "after.owner": {"eq": "$before.owner"}},
        "delete": {"before.owner": {"eq": "$actor.id"}},
    })
}

fn ask(api: &Client, token: &str, method: &str, path: &str) -> Response {
    api.request(method, path).header("Authorization", &format!("Bearer {token}")).send()
}

fn send(api: &Client, token: &str, method: &str, path: &str, body: &Value) -> Response {
    let request = api.request(method, path).header("Authorization", &format!("Bearer {token}"));
    match method {
        "PATCH" => request.body("application/merge-patch+json", body.to_string()).send(),
        _ => request.json(body).send(),
    }
}

/// Creates a record as an admin.
#[track_caller]
fn put(stage: &Stage, id: &str, data: Value) {
    let body = json!({"id": id, "data": data});
    send(&stage.api(), &stage.admin, "POST", "/models/note/instances", &body).expect(201);
}

/// The ids of a list, in its order.
#[track_caller]
fn ids(api: &Client, token: &str, path: &str) -> Vec<String> {
    let page = ask(api, token, "GET", path).expect(200).json();
    let items = page["items"].as_array().expect("items").iter();
    items.map(|item| item["id"].as_str().expect("an id").to_owned()).collect()
}
