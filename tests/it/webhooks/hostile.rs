//! Addresses that no grant opens, and receivers that misbehave.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};

use serde_json::json;

use super::{bind, create, errors, log_lines, start};
use crate::peer::{Peer, PeerResponse};
use crate::support::eventually;

#[test]
fn no_way_leads_to_an_address_that_is_not_granted() {
    let peer = Peer::start(|_| PeerResponse::new(204, ""));
    let port = peer.port();
    // The widest possible grant for this port, which names no complete host.
    let (_server, api) = start(&[format!("http://*:{port}/*"), "https://*/*".to_owned()], "max-attempts = 1", "");
    let hosts = [
        "127.0.0.1",
        "localhost",
        "127.1",
        "2130706433",
        "0x7f.1",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "0.0.0.0",
        "169.254.169.254",
    ];
    for (index, host) in hosts.iter().enumerate() {
        bind(&api, "order", "postCreate", &format!("http://{host}:{port}/"));
        create(&api, "order", &format!("o-{index}"));
        let records = errors(&api, index + 1);
        let message = records[index]["message"].as_str().expect("a message");
        assert!(message.contains("which only a grant that names the host without `*` opens"), "{host}: {message}");
    }
    assert_eq!(peer.connections(), 0);
}

#[test]
fn redirects_are_not_followed() {
    let elsewhere = Peer::start(|_| PeerResponse::new(204, ""));
    let target = elsewhere.url("/secret");
    let statuses = [301, 302, 303, 307, 308];
    let peer = Peer::start(move |asked| {
        let status = asked.target.trim_start_matches('/').parse().expect("a status");
        PeerResponse::redirect(status, &target)
    });
    // Even if the grant includes the target of the redirect.
    let (_server, api) = start(&[peer.url("/*"), elsewhere.url("/*")], "webhook-attempts = 1", "");
    for (index, status) in statuses.into_iter().enumerate() {
        bind(&api, "order", "postCreate", &peer.url(&format!("/{status}")));
        create(&api, "order", &format!("o-{index}"));
        let records = errors(&api, index + 1);
        let message = records[index]["message"].as_str().expect("a message");
        let expected = format!("a redirect to `{}`, which a webhook does not follow", elsewhere.url("/secret"));
        assert!(message.contains(&format!("returned {status} in ")) && message.contains(&expected), "{message}");
    }
    assert_eq!(elsewhere.connections(), 0);
}

/// A receiver that reads each request and then passes the connection to `then`.
fn receiver(then: impl Fn(&str, TcpStream) + Clone + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let then = then.clone();
            std::thread::spawn(move || {
                let mut reader = BufReader::new(stream);
                let (mut first, mut line) = (String::new(), String::new());
                let _ = reader.read_line(&mut first);
                while reader.read_line(&mut line).is_ok_and(|read| read > 0) && line != "\r\n" {
                    line.clear();
                }
                then(first.split(' ').nth(1).unwrap_or_default(), reader.into_inner());
            });
        }
    });
    format!("http://{address}")
}

#[test]
fn receivers_that_never_end_cost_their_own_event() {
    let url = receiver(|path, mut stream| {
        let head = |status: u16| format!("HTTP/1.1 {status} Answer\r\ncontent-type: text/plain\r\n\r\n");
        let forever = |stream: &mut TcpStream, bytes: &[u8]| while stream.write_all(bytes).is_ok() {};
        let _ = match path {
            "/endless-ok" => stream.write_all(head(200).as_bytes()).map(|()| forever(&mut stream, &[b'x'; 65536])),
            "/endless-no" => stream.write_all(head(500).as_bytes()).map(|()| forever(&mut stream, &[b'y'; 65536])),
            "/endless-head" => stream.write_all(b"HTTP/1.1 200 OK\r\n").map(|()| forever(&mut stream, b"a: b\r\n")),
            "/endless-line" => stream.write_all(b"HTTP/1.1 200 ").map(|()| forever(&mut stream, &[b'z'; 65536])),
            "/informed" => {
                forever(&mut stream, b"HTTP/1.1 100 Continue\r\n\r\n");
                Ok(())
            }
            "/huge" => stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999999\r\n\r\nx"),
            "/garbage" => stream.write_all(b"\x16\x03\x01garbage\r\n\r\n"),
            "/short" => stream.write_all(b"HTTP/1.1 503 No\r\ncontent-length: 50\r\n\r\ncut off"),
            "/cut" => stream.write_all(b"HTTP/1.1 20"),
            "/silent" => {
                // Until the other side closes the connection.
                let _ = std::io::Read::read(&mut stream, &mut [0]);
                Ok(())
            }
            _ => Ok(()),
        };
    });
    let (server, api) = start(&[format!("{url}/*")], "webhook-attempts = 1", "timeout = '700 ms'");
    let mut failed = 0;
    for (index, (path, expected)) in [
        ("/endless-ok", Ok("returned 200")),
        ("/endless-no", Err(("exception", "returned 500"))),
        ("/endless-head", Err(("exception", ""))),
        ("/endless-line", Err(("exception", ""))),
        ("/informed", Err(("timeout", "took longer than 700 ms"))),
        ("/huge", Ok("returned 200")),
        ("/garbage", Err(("exception", ""))),
        ("/short", Err(("exception", "returned 503"))),
        ("/cut", Err(("exception", ""))),
        ("/silent", Err(("timeout", "took longer than 700 ms"))),
        ("/closed", Err(("exception", ""))),
    ]
    .into_iter()
    .enumerate()
    {
        let before = log_lines(&api, "order").len();
        bind(&api, "order", "postCreate", &format!("{url}{path}"));
        create(&api, "order", &format!("o-{index}"));
        let line = eventually("a line", || log_lines(&api, "order").get(before).cloned());
        match expected {
            Ok(words) => assert!(line.starts_with("event ") && line.contains(words), "{path}: {line}"),
            Err((cause, words)) => {
                failed += 1;
                let records = errors(&api, failed);
                let record = &records[failed - 1];
                let message = record["message"].as_str().expect("a message");
                assert!(message.contains(words) && message.len() < 1000, "{path}: {message}");
                let is_slow = record["cause"] == "timeout" && record["limit"] == "timeout 700 ms";
                assert!(
                    if cause == "timeout" { is_slow } else { is_slow || record["cause"] == cause },
                    "{path}: {record}"
                );
            }
        }
    }
    assert_eq!(api.get("/healthz").expect(200).status, 200);
    api.post("/models/order/instances", &json!({"id": "after", "data": {}})).expect(201);
    drop(server);
}
