//! SIGTERM and similar signals shut a server down; SIGHUP, or a change of the file, reloads the configuration.
#![cfg(unix)]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use crate::peer::{Peer, PeerResponse};
use crate::support::{Client, PATIENCE, Server, ServerOptions, eventually};
use crate::workbench::{append_config, create, create_and_wait, grant, open_model, signal};

/// A hook that runs for this long.
fn busy(phase: &str, milliseconds: u32) -> String {
    format!(
        "export function {phase}({{ log }}) {{ log.info('started'); const end = Date.now() + {milliseconds}; while (Date.now() < end); log.info('ended'); }}"
    )
}

fn patient() -> ServerOptions {
    ServerOptions { hooks: "timeout = '30 s'".to_owned(), ..ServerOptions::default() }
}

#[test]
fn what_runs_is_finished() {
    for stop in [Signal::TERM, Signal::INT] {
        let tables = grant("post", "postCreate", "write = ['mark']");
        let mut server = Server::start_with(ServerOptions { tables, ..patient() });
        let api = server.client();
        for model in ["pre", "post", "mark"] {
            open_model(&api, model);
        }
        api.put_javascript("pre", "preCreate", &busy("preCreate", 300)).expect(200);
        let marks = "export async function postCreate({ id, write }) { await write.create('mark', { id }); \
                     const end = Date.now() + 1500; while (Date.now() < end); await write.create('mark', { id, ended: true }); }";
        api.put_javascript("post", "postCreate", marks).expect(200);
        api.post("/models/post/instances", &json!({"id": "a", "data": {}})).expect(201);
        eventually("the post hook runs", || (all_marks(&api) == 1).then_some(()));
        // A request whose head has arrived and whose body is still outstanding.
        let mut upload = Upload::begin(&server, "/models/pre/instances", r#"{"id":"kept","data":{}}"#);
        let idle = server.client();
        idle.get("/healthz").expect(200);

        signal(&server, stop);
        let asked = Instant::now();
        eventually("nobody is let in", || TcpStream::connect(server.address()).is_err().then_some(()));
        assert!(upload.finish().starts_with("HTTP/1.1 201 "));
        let status = server.wait();
        assert_eq!(status.code(), Some(0), "{:?}", server.log());
        assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
        says(&server, "stopped");

        // Acknowledged writes are present, and the completed post hook does not run again.
        let server = server.restart_ended();
        let api = server.client();
        api.get("/models/pre/instances/kept").expect(200);
        assert_eq!(all_marks(&api), 2);
        create_and_wait(&api, "post", &json!({}));
        assert_eq!(all_marks(&api), 4);
    }
}

fn all_marks(api: &Client) -> u64 {
    let page = api.get("/models/mark/instances?count=true").expect(200).json();
    page["count"].as_u64().expect("a number")
}

/// A request that the server has begun to read.
struct Upload<'a> {
    stream: TcpStream,
    body: &'a str,
}

impl<'a> Upload<'a> {
    #[track_caller]
    fn begin(server: &Server, path: &str, body: &'a str) -> Upload<'a> {
        let mut stream = TcpStream::connect(server.address()).expect("a server");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\nExpect: 100-continue\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).expect("the server reads");
        // `100 Continue`: the server requests the body.
        let mut said = [0; 25];
        stream.read_exact(&mut said).expect("the server answers");
        assert_eq!(&said, b"HTTP/1.1 100 Continue\r\n\r\n");
        Upload { stream, body }
    }

    /// Sends the body and returns the complete response.
    #[track_caller]
    fn finish(&mut self) -> String {
        self.stream.write_all(self.body.as_bytes()).expect("the server reads");
        let mut answer = String::new();
        self.stream.read_to_string(&mut answer).expect("the server answers and closes");
        answer
    }
}

#[test]
fn nothing_waits_longer_than_ten_seconds() {
    let peer = Peer::start(|_| PeerResponse::stalled());
    let tables = grant("js", "postCreate", &format!("http = ['{}']", peer.url("/*")));
    let mut server = Server::start_with(ServerOptions { tables, ..ServerOptions::default() });
    let api = server.client();
    open_model(&api, "js");
    let source = format!(
        "export async function postCreate({{ fetch }}) {{ await fetch('{}', {{ signal: AbortSignal.timeout(60_000) }}); }}",
        peer.url("/x")
    );
    api.put_javascript("js", "postCreate", &source).expect(200);
    create(&api, "js", &json!({})).expect(201);
    // An event stream would never end either.
    let stream = api.stream("/events/stream", &[]);
    eventually("the hook waits", || (!peer.asked().is_empty()).then_some(()));
    let asked = Instant::now();
    assert_eq!(server.stop().code(), Some(0), "{:?}", server.log());
    assert!(asked.elapsed() < Duration::from_secs(14), "{:?}", asked.elapsed());
    stream.rest();
    // The run was not completed, so it is repeated.
    let before = peer.asked().len();
    let _server = server.restart_ended();
    eventually("the hook runs again", || (peer.asked().len() > before).then_some(()));
}

#[test]
fn signals_within_a_second_are_one_and_a_later_one_ends_it_at_once() {
    let mut server = Server::start_with(patient());
    let api = server.client();
    open_model(&api, "js");
    api.put_javascript("js", "postCreate", &busy("postCreate", 20_000)).expect(200);
    create(&api, "js", &json!({})).expect(201);
    let asked = Instant::now();
    signal(&server, Signal::INT);
    // Signals within the first second count as the same request to stop.
    assert_eq!(server.end_by(Signal::TERM).code(), Some(143));
    assert!((1..6).contains(&asked.elapsed().as_secs()), "{:?}", asked.elapsed());
    says(&server, "a second signal, sent at least 1 s from now, stops immediately");
    // Two signals within a second count as one: the running hook may finish.
    let mut server = server.restart_ended();
    create(&server.client(), "js", &json!({})).expect(201);
    signal(&server, Signal::TERM);
    signal(&server, Signal::TERM);
    assert_eq!(server.wait().code(), Some(0), "{:?}", server.log());
}

fn grants(api: &Client) -> serde_json::Value {
    api.get("/models/js/hooks/preCreate").expect(200).json()[0]["grants"].clone()
}

#[track_caller]
fn says(server: &Server, text: &str) {
    eventually(text, || server.log().iter().any(|line| line.contains(text)).then_some(()));
}

fn reloading() -> (Server, Client) {
    let server = Server::start();
    let api = server.client();
    open_model(&api, "js");
    api.put_javascript("js", "preCreate", "export default () => {}").expect(200);
    assert_eq!(grants(&api), json!({"timeout": "500 ms", "memory": "64 MiB"}));
    (server, api)
}

#[test]
fn a_signal_loads_the_configuration_again() {
    let (server, api) = reloading();
    signal(&server, Signal::HUP);
    says(&server, "config.toml reloaded, nothing that takes effect without a restart has changed");
    append_config(&server, &grant("js", "*", "read = ['x']\ntimeout = '2 s'\nmemory = '128 MiB'"));
    signal(&server, Signal::HUP);
    says(&server, "now in force: grants");
    assert_eq!(grants(&api), json!({"read": ["x"], "timeout": "2 s", "memory": "128 MiB"}));
    // A limit that affects the call.
    api.put_javascript("js", "preCreate", &busy("preCreate", 800)).expect(200);
    create(&api, "js", &json!({})).expect(201);
    let text = std::fs::read_to_string(server.config_file()).expect("a config");
    std::fs::write(server.config_file(), text.replace("timeout = '2 s'", "timeout = '200 ms'")).expect("written");
    signal(&server, Signal::HUP);
    eventually("the limit is in force", || (grants(&api)["timeout"] == "200 ms").then_some(()));
    create(&api, "js", &json!({})).expect_problem(502, "hook-failed");
}

#[test]
fn a_change_of_the_file_is_seen() {
    let (server, api) = reloading();
    append_config(&server, &grant("js", "preCreate", "amend = true"));
    eventually("the grant is in force", || (grants(&api)["amend"] == true).then_some(()));
    // Replace the file, as editors do.
    let text = std::fs::read_to_string(server.config_file()).expect("a config");
    let beside = server.directory().join("config.toml.new");
    std::fs::write(&beside, text.replace("amend = true", "read = ['y']")).expect("written");
    std::fs::rename(&beside, server.config_file()).expect("renamed");
    eventually("the other grant is in force", || (grants(&api)["read"] == json!(["y"])).then_some(()));
    assert!(grants(&api).get("amend").is_none());
}

#[test]
fn what_is_refused_or_needs_a_restart_is_left_as_it_was() {
    let (server, api) = reloading();
    let good = std::fs::read_to_string(server.config_file()).expect("a config");
    append_config(&server, "[[grants]]\nmodel = 'js'\nphase = 'preCreate'\nraed = ['x']");
    says(&server, "unknown key `grants.raed`, did you mean `grants.read`?");
    says(&server, "config.toml is rejected, the previous configuration stays in force");
    assert_eq!(grants(&api), json!({"timeout": "500 ms", "memory": "64 MiB"}));
    std::fs::remove_file(server.config_file()).expect("removed");
    signal(&server, Signal::HUP);
    says(&server, "cannot be read");
    create(&api, "js", &json!({})).expect(201);

    let changed = good.replace("mount-address = '127.0.0.1:0'", "mount-address = '127.0.0.1:1'\nmax-body = '1 MiB'");
    std::fs::write(server.config_file(), format!("{changed}\n{}", grant("js", "preCreate", "read = ['z']")))
        .expect("written");
    eventually("the grant is in force", || (grants(&api)["read"] == json!(["z"])).then_some(()));
    says(&server, "`server.mount-address` has changed and needs a restart, its previous value stays in force");
    api.get("/healthz").expect(200);
}
