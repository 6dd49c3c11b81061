//! Clients that flood or stall: many connections, slow heads, abuse of HTTP/2. Others are served meanwhile, and memory
//! stays bounded.

mod frames;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use serde_json::json;

use self::frames::{Frame, Wire};
use crate::memory::process::{MIB, Memory};
use crate::peer::{Peer, PeerResponse};
use crate::support::{PATIENCE, Server, ServerOptions, eventually};
use crate::webhooks::{KEY, bind};
use crate::workbench::{grant, open_model};

/// Maximum total memory for idle or abusive connections.
const GROWTH_MAX: u64 = 300 * MIB;

/// A connection from another address of this machine, as another client.
fn connect_from(address: [u8; 4], to: SocketAddr) -> TcpStream {
    use rustix::net::{AddressFamily, SocketType, bind, connect, socket};

    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
    bind(&socket, &SocketAddr::from((address, 0))).expect("an address of this machine");
    connect(&socket, &to).expect("the server listens");
    TcpStream::from(socket)
}

/// Checks that a request is served within the time a person would wait, even on a busy machine.
#[track_caller]
fn a_neighbour_is_served(server: &Server) {
    let started = Instant::now();
    server.client().post("/models/order/instances", &json!({"data": {}})).expect(201);
    assert!(started.elapsed() < Duration::from_secs(20), "a neighbour waits {:?}", started.elapsed());
}

fn start(server: &str) -> Server {
    let server = Server::start_with(ServerOptions { server: server.to_owned(), ..ServerOptions::default() });
    server.client().post("/models", &json!({"id": "order", "schema": {"type": "object"}})).expect(201);
    server
}

#[test]
fn idle_connections_make_room_for_others() {
    let server = start("[server.limits]\nconnections = 16");
    let api = server.client();
    let mut stream = api.stream("/events/stream", &[]);
    // Incomplete heads, and connections that send nothing.
    let idle: Vec<TcpStream> = (0..40)
        .map(|number| {
            let mut stream = connect_from([127, 0, 0, 2], server.address());
            if number % 2 == 0 {
                stream.write_all(b"GET /models HTTP/1.1\r\nHost: localhost\r\nX: ").expect("the start of a head");
            }
            stream
        })
        .collect();
    for _ in 0..5 {
        a_neighbour_is_served(&server);
    }
    // Connections in use stay open.
    for _ in 0..5 {
        assert_eq!(stream.next().event, "instance.created");
    }
    drop(idle);
}

/// The server stops working on a request that its client has reset.
#[test]
fn connections_whose_requests_were_reset_make_room_for_others() {
    const CONNECTIONS: usize = 8;
    let (holds, has_ended) = channel::<()>();
    let has_ended = Mutex::new(has_ended);
    let peer = Peer::start(move |_| {
        // Blocks until the test is over.
        let _ = has_ended.lock().map(|has_ended| has_ended.recv());
        PeerResponse::new(204, "")
    });
    let server = Server::start_with(ServerOptions {
        server: format!("[server.limits]\nconnections = {CONNECTIONS}"),
        tables: grant("order", "postCreate", &format!("http = ['{}']\nsecret = ['key']", peer.url("/*"))),
        ..ServerOptions::default()
    });
    let api = server.client();
    api.request("PUT", "/secrets/key").body("text/plain", KEY).send().expect(204);
    open_model(&api, "order");
    bind(&api, "order", "postCreate", &peer.url("/"));
    drop(api);
    let mut wires: Vec<Wire> = (0..CONNECTIONS).map(|_| Wire::connect(server.address())).collect();
    for wire in &mut wires {
        wire.send(&Frame::waiting_post(1, "/models/order/instances", br#"{"data": {}}"#));
    }
    eventually("each request waits for its hook", || (peer.connections() >= CONNECTIONS).then_some(()));
    wires.iter_mut().for_each(|wire| wire.send(&Frame::reset(1)));
    a_neighbour_is_served(&server);
    drop(holds);
}

#[test]
fn ten_thousand_idle_connections() {
    let server = start("");
    a_neighbour_is_served(&server);
    let memory = Memory::of(&server);
    // As many as the configuration allows and this process can open.
    let count = if cfg!(target_os = "linux") { 10_000 } else { 200 };
    let mut idle = Vec::with_capacity(count);
    for number in 0..count {
        let Ok(mut stream) = TcpStream::connect(server.address()) else { break };
        let sent: &[u8] = match number % 3 {
            0 => b"",
            1 => b"GET /models HTTP/1.1\r\nHost: localhost\r\nX-Slow: ",
            _ => b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
        };
        stream.write_all(sent).expect("sent");
        idle.push(stream);
    }
    assert!(idle.len() * 2 > count, "only {} connections were made", idle.len());
    for _ in 0..20 {
        a_neighbour_is_served(&server);
    }
    memory.grew_by_at_most(GROWTH_MAX);
}

/// Name, whether the server closes the connection, and what to send in each round.
type Flood = (&'static str, bool, Box<dyn Fn(&mut Wire, u32)>);

/// What an HTTP/2 client repeats, and whether the server closes its connection.
#[rustfmt::skip]
fn floods() -> Vec<Flood> {
    vec![
        ("rapid reset", true, Box::new(|wire, number| {
            let stream = number * 2 + 1;
            wire.send(&Frame::request(stream, "/models/order/instances"));
            wire.send(&Frame::reset(stream));
        })),
        ("continuations without an end", true, Box::new(|wire, number| wire.send(&match number {
            0 => Frame::headers(1, 0, &frames::request_block("/models")),
            _ => Frame::continuation(1, &frames::literal("x-more", &"y".repeat(4_000))),
        }))),
        ("settings", false, Box::new(|wire, _| wire.send(&Frame::settings()))),
        ("pings", false, Box::new(|wire, _| wire.send(&Frame::ping()))),
        ("streams that wait for their body", true, Box::new(|wire, number| {
            wire.send(&Frame::open_post(number * 2 + 1, "/models/order/instances"));
        })),
        ("empty data", false, Box::new(|wire, number| wire.send(&match number {
            0 => Frame::open_post(1, "/models/order/instances"),
            _ => Frame::data(1, b""),
        }))),
        ("window updates that overflow", true, Box::new(|wire, _| wire.send(&Frame::window_update(0, 0x7fff_ffff)))),
        ("priorities", false, Box::new(|wire, number| wire.send(&Frame::priority(number * 2 + 1)))),
    ]
}

#[test]
fn abuse_of_http2() {
    let server = start("");
    a_neighbour_is_served(&server);
    for (name, is_ended, send) in floods() {
        let memory = Memory::of(&server);
        let mut wires: Vec<Wire> = (0..4).map(|_| Wire::connect(server.address())).collect();
        for number in 0..20_000 {
            wires.iter_mut().for_each(|wire| send(wire, number));
            if wires.iter().all(Wire::has_ended) {
                break;
            }
        }
        a_neighbour_is_served(&server);
        memory.grew_by_at_most(GROWTH_MAX);
        if is_ended {
            for wire in &mut wires {
                wire.wait_for_its_end(name);
            }
        }
    }
    // No resources are left in use.
    let mut stream = TcpStream::connect(server.address()).expect("the server listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a deadline");
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").expect("sent");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("a response");
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    eventually("the server is idle", || server.is_idle().then_some(()));
}
