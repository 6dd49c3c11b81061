//! The memory that requests use in the server: bounded, shared fairly, and released.
//!
//! Each attack uses plain sockets; the peak of the server's memory is read from the system.

mod hooks;
pub(crate) mod process;
mod slow;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;

use self::process::{MIB, Memory};
use crate::support::{Client, PATIENCE, Server, ServerOptions, eventually};

/// The memory budget of these servers, and the maximum growth of their memory: the budget, plus what one request at a
/// time needs for a moment.
const BUDGET: u64 = 64 * MIB;
const GROWTH_MAX: u64 = BUDGET + 96 * MIB;

/// The limit for the 99th percentile of another client's requests.
const P99_MAX: Duration = Duration::from_millis(50);
/// A measurement that other programs disturb is repeated.
const MEASUREMENTS: usize = 5;

fn start() -> Server {
    start_with(ServerOptions::default())
}

/// With additional settings. A connection's share of the memory holds 4 MB of data four times.
fn start_with(options: ServerOptions) -> Server {
    let tables = format!("[server.limits]\nmemory = '64 MiB'\n{}", options.tables);
    let server = Server::start_with(ServerOptions { tables, ..options });
    for model in ["large", "other"] {
        let schema = json!({"type": "object", "properties": {"text": {"type": "string"}}});
        server.client().post("/models", &json!({"id": model, "schema": schema})).expect(201);
    }
    server
}

/// Creates an instance of this many bytes.
fn create_large(api: &Client, id: &str, bytes: usize) {
    api.post("/models/large/instances", &json!({"id": id, "data": {"text": "x".repeat(bytes)}})).expect(201);
}

/// All memory has been released.
#[track_caller]
fn nothing_is_held(server: &Server) {
    let api = server.client();
    eventually("the budget is free", || {
        let text = api.get("/metrics").text();
        let value = |name: &str| {
            let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("no {name}"));
            line.rsplit(' ').next().and_then(|value| value.parse::<u64>().ok()).expect("a number")
        };
        assert_eq!(value("snaphook_memory_limit_bytes "), BUDGET);
        (value("snaphook_memory_bytes ") == 0).then_some(())
    });
}

/// Another client still reads and writes quickly.
#[track_caller]
fn a_neighbour_is_served(server: &Server) {
    let api = server.client();
    let mut seen = Vec::new();
    for _ in 0..MEASUREMENTS {
        let mut times: Vec<Duration> = (0..150)
            .map(|_| {
                let started = Instant::now();
                api.get("/healthz").expect(200);
                api.post("/models/other/instances", &json!({"data": {"a": 1}})).expect(201);
                started.elapsed() / 2
            })
            .collect();
        times.sort();
        let p99 = times[times.len() * 99 / 100];
        eprintln!("a neighbour's p99: {p99:?}");
        if p99 <= P99_MAX {
            return;
        }
        seen.push(p99);
    }
    panic!("a neighbour waits: p99 {seen:?}");
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime")
}

#[test]
fn two_hundred_responses_that_are_not_read() {
    let server = start();
    create_large(&server.client(), "a", 4_000_000);
    nothing_is_held(&server);
    let memory = Memory::of(&server);
    let runtime = runtime();
    let url = format!("http://{}/models/large/instances/a", server.address());
    let (connection, answers, _held) = runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(server.address()).await.expect("a connection");
        // The server may send no body data.
        let (mut sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(0_u32)
            .handshake::<_, Full<bytes::Bytes>>(TokioIo::new(stream))
            .await
            .expect("HTTP/2");
        let connection = tokio::spawn(connection);
        let gets = (0..200).map(|_| {
            let get = hyper::Request::get(&url).body(Full::default()).expect("a request");
            sender.send_request(get)
        });
        let responses = futures::future::join_all(gets.collect::<Vec<_>>()).await;
        let statuses: Vec<u16> =
            responses.iter().map(|response| response.as_ref().expect("a head").status().as_u16()).collect();
        (connection, statuses, (sender, responses))
    });
    let whole = answers.iter().filter(|status| **status == 200).count();
    assert!((1..=8).contains(&whole), "{whole} responses of 4 MB are held in a quarter of 64 MiB: {answers:?}");
    assert!(answers.iter().all(|status| [200, 503].contains(status)), "{answers:?}");
    a_neighbour_is_served(&server);
    create_large(&server.client(), "b", 4_000_000);
    memory.grew_by_at_most(GROWTH_MAX);
    // A client that does not read is eventually disconnected, and its memory is released.
    let ended = runtime.block_on(async { tokio::time::timeout(PATIENCE, connection).await });
    assert!(ended.is_ok(), "it is still there after {PATIENCE:?}");
    nothing_is_held(&server);
}

#[test]
fn responses_that_are_read_but_for_their_end() {
    let server = start();
    create_large(&server.client(), "a", 4_000_000);
    let memory = Memory::of(&server);
    let runtime = runtime();
    let url = format!("http://{}/models/large/instances/a", server.address());
    let (sender, held) = runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(server.address()).await.expect("a connection");
        // Slightly less than a response: the server keeps the end of each one.
        let (mut sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(3_999_000_u32)
            .initial_connection_window_size(1_u32 << 30)
            .handshake::<_, Full<bytes::Bytes>>(TokioIo::new(stream))
            .await
            .expect("HTTP/2");
        tokio::spawn(connection);
        let gets = (0..60).map(|_| {
            let get = hyper::Request::get(&url).body(Full::default()).expect("a request");
            sender.send_request(get)
        });
        let responses = futures::future::join_all(gets.collect::<Vec<_>>()).await;
        (sender, responses)
    });
    let whole = held.iter().filter(|response| response.as_ref().is_ok_and(|head| head.status() == 200)).count();
    assert!((1..=8).contains(&whole), "{whole}");
    a_neighbour_is_served(&server);
    memory.grew_by_at_most(GROWTH_MAX);
    drop((sender, held, runtime));
    nothing_is_held(&server);
}

#[test]
fn eighty_bodies_that_never_end() {
    let server = start();
    let memory = Memory::of(&server);
    let almost = vec![b' '; 7_900_000];
    let mut answered = Vec::new();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| {
                let (almost, address) = (&almost, server.address());
                scope.spawn(move || {
                    (0..10)
                        .map(|_| {
                            let mut stream = TcpStream::connect(address).expect("the server listens");
                            stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
                            let head = "POST /models/large/instances HTTP/1.1\r\nHost: localhost\r\n\
                                        Content-Type: application/json\r\nContent-Length: 8000000\r\n\r\n";
                            // The server may reject and close a connection before it has received everything.
                            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(almost));
                            stream
                        })
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        answered.extend(threads.into_iter().flat_map(|thread| thread.join().expect("connections")));
    });
    a_neighbour_is_served(&server);
    memory.grew_by_at_most(GROWTH_MAX);
    // Large requests may use 56 MiB, enough for seven bodies; all others get 503.
    let mut refused = 0;
    eventually("seventy are refused", || {
        answered.retain(|stream| {
            let mut stream: &TcpStream = stream;
            stream.set_read_timeout(Some(Duration::from_millis(10))).expect("a timeout");
            let mut head = [0; 12];
            let is_refused = stream.read_exact(&mut head).is_ok() && &head == b"HTTP/1.1 503";
            refused += usize::from(is_refused);
            !is_refused
        });
        (refused >= 70).then_some(())
    });
    drop(answered);
    nothing_is_held(&server);
}

#[test]
fn small_bodies_with_large_trees() {
    let server = start();
    let api = server.client();
    let memory = Memory::of(&server);
    let post = |model: &str, bytes: usize, item: &str| {
        let body = format!("{{\"data\":{{\"a\":[{}0]}}}}", item.repeat(bytes / item.len()));
        api.request("POST", &format!("/models/{model}/instances")).body("application/json", body).send()
    };
    for item in ["0,", "[],", "{},", "1.5,", "\"\",", "null,"] {
        let problem = post("large", 7_900_000, item).expect_problem(413, "too-large");
        let detail = problem["detail"].as_str().expect("text");
        assert!(detail.contains("server.limits.memory") && detail.contains("MiB"), "{detail}");
    }
    // The same for a definition, a patch, and members that a definition ignores.
    let zeros = format!("[{}0]", "0,".repeat(3_900_000));
    for (method, path, media_type, body) in [
        ("POST", "/models", "application/json", format!("{{\"id\":\"z\",\"schema\":{{\"enum\":{zeros}}}}}")),
        ("PUT", "/models/large", "application/json", format!("{{\"schema\":{{}},\"renames\":{{\"a\":{zeros}}}}}")),
        ("PUT", "/models/large", "application/json", format!("{{\"schema\":{{}},\"indexes\":{zeros}}}")),
        ("PATCH", "/models/large/instances/a", "application/merge-patch+json", format!("{{\"a\":{zeros}}}")),
        ("PUT", "/models/large/instances/a", "application/json", format!("{{\"data\":{{\"a\":{zeros}}}}}")),
        ("PUT", "/models/large/hooks/preCreate", "application/json", format!("{{\"chain\":{zeros}}}")),
    ] {
        let problem = api.request(method, path).body(media_type, body).send();
        problem.expect_problem(413, "too-large");
    }
    // Data that fits is accepted, including a small change of large stored data.
    post("large", 200_000, "0,").expect(201);
    let data = format!("{{\"id\":\"p\",\"data\":{{\"a\":[{}0]}}}}", "0,".repeat(100_000));
    api.request("POST", "/models/large/instances").body("application/json", data).send().expect(201);
    let patch = api.request("PATCH", "/models/large/instances/p");
    patch.body("application/merge-patch+json", r#"{"b":1}"#).send().expect(200);
    let import = format!("{{\"data\":{{\"a\":[{}0]}}}}\n{{\"data\":{{}}}}\n", "0,".repeat(3_900_000));
    let import = api.request("POST", "/models/large/import").body("application/x-ndjson", import).send();
    let imported = import.expect(200).json();
    assert_eq!((&imported["created"], &imported["failed"]), (&json!(1), &json!(1)), "{imported}");
    assert_eq!(imported["errors"][0]["type"], "too-large", "{imported}");
    a_neighbour_is_served(&server);
    memory.grew_by_at_most(GROWTH_MAX);
    nothing_is_held(&server);
    // The memory of the process decreases again too.
    memory.comes_down_to(48 * MIB);
}

#[test]
fn large_imports_wait_for_their_own_lines() {
    let server = start();
    let memory = Memory::of(&server);
    let line = format!("{{\"data\":{{\"text\":\"{}\"}}}}\n", "x".repeat(2_000_000));
    let api = server.client();
    let import = api.request("POST", "/models/large/import").body("application/x-ndjson", line.repeat(30));
    assert_eq!(import.send().expect(200).json()["created"], 30);
    memory.grew_by_at_most(GROWTH_MAX);
    nothing_is_held(&server);
}

#[test]
fn pages_of_large_data() {
    let server = start();
    let api = server.client();
    for number in 0..30 {
        create_large(&api, &format!("i{number}"), 1_000_000);
    }
    let memory = Memory::of(&server);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let api = server.client();
                for path in [
                    "/models/large/instances?limit=1000",
                    "/events?limit=1000",
                    "/models/large/instances?limit=1000&fields=text",
                    "/models/large/instances/i1/events",
                ] {
                    let response = api.get(path);
                    assert!([200, 413, 503].contains(&response.status), "{path}: {}", response.status);
                }
            });
        }
    });
    a_neighbour_is_served(&server);
    // Each of eight clients holds a page of 16 MiB before it is rejected because there is no memory for the response
    // text; the stores' memory-mapped files count too.
    memory.grew_by_at_most(GROWTH_MAX + 8 * 16 * MIB + 64 * MIB);
    nothing_is_held(&server);
}

#[test]
fn listeners_that_do_not_read() {
    let server = start();
    let api = server.client();
    let memory = Memory::of(&server);
    let listen = |after: &str| -> Vec<TcpStream> {
        let one = |_| {
            let mut stream = TcpStream::connect(server.address()).expect("the server listens");
            let request = format!("GET /events/stream{after} HTTP/1.1\r\nHost: localhost\r\n\r\n");
            stream.write_all(request.as_bytes()).expect("a request");
            let mut head = [0; 15];
            stream.read_exact(&mut head).expect("a head");
            assert_eq!(&head, b"HTTP/1.1 200 OK");
            stream
        };
        (0..24).map(one).collect()
    };
    // Some listen live, others read the log from its start.
    let live = listen("");
    for number in 0..20 {
        create_large(&api, &format!("i{number}"), 2_000_000);
    }
    let late = listen("?after=0");
    // A listener that connects later and reads gets all events.
    let mut stream = api.stream("/events/stream?after=0&model=large&type=instance.created", &[]);
    for number in 0..20 {
        assert_eq!(stream.next().data["instance"], format!("i{number}"));
    }
    a_neighbour_is_served(&server);
    memory.grew_by_at_most(GROWTH_MAX);
    drop((live, late, stream));
    nothing_is_held(&server);
}

#[test]
fn a_response_takes_as_long_as_it_needs_if_it_is_read() {
    let server = start();
    create_large(&server.client(), "a", 4_000_000);
    let runtime = runtime();
    let url = format!("http://{}/models/large/instances/a", server.address());
    let whole = runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(server.address()).await.expect("a connection");
        let (mut sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(20_000_u32)
            .handshake::<_, Full<bytes::Bytes>>(TokioIo::new(stream))
            .await
            .expect("HTTP/2");
        tokio::spawn(connection);
        let get = hyper::Request::get(&url).body(Full::default()).expect("a request");
        let response = sender.send_request(get).await.expect("a head");
        response.into_body().collect().await.expect("a body").to_bytes()
    });
    assert!(whole.len() > 4_000_000 && whole.ends_with(b"xx\"}}"), "{}", whole.len());
}
