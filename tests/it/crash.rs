//! `kill -9` under load, repeatedly on the same data folder: with the default stores, with files, and with every store
//! in another process.
//!
//! When the server dies, sixteen writers and one client that changes the model are at work, and post hooks write. After
//! each restart the log must contain every acknowledged write once, and unacknowledged writes completely or not at all;
//! the model store must match the log. At the end every post hook must have run, in order.

pub(crate) mod ledger;
pub(crate) mod writer;

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use self::ledger::{Attempt, Ledger, What, events_after};
use self::writer::{LedgerWriter, Servers, counter, outcome_of};
use crate::chance::Chance;
use crate::plugins;
use crate::support::{Client, DriverHost, PATIENCE, Server, ServerOptions, eventually, list};

pub(crate) const WRITERS: usize = 16;
pub(crate) const MODEL: &str = "account";
/// Counters that all writers increment.
pub(crate) const COUNTERS: usize = 4;
/// Unique values that the writers compete for.
pub(crate) const CODES: usize = 600;

/// Appends what it receives to the model `log`.
pub(crate) const HOOK: &str = r#"
    export default async function ({ phase, id, event, attempt, write }) {
      await write.create("log", { instance: id, position: event.position, phase, attempt });
    }"#;

pub(crate) const GRANT: &str = "
    [[grants]]
    model = 'account'
    phase = ['postCreate', 'postUpdate', 'postDelete']
    write = ['log']";

#[test]
fn nothing_acknowledged_is_lost_and_nothing_is_half_there() {
    kill(30, "", |_| ());
}

/// The same on files.
#[test]
fn nothing_is_lost_on_files() {
    kill(8, &stores(|store| format!("driver = 'file'\npath = 'data/files/{store}'")), |_| ());
}

/// The same with every store in another process, which is killed too.
#[test]
fn nothing_is_lost_in_a_driver_host() {
    let mut host = Some(DriverHost::start());
    let url = host.as_ref().map(DriverHost::url).unwrap_or_default();
    let connection = format!("[connections.host]\ndriver = 'remote'\nurl = '{url}'\nencoding = 'protobuf'\n");
    let tables = connection + &stores(|_| "driver = 'remote'\nconnection = 'host'".to_owned());
    kill(8, &tables, |round| {
        if round % 2 == 1 {
            host = host.take().map(|host| host.kill().restart());
        }
    });
}

/// The same with every store in a library.
#[test]
fn nothing_is_lost_in_libraries() {
    if let Some(folder) = plugins::folder(&["sqlite", "file"]) {
        kill(6, &plugins::table(folder.path()), |_| ());
    }
}

/// The tables of all four stores.
fn stores(settings: impl Fn(&str) -> String) -> String {
    let table = |store| format!("[driver-{store}-storage]\n{}\n", settings(store));
    ["secure", "event", "model", "error"].map(table).concat()
}

/// Kills a server this many times. `meanwhile` runs while it is down.
fn kill(rounds: usize, tables: &str, mut meanwhile: impl FnMut(usize)) {
    let mut chance = Chance::new();
    let tables = format!("{tables}{GRANT}");
    let mut server = Server::start_with(ServerOptions { tables, ..ServerOptions::default() });
    let mut ledger = Ledger::default();
    let mut attempts = prepare(&server.client());
    attempts = ledger.settle(&server.client(), attempts);
    for round in 0..rounds {
        let acknowledged = Arc::new(AtomicUsize::new(0));
        let writers: Vec<_> = (0..WRITERS)
            .map(|number| {
                let servers = Servers::One(server.client());
                let writer = LedgerWriter::new(number, round, &ledger, servers, chance.fork(), &acknowledged);
                std::thread::spawn(move || writer.run())
            })
            .collect();
        let definer = std::thread::spawn({
            let (api, acknowledged) = (server.client(), Arc::clone(&acknowledged));
            move || change_model(&api, &acknowledged)
        });
        let enough = chance.within(20..600);
        let more = Duration::from_micros(chance.below(3000) as u64);
        eventually("the writers write", || (acknowledged.load(Ordering::Relaxed) >= enough).then_some(()));
        // Not a wait for a result: the kill should come at a random time after a response.
        std::thread::sleep(more);
        server.signal(Signal::KILL);
        server.wait();
        meanwhile(round);
        server = server.restart_ended();
        for writer in writers {
            attempts.extend(writer.join().expect("a writer"));
        }
        definer.join().expect("the one that changes the model");
        attempts = ledger.settle(&server.client(), attempts);
    }
    ledger.settle(&server.client(), attempts);
    println!(
        "{} events, {} writes acknowledged, {} without an answer, {} of those stored",
        ledger.history.len(),
        ledger.acknowledged,
        ledger.unanswered,
        ledger.surfaced
    );
    assert!(ledger.unanswered > rounds, "the server was never at work when it died");
    let api = server.client();
    ledger.check_claims(&api, CODES);
    check_hooks(&api, &ledger);
    check_rebuild(server);
}

pub(crate) fn definition(index: &str) -> Value {
    json!({
        "schema": {
            "type": "object",
            "properties": {
                "mark": {"type": "string"},
                "n": {"type": "integer"},
                "code": {"type": "string"},
                "pad": {"type": "string"},
            },
            "required": ["mark"],
        },
        "indexes": [[index]],
        "unique": [["code"]],
    })
}

/// Creates models, hooks and counters.
pub(crate) fn prepare(api: &Client) -> Vec<Attempt> {
    let mut account = definition("n");
    account["id"] = json!(MODEL);
    api.post("/models", &account).expect(201);
    let log =
        json!({"type": "object", "properties": {"instance": {"type": "string"}, "position": {"type": "integer"}}});
    api.post("/models", &json!({"id": "log", "schema": log})).expect(201);
    for phase in ["postCreate", "postUpdate", "postDelete"] {
        api.put_javascript(MODEL, phase, HOOK).expect(200);
    }
    (0..COUNTERS)
        .map(|number| {
            let mark = counter(number);
            let data = json!({"mark": mark, "n": 0});
            let response =
                api.post(&format!("/models/{MODEL}/instances"), &json!({"id": mark, "data": data})).expect(201);
            let what = What::Create { id: Some(mark.clone()), data };
            Attempt { mark, what, outcome: outcome_of(&response) }
        })
        .collect()
}

/// Switches the model between indexes until the server is gone.
fn change_model(api: &Client, acknowledged: &AtomicUsize) {
    let mut seen = 0;
    for index in ["pad", "n"].into_iter().cycle() {
        let body = definition(index);
        match api.request("PUT", &format!("/models/{MODEL}")).json(&body).try_send() {
            Ok(response) => drop(response.expect(200)),
            Err(_) => return,
        }
        // The writers must make progress in between.
        let deadline = Instant::now() + Duration::from_secs(1);
        while acknowledged.load(Ordering::Relaxed) < seen + 100 && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(2));
        }
        seen = acknowledged.load(Ordering::Relaxed);
    }
}

/// Waits until the hooks have seen every event, then checks their order. Returns the number of repeated runs.
#[track_caller]
pub(crate) fn check_hooks(api: &Client, ledger: &Ledger) -> usize {
    let kinds: BTreeMap<u64, (&str, &str)> = ledger
        .history
        .iter()
        .map(|(position, id, kind)| {
            let phase = match kind.as_str() {
                "instance.created" => "postCreate",
                "instance.updated" => "postUpdate",
                _ => "postDelete",
            };
            (*position, (id.as_str(), phase))
        })
        .collect();
    let mut seen: BTreeSet<u64> = BTreeSet::new();
    let mut last: BTreeMap<String, u64> = BTreeMap::new();
    let (mut after, mut repeated, mut progress) = (0, 0, Instant::now());
    while seen.len() < kinds.len() {
        for run in events_after(api, after, "log") {
            after = run["position"].as_u64().expect("a position");
            let data = &run["data"];
            let position = data["position"].as_u64().expect("a position");
            let (id, phase) = kinds.get(&position).unwrap_or_else(|| panic!("a hook ran for no event: {run}"));
            assert_eq!((data["instance"].as_str(), data["phase"].as_str()), (Some(*id), Some(*phase)), "{run}");
            assert_eq!(run["cause"]["position"], position, "{run}");
            assert_eq!(run["cause"]["depth"], 1, "{run}");
            let before = last.insert((*id).to_owned(), position).unwrap_or(0);
            assert!(before <= position, "`{id}`: a hook ran for {position} after it ran for {before}");
            repeated += usize::from(!seen.insert(position));
            progress = Instant::now();
        }
        if progress.elapsed() > PATIENCE {
            let errors = api.get("/errors?limit=3").expect(200).text();
            panic!("hooks saw {} of {} events and no more for {PATIENCE:?}; errors: {errors}", seen.len(), kinds.len());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    println!("{} runs of hooks, {repeated} of them again", seen.len() + repeated);
    let errors = api.get("/errors").expect(200).json();
    assert_eq!(errors["items"], json!([]), "a hook failed");
    repeated
}

/// The model store equals a rebuild from the log, on a running server and from the command line.
#[track_caller]
fn check_rebuild(mut server: Server) {
    let all = |server: &Server| {
        let api = server.client();
        let model = api.get(&format!("/models/{MODEL}")).expect(200).text();
        (model, list(&api, MODEL), list(&api, "log"))
    };
    let before = all(&server);
    let api = server.client();
    api.request("POST", "/rebuild").send().expect(202);
    eventually("the rebuild is done", || {
        let progress = api.get("/rebuild").expect(200).json();
        assert_ne!(progress["state"], "failed", "{progress}");
        (progress["state"] == "done").then_some(())
    });
    assert!(all(&server) == before, "a rebuild makes another model store");
    assert!(server.stop().success());
    let rebuilt = Command::new(env!("CARGO_BIN_EXE_snaphook"))
        .arg("rebuild")
        .current_dir(server.directory())
        .output()
        .expect("the binary starts");
    assert!(rebuilt.status.success(), "{}", String::from_utf8_lossy(&rebuilt.stderr));
    let server = server.restart_ended();
    assert!(all(&server) == before, "`snaphook rebuild` makes another model store");
}
