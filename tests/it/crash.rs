//! `kill -9` under load, again and again, on one data folder, on files, and with every store in another process.
//!
//! Sixteen writers and one that changes the model are at work, and post hooks write, when the server dies. After each
//! restart the log must hold what was acknowledged, once, and of what was not answered all or nothing; the model store
//! must be what the log adds up to. At the end every post hook must have run, in order.

mod ledger;

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use self::ledger::{Attempt, Ledger, Outcome, What, events_after};
use crate::chance::Chance;
use crate::plugins;
use crate::support::{Client, DriverHost, PATIENCE, Response, Server, ServerOptions, eventually, list};

const WRITERS: usize = 16;
const MODEL: &str = "account";
/// Instances that all writers count up.
const COUNTERS: usize = 4;
/// Values that are fought for.
const CODES: usize = 600;

/// Appends what it sees to the model `log`.
const HOOK: &str = r#"
    export default async function ({ phase, id, event, attempt, write }) {
      await write.create("log", { instance: id, position: event.position, phase, attempt });
    }"#;

const GRANT: &str = "
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

/// The same with every store in another process, which dies as well.
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

/// Kills a server so often. `meanwhile` is called while it is dead.
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
                let writer = Writer {
                    name: format!("w{number}-"),
                    round,
                    own: ledger.instances_of(&format!("w{number}-")),
                    api: server.client(),
                    chance: chance.fork(),
                    acknowledged: Arc::clone(&acknowledged),
                    attempts: Vec::new(),
                };
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
        // Not to wait for anything: to die at some other moment than that of an answer.
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

fn code(number: usize) -> String {
    format!("c{number}")
}

fn counter(number: usize) -> String {
    format!("counter-{number}")
}

fn definition(index: &str) -> Value {
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

/// Models, hooks and counters.
fn prepare(api: &Client) -> Vec<Attempt> {
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

/// Gives the model one index after the other until the server is gone.
fn change_model(api: &Client, acknowledged: &AtomicUsize) {
    let mut seen = 0;
    for index in ["pad", "n"].into_iter().cycle() {
        let body = definition(index);
        match api.request("PUT", &format!("/models/{MODEL}")).json(&body).try_send() {
            Ok(response) => drop(response.expect(200)),
            Err(_) => return,
        }
        // The writers are to get somewhere in between.
        let deadline = Instant::now() + Duration::from_secs(1);
        while acknowledged.load(Ordering::Relaxed) < seen + 100 && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(2));
        }
        seen = acknowledged.load(Ordering::Relaxed);
    }
}

fn create_keyed(api: &Client, key: &str, data: &Value) -> std::io::Result<Response> {
    let path = format!("/models/{MODEL}/instances");
    api.request("POST", &path).header("Idempotency-Key", key).json(&json!({"data": data})).try_send()
}

/// What an answer says about a write.
#[track_caller]
fn outcome_of(response: &Response) -> Outcome {
    match response.status {
        200 | 201 => {
            let answer = response.json();
            let id = answer["id"].as_str().expect("an id").to_owned();
            Outcome::Acknowledged { id, position: answer["position"].as_u64() }
        }
        409 | 412 => Outcome::Refused,
        status => panic!("{status}: {}", response.text()),
    }
}

/// Writes at random until the server is gone.
struct Writer {
    name: String,
    round: usize,
    /// Its instances that are there.
    own: Vec<String>,
    api: Client,
    chance: Chance,
    acknowledged: Arc<AtomicUsize>,
    attempts: Vec<Attempt>,
}

impl Writer {
    fn run(mut self) -> Vec<Attempt> {
        for number in 0.. {
            let mark = format!("{}r{}-{number}", self.name, self.round);
            let choice = self.chance.below(100);
            let alive = match choice {
                0..35 => self.create(mark),
                35..45 => self.create_keyed(mark),
                45..65 => self.patch(mark),
                65..75 => self.replace(mark),
                75..85 => self.delete(),
                85..95 => self.count(mark),
                _ => self.import(&mark),
            };
            if alive.is_none() {
                break;
            }
        }
        self.attempts
    }

    /// Keeps the attempt; `None` if the server did not answer.
    fn note(&mut self, mark: String, what: What, response: std::io::Result<Response>) -> Option<Outcome> {
        let outcome = match &response {
            Err(_) => Outcome::Unknown,
            Ok(response) => match (&what, response.status) {
                (What::Delete { id }, 204) => Outcome::Acknowledged { id: id.clone(), position: None },
                _ => outcome_of(response),
            },
        };
        if let Outcome::Acknowledged { .. } = outcome {
            self.acknowledged.fetch_add(1, Ordering::Relaxed);
        }
        self.attempts.push(Attempt { mark, what, outcome: outcome.clone() });
        (outcome != Outcome::Unknown).then_some(outcome)
    }

    fn data(&mut self, mark: &str) -> Value {
        let mut data = json!({"mark": mark, "n": self.chance.below(1000)});
        if self.chance.one_in(2) {
            data["code"] = json!(code(self.chance.below(CODES)));
        }
        if self.chance.one_in(4) {
            data["pad"] = json!("x".repeat(self.chance.below(3000)));
        }
        data
    }

    fn instance(id: &str) -> String {
        format!("/models/{MODEL}/instances/{id}")
    }

    fn some_own(&mut self) -> Option<String> {
        (!self.own.is_empty()).then(|| self.own[self.chance.below(self.own.len())].clone())
    }

    fn create(&mut self, mark: String) -> Option<()> {
        let data = self.data(&mark);
        let body = json!({"id": mark, "data": data});
        let response = self.api.request("POST", &format!("/models/{MODEL}/instances")).json(&body).try_send();
        let what = What::Create { id: Some(mark.clone()), data };
        if let Outcome::Acknowledged { id, .. } = self.note(mark, what, response)? {
            self.own.push(id);
        }
        Some(())
    }

    fn create_keyed(&mut self, mark: String) -> Option<()> {
        let data = self.data(&mark);
        let response = create_keyed(&self.api, &mark, &data);
        self.note(mark, What::Create { id: None, data }, response).map(drop)
    }

    fn patch(&mut self, mark: String) -> Option<()> {
        let Some(id) = self.some_own() else { return Some(()) };
        let mut patch = json!({"mark": mark, "n": self.chance.below(1000)});
        match self.chance.below(4) {
            0 => patch["code"] = json!(code(self.chance.below(CODES))),
            1 => patch["code"] = Value::Null,
            _ => {}
        }
        let request = self.api.request("PATCH", &Self::instance(&id));
        let response = request.body("application/merge-patch+json", patch.to_string()).try_send();
        self.note(mark, What::Patch { id, patch }, response).map(drop)
    }

    fn replace(&mut self, mark: String) -> Option<()> {
        let Some(id) = self.some_own() else { return Some(()) };
        let data = self.data(&mark);
        let response = self.api.request("PUT", &Self::instance(&id)).json(&json!({"data": data})).try_send();
        self.note(mark, What::Replace { id, data }, response).map(drop)
    }

    fn delete(&mut self) -> Option<()> {
        let Some(id) = self.some_own() else { return Some(()) };
        let response = self.api.request("DELETE", &Self::instance(&id)).try_send();
        let mark = format!("delete {id}");
        if let Outcome::Acknowledged { id, .. } = self.note(mark, What::Delete { id }, response)? {
            self.own.retain(|own| *own != id);
        } else {
            // Nobody else writes to it, but the model may have changed too often under it; it must not be deleted
            // under the same mark again.
            let refused = self.attempts.pop();
            assert!(matches!(refused, Some(Attempt { outcome: Outcome::Refused, .. })), "{refused:?}");
        }
        Some(())
    }

    /// Reads a counter and writes one more, if nobody was faster.
    fn count(&mut self, mark: String) -> Option<()> {
        let id = counter(self.chance.below(COUNTERS));
        let read = self.api.request("GET", &Self::instance(&id)).try_send().ok()?.expect(200);
        let etag = read.header("etag").expect("an ETag").to_owned();
        let n = read.json()["data"]["n"].as_u64().expect("a number");
        let data = json!({"mark": mark, "n": n + 1});
        let request = self.api.request("PUT", &Self::instance(&id)).header("If-Match", &etag);
        let response = request.json(&json!({"data": data})).try_send();
        self.note(mark, What::Replace { id, data }, response).map(drop)
    }

    fn import(&mut self, mark: &str) -> Option<()> {
        let lines: Vec<(String, Value)> = (0..self.chance.within(2..30))
            .map(|line| {
                let mark = format!("{mark}-{line}");
                (mark.clone(), self.data(&mark))
            })
            .collect();
        let body: String = lines.iter().map(|(id, data)| format!("{}\n", json!({"id": id, "data": data}))).collect();
        let request = self.api.request("POST", &format!("/models/{MODEL}/import"));
        let response = request.body("application/x-ndjson", body).try_send();
        let failed: Option<BTreeSet<usize>> = response.ok().map(|response| {
            let answer = response.expect(200).json();
            let failed: BTreeSet<usize> = answer["errors"]
                .as_array()
                .expect("errors")
                .iter()
                .map(|error| error["line"].as_u64().expect("a line") as usize - 1)
                .collect();
            assert_eq!(answer["failed"], failed.len(), "{answer}");
            assert_eq!(answer["created"], lines.len() - failed.len(), "{answer}");
            failed
        });
        for (line, (id, data)) in lines.into_iter().enumerate() {
            let outcome = match &failed {
                None => Outcome::Unknown,
                Some(failed) if failed.contains(&line) => Outcome::Refused,
                Some(_) => {
                    self.acknowledged.fetch_add(1, Ordering::Relaxed);
                    self.own.push(id.clone());
                    Outcome::Acknowledged { id: id.clone(), position: None }
                }
            };
            self.attempts.push(Attempt { mark: id.clone(), what: What::Create { id: Some(id), data }, outcome });
        }
        failed.map(drop)
    }
}

/// Waits until the hooks saw every event, then looks at the order in which they did.
#[track_caller]
fn check_hooks(api: &Client, ledger: &Ledger) {
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
}

/// The model store is what a rebuild makes of the log, while the server runs and from the command line.
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
