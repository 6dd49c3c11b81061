//! SIGTERM and its kin end a server in order; SIGHUP, or a change of the file, loads the configuration again.
#![cfg(unix)]

use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use crate::peer::{Answer, Peer};
use crate::support::{Client, Server, ServerOptions, eventually};
use crate::workbench::{append_config, create, create_and_wait, fresh_id, grant, log_of, open_model, signal};

/// A hook that is busy for a while.
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
        let mut server = Server::start_with(patient());
        let api = server.client();
        for (model, phase) in [("pre", "preCreate"), ("post", "postCreate")] {
            open_model(&api, model);
            api.put_javascript(model, phase, &busy(phase, 1500)).expect(200);
        }
        let post = fresh_id();
        api.post("/models/post/instances", &json!({"id": post, "data": {}})).expect(201);
        let idle = server.client();
        idle.get("/healthz").expect(200);
        let started = std::thread::scope(|scope| {
            let client = server.client();
            let request = scope.spawn(move || {
                let answer = client.post("/models/pre/instances", &json!({"id": "kept", "data": {}}));
                (answer, Instant::now())
            });
            // Its place among the calls of the hook is taken as soon as the request is there.
            eventually("the post hook runs", || in_flight(&api).then_some(()));
            signal(&server, stop);
            let asked = Instant::now();
            let (answer, answered) = request.join().expect("an answer");
            answer.expect(201);
            assert!(answered >= asked);
            asked
        });
        let status = server.wait();
        assert_eq!(status.code(), Some(0), "{:?}", server.log());
        assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
        assert!(TcpStream::connect(server.address()).is_err());
        assert!(server.log().last().is_some_and(|line| line.contains("stopped")), "{:?}", server.log());
        // What was acknowledged is there, and the post hook that ran is not run again.
        let server = server.restart_ended();
        let api = server.client();
        api.get("/models/pre/instances/kept").expect(200);
        let id = create_and_wait(&api, "post", &json!({}));
        assert_eq!(log_of(&api, "post", "postCreate", &id), ["started", "ended"]);
        assert_eq!(log_of(&api, "post", "postCreate", &post), Vec::<String>::new());
    }
}

/// Whether both requests of [`what_runs_is_finished`] are under way, by the server's own count.
fn in_flight(api: &Client) -> bool {
    let metrics = api.get("/metrics").expect(200).text();
    let value = |name: &str| {
        let line = metrics.lines().find(|line| line.starts_with(name) && !line.starts_with('#'));
        line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
    };
    // This very request counts, too.
    value("snaphook_http_requests_in_flight").unwrap_or(0.0) >= 2.0
}

#[test]
fn nothing_waits_longer_than_ten_seconds() {
    let peer = Peer::start(|_| Answer::stalled());
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
    // A listener, too, would stay for ever.
    let stream = api.stream("/events/stream", &[]);
    eventually("the hook waits", || (!peer.asked().is_empty()).then_some(()));
    let asked = Instant::now();
    assert_eq!(server.stop().code(), Some(0), "{:?}", server.log());
    assert!(asked.elapsed() < Duration::from_secs(14), "{:?}", asked.elapsed());
    stream.rest();
    // It was not finished, so it runs again.
    let before = peer.asked().len();
    let _server = server.restart_ended();
    eventually("the hook runs again", || (peer.asked().len() > before).then_some(()));
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let mut server = Server::start_with(patient());
    let api = server.client();
    open_model(&api, "js");
    api.put_javascript("js", "postCreate", &busy("postCreate", 20_000)).expect(200);
    create(&api, "js", &json!({})).expect(201);
    signal(&server, Signal::TERM);
    eventually("it stops", || server.log().iter().any(|line| line.contains("a second signal ends it")).then_some(()));
    let asked = Instant::now();
    signal(&server, Signal::TERM);
    assert_eq!(server.wait().code(), Some(143));
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
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
    says(&server, "config.toml loaded again, nothing in it that takes effect has changed");
    append_config(&server, &grant("js", "*", "read = ['x']\ntimeout = '2 s'\nmemory = '128 MiB'"));
    signal(&server, Signal::HUP);
    says(&server, "now in force: grants");
    assert_eq!(grants(&api), json!({"read": ["x"], "timeout": "2 s", "memory": "128 MiB"}));
    // A limit that the call feels.
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
    // As editors do it: another file takes its place.
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
    says(&server, "config.toml is refused, the configuration before stays in force");
    assert_eq!(grants(&api), json!({"timeout": "500 ms", "memory": "64 MiB"}));
    std::fs::remove_file(server.config_file()).expect("removed");
    signal(&server, Signal::HUP);
    says(&server, "cannot be read");
    create(&api, "js", &json!({})).expect(201);

    let changed = good.replace("mount-address = '127.0.0.1:0'", "mount-address = '127.0.0.1:1'\nmax-body = '1 MiB'");
    std::fs::write(server.config_file(), format!("{changed}\n{}", grant("js", "preCreate", "read = ['z']")))
        .expect("written");
    eventually("the grant is in force", || (grants(&api)["read"] == json!(["z"])).then_some(()));
    says(&server, "`server.mount-address` has changed and needs a restart, it is left as it was");
    says(&server, "`server.max-body` has changed and needs a restart, it is left as it was");
    api.get("/healthz").expect(200);
}
