//! What applies to every route: problems, request ids, methods, sizes, types, both HTTP versions, shutdown.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{Server, ServerOptions, create_orders, eventually};

#[test]
fn unknown_routes_are_problems() {
    let server = Server::start();
    let api = server.client();
    for path in [
        "/",
        "/nothing",
        "/models/",
        "/models/a/b",
        "/models/a/instances/b/c",
        "/a/b/c/d/e/f/g/h/i/j",
        "//models",
        "/batches",
        "/tokens/",
        "/openapi.yaml",
        "/docs/",
        "/docs/page.js/",
        "/console/",
    ] {
        api.get(path).expect_problem(404, "not-found");
    }
    api.get("/models?unknown=1").expect_problem(400, "bad-request");
    api.get("/models/%zz").expect_problem(400, "bad-request");
    api.get("/models/%ff").expect_problem(400, "bad-request");
}

#[test]
fn writes_say_how_far_the_node_is_and_reads_ask_for_as_much() {
    let server = Server::start();
    let api = server.client();
    let position = |response: &crate::support::Response| -> u64 {
        response.header("Snaphook-Position").expect("a position").parse().expect("a number")
    };
    create_orders(&api, "order");
    let mut last = 0;
    let order = |total: i64| json!({"id": "a", "data": {"name": "x", "total": total}});
    for (answer, wrote) in [
        (api.post("/models/order/instances", &order(1)).expect(201), true),
        (api.patch("/models/order/instances/a", &json!({"total": 2})).expect(200), true),
        // Also a request that wrote nothing: its response has the position that it saw.
        (api.post("/models/order/instances", &order(1)).expect(409), false),
        (api.post("/models", &json!({"id": "other", "schema": {"type": "object"}})).expect(201), true),
        (api.delete("/models/order/instances/a").expect(204), true),
    ] {
        let head = position(&answer);
        assert!(if wrote { head > last } else { head == last }, "{head} after {last}");
        last = head;
    }
    let events = api.get("/events?limit=1000").expect(200).json();
    let newest = events["items"].as_array().unwrap().last().unwrap()["position"].as_u64();
    assert_eq!(newest, Some(last));
    assert_eq!(api.get("/models").expect(200).header("Snaphook-Position"), None);

    let id = api.stream("/events/stream?after=0", &[]).next().id.expect("an id");
    let log = id.split_once('.').expect("a log and a position").0.to_owned();
    let other = "01890a5d-ac96-774b-bcce-b302099a8057";
    for (place, status) in [
        (last.to_string(), 200),
        ("0".to_owned(), 200),
        (format!("{log}.{last}"), 200),
        ((last + 1).to_string(), 410),
        (format!("{other}.1"), 410),
        ("x".to_owned(), 400),
        ("".to_owned(), 400),
        ("-1".to_owned(), 400),
    ] {
        for path in
            ["/models", "/models/order/instances", "/models/order/instances?limit=5", "/events?after=1", "/healthz"]
        {
            let sign = if path.contains('?') { '&' } else { '?' };
            let answers = [
                api.request("GET", path).header("Snaphook-Min-Position", &place).send(),
                api.get(&format!("{path}{sign}min-position={place}")),
                api.get(&format!("{path}{sign}min%2Dposition={place}")),
            ];
            for (way, answer) in answers.into_iter().enumerate() {
                assert_eq!(answer.status, status, "{path} {place:?} {way}");
            }
        }
    }
    api.get("/models?min-position=1&min-position=1").expect_problem(400, "bad-request");
    api.post("/models/order/instances?min-position=1", &order(1)).expect_problem(400, "bad-request");
}

#[test]
fn a_wrong_method_is_told_the_right_ones() {
    let server = Server::start();
    let api = server.client();
    for (method, path, allow) in [
        ("DELETE", "/models", "GET, HEAD, POST"),
        ("POST", "/models/a", "GET, HEAD, PUT, DELETE"),
        ("POST", "/models/a/hooks", "GET, HEAD"),
        ("POST", "/models/a/hooks/preCreate", "GET, HEAD, PUT, DELETE"),
        ("PUT", "/models/a/hooks/preCreate/log", "GET, HEAD"),
        ("PUT", "/models/a/hooks/preCreate/stats", "GET, HEAD"),
        ("PUT", "/models/a/hooks/preCreate/history", "GET, HEAD"),
        ("POST", "/models/a/hooks/preCreate/source", "GET, HEAD"),
        ("GET", "/hooks/check/preCreate", "POST"),
        ("POST", "/server", "GET, HEAD"),
        ("PUT", "/models/a/instances", "GET, HEAD, POST"),
        ("POST", "/models/a/instances/b", "GET, HEAD, PUT, PATCH, DELETE"),
        ("DELETE", "/models/a/instances/b/events", "GET, HEAD"),
        ("POST", "/models/a/instances/b/referring/c", "GET, HEAD"),
        ("GET", "/models/a/import", "POST"),
        ("POST", "/events", "GET, HEAD"),
        ("POST", "/events/stream", "GET, HEAD"),
        ("GET", "/backup", "POST"),
        ("POST", "/errors", "GET, HEAD"),
        ("GET", "/errors/retry", "POST"),
        ("PUT", "/errors/01890a5d-ac96-774b-bcce-b302099a8057", "GET, HEAD, DELETE"),
        ("GET", "/errors/01890a5d-ac96-774b-bcce-b302099a8057/retry", "POST"),
        ("POST", "/jobs/01890a5d-ac96-774b-bcce-b302099a8057", "GET, HEAD, DELETE"),
        ("POST", "/secrets", "GET, HEAD"),
        ("GET", "/secrets/a", "PUT, DELETE"),
        ("DELETE", "/rebuild", "GET, HEAD, POST"),
        ("POST", "/healthz", "GET, HEAD"),
        ("POST", "/readyz", "GET, HEAD"),
        ("POST", "/metrics", "GET, HEAD"),
        ("BREW", "/models", "GET, HEAD, POST"),
    ] {
        let answer = api.request(method, path).send();
        assert_eq!(answer.header("allow"), Some(allow), "{method} {path}");
        answer.expect_problem(405, "method-not-allowed");
        let options = api.request("OPTIONS", path).send().expect(204);
        assert_eq!(options.header("allow"), Some(allow), "OPTIONS {path}");
    }
    api.request("OPTIONS", "/nothing").send().expect_problem(404, "not-found");
}

#[test]
fn every_answer_has_a_request_id() {
    let server = Server::start();
    let api = server.client();
    let answer = api.request("GET", "/models").header("X-Request-Id", "Client.id_1-x").send().expect(200);
    assert_eq!(answer.header("x-request-id"), Some("Client.id_1-x"));
    let answer = api.request("GET", "/nothing").header("X-Request-Id", "Client.id_1-x").send();
    assert_eq!(answer.expect_problem(404, "not-found")["request_id"], "Client.id_1-x");
    let long = "x".repeat(129);
    let mut made = std::collections::HashSet::new();
    for sent in ["", "a b", "a/b", "<script>", &long] {
        let answer = api.request("GET", "/models").header("X-Request-Id", sent).send().expect(200);
        assert!(made.insert(answer.header("x-request-id").expect("an id").to_owned()));
    }
    assert!(made.iter().all(|id| id.len() == 36), "{made:?}");
}

#[test]
fn the_request_id_is_in_the_event() {
    let server = Server::start();
    let api = server.client();
    create_orders(&api, "order");
    let create = api.request("POST", "/models/order/instances").header("X-Request-Id", "r-1");
    create.json(&json!({"data": {"name": "a"}})).send().expect(201);
    let events = api.get("/events?type=instance.created").expect(200).json();
    assert_eq!(events["items"][0]["request_id"], "r-1");
    assert_eq!(events["items"][0]["actor"], json!({"id": "anonymous", "kind": "anonymous"}));
}

#[test]
fn a_mount_path_is_part_of_every_address() {
    let server = Server::start_with(ServerOptions { mount_path: "/api/v1", ..ServerOptions::default() });
    let api = server.client();
    let made = api.post("/models", &json!({"id": "order", "schema": {"type": "object"}})).expect(201);
    assert_eq!(made.header("location"), Some("/api/v1/models/order"));
    let made = api.post("/models/order/instances", &json!({"id": "a", "data": {}})).expect(201);
    assert_eq!(made.header("location"), Some("/api/v1/models/order/instances/a"));
    let problem = api.get("/models/none").expect_problem(404, "not-found");
    assert_eq!(problem["type"], "/problems/not-found");
    for outside in ["/models", "/", "/api", "/api/v1", "/api/v1models", "/api/v2/models"] {
        api.request_to("GET", outside).send().expect_problem(404, "not-found");
    }
}

#[test]
fn media_types_are_checked() {
    let server = Server::start();
    let api = server.client();
    create_orders(&api, "order");
    let body = json!({"data": {"name": "a"}}).to_string();
    let send = |method: &str, path: &str, media_type: &str, body: &str| {
        api.request(method, path).body(media_type, body).send()
    };
    let instances = "/models/order/instances";
    for good in ["application/json", "Application/JSON; charset=utf-8", "application/vnd.shop+json"] {
        send("POST", instances, good, &body).expect(201);
    }
    api.request("POST", instances).untyped(body.clone()).send().expect(201);
    for bad in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/json; charset=latin1",
        "application/merge-patch+json",
        "",
    ] {
        let problem = send("POST", instances, bad, &body).expect_problem(415, "unsupported-media-type");
        assert!(problem["detail"].as_str().expect("text").contains("expected"), "{problem}");
    }
    api.post(instances, &json!({"id": "a", "data": {"name": "a"}})).expect(201);
    let one = "/models/order/instances/a";
    send("PATCH", one, "application/merge-patch+json", "{}").expect(200);
    send("PATCH", one, "application/json", "{}").expect_problem(415, "unsupported-media-type");
    api.request("PATCH", one).untyped("{}").send().expect_problem(415, "unsupported-media-type");
    send("PUT", one, "text/plain", &body).expect_problem(415, "unsupported-media-type");
    send("POST", "/models", "text/plain", "{}").expect_problem(415, "unsupported-media-type");
    send("PUT", "/models/order", "text/plain", "{}").expect_problem(415, "unsupported-media-type");
    send("PUT", "/models/order/hooks/preCreate", "text/plain", "{}").expect_problem(415, "unsupported-media-type");
    send("POST", "/models/order/import", "application/json", "{}").expect_problem(415, "unsupported-media-type");
    let zipped = api.request("POST", instances).header("Content-Encoding", "gzip").body("application/json", "x");
    zipped.send().expect_problem(415, "unsupported-media-type");
}

#[test]
fn pages_of_other_sites_may_not_write() {
    let server = Server::start();
    let api = server.client();
    let body = json!({"id": "order", "schema": {"type": "object"}});
    let send = |header: (&str, &str)| api.request("POST", "/models").header(header.0, header.1);
    send(("Sec-Fetch-Site", "cross-site")).json(&body).send().expect_problem(403, "forbidden");
    // Without a content type a browser would send it without a preflight.
    let untyped = send(("Origin", "https://evil.example")).untyped(body.to_string());
    untyped.send().expect_problem(403, "forbidden");
    send(("Sec-Fetch-Site", "same-site")).json(&body).send().expect_problem(403, "forbidden");
    // A foreign name that resolves to this machine.
    api.request("GET", "/models").host("evil.example:1337").send().expect_problem(403, "forbidden");
    api.request("GET", "/models").host("localhost").send().expect(200);
    send(("Sec-Fetch-Site", "same-origin")).json(&body).send().expect(201);
}

#[test]
fn bodies_are_bounded() {
    let server = Server::start_with(ServerOptions { server: "max-body = '64 KiB'".into(), ..ServerOptions::default() });
    let api = server.client();
    create_orders(&api, "order");
    let body = |length: usize| json!({"data": {"name": "x".repeat(length)}}).to_string();
    let post = |body: String| api.request("POST", "/models/order/instances").body("application/json", body).send();
    let overhead = body(0).len();
    post(body(64 * 1024 - overhead)).expect(201);
    post(body(64 * 1024 - overhead + 1)).expect_problem(413, "too-large");
    post(body(20_000_000)).expect_problem(413, "too-large");
    // A body without a declared length.
    let mut chunked = String::from(
        "POST /models/order/instances HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n",
    );
    for _ in 0..20 {
        chunked.push_str(&format!("2000\r\n{}\r\n", "x".repeat(0x2000)));
    }
    chunked.push_str("0\r\n\r\n");
    let answer = String::from_utf8_lossy(&api.raw(chunked.as_bytes())).into_owned();
    assert!(answer.starts_with("HTTP/1.1 413") && answer.contains("/problems/too-large"), "{answer}");
    // A client that sends `Expect` is rejected before it sends the body.
    let ask = "POST /models/order/instances HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999999\r\nExpect: 100-continue\r\n\
               Connection: close\r\n\r\n";
    let answer = String::from_utf8_lossy(&api.raw(ask.as_bytes())).into_owned();
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    api.get("/healthz").expect(200);
}

#[test]
fn a_body_may_come_in_small_pieces() {
    let server = Server::start();
    let api = server.client();
    create_orders(&api, "order");
    let head = "POST /models/order/instances HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
                Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut stream = TcpStream::connect(server.address()).expect("a connection");
    stream.set_nodelay(true).expect("a socket");
    stream.write_all(head.as_bytes()).expect("sent");
    for byte in r#"{"data":{"name":"piecemeal"}}"#.chars() {
        stream.write_all(format!("1\r\n{byte}\r\n").as_bytes()).expect("sent");
        stream.flush().expect("sent");
    }
    stream.write_all(b"0\r\n\r\n").expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 201") && answer.contains(r#""name":"piecemeal""#), "{answer}");
}

#[test]
fn head_is_get_without_the_body() {
    let server = Server::start();
    let api = server.client();
    create_orders(&api, "order");
    api.post("/models/order/instances", &json!({"id": "a", "data": {"name": "a"}})).expect(201);
    for path in ["/models", "/models/order", "/models/order/instances", "/models/order/instances/a", "/healthz"] {
        let get = api.get(path).expect(200);
        let head = api.request("HEAD", path).send().expect(200);
        assert_eq!(head.header("content-length"), get.header("content-length"), "{path}");
        assert_eq!(head.header("etag"), get.header("etag"), "{path}");
        assert!(head.body.is_empty());
    }
    api.request("HEAD", "/models/none").send().expect(404);
}

#[test]
fn http2_without_tls() {
    let server = Server::start();
    let url = format!("http://{}/models", server.address());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        use http_body_util::{BodyExt, Full};
        use hyper_util::rt::{TokioExecutor, TokioIo};
        let stream = tokio::net::TcpStream::connect(server.address()).await.expect("a connection");
        let handshake = hyper::client::conn::http2::handshake::<_, _, Full<bytes::Bytes>>;
        let (mut sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("HTTP/2");
        tokio::spawn(connection);
        let body = json!({"id": "order", "schema": {"type": "object"}}).to_string();
        let create = hyper::Request::post(&url).header("content-type", "application/json").body(Full::from(body));
        let made = sender.send_request(create.expect("a request")).await.expect("an answer");
        assert_eq!((made.status(), made.version()), (hyper::StatusCode::CREATED, hyper::Version::HTTP_2));
        // Many concurrent requests on one connection.
        let gets = (0..50).map(|_| {
            let get = hyper::Request::get(&url).body(Full::default()).expect("a request");
            let answer = sender.send_request(get);
            async { answer.await.expect("an answer").into_body().collect().await.expect("a body").to_bytes() }
        });
        for body in futures::future::join_all(gets).await {
            assert!(body.starts_with(b"{\"items\":[{\"id\":\"order\""), "{body:?}");
        }
    });
}

#[test]
fn garbage_on_the_socket_costs_that_connection_only() {
    let server = Server::start();
    let api = server.client();
    for garbage in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        b"GET\r\n\r\n",
        b"\0\0\0\0\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\ngarbage garbage garbage",
        b"GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
    ] {
        let answer = api.raw(garbage);
        let text = String::from_utf8_lossy(&answer).into_owned();
        assert!(!text.starts_with("HTTP/1.1 2"), "{text}");
    }
    let mut many = b"GET /healthz HTTP/1.1\r\n".to_vec();
    for number in 0..200 {
        many.extend_from_slice(format!("X-{number}: y\r\n").as_bytes());
    }
    many.extend_from_slice(b"\r\n");
    let answer = api.raw(&many);
    assert!(answer.starts_with(b"HTTP/1.1 431"), "{}", String::from_utf8_lossy(&answer));
    api.get("/healthz").expect(200);
}

#[test]
fn requests_in_a_row_are_answered_in_a_row() {
    let server = Server::start();
    let api = server.client();
    let mut wire = Vec::new();
    for number in 0..20 {
        wire.extend_from_slice(format!("GET /models/m{number} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes());
    }
    wire.extend_from_slice(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    let answer = String::from_utf8_lossy(&api.raw(&wire)).into_owned();
    let places: Vec<_> = (0..20).map(|number| answer.find(&format!("`m{number}`"))).collect();
    assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{answer}");
    assert!(answer.ends_with(r#"{"status":"ok"}"#), "{answer}");
}

#[test]
fn sigterm_ends_streams_and_lets_requests_finish() {
    let mut server = Server::start();
    let api = server.client();
    create_orders(&api, "order");
    let stream = api.stream("/events/stream", &[]);
    // A request whose body has not arrived yet.
    let mut slow = TcpStream::connect(server.address()).expect("a connection");
    let body = r#"{"id":"late","data":{"name":"x"}}"#;
    let head = format!(
        "POST /models/order/instances HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    slow.write_all(head.as_bytes()).expect("sent");
    slow.write_all(&body.as_bytes()[..5]).expect("sent");
    eventually("the request is under way", || api.get("/healthz").expect(200).header("x-request-id").map(|_| ()));
    let started = Instant::now();
    server.terminate();
    assert!(stream.rest().is_empty());
    slow.write_all(&body.as_bytes()[5..]).expect("the connection is still there");
    let mut answer = String::new();
    slow.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    assert!(server.wait().success(), "{}", server.log().join("\n"));
    assert!(started.elapsed() < Duration::from_secs(15));
    let server = server.restart_ended();
    server.client().get("/models/order/instances/late").expect(200);
}

#[test]
fn a_connection_that_stays_idle_does_not_hold_up_the_end() {
    let mut server = Server::start();
    let idle: Vec<_> = (0..5).map(|_| TcpStream::connect(server.address()).expect("a connection")).collect();
    let api = server.client();
    api.get("/healthz").expect(200);
    let started = Instant::now();
    assert!(server.stop().success());
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
    drop(idle);
}
