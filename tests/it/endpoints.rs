//! Custom endpoints: components that respond to requests, over real sockets. `tests/guests/endpoint` defines what each
//! task of the guest does.

mod failing;
mod granted;
mod heads;
mod reloading;
mod streams;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use serde_json::json;

use crate::support::{PATIENCE, Response, Server, ServerOptions, guest};

/// A server with the guest as `tool` at `/tool`, and additional tables.
fn server(tables: &str) -> Option<Server> {
    with(ServerOptions { tables: tables.to_owned(), ..ServerOptions::default() })
}

/// The same with other options.
fn with(options: ServerOptions) -> Option<Server> {
    let folder = tempfile::tempdir().expect("a folder for the test");
    std::fs::create_dir(folder.path().join("hooks")).expect("a folder for hooks");
    std::fs::write(folder.path().join("tool.wasm"), guest("endpoint.wasm")?).expect("a component");
    let tables = format!("{TOOL}{}", options.tables);
    Some(Server::start_in(Arc::new(folder), ServerOptions { tables, ..options }))
}

const TOOL: &str = "[[server.endpoints]]\nname = 'tool'\npath = '/tool'\ncomponent = 'tool.wasm'\n";

/// Opens a new connection.
fn connect(server: &Server) -> TcpStream {
    let stream = TcpStream::connect(server.address()).expect("the server listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
    stream
}

/// Sends a head and returns the connection.
fn begin(server: &Server, method: &str, path: &str, headers: &str) -> TcpStream {
    let mut stream = connect(server);
    let head = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\n{headers}\r\n", server.address());
    stream.write_all(head.as_bytes()).expect("a head");
    stream
}

/// Reads until these bytes arrive.
fn read_until(stream: &mut TcpStream, end: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut piece = [0; 4096];
    while !bytes.windows(end.len()).any(|window| window == end) {
        let count = stream.read(&mut piece).expect("more");
        assert!(count > 0, "closed after {}", String::from_utf8_lossy(&bytes));
        bytes.extend_from_slice(&piece[..count]);
    }
    bytes
}

/// Reads until the server closes the connection.
fn read_to_end(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    // A connection that is cut off may end with an error.
    let _ = stream.read_to_end(&mut bytes);
    bytes
}

/// The model that the guest reads and writes.
fn orders(server: &Server) {
    let api = server.client();
    let schema = json!({"type": "object", "properties": {"name": {"type": "string"}}});
    api.post("/models", &json!({"id": "order", "schema": schema})).expect(201);
    api.post("/models/order/instances", &json!({"id": "a", "data": {"name": "first"}})).expect(201);
}

/// The value of a header that the component received.
fn echoed<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

fn first_line(response: &Response) -> String {
    response.text().lines().next().unwrap_or_default().to_owned()
}
