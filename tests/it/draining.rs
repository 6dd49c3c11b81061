//! A server that stops, or reloads its configuration and certificates, under load: every accepted write gets a response
//! and is in the log, no response is cut off, and waiting requests end.
#![cfg(unix)]

mod load;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use self::load::{Load, Protocol, Way};
use crate::modules::{example, module, serve as serve_modules};
use crate::peer::{Peer, PeerResponse};
use crate::support::{Client, PATIENCE, Server, ServerOptions, eventually};
use crate::transport::{pair, write_pair};
use crate::webhooks::{KEY, bind};
use crate::workbench::{grant, open_model};

/// The connections of a load, and the writes that it completes before the test acts.
const CONNECTIONS: usize = 8;
const WRITES: usize = 200;

const TLS: &str = "[server.tls]\ncertificate = 'cert.pem'\nprivate-key = 'key.pem'";

fn grants(peer: &Peer) -> String {
    grant("order", "postCreate", &format!("http = ['{}']\nsecret = ['key']", peer.url("/*")))
}

/// A model whose post hook sends each event to the peer.
fn prepare(api: &Client, peer: &Peer) {
    api.request("PUT", "/secrets/key").body("text/plain", KEY).send().expect(204);
    open_model(api, "order");
    bind(api, "order", "postCreate", &peer.url("/"));
}

/// The log contains exactly the acknowledged writes, and each event reached its post hook.
#[track_caller]
fn check(load: &Load, api: &Client, peer: &Peer) {
    load.check();
    let (mut stored, mut events, mut after) = (Vec::new(), Vec::new(), "0".to_owned());
    loop {
        let page = api.get(&format!("/events?type=instance.created&limit=1000&after={after}")).expect(200).json();
        for event in page["items"].as_array().expect("a list") {
            stored.push(event["instance"].as_str().expect("an id").to_owned());
            events.push(event["id"].as_str().expect("an id").to_owned());
        }
        match page["next"].as_str() {
            Some(next) => after = next.to_owned(),
            None => break,
        }
    }
    stored.sort();
    assert_eq!(stored, load.answered(), "what is stored, and what was answered");
    eventually("each event came to its hook", || {
        let came: std::collections::BTreeSet<_> =
            peer.asked().iter().flat_map(|asked| asked.headers("webhook-id")).map(str::to_owned).collect();
        events.iter().all(|id| came.contains(id)).then_some(())
    });
    assert!(api.get("/errors").expect(200).json()["items"].as_array().is_some_and(Vec::is_empty));
}

#[track_caller]
fn stopped_under_load(server: &str, protocol: Protocol) {
    // Slow, so that most events wait for their hook when the server stops.
    let peer = Peer::start(|_| {
        std::thread::sleep(Duration::from_millis(5));
        PeerResponse::new(204, "")
    });
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("hooks")).expect("a folder for hooks");
    let certificate = write_pair(folder.path());
    let options = ServerOptions { server: server.to_owned(), tables: grants(&peer), ..ServerOptions::default() };
    let plain = ServerOptions { server: String::new(), ..options.clone() };
    let mut first = Server::start_in(Arc::new(folder), plain.clone());
    prepare(&first.client(), &peer);
    first.stop();
    let folder = first.folder();
    drop(first);
    let mut server = Server::start_in(Arc::clone(&folder), options);
    let way = match server_is_tls(&server) {
        true => Way::Tls(server.address(), certificate),
        false => Way::Tcp(server.address()),
    };
    let load = Load::start(way, protocol, CONNECTIONS);
    load.wait_for(WRITES);
    let asked = Instant::now();
    server.terminate();
    load.join();
    assert_eq!(server.wait().code(), Some(0), "{:?}", server.log());
    assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
    assert!(!server.log().iter().any(|line| line.contains("are cut off")), "{:?}", server.log());
    if protocol == Protocol::Http1 {
        assert!(load.was_told() > 0, "no response said that it is the last one");
    }
    drop(server);
    let server = Server::start_in(folder, plain);
    check(&load, &server.client(), &peer);
}

fn server_is_tls(server: &Server) -> bool {
    std::fs::read_to_string(server.config_file()).expect("a config").contains("[server.tls]")
}

#[test]
fn http_1_is_drained() {
    stopped_under_load("", Protocol::Http1);
}

#[test]
fn http_2_is_drained() {
    stopped_under_load("", Protocol::Http2);
}

#[test]
fn tls_is_drained() {
    stopped_under_load(TLS, Protocol::Http1);
    stopped_under_load(TLS, Protocol::Http2);
}

#[test]
fn a_unix_socket_is_drained() {
    let peer = Peer::start(|_| PeerResponse::new(204, ""));
    let options = ServerOptions { tables: grants(&peer), ..ServerOptions::default() };
    let mut server = Server::start_with(options.clone());
    prepare(&server.client(), &peer);
    server.stop();
    let folder = server.folder();
    drop(server);
    let config = format!("[server]\nmount-address = 'unix:api.sock'\n[auth]\nmode = 'open'\n{}", options.tables);
    std::fs::write(folder.path().join("config.toml"), config).expect("a config");
    let socket = folder.path().join("api.sock");
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let mut process = serve(folder.path());
        eventually("it listens", || std::os::unix::net::UnixStream::connect(&socket).ok());
        let load = Load::start(Way::Unix(socket.clone()), protocol, CONNECTIONS);
        load.wait_for(WRITES);
        kill_process(Pid::from_child(&process), Signal::TERM).expect("a process");
        load.join();
        assert!(process.wait().expect("its end").success());
        assert!(!socket.exists());
        load.check();
        std::fs::rename(folder.path().join("config.toml"), folder.path().join("unix.toml")).expect("renamed");
        let server = Server::start_in(Arc::clone(&folder), options.clone());
        check_all_of(&load, &server.client());
        drop(server);
        std::fs::rename(folder.path().join("unix.toml"), folder.path().join("config.toml")).expect("renamed");
    }
}

fn serve(folder: &Path) -> std::process::Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_snaphook"));
    command.arg("serve").current_dir(folder).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("the binary")
}

/// For one load among others: exactly its acknowledged writes are stored.
#[track_caller]
fn check_all_of(load: &Load, api: &Client) {
    for id in load.answered() {
        api.get(&format!("/models/order/instances/{id}")).expect(200);
    }
    for id in load.unanswered() {
        api.get(&format!("/models/order/instances/{id}")).expect(404);
    }
}

#[test]
fn a_reload_breaks_nothing_off() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("hooks")).expect("a folder for hooks");
    let certificate = write_pair(folder.path());
    let server =
        Server::start_in(Arc::new(folder), ServerOptions { server: TLS.to_owned(), ..ServerOptions::default() });
    let way = Way::Tls(server.address(), certificate);
    let model = json!({"id": "order", "schema": {"type": "object"}});
    way.post("/models", &model);
    let loads = [Protocol::Http1, Protocol::Http2].map(|protocol| Load::start(way.clone(), protocol, 4));
    // Later ones would get a certificate that they do not trust.
    eventually("all connections are open", || loads.iter().all(|load| load.connections() == 4).then_some(()));
    for round in 0..6 {
        let before = loads.each_ref().map(|load| load.answered().len());
        let (certificate, key) = pair();
        std::fs::write(server.directory().join("key.pem"), key).expect("a key");
        std::fs::write(server.directory().join("cert.pem"), certificate).expect("a certificate");
        let text = std::fs::read_to_string(server.config_file()).expect("a config");
        let more = grant("order", "preCreate", &format!("read = ['m-{round}']"));
        std::fs::write(server.config_file(), format!("{text}\n{more}")).expect("written");
        server.signal(Signal::HUP);
        let loaded = || server.log().iter().filter(|line| line.contains("now in force: grants")).count();
        eventually("it is loaded", || (loaded() > round).then_some(()));
        eventually("it goes on", || {
            loads.iter().zip(&before).all(|(load, before)| load.answered().len() > before + 20).then_some(())
        });
    }
    for load in &loads {
        load.end();
        load.check();
        assert_eq!((load.unanswered().len(), load.connections()), (0, 4), "each connection went on");
    }
}

#[test]
fn what_waits_is_answered_and_what_is_idle_ends_in_order() {
    let holds = Arc::new(AtomicBool::new(true));
    let held = Arc::clone(&holds);
    let peer = Peer::start(move |_| {
        while held.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(5));
        }
        PeerResponse::new(204, "")
    });
    let tables =
        grant("order", "postCreate", &format!("http = ['{}']\nsecret = ['key']\ntimeout = '60 s'", peer.url("/*")));
    let mut server = Server::start_with(ServerOptions { tables, ..ServerOptions::default() });
    let api = server.client();
    prepare(&api, &peer);
    open_model(&api, "large");
    for number in 0..30 {
        let data = json!({"id": format!("i-{number}"), "data": {"text": "x".repeat(400_000)}});
        api.post("/models/large/instances", &data).expect(201);
    }
    let connect = || {
        let stream = TcpStream::connect(server.address()).expect("a server");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        stream
    };
    // A response with a slow reader, a connection without a request, an idle connection after a request, and an event
    // stream.
    let mut slow = connect();
    slow.write_all(b"GET /models/large/instances?limit=1000 HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("a request");
    let mut taken = vec![0; 100];
    slow.read_exact(&mut taken).expect("the start of a response");
    let mut fresh = connect();
    let mut idle = connect();
    idle.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("a request");
    idle.read_exact(&mut [0; 12]).expect("the start of a response");
    let stream = api.stream("/events/stream", &[]);
    let (waits, batch) = (server.client(), server.client());
    let waiting = std::thread::scope(|scope| {
        let one = scope.spawn(|| {
            let request = waits.request("POST", "/models/order/instances").header("Prefer", "wait=100");
            request.json(&json!({"id": "waits", "data": {}})).send()
        });
        let two = scope.spawn(|| {
            let create = json!({"op": "create", "model": "order", "id": "batch", "data": {}});
            batch.request("POST", "/batch").header("Prefer", "wait=100").json(&json!({"operations": [create]})).send()
        });
        eventually("both wait for their hooks", || (peer.asked().len() == 2).then_some(()));
        server.terminate();
        let asked = Instant::now();
        assert_eq!((one.join().expect("no panic").status, two.join().expect("no panic").status), (201, 200));
        for quiet in [&mut fresh, &mut idle] {
            let mut rest = Vec::new();
            quiet.read_to_end(&mut rest).expect("it is closed, not reset");
        }
        stream.rest();
        slow.read_to_end(&mut taken).expect("the rest of the response");
        asked.elapsed()
    });
    assert!(waiting < Duration::from_secs(8), "{waiting:?}");
    let text = String::from_utf8(taken).expect("text");
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    let length = |line: &str| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse::<usize>().ok();
    match head.lines().find_map(length) {
        Some(length) => assert_eq!(body.len(), length),
        None => assert!(body.ends_with("0\r\n\r\n"), "{}", &body[body.len().saturating_sub(100)..]),
    }
    assert!(body.len() > 4_000_000, "{}", body.len());
    holds.store(false, Ordering::SeqCst);
    assert_eq!(server.wait().code(), Some(0), "{:?}", server.log());
    // Acknowledged writes are present.
    let server = server.restart_ended();
    for id in ["waits", "batch"] {
        server.client().get(&format!("/models/order/instances/{id}")).expect(200);
    }
}

/// Clients that connected before the listener closed are served.
#[test]
fn who_has_connected_is_let_in() {
    let mut server = Server::start();
    let mut streams: Vec<TcpStream> = Vec::new();
    for _ in 0..64 {
        let mut stream = TcpStream::connect(server.address()).expect("a server");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        stream.write_all(b"GET /models HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("a request");
        streams.push(stream);
    }
    server.terminate();
    for mut stream in streams {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer, and the end");
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
    assert_eq!(server.wait().code(), Some(0));
}

/// Responses of modules also mark the last response of an HTTP/1 connection.
#[test]
fn what_a_module_answers_can_be_the_last_response() {
    let mut server = serve_modules(&module("hello", &example("endpoint"), ""));
    let mut stream = TcpStream::connect(server.address()).expect("a server");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    let mut says_last = || {
        stream.write_all(b"GET /hello?you HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("the connection is open");
        let mut response = Vec::new();
        while !response.ends_with(b"hello you\n") {
            let mut part = [0; 1024];
            let read = stream.read(&mut part).expect("a response");
            assert!(read > 0, "the connection ended after {:?}", String::from_utf8_lossy(&response));
            response.extend_from_slice(&part[..read]);
        }
        String::from_utf8_lossy(&response).to_ascii_lowercase().contains("connection: close")
    };
    assert!(!says_last());
    server.terminate();
    eventually("a response says that it is the last one", || says_last().then_some(()));
    assert_eq!(server.wait().code(), Some(0), "{:?}", server.log());
}

/// A request of which only a part has arrived when idle connections are closed.
#[test]
fn a_request_that_has_begun_to_come_is_answered() {
    let mut server = Server::start();
    let connect = || {
        let stream = TcpStream::connect(server.address()).expect("a server");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        stream
    };
    let (mut fresh, mut used, mut idle) = (connect(), connect(), connect());
    used.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("a request");
    let mut response = Vec::new();
    while !response.ends_with(br#"{"status":"ok"}"#) {
        let mut part = [0; 1024];
        let read = used.read(&mut part).expect("a response");
        response.extend_from_slice(&part[..read]);
    }
    for stream in [&mut fresh, &mut used] {
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: local").expect("a part of a request");
    }
    server.terminate();
    // From now on idle connections are closed.
    idle.read_to_end(&mut Vec::new()).expect("the end");
    for stream in [&mut fresh, &mut used] {
        stream.write_all(b"host\r\n\r\n").expect("the rest of it");
        let mut response = String::new();
        stream.read_to_string(&mut response).expect("a response, and the end");
        assert!(response.starts_with("HTTP/1.1 200 "), "{response:?}");
        assert!(response.to_ascii_lowercase().contains("connection: close"), "{response}");
    }
    assert_eq!(server.wait().code(), Some(0), "{:?}", server.log());
    assert!(!server.log().iter().any(|line| line.contains("are cut off")), "{:?}", server.log());
}

#[test]
fn handshakes_that_do_not_end_hold_up_no_stop() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("hooks")).expect("a folder for hooks");
    write_pair(folder.path());
    let options = ServerOptions { server: TLS.to_owned(), ..ServerOptions::default() };
    let mut server = Server::start_in(Arc::new(folder), options);
    let connect = || TcpStream::connect(server.address()).expect("a server");
    let (_silent, mut begun) = (connect(), connect());
    begun.write_all(b"\x16\x03\x01").expect("the start of a handshake");
    let asked = Instant::now();
    server.terminate();
    assert_eq!(server.wait().code(), Some(0), "{:?}", server.log());
    assert!(asked.elapsed() < Duration::from_secs(8), "{:?}", asked.elapsed());
    assert!(!server.log().iter().any(|line| line.contains("are cut off")), "{:?}", server.log());
}
