//! A log has an identity: positions and data from another log, or from a longer one, are never accepted for this log.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::support::{Client, Server, create_orders};

/// A server with instances of these names.
fn start(names: &[&str]) -> Server {
    let server = Server::start();
    let api = server.client();
    create_orders(&api, "order");
    for name in names {
        create(&api, name);
    }
    server
}

#[track_caller]
fn create(api: &Client, name: &str) -> Value {
    api.post("/models/order/instances", &json!({"id": name, "data": {"name": name}})).expect(201).json()
}

fn head(api: &Client) -> u64 {
    api.get("/events?limit=1").expect(200).json()["head"].as_u64().expect("a number")
}

/// The log's identity, as it appears in positions.
#[track_caller]
fn log_of(api: &Client) -> String {
    let page = api.get("/events?limit=1").expect(200).json();
    page["next"].as_str().and_then(|next| next.rsplit_once('.')).expect("a place").0.to_owned()
}

fn names(api: &Client) -> Vec<String> {
    let page = api.get("/models/order/instances").expect(200).json();
    let items = page["items"].as_array().expect("items");
    items.iter().map(|instance| instance["id"].as_str().expect("an id").to_owned()).collect()
}

#[test]
fn a_place_that_the_log_does_not_have_is_410() {
    let (server, other) = (start(&["a", "b"]), start(&["a", "b"]));
    let (api, foreign) = (server.client(), log_of(&other.client()));
    let (log, head) = (log_of(&api), head(&api));
    assert_ne!(log, foreign);
    let instance = "/models/order/instances/a";
    let ask = |place: &str| {
        [
            api.get(&format!("/events?after={place}")),
            api.get(&format!("{instance}/events?after={place}")),
            api.get(&format!("{instance}?at={place}")),
        ]
    };
    for place in [head.to_string(), format!("{log}.{head}")] {
        ask(&place).into_iter().for_each(|answer| drop(answer.expect(200)));
        assert_eq!(api.stream(&format!("/events/stream?after={place}"), &[]).status(), 200);
        assert_eq!(api.stream("/events/stream", &[("Last-Event-ID", &place)]).status(), 200);
    }
    let beyond = [(head + 1).to_string(), u64::MAX.to_string(), format!("{log}.{}", head + 1), format!("{foreign}.1")];
    for place in beyond {
        for answer in ask(&place) {
            answer.expect_problem(410, "position-unknown");
        }
        api.get(&format!("/events/stream?after={place}")).expect_problem(410, "position-unknown");
        let resumed = api.request("GET", "/events/stream").header("Last-Event-ID", &place).send();
        let problem = resumed.expect_problem(410, "position-unknown");
        assert!(problem["detail"].as_str().expect("text").contains("start over"), "{problem}");
    }
    // For a reconnecting client the header takes precedence over the URL.
    let stale = format!("/events/stream?after={foreign}.1");
    assert_eq!(api.stream(&stale, &[("Last-Event-ID", &format!("{log}.1"))]).status(), 200);
    for place in [log.to_string(), format!("{log}.x"), format!("{log}.-1"), "1.5".to_owned(), format!("{log}x.1")] {
        ask(&place).into_iter().for_each(|answer| drop(answer.expect_problem(400, "bad-request")));
    }
}

#[test]
fn a_page_gives_out_places_that_go_on_from_it() {
    let server = start(&["a", "b", "c"]);
    let api = server.client();
    let log = log_of(&api);
    let (mut place, mut seen) = (Some("0".to_owned()), Vec::new());
    while let Some(after) = place {
        let page = api.get(&format!("/events?limit=1&after={after}")).expect(200).json();
        seen.extend(page["items"].as_array().expect("items").iter().map(|event| event["position"].clone()));
        place = page["next"].as_str().map(str::to_owned);
        assert!(place.as_ref().is_none_or(|place| place.starts_with(&format!("{log}."))), "{page}");
    }
    assert_eq!(seen.len(), 4);
    let mut stream = api.stream("/events/stream?after=0", &[]);
    let id = stream.next().id.expect("an id");
    assert_eq!(id, format!("{log}.{}", seen[0]));
    assert_eq!(json!(api.stream("/events/stream", &[("Last-Event-ID", &id)]).next().position()), seen[1]);
}

#[test]
fn a_stream_says_at_once_where_it_starts() {
    let server = start(&["a"]);
    let api = server.client();
    let expected = format!("id: {}.{}\n\n", log_of(&api), head(&api));
    let mut connection = TcpStream::connect(server.address()).expect("a connection");
    let request = format!("GET /events/stream HTTP/1.1\r\nHost: {}\r\n\r\n", server.address());
    connection.write_all(request.as_bytes()).expect("written");
    connection.set_read_timeout(Some(crate::support::PATIENCE)).expect("a timeout");
    let (mut text, mut byte) = (String::new(), [0]);
    while !text.ends_with(&expected) {
        assert_eq!(connection.read(&mut byte).expect("the place"), 1, "{text}");
        text.push(char::from(byte[0]));
    }
}

#[test]
fn a_tag_of_another_log_never_matches() {
    let (server, other) = (start(&["a"]), start(&["a"]));
    let (api, elsewhere) = (server.client(), other.client());
    for path in ["/models/order/instances/a", "/models/order"] {
        let own = api.get(path).expect(200).header("etag").expect("a tag").to_owned();
        let foreign = elsewhere.get(path).expect(200).header("etag").expect("a tag").to_owned();
        assert_ne!(own, foreign, "{path}: the same position of two logs");
        api.request("GET", path).header("If-None-Match", &own).send().expect(304);
        api.request("GET", path).header("If-None-Match", &foreign).send().expect(200);
        api.request("GET", path).header("If-Match", &foreign).send().expect_problem(412, "precondition-failed");
        api.request("DELETE", path).header("If-Match", &foreign).send().expect_problem(412, "precondition-failed");
        // The tag format from before tags contained the log.
        let position = api.get(path).expect(200).json()["position"].clone();
        let old = api.request("DELETE", path).header("If-Match", &format!("\"{position}\"")).send();
        old.expect_problem(412, "precondition-failed");
        api.request("DELETE", path).header("If-Match", &own).send().expect(204);
    }
}

#[test]
fn the_history_of_a_deleted_model_is_there_and_that_of_a_name_never_seen_is_not() {
    let server = start(&["a"]);
    let api = server.client();
    api.delete("/models/order?cascade=true").expect(204);
    let events = api.get("/events?model=order").expect(200).json();
    assert_eq!(events["items"].as_array().expect("items").len(), 4, "{events}");
    assert_eq!(api.stream("/events/stream?model=order&after=0", &[]).next().event, "model.created");
    for path in ["/events?model=ordr", "/events/stream?model=ordr", "/events?model=ordr&instance=a"] {
        api.get(path).expect_problem(404, "not-found");
    }
}

/// Forwards connections to the current target.
struct Relay {
    address: SocketAddr,
    target: Arc<Mutex<SocketAddr>>,
    open: Arc<Mutex<Vec<TcpStream>>>,
}

impl Relay {
    fn to(target: SocketAddr) -> Relay {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let (target, open) = (Arc::new(Mutex::new(target)), Arc::new(Mutex::new(Vec::new())));
        std::thread::spawn({
            let (target, open) = (Arc::clone(&target), Arc::clone(&open));
            move || {
                for client in listener.incoming().map_while(Result::ok) {
                    let server = TcpStream::connect(*target.lock().expect("an address")).expect("the server listens");
                    let copies = [(&client, &server), (&server, &client)];
                    for (from, to) in copies {
                        let (mut from, mut to) = (from.try_clone().expect("a copy"), to.try_clone().expect("a copy"));
                        // Ends when either side closes.
                        std::thread::spawn(move || drop(std::io::copy(&mut from, &mut to)));
                    }
                    open.lock().expect("a list").extend([client, server]);
                }
            }
        });
        Relay { address, target, open }
    }

    /// Closes open connections and directs new ones to another target.
    fn turn_to(&self, target: SocketAddr) {
        *self.target.lock().expect("an address") = target;
        for stream in self.open.lock().expect("a list").drain(..) {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }
}

#[test]
fn the_command_line_starts_over_with_another_log() {
    let (first, second) = (start(&["a", "b", "c"]), start(&["x"]));
    let relay = Relay::to(first.address());
    let url = format!("http://{}", relay.address);
    let mut child = Command::new(env!("CARGO_BIN_EXE_snaphook"))
        .args(["--url", &url, "events", "--follow", "--after", "0", "--type", "instance.created", "-n", "4"])
        .current_dir(first.directory())
        .env_remove("SNAPHOOK_URL")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let mut next = || {
        let line = lines.next().expect("a line").expect("text");
        serde_json::from_str::<Value>(&line).expect("JSON")["instance"].clone()
    };
    assert_eq!([next(), next(), next()], ["a", "b", "c"]);
    relay.turn_to(second.address());
    assert_eq!(next(), "x");
    let ended = child.wait_with_output().expect("its end");
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success() && said.contains("another log") && said.contains("starting over"), "{said}");

    // An explicit start position must exist.
    let api = second.client();
    let place = format!("{}.1", log_of(&first.client()));
    for after in [place, (head(&api) + 1).to_string()] {
        let output = snaphook(
            second.directory(),
            &["--url", &format!("http://{}", second.address()), "events", "--follow", "--after", &after],
        );
        assert!(output.0 == Some(1) && output.1.contains("start over"), "{output:?}");
    }
}

/// The exit code, and the complete output.
fn snaphook(directory: &Path, args: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_snaphook"));
    let output = command.args(args).current_dir(directory).env_remove("SNAPHOOK_URL").output().expect("it runs");
    (
        output.status.code(),
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat(),
    )
}

/// Copies files from one data folder to another; both servers have stopped.
fn copy(from: &Path, to: &Path, names: &[&str]) {
    for name in names {
        std::fs::copy(from.join("data").join(name), to.join("data").join(name)).expect("copied");
    }
}

#[test]
fn a_model_store_of_another_log_is_refused_until_it_is_made_again() {
    let (mut server, mut other) = (start(&["a", "b", "c", "d"]), start(&["x"]));
    server.stop();
    other.stop();
    copy(other.directory(), server.directory(), &["events.db", "events.db-groups"]);
    // Only the admin knows which of the two is wrong.
    for _ in 0..2 {
        let (code, said) = snaphook(server.directory(), &["serve"]);
        assert!(code == Some(1) && said.contains("of another log") && said.contains("snaphook rebuild"), "{said}");
    }
    let (code, said) = snaphook(server.directory(), &["rebuild"]);
    assert_eq!(code, Some(0), "{said}");
    let server = server.restart_ended();
    assert_eq!(names(&server.client()), ["x"]);
    create(&server.client(), "y");
    assert_eq!(names(&server.restart().client()), ["x", "y"]);
}

#[test]
fn a_log_that_lost_its_end_is_said_and_not_hidden() {
    let mut server = start(&["a"]);
    server.stop();
    let old = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(old.path().join("data")).expect("a folder");
    let log = ["events.db", "events.db-groups"];
    copy(server.directory(), old.path(), &log);
    let mut server = server.restart_ended();
    create(&server.client(), "b");
    server.stop();
    copy(old.path(), server.directory(), &log);
    let (code, said) = snaphook(server.directory(), &["serve"]);
    assert!(code == Some(1) && said.contains("events are lost") && said.contains("snaphook rebuild"), "{said}");
    let (code, said) = snaphook(server.directory(), &["rebuild"]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(names(&server.restart_ended().client()), ["a"]);
}

#[test]
fn the_progress_of_another_logs_groups_is_refused() {
    let (mut server, mut other) = (start(&["a"]), start(&["x"]));
    server.stop();
    other.stop();
    copy(other.directory(), server.directory(), &["events.db-groups"]);
    let (code, said) = snaphook(server.directory(), &["serve"]);
    assert!(code == Some(1) && said.contains("another") || said.contains("of the log"), "{said}");
    assert!(said.contains("events.db-groups"), "{said}");
    std::fs::remove_file(server.directory().join("data/events.db-groups")).expect("removed");
    assert_eq!(names(&server.restart_ended().client()), ["a"]);
}
