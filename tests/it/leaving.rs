//! Clients that disconnect while the server works for them: on every route the work ends with them and leaves nothing
//! half done.

use std::io::Write as _;
use std::net::TcpStream;

use serde_json::{Value, json};

use crate::support::{Server, ServerOptions, eventually};
use crate::workbench::grant;

/// Clients per row. Their work runs sequentially and would take many seconds.
const CLIENTS: usize = 16;
/// Processor time that work may take after its client has left, in hundredths of a second: the limit of the contract,
/// plus the time in which the server reads the request and notices the disconnect.
const AFTER_MAX: u64 = 100 + 100;

/// One kind of expensive request.
struct Row {
    name: &'static str,
    method: &'static str,
    path: String,
    media_type: &'static str,
    body: Vec<u8>,
}

impl Row {
    fn json(name: &'static str, method: &'static str, path: &str, body: &Value) -> Row {
        let body = body.to_string().into_bytes();
        Row { name, method, path: path.to_owned(), media_type: "application/json", body }
    }

    fn wire(&self, server: &Server) -> Vec<u8> {
        let Row { method, path, media_type, body, .. } = self;
        let mut wire = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nContent-Type: {media_type}\r\nContent-Length: {}\r\n\r\n",
            server.address(),
            body.len()
        )
        .into_bytes();
        wire.extend_from_slice(body);
        wire
    }
}

/// A text that takes this schema long to reject.
fn heavy() -> (Value, String) {
    let schema = json!({"type": "object", "properties": {"s": {"pattern": "(?=(a*)*$)(a|aa)+$"}}});
    (schema, format!("{}!", "a".repeat(100_000)))
}

fn rows() -> Vec<Row> {
    let (schema, text) = heavy();
    let data = json!({"data": {"s": text}});
    // Each default is validated against its schema.
    let defaults: Value = (0..8)
        .map(|n| (format!("p{n}"), json!({"pattern": "(?=(a*)*$)(a|aa)+$", "default": text})))
        .collect::<serde_json::Map<_, _>>()
        .into();
    let slow_to_define = json!({"type": "object", "properties": defaults});
    // Only as many lines as the server reads before it can notice the disconnect.
    let lines = format!("{data}\n").repeat(3);
    let source = format!("export default {}1", "!".repeat(900_000));
    vec![
        Row::json("a model is made", "POST", "/models", &json!({"id": "new", "schema": slow_to_define})),
        Row::json("a model is changed", "PUT", "/models/light", &json!({"schema": slow_to_define})),
        Row::json("instances are reviewed", "PUT", "/models/many", &json!({"schema": schema})),
        Row::json("a change of a model is tried", "PUT", "/models/many?dry-run=true", &json!({"schema": schema})),
        Row::json("an instance is made", "POST", "/models/heavy/instances", &data),
        Row::json("an instance is replaced", "PUT", "/models/heavy/instances/one", &data),
        Row {
            media_type: "application/merge-patch+json",
            ..Row::json("an instance is patched", "PATCH", "/models/heavy/instances/one", &data["data"])
        },
        Row {
            media_type: "application/x-ndjson",
            body: lines.into_bytes(),
            ..Row::json("instances are imported", "POST", "/models/heavy/import", &json!(null))
        },
        Row::json("a pre hook runs", "POST", "/models/hooked/instances", &json!({"data": {}})),
        Row {
            media_type: "text/javascript",
            body: source.into_bytes(),
            ..Row::json("a source is parsed", "PUT", "/models/light/hooks/preCreate", &json!(null))
        },
    ]
}

#[test]
fn the_work_of_clients_that_left_ends() {
    let server = Server::start_with(ServerOptions {
        tables: grant("hooked", "preCreate", "timeout = '60 s'"),
        ..ServerOptions::default()
    });
    let api = server.client();
    let (schema, text) = heavy();
    for (id, schema) in
        [("heavy", &schema), ("light", &json!({"type": "object"})), ("hooked", &json!({"type": "object"}))]
    {
        api.post("/models", &json!({"id": id, "schema": schema})).expect(201);
    }
    api.post("/models", &json!({"id": "many", "schema": {"type": "object"}})).expect(201);
    for _ in 0..30 {
        api.post("/models/many/instances", &json!({"data": {"s": text}})).expect(201);
    }
    api.post("/models/heavy/instances", &json!({"id": "one", "data": {"s": "a"}})).expect(201);
    api.put_javascript("hooked", "preCreate", "export function preCreate() { for (;;) {} }").expect(200);
    let head = |api: &crate::support::Client| api.get("/events?limit=1").expect(200).json()["head"].clone();
    let before = head(&api);

    for row in rows() {
        let name = row.name;
        eventually("the server is idle", || server.is_idle().then_some(()));
        let wire = row.wire(&server);
        let mut clients: Vec<TcpStream> =
            (0..CLIENTS).map(|_| TcpStream::connect(server.address()).expect("it listens")).collect();
        for client in &mut clients {
            client.write_all(&wire).expect("the server reads");
        }
        let sent = server.ticks();
        eventually(&format!("{name}: the server works"), || {
            (server.ticks() > sent + 20 || !server.children().is_empty()).then_some(())
        });
        drop(clients);
        let left = server.ticks();
        eventually(&format!("{name}: the work ends"), || (server.is_idle() && server.is_idle()).then_some(()));
        let after = server.ticks() - left;
        eprintln!("{name}: {after}0 ms of processor time after {CLIENTS} clients had left");
        assert!(after <= AFTER_MAX, "{name}: {after}0 ms of processor time after the clients had left");
        eventually(&format!("{name}: no process is left"), || server.children().is_empty().then_some(()));
    }

    // Nothing was written, and everything can still be changed.
    assert_eq!(head(&api), before);
    api.post("/models", &json!({"id": "new", "schema": {"type": "object"}})).expect(201);
    for model in ["light", "many", "heavy", "hooked"] {
        assert_eq!(api.get(&format!("/models/{model}/instances?limit=1")).expect(200).status, 200);
        let schema = json!({"type": "object", "properties": {"n": {"type": "integer", "default": 7}}});
        api.put(&format!("/models/{model}"), &json!({"schema": schema})).expect(200);
        api.delete(&format!("/models/{model}?cascade=true")).expect(204);
    }
}
