//! The purpose of the examples, over HTTP/1.1, HTTP/2 and TLS.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;

use base64::Engine as _;

use super::{compiled, example, module, serve};
use crate::support::{create_orders, eventually};

/// The head and the body of a response, as `curl` prints them.
#[track_caller]
fn curl(arguments: &[&str], url: &str) -> String {
    let output = Command::new("curl").args(["-sS", "-i", "--max-time", "60"]).args(arguments).arg(url).output();
    let output = output.expect("curl is installed");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_custom_endpoint_beside_the_api() {
    let server = serve(&module("hello", &example("endpoint"), ""));
    let api = server.client();
    let hello = api.get("/hello?you").expect(200);
    assert_eq!((hello.text(), hello.header("content-type")), ("hello you\n".into(), Some("text/plain; charset=utf-8")));
    assert!(hello.header("x-request-id").is_some());
    let echo = |body: &str| api.request("POST", "/echo").body("text/plain", body).send().expect(200).text();
    assert_eq!((echo("abc"), echo("")), ("abc".into(), String::new()));
    let large = "x".repeat(300_000);
    assert!(echo(&large) == large);
    // It responds from another thread, after a delay.
    assert_eq!(api.get("/later").expect(200).text(), "later\n");
    // Requests that the module declines go to the API, including unknown routes.
    create_orders(&api, "order");
    api.post("/models/order/instances", &serde_json::json!({"data": {"name": "a"}})).expect(201);
    api.get("/nothing").expect_problem(404, "not-found");
    let head = api.request("HEAD", "/hello?you").send();
    assert_eq!((head.status, head.header("content-length"), head.body.len()), (200, Some("10"), 0));
    // A body larger than `max-body` is rejected before the module sees it.
    let too_large = api.request("POST", "/echo").body("text/plain", vec![b'x'; 9 << 20]).send();
    too_large.expect_problem(413, "too-large");
    let metrics = api.get("/metrics").expect(200).text();
    assert!(
        metrics.contains("snaphook_http_requests_total{route=\"modules\",method=\"GET\",status=\"200\"}"),
        "{metrics}"
    );
    assert!(metrics.contains("snaphook_module_active{module=\"hello\"} 1\n"), "{metrics}");
    // HTTP/2 without TLS.
    let url = format!("http://{}/hello?two", server.address());
    let said = curl(&["--http2-prior-knowledge"], &url);
    assert!(said.starts_with("HTTP/2 200") && said.ends_with("hello two\n"), "{said}");
}

#[test]
fn a_response_of_a_module_counts_in_the_memory_budget_until_it_is_sent() {
    const BYTES: usize = 7 << 20;
    let server = serve(&module("hello", &example("endpoint"), ""));
    let api = server.client();
    let held = || {
        let text = api.get("/metrics").expect(200).text();
        let held = text.lines().find_map(|line| line.strip_prefix("snaphook_memory_bytes ")).expect("a gauge");
        held.parse::<usize>().expect("a number")
    };
    // Socket buffers take a part of the response; the client reads one byte.
    let mut stream = TcpStream::connect(server.address()).expect("a server");
    let head = format!("POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: {BYTES}\r\n\r\n");
    stream.write_all(&[head.as_bytes(), &vec![b'x'; BYTES]].concat()).expect("a server");
    stream.read_exact(&mut [0]).expect("a response");
    assert!(held() >= BYTES, "{}", held());
    drop(stream);
    eventually("it is given back", || (held() < BYTES).then_some(()));
}

#[test]
fn a_password_is_asked_for() {
    let settings = "config = { user = 'me', password = 'secret' }";
    let server = serve(&module("auth", &example("basic_auth"), settings));
    let api = server.client();
    let refused = api.get("/models");
    assert_eq!(refused.header("www-authenticate"), Some("Basic realm=\"snaphook\", charset=\"UTF-8\""));
    assert_eq!(refused.header("content-type"), Some("application/problem+json"));
    let document = refused.expect(401).json();
    assert_eq!((&document["status"], &document["title"]), (&401.into(), &"Unauthorized".into()));
    assert_eq!(document["detail"], "rejected by the module `auth`");
    let with = |pair: &str| {
        let value = format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair));
        api.request("GET", "/models").header("Authorization", &value).send().status
    };
    assert_eq!((with("me:secret"), with("me:Secret"), with("you:secret")), (200, 401, 401));
    api.get("/metrics").expect(401);
}

#[test]
fn responses_are_compressed_piece_by_piece() {
    let server = serve(&module("gzip", &example("gzip"), ""));
    let api = server.client();
    create_orders(&api, "order");
    for number in 0..300 {
        let name = format!("order number {number} {}", "x".repeat(200));
        api.post("/models/order/instances", &serde_json::json!({"data": {"name": name}})).expect(201);
    }
    let path = "/models/order/instances?limit=300";
    let plain = api.get(path).expect(200);
    assert_eq!((plain.header("content-encoding"), plain.header("vary")), (None, Some("accept-encoding")));
    for (arguments, version) in [(&["--http1.1"][..], "HTTP/1.1"), (&["--http2-prior-knowledge"], "HTTP/2")] {
        let url = format!("http://{}{path}", server.address());
        let said = curl(&[arguments, &["--compressed"]].concat(), &url);
        let (head, body) = said.split_once("\r\n\r\n").expect("a head");
        assert!(head.starts_with(version) && head.contains("content-encoding: gzip"), "{head}");
        assert!(body == plain.text(), "{}", body.len());
    }
    let small = api.request("GET", "/healthz").header("Accept-Encoding", "gzip").send().expect(200);
    assert_eq!((small.header("content-encoding"), small.text()), (None, r#"{"status":"ok"}"#.to_owned()));
}

#[test]
fn too_many_requests() {
    let server = serve(&module("limit", &example("rate_limit"), "config = { requests = 3, seconds = 600 }"));
    let api = server.client();
    let statuses: Vec<u16> = (0..5).map(|_| api.get("/healthz").status).collect();
    assert_eq!(statuses, [200, 200, 200, 429, 429]);
    let refused = api.get("/healthz");
    let wait: u64 = refused.header("retry-after").expect("a time").parse().expect("seconds");
    assert!((1..=600).contains(&wait), "{wait}");
}

#[test]
fn an_access_log_in_rust_and_one_in_cpp() {
    let folder = tempfile::tempdir().expect("a folder");
    let Some(cpp) = compiled("sdk/c/examples/log.cpp", &[], folder.path()) else { return };
    let log = |name: &str| folder.path().join(name);
    let modules = [("rust", example("log")), ("cpp", cpp)]
        .map(|(name, library)| module(name, &library, &format!("config = {{ path = '{}' }}", log(name).display())));
    // A module that responds does not prevent the other modules' hook `response`.
    let server = serve(&format!("{}{}", modules.concat(), module("hello", &example("endpoint"), "")));
    let api = server.client();
    api.get("/hello?x").expect(200);
    api.get("/nothing").expect(404);
    for name in ["rust", "cpp"] {
        let lines = eventually("both lines are there", || {
            let text = std::fs::read_to_string(log(name)).unwrap_or_default();
            (text.lines().count() >= 2).then_some(text)
        });
        let lines: Vec<&str> = lines.lines().collect();
        assert!(lines[0].contains("127.0.0.1:") && lines[0].contains(" GET /hello?x 200 "), "{lines:?}");
        assert!(lines[1].contains(" GET /nothing 404 ") && lines[1].ends_with(" ms"), "{lines:?}");
    }
}
