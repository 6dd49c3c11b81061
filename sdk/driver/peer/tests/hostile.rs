//! A broken, slow or hostile peer only affects one request, within limits of time and memory.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use snaphook_driver::ErrorKind;
use snaphook_driver_peer::{Failure, Method, Peer, Response};
use snaphook_driver_testkit::peer::{Peer as Server, Reply};

const SHORT: Duration = Duration::from_millis(300);
const LONG: Duration = Duration::from_secs(30);

async fn get(server: &Server, timeout: Duration, body_max: usize) -> Result<Response, Failure> {
    Peer::new(&server.url("/base"), None, timeout).unwrap().send(Method::GET, "/x", None, body_max).await
}

#[tokio::test]
async fn a_request_carries_token_path_and_json() {
    let server = Server::start(|_| Reply::json(201, "{\"id\":1}"));
    let peer = Peer::new(&server.url("/base/"), Some("t"), LONG).unwrap();
    let response = peer.send(Method::POST, "/m/a?x=1", Some(b"{}".as_slice().into()), 100).await.unwrap();
    assert_eq!((response.status, response.body.as_slice(), response.is_whole), (201, b"{\"id\":1}".as_slice(), true));
    assert_eq!(response.content_type.as_deref(), Some("application/json"));
    let request = &server.requests()[0];
    assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", "/base/m/a?x=1"));
    assert_eq!(request.header("authorization"), Some("Bearer t"));
    assert_eq!(request.header("content-type"), Some("application/json"));
    assert_eq!(request.body, b"{}");
}

#[tokio::test]
async fn the_query_of_the_address_is_part_of_every_request() {
    let server = Server::start(|_| Reply::status(200));
    for (url, path, expected) in [
        ("/base?api-version=1", "", "/base?api-version=1"),
        ("/base/?api-version=1", "/m", "/base/m?api-version=1"),
        ("/?api-version=1&b=%26", "/m?id=a%2F", "/m?api-version=1&b=%26&id=a%2F"),
        ("/base?", "/m?x=1", "/base/m?x=1"),
        ("/base", "/m?x=1", "/base/m?x=1"),
    ] {
        let peer = Peer::new(&server.url(url), None, LONG).unwrap();
        peer.send(Method::GET, path, None, 0).await.unwrap();
        assert_eq!(server.requests().last().unwrap().path, expected, "{url} {path}");
    }
}

#[tokio::test]
async fn headers_of_the_settings_are_sent() {
    let server = Server::start(|_| Reply::status(200));
    let headers = |pairs: &[(&str, &str)]| {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect::<BTreeMap<_, _>>()
    };
    let peer = || Peer::new(&server.url(""), Some("token"), LONG).unwrap();
    let set = headers(&[("Prefer", "return=minimal"), ("content-type", "application/merge-patch+json")]);
    peer().with_headers(&set).unwrap().send(Method::PATCH, "/x", Some("{}".into()), 0).await.unwrap();
    let request = &server.requests()[0];
    assert_eq!(request.header("prefer"), Some("return=minimal"));
    assert_eq!(request.header("authorization"), Some("Bearer token"));
    let types = request.headers.iter().filter(|(name, _)| name == "content-type").map(|(_, value)| value.as_str());
    assert_eq!(types.collect::<Vec<_>>(), ["application/merge-patch+json"]);
    for (name, value, reason) in [
        ("a b", "x", "is not a valid header name"),
        ("x", "hid\nden", "characters"),
        ("Content-Length", "1", "connection"),
        ("Authorization", "Basic hidden", "`token`"),
    ] {
        let error = peer().with_headers(&headers(&[(name, value)])).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Config, "{name}");
        let text = error.to_string();
        assert!(text.contains(&format!("`headers.{name}`")) && text.contains(reason), "{text}");
        assert!(!text.contains("hid"), "{text}");
    }
}

/// A peer that echoes the request in the body and in the target of a redirect.
#[tokio::test]
async fn echoes_of_secrets_are_not_shown() {
    let server = Server::start(|request| {
        let mut lines: Vec<String> = request.headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
        lines.retain(|line| line.starts_with("authorization") || line.starts_with("x-key"));
        let echo = format!("{} {}", request.path, lines.join(" "));
        match request.method.as_str() {
            "GET" => Reply::Response(302, vec![("location", format!("http://x{}", request.path))], Vec::new()),
            _ => Reply::Response(400, Vec::new(), echo.into()),
        }
    });
    let url = server.url("/base?sig=hidden%2Bone&v=1");
    let headers = BTreeMap::from([("x-key".to_owned(), "Basic hidden-two".to_owned())]);
    let peer = Peer::new(&url, Some("hidden/three"), LONG).unwrap().with_headers(&headers).unwrap();
    for (method, body_max, is_seen) in
        [(Method::GET, 100, "&v=1"), (Method::PUT, 1000, "&v=1"), (Method::PUT, 20, "400")]
    {
        let response = peer.send(method, "/x", None, body_max).await.unwrap();
        let complaint = response.complaint();
        assert!(!complaint.contains("hid") && complaint.contains(is_seen), "{complaint}");
    }
}

#[tokio::test]
async fn bodies_are_kept_up_to_a_bound() {
    let server = Server::start(|_| Reply::json(200, "0123456789"));
    for (max, kept, is_whole) in [(0, "", false), (9, "012345678", false), (10, "0123456789", true)] {
        let response = get(&server, LONG, max).await.unwrap();
        assert_eq!((response.body.as_slice(), response.is_whole), (kept.as_bytes(), is_whole), "{max}");
    }
    // An endless fast response is dropped at the size limit, an endless slow one at the deadline.
    let server = Server::start(|_| Reply::Endless(b"HTTP/1.1 200 OK\r\n\r\nx".to_vec()));
    let response = get(&server, LONG, 5).await.unwrap();
    assert_eq!((response.status, response.body.as_slice(), response.is_whole), (200, b"xxxxx".as_slice(), false));
    let server = Server::start(|_| Reply::Raw(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf".to_vec()));
    let response = get(&server, LONG, 100).await.unwrap();
    assert_eq!((response.body.as_slice(), response.is_whole), (b"half".as_slice(), false));
}

#[tokio::test]
async fn redirects_are_reported() {
    let other = Server::start(|_| Reply::status(200));
    let location = other.url("/there");
    let server = Server::start(move |_| Reply::Response(307, vec![("location", location.clone())], Vec::new()));
    let response = get(&server, LONG, 100).await.unwrap();
    assert!(response.complaint().contains("redirects to http://127.0.0.1"), "{}", response.complaint());
    assert!(other.requests().is_empty());
}

#[tokio::test]
async fn every_fault_ends_within_the_deadline_and_has_one_message() {
    let endless = |head: &str| Reply::Endless(head.as_bytes().to_vec());
    for (what, reply, message) in [
        ("silence", Reply::Stall, "no response within 0.3 s"),
        ("a cut", Reply::Cut, "error sending request: "),
        ("no HTTP", Reply::Raw(b"SSH-2.0-x\r\n".to_vec()), "error sending request: "),
        ("only interim responses", Reply::Raw(b"HTTP/1.1 102 Processing\r\n\r\n".to_vec()), "error sending request: "),
        ("a header without end", endless("HTTP/1.1 200 OK\r\nx: a"), "error sending request: "),
    ] {
        let server = Server::start(move |_| reply.clone());
        let started = Instant::now();
        let failure = get(&server, SHORT, 100).await.unwrap_err().to_string();
        assert!(failure.contains(message), "{what}: {failure}");
        assert!(!failure.contains('\n') && !failure.contains("/base"), "{what}: {failure}");
        assert!(started.elapsed() < Duration::from_secs(10), "{what}");
    }
    // Interim responses that never stop.
    let server = Server::start(|_| Reply::Raw(b"HTTP/1.1 100 Continue\r\n\r\n".repeat(100_000)));
    assert!(get(&server, LONG, 100).await.is_err());
    // Nobody listens on the port.
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let peer = Peer::new(&format!("http://{address}"), None, LONG).unwrap();
    assert!(peer.send(Method::GET, "", None, 0).await.unwrap_err().to_string().contains("refused"));
    // TLS to a server without TLS.
    let server = Server::start(|_| Reply::status(200));
    if let Ok(peer) = Peer::new(&server.url("").replace("http:", "https:"), None, SHORT) {
        assert!(peer.send(Method::GET, "", None, 0).await.is_err());
    }
}

#[tokio::test]
async fn pauses_that_a_peer_asks_for() {
    for (text, expected) in
        [("7", 7..=7), ("Sun, 06 Nov 1994 08:49:37 GMT", 0..=0), ("Fri, 31 Dec 9999 00:00:00 GMT", 1000..=u64::MAX)]
    {
        let server = Server::start(move |_| Reply::Response(429, vec![("retry-after", text.into())], Vec::new()));
        let seconds = get(&server, LONG, 0).await.unwrap().retry_after.unwrap().as_secs();
        assert!(expected.contains(&seconds), "{text}: {seconds}");
    }
    let server = Server::start(|_| Reply::Response(429, vec![("retry-after", "soon".into())], Vec::new()));
    assert_eq!(get(&server, LONG, 0).await.unwrap().retry_after, None);
}

#[test]
fn settings_that_cannot_work_name_no_secret() {
    for (url, token) in [
        ("", None),
        ("peer.example", None),
        ("ftp://peer.example", None),
        ("http://", None),
        ("http://name:hidden@peer.example", None),
        ("http://peer.example/#hidden", None),
        ("http://peer.example", Some("hid\nden")),
    ] {
        let error = Peer::new(url, token, LONG).err().unwrap_or_else(|| panic!("{url} is taken"));
        assert_eq!(error.kind(), ErrorKind::Config, "{url}");
        assert!(!error.to_string().contains("hid"), "{error}");
    }
    let is_open = |url: &str| Peer::new(url, None, LONG).unwrap().is_open();
    assert!(is_open("http://peer.example/"));
    for url in ["http://127.0.0.1:1/", "http://[::1]/", "http://localhost/"] {
        assert!(!is_open(url), "{url}");
    }
}
