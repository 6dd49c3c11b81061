//! Clients that are much slower than necessary.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::{nothing_is_held, start};
use crate::support::{PATIENCE, Server, eventually};

/// Sends one byte a second until the server closes the connection; returns its last output.
fn drip(server: &Server, head: &str) -> String {
    let mut stream = TcpStream::connect(server.address()).expect("the server listens");
    stream.write_all(head.as_bytes()).expect("a head");
    stream.set_read_timeout(Some(Duration::from_secs(1))).expect("a timeout");
    let started = Instant::now();
    let mut said = Vec::new();
    loop {
        assert!(started.elapsed() < PATIENCE, "the server waits for ever after `{head}`");
        let written = stream.write_all(b"x");
        let mut piece = [0; 4096];
        match stream.read(&mut piece) {
            Ok(0) => break,
            Ok(length) => said.extend_from_slice(&piece[..length]),
            Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {}
            Err(_) => break,
        }
        if written.is_err() && said.is_empty() {
            break;
        }
    }
    String::from_utf8_lossy(&said).into_owned()
}

#[test]
fn drips_end() {
    let server = start();
    std::thread::scope(|scope| {
        let heads: Vec<_> = (0..3)
            .map(|_| scope.spawn(|| drip(&server, "GET /models HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")))
            .chain([scope.spawn(|| drip(&server, "PRI * HTT"))])
            .collect();
        let bodies = [
            ("POST /models/large/instances", "application/json"),
            ("PUT /secrets/slow", "application/octet-stream"),
            ("POST /models/large/import", "application/x-ndjson"),
        ]
        .map(|(line, media_type)| {
            let head = format!(
                "{line} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {media_type}\r\nContent-Length: 1000000\r\n\
                 Connection: close\r\n\r\n{{\"data\":"
            );
            let server = &server;
            scope.spawn(move || drip(server, &head))
        });
        for head in heads {
            let said = head.join().expect("no panic");
            assert!(!said.starts_with("HTTP/1.1 2"), "{said}");
        }
        for body in bodies {
            let said = body.join().expect("no panic");
            assert!(said.starts_with("HTTP/1.1 400") && said.contains("came too slowly"), "{said}");
        }
    });
    nothing_is_held(&server);
}

/// Incomplete heads use memory too.
#[test]
fn many_heads_that_never_end() {
    let server = start();
    let start_of_head = format!("GET /models HTTP/1.1\r\nHost: localhost\r\nX-Large: {}", "x".repeat(60_000));
    let mut streams = Vec::new();
    for _ in 0..700 {
        let mut stream = TcpStream::connect(server.address()).expect("the server listens");
        let _ = stream.write_all(start_of_head.as_bytes());
        streams.push(stream);
    }
    eventually("heads are counted", || {
        let text = server.client().get("/metrics").text();
        let held = text.lines().find_map(|line| line.strip_prefix("snaphook_memory_bytes ")).expect("a gauge");
        let held: u64 = held.parse().expect("a number");
        (held > 30 << 20).then_some(())
    });
    super::a_neighbour_is_served(&server);
    drop(streams);
    nothing_is_held(&server);
}
