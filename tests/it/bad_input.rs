//! A thousand invalid requests: each gets a problem document and changes nothing.
//!
//! Families of requests (`families.rs`) are tables with a seeded mutation. After each request the log must be
//! unchanged, and the server must handle the next request.

mod families;

use serde_json::{Value, json};

use self::families::FAMILIES;
use crate::chance::Chance;
use crate::support::{Client, Server, ServerOptions};

const REQUESTS: usize = 1000;
/// Maximum processor time of the server for one request, in hundredths of a second.
const THINKING_MAX: u64 = 300;

/// One invalid request, as sent over the wire.
struct Case {
    name: String,
    wire: Vec<u8>,
}

impl Case {
    fn new(method: &str, target: &str, headers: &[(&str, &str)], body: Option<&[u8]>) -> Case {
        let mut wire = format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n").into_bytes();
        for (name, value) in headers {
            wire.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        if let Some(body) = body {
            wire.extend_from_slice(format!("Content-Length: {}\r\n", body.len()).as_bytes());
        }
        wire.extend_from_slice(b"\r\n");
        wire.extend_from_slice(body.unwrap_or_default());
        Case { name: String::new(), wire }
    }

    fn json(method: &str, target: &str, body: impl AsRef<[u8]>) -> Case {
        let media_type = match method {
            "PATCH" => "application/merge-patch+json",
            _ => "application/json",
        };
        Case::new(method, target, &[("Content-Type", media_type)], Some(body.as_ref()))
    }

    fn get(target: &str) -> Case {
        Case::new("GET", target, &[], None)
    }

    /// The start of the request, for messages.
    fn shown(&self) -> String {
        let text: String = String::from_utf8_lossy(&self.wire).chars().take(700).collect();
        format!(
            "{} ({} bytes):\n{}",
            self.name,
            self.wire.len(),
            text.escape_debug().to_string().replace("\\r\\n", "\n")
        )
    }
}

fn start() -> Server {
    let server =
        Server::start_with(ServerOptions { server: "max-body = '1 MiB'".to_owned(), ..ServerOptions::default() });
    let api = server.client();
    api.post("/models", &families::model()).expect(201);
    api.post("/models/order/instances", &json!({"id": "a", "data": {"name": "first", "count": 1}})).expect(201);
    api.put("/secrets/known", &json!("x")).expect(204);
    server
}

/// All state that a request could have changed.
fn state(api: &Client) -> [Value; 5] {
    ["/events?limit=1000", "/models", "/models/order/instances", "/secrets", "/errors"]
        .map(|path| api.get(path).expect(200).json())
}

#[test]
fn a_thousand_wrong_requests_leave_no_trace() {
    let mut chance = Chance::new();
    let server = start();
    let api = server.client();
    let before = state(&api);
    let head = before[0]["head"].as_u64().expect("a position");
    let mut faults = Vec::new();
    for (_, (name, family)) in (0..REQUESTS).zip(FAMILIES.iter().cycle()) {
        let mut case = family(&mut chance);
        (*name).clone_into(&mut case.name);
        let before = server.ticks();
        let answer = api.raw(&case.wire);
        let spent = server.ticks() - before;
        if let Err(fault) = is_problem(&answer) {
            faults.push(format!("{fault}\n{}", case.shown()));
        }
        assert!(spent < THINKING_MAX, "it took {spent}0 ms of processor time: {}", case.shown());
        let now = api.get("/events?limit=1").expect(200).json()["head"].as_u64();
        assert_eq!(now, Some(head), "something was stored: {}", case.shown());
    }
    assert!(faults.is_empty(), "{} of {REQUESTS}:\n\n{}", faults.len(), faults.join("\n\n"));
    assert_eq!(state(&api), before);
}

/// Checks for a complete problem document with a client error.
fn is_problem(answer: &[u8]) -> Result<(), String> {
    let fault = |what: &str| Err(format!("{what}: {}", String::from_utf8_lossy(&answer[..answer.len().min(500)])));
    let Some(end) = answer.windows(4).position(|window| window == b"\r\n\r\n") else { return fault("no answer") };
    let head = String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase();
    let Some(status) = head.strip_prefix("http/1.1 ").and_then(|rest| rest.get(..3)?.parse::<u16>().ok()) else {
        return fault("not HTTP");
    };
    if !(400..500).contains(&status) {
        return fault("no fault of the client");
    }
    if !head.contains("\r\ncontent-type: application/problem+json") {
        return fault("no problem document");
    }
    let Ok(document) = serde_json::from_slice::<Value>(&answer[end + 4..]) else { return fault("not JSON") };
    for member in ["type", "title", "detail", "request_id"] {
        if document[member].as_str().is_none_or(str::is_empty) {
            return fault("a member is missing");
        }
    }
    if document["status"] != status || !document["type"].as_str().is_some_and(|kind| kind.contains("/problems/")) {
        return fault("status or type is wrong");
    }
    if document["detail"].as_str().is_some_and(|detail| detail.len() > 4000) {
        return fault("the request comes back as a whole");
    }
    Ok(())
}

#[test]
fn wrong_lines_of_an_import_fail_one_by_one() {
    let mut chance = Chance::new();
    let server = start();
    let api = server.client();
    let before = state(&api);
    let nested = |open: &str, close: &str| {
        format!(r#"{{"data":{{"name":"x","customer":{}{}}}}}"#, open.repeat(100_000), close.repeat(100_000))
            .into_bytes()
    };
    let mut lines: Vec<(Vec<u8>, &str)> = vec![
        (nested("[", "]"), "bad-request"),
        (nested(r#"{"a":"#, "}"), "bad-request"),
        (nested("[", ""), "bad-request"),
        (b"{\"data\":{\"name\":\"\xff\"}}".to_vec(), "bad-request"),
        (br#"{"data":{"name":"\ud800"}}"#.to_vec(), "bad-request"),
        (br#"{"data":{"name":"x","name":"y"}}"#.to_vec(), "bad-request"),
        (br#"{"data":{"name":"x"},"more":1}"#.to_vec(), "bad-request"),
        (br#"{"id":"..","data":{"name":"x"}}"#.to_vec(), "bad-request"),
        (br#"{"id":"a","data":{"name":"x"}}"#.to_vec(), "exists"),
        (br#"{"data":{"name":""}}"#.to_vec(), "invalid"),
        (br#"{"data":{"name":"x","count":1e999999999}}"#.to_vec(), "invalid"),
        (br#"{"data":[]}"#.to_vec(), "bad-request"),
        (b"null".to_vec(), "bad-request"),
        (b"\x00\x01\x02".to_vec(), "bad-request"),
        (vec![b'x'; 500_000], "bad-request"),
    ];
    for _ in 0..100 {
        lines.push((families::broken(&mut chance, br#"{"id":"b","data":{"name":"x","total":1.5}}"#), "bad-request"));
    }
    // A line break inside a line splits it in two.
    lines.retain(|(line, _)| !line.contains(&b'\n') && !line.iter().all(u8::is_ascii_whitespace));
    let body: Vec<u8> = lines.iter().flat_map(|(line, _)| line.iter().copied().chain([b'\n'])).collect();
    let answer =
        api.request("POST", "/models/order/import").body("application/x-ndjson", body).send().expect(200).json();
    assert_eq!((&answer["created"], &answer["failed"]), (&json!(0), &json!(lines.len())), "{answer}");
    let errors = answer["errors"].as_array().expect("errors");
    assert_eq!(errors.len(), lines.len());
    for (index, (error, (line, kind))) in errors.iter().zip(&lines).enumerate() {
        let line = String::from_utf8_lossy(&line[..line.len().min(100)]).into_owned();
        assert_eq!(error["line"], index + 1, "{line}: {error}");
        assert_eq!(error["type"], *kind, "{line}: {error}");
        assert!(error["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{line}: {error}");
    }
    assert_eq!(state(&api), before);
}

#[test]
fn what_is_no_http_ends_its_connection_only() {
    let mut chance = Chance::new();
    let server = start();
    let api = server.client();
    let before = state(&api);
    let body = r#"{"data":{"name":"x"}}"#;
    let post = |headers: &str| {
        format!("POST /models/order/instances HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n{body}").into_bytes()
    };
    let mut wires: Vec<Vec<u8>> = vec![
        b"\r\n\r\n\r\n".to_vec(),
        b"GET\r\n\r\n".to_vec(),
        b"GET / HTTP/9.9\r\nHost: localhost\r\n\r\n".to_vec(),
        b"GET /\xff HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
        b"GET /models?a=\"b\" HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
        b"GET /models\x00 HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
        b"GET /models HTTP/1.1\r\nHost: localhost\r\nA\x01: b\r\n\r\n".to_vec(),
        b"GET /models HTTP/1.1\r\nHost: localhost\r\n b: c\r\n\r\n".to_vec(),
        format!("GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n", "x".repeat(200_000)).into_bytes(),
        format!("GET / HTTP/1.1\r\nHost: localhost\r\nA: {}\r\n\r\n", "x".repeat(200_000)).into_bytes(),
        format!("GET / HTTP/1.1\r\nHost: localhost\r\n{}\r\n", "A: b\r\n".repeat(1000)).into_bytes(),
        post("Content-Length: -1\r\n"),
        post("Content-Length: 99999999999999999999999\r\n"),
        post("Content-Length: 5\r\nContent-Length: 21\r\n"),
        post("Transfer-Encoding: gzip\r\n"),
        post("Transfer-Encoding: chunked\r\n"),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\xff\xff\xff".to_vec(),
    ];
    for _ in 0..50 {
        wires.push((0..chance.within(1..2000)).map(|_| chance.next() as u8).chain(*b"\r\n\r\n").collect());
    }
    for wire in wires {
        let shown = String::from_utf8_lossy(&wire[..wire.len().min(200)]).into_owned();
        let answer = raw_half_closed(&server, &wire);
        let text = String::from_utf8_lossy(&answer);
        let refused = answer.is_empty() || text.starts_with("HTTP/1.1 4") || text.starts_with("HTTP/1.0 4");
        // HTTP/2 responds in frames.
        assert!(refused || wire.starts_with(b"PRI"), "{shown:?}: {text}");
        api.get("/healthz").expect(200);
    }
    assert_eq!(state(&api), before);
}

/// Sends bytes and closes the writing side, so that the server does not wait for more.
fn raw_half_closed(server: &Server, wire: &[u8]) -> Vec<u8> {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(server.address()).expect("the server listens");
    stream.set_read_timeout(Some(crate::support::PATIENCE)).expect("a socket");
    // The server may close the connection before it has read everything.
    let _ = stream.write_all(wire);
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    answer
}
