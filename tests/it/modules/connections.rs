//! Connection hooks: bytes are changed below TLS, in both directions.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use super::{compiled, example, module, says, serve};
use crate::support::PATIENCE;

fn rot13(bytes: &[u8]) -> Vec<u8> {
    let turned = |byte: u8, base: u8| base + (byte - base + 13) % 26;
    let each = |byte: &u8| match byte {
        b'a'..=b'z' => turned(*byte, b'a'),
        b'A'..=b'Z' => turned(*byte, b'A'),
        other => *other,
    };
    bytes.iter().map(each).collect()
}

/// Encodes and sends a request, and returns the decoded response.
fn ask(stream: &mut TcpStream, request: &str) -> String {
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    stream.write_all(&rot13(request.as_bytes())).expect("a server");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("a response");
    String::from_utf8(rot13(&answer)).expect("text")
}

#[test]
fn bytes_are_changed_on_the_wire() {
    let folder = tempfile::tempdir().expect("a folder");
    let Some(library) = compiled("sdk/c/examples/rot13.cpp", &[], folder.path()) else { return };
    let server = serve(&format!("{}{}", module("rot13", &library, ""), module("hello", &example("endpoint"), "")));
    // The tests' own client does not support the encoding.
    let mut stream = TcpStream::connect(server.address()).expect("a server");
    let answer = ask(&mut stream, "GET /hello?you HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("hello you\n"), "{answer}");
    assert!(answer.contains("x-received: "), "the request knows its connection: {answer}");
    // More than all buffers in both directions together.
    let body = "abc".repeat(1 << 20);
    let head = format!("POST /echo HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}", body.len());
    let mut stream = TcpStream::connect(server.address()).expect("a server");
    let answer = ask(&mut stream, &format!("{head}\r\n\r\n{body}"));
    assert!(answer.ends_with(&body), "{} bytes", answer.len());
    // Bytes that are not encoded become invalid HTTP.
    let plain = server.client().raw(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert!(!plain.starts_with(b"HTTP/1.1 2"), "{plain:?}");
}

/// Every connection that a module saw begin also ends for it, even if a later module rejects the connection.
#[test]
fn each_beginning_has_an_end() {
    let folder = tempfile::tempdir().expect("a folder");
    let Some(library) = compiled("tests/guests/native/module.cpp", &["-DCONNECTIONS"], folder.path()) else { return };
    let served = serve(&module("first", &library, ""));
    served.client().get("/models").expect(200);
    says(&served, "module `first`: a connection begins");
    says(&served, "module `first`: a connection ended");

    let second = module("second", &library, "config = { start = 'fail' }");
    let refused = serve(&format!("{}{second}", module("first", &library, "")));
    let answer = refused.client().raw(b"GET /models HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert!(answer.is_empty(), "{answer:?}");
    says(&refused, "module `second` failed: it reported a failure");
    says(&refused, "module `first`: a connection ended");
}
