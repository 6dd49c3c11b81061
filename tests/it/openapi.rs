//! `/openapi.json` and `/docs`: their content, who sees it, and how other tools use it.

mod browsing;
mod client;
mod document;
pub(crate) mod tools;
mod validated;

use serde_json::{Value, json};

use crate::support::{Client, Server, ServerOptions, order_schema};

/// Models of several kinds: plain, in an old draft, with references, with hostile names.
fn models() -> Vec<Value> {
    let node = json!({"type": "object", "properties": {"name": {"type": "string"}, "next": {"$ref": "#/$defs/no~1de"}},
        "additionalProperties": false});
    vec![
        json!({"id": "order", "schema": order_schema(), "indexes": [["-total", "name"]]}),
        json!({"id": "old", "schema": {
            "$schema": "http://json-schema.org/draft-04/schema#", "id": "https://example.com/old.json", "type": "object",
            "properties": {
                "size": {"type": "number", "minimum": 0, "exclusiveMinimum": true},
                "pair": {"type": "array", "items": [{"type": "string"}, {"type": "integer"}], "additionalItems": false},
                "same": {"$ref": "#/definitions/short"}
            },
            "dependencies": {"pair": ["size"]},
            "definitions": {"short": {"type": "string", "maxLength": 3}}
        }}),
        json!({"id": "tree-1", "schema": {
            "type": "object", "required": ["root"], "properties": {"root": {"$ref": "#/$defs/no~1de"}},
            "additionalProperties": false, "$defs": {"no/de": node}
        }, "unique": [["root"]]}),
        json!({"id": "constructor", "schema": {
            "type": "object",
            "properties": {
                "$ref": {"type": "string"}, "a/b~c%d": {"type": "integer"}, "filter[x][eq]": {"type": "boolean"},
                "<script>alert(1)</script>": {"type": "string", "description": "<img src=x onerror=alert(1)>"},
                "ключ": {"type": "string", "default": "ö"}, "": {"type": "null"}, "$created_at": {"type": "string"},
                "discriminator": {"type": "string"}, "data": {"const": {"$ref": "https://example.com/elsewhere"}}
            },
            "discriminator": 5, "xml": "no", "externalDocs": {"url": "javascript:alert(1)"}
        }}),
    ]
}

/// A server under a mount path, and its admin's token.
fn start_with_tokens(mount_path: &'static str) -> (Server, String) {
    let options = ServerOptions { auth: "mode = 'tokens'", mount_path, ..ServerOptions::default() };
    let server = Server::start_with(options);
    let token = std::fs::read_to_string(server.directory().join("data/admin.token")).expect("the first token");
    let token = token.trim().to_owned();
    (server, token)
}

#[track_caller]
fn create_models(api: &Client, token: &str) {
    for model in models() {
        let request = api.request("POST", "/models").header("Authorization", &format!("Bearer {token}"));
        request.json(&model).send().expect(201);
    }
}
