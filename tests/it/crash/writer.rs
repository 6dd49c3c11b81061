//! A writer that makes random writes, to one server until it is gone or to several until it is stopped.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use super::ledger::{Attempt, Ledger, What, WriteOutcome};
use super::{CODES, COUNTERS, MODEL};
use crate::chance::Chance;
use crate::support::{Client, Request, Response};

pub(super) fn code(number: usize) -> String {
    format!("c{number}")
}

pub(super) fn counter(number: usize) -> String {
    format!("counter-{number}")
}

pub(super) fn create_keyed(api: &Client, key: &str, data: &Value) -> std::io::Result<Response> {
    create_keyed_at(api.request("POST", &instances()), key, data)
}

fn create_keyed_at(request: Request<'_>, key: &str, data: &Value) -> std::io::Result<Response> {
    request.header("Idempotency-Key", key).json(&json!({"data": data})).try_send()
}

fn instances() -> String {
    format!("/models/{MODEL}/instances")
}

/// The outcome of a write according to its response.
#[track_caller]
pub(super) fn outcome_of(response: &Response) -> WriteOutcome {
    match response.status {
        200 | 201 => {
            let answer = response.json();
            let id = answer["id"].as_str().expect("an id").to_owned();
            WriteOutcome::Acknowledged { id, position: answer["position"].as_u64() }
        }
        409 | 412 => WriteOutcome::Refused,
        status => panic!("{status}: {}", response.text()),
    }
}

pub(crate) struct LedgerWriter {
    name: String,
    round: usize,
    /// Its existing instances.
    own: Vec<String>,
    servers: Servers,
    chance: Chance,
    acknowledged: Arc<AtomicUsize>,
    attempts: Vec<Attempt>,
}

/// The servers that a writer writes to.
pub(crate) enum Servers {
    /// One server, until it is gone.
    One(Client),
    /// Several nodes that share a log, in turn, as behind a load balancer, until the flag is set.
    Cluster { nodes: Vec<Client>, at: usize, seen: u64, ends: Arc<AtomicBool> },
}

impl Servers {
    fn client(&self) -> &Client {
        match self {
            Servers::One(client) => client,
            Servers::Cluster { nodes, at, .. } => &nodes[at % nodes.len()],
        }
    }

    fn is_cluster(&self) -> bool {
        matches!(self, Servers::Cluster { .. })
    }

    /// Nodes that are catching up must reach the position that the writer has seen before they respond.
    fn request(&self, method: &str, path: &str) -> Request<'_> {
        let request = self.client().request(method, path);
        match self {
            Servers::Cluster { seen, .. } => request.header("Snaphook-Min-Position", &seen.to_string()),
            Servers::One(_) => request,
        }
    }

    fn take_note(&mut self, response: &Response) {
        if let (Servers::Cluster { seen, .. }, Some(position)) = (self, response.header("snaphook-position")) {
            *seen = (*seen).max(position.parse().expect("a position"));
        }
    }

    /// Switches to the next server; `false` if there is none or the writer should stop.
    fn go_on(&mut self) -> bool {
        match self {
            Servers::One(_) => false,
            Servers::Cluster { at, ends, .. } => {
                *at += 1;
                // Paces the requests to a node that is restarting.
                std::thread::sleep(Duration::from_millis(2));
                !ends.load(Ordering::Relaxed)
            }
        }
    }
}

impl LedgerWriter {
    /// `own`: its existing instances.
    pub(crate) fn new(
        number: usize,
        round: usize,
        ledger: &Ledger,
        servers: Servers,
        chance: Chance,
        acknowledged: &Arc<AtomicUsize>,
    ) -> LedgerWriter {
        let name = format!("w{number}-");
        let own = ledger.instances_of(&name);
        let acknowledged = Arc::clone(acknowledged);
        LedgerWriter { name, round, own, servers, chance, acknowledged, attempts: Vec::new() }
    }

    /// Makes random writes. Returns all attempts.
    pub(crate) fn run(mut self) -> Vec<Attempt> {
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
            let ends = match &self.servers {
                Servers::Cluster { ends, .. } => ends.load(Ordering::Relaxed),
                Servers::One(_) => false,
            };
            if ends || alive.is_none() && !self.servers.go_on() {
                break;
            }
        }
        self.attempts
    }

    /// Records the attempt; `None` if the server did not respond.
    fn note(&mut self, mark: String, what: What, response: std::io::Result<Response>) -> Option<WriteOutcome> {
        response.iter().for_each(|response| self.servers.take_note(response));
        let outcome = match &response {
            Err(_) => WriteOutcome::Unknown,
            // A node whose store is down may not know the outcome of a write.
            Ok(response) if response.status == 503 && self.servers.is_cluster() => WriteOutcome::Unknown,
            Ok(response) => match (&what, response.status) {
                (What::Delete { id }, 204) => WriteOutcome::Acknowledged { id: id.clone(), position: None },
                _ => outcome_of(response),
            },
        };
        if let WriteOutcome::Acknowledged { .. } = outcome {
            self.acknowledged.fetch_add(1, Ordering::Relaxed);
        }
        self.attempts.push(Attempt { mark, what, outcome: outcome.clone() });
        (outcome != WriteOutcome::Unknown).then_some(outcome)
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
        let response = self.servers.request("POST", &format!("/models/{MODEL}/instances")).json(&body).try_send();
        let what = What::Create { id: Some(mark.clone()), data };
        if let WriteOutcome::Acknowledged { id, .. } = self.note(mark, what, response)? {
            self.own.push(id);
        }
        Some(())
    }

    fn create_keyed(&mut self, mark: String) -> Option<()> {
        let data = self.data(&mark);
        let response = create_keyed_at(self.servers.request("POST", &instances()), &mark, &data);
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
        let request = self.servers.request("PATCH", &Self::instance(&id));
        let response = request.body("application/merge-patch+json", patch.to_string()).try_send();
        self.note(mark, What::Patch { id, patch }, response).map(drop)
    }

    fn replace(&mut self, mark: String) -> Option<()> {
        let Some(id) = self.some_own() else { return Some(()) };
        let data = self.data(&mark);
        let response = self.servers.request("PUT", &Self::instance(&id)).json(&json!({"data": data})).try_send();
        self.note(mark, What::Replace { id, data }, response).map(drop)
    }

    fn delete(&mut self) -> Option<()> {
        let Some(id) = self.some_own() else { return Some(()) };
        let response = self.servers.request("DELETE", &Self::instance(&id)).try_send();
        let mark = format!("delete {id}");
        match self.note(mark, What::Delete { id: id.clone() }, response) {
            Some(WriteOutcome::Acknowledged { .. }) => self.own.retain(|own| *own != id),
            Some(_) => {
                // No other client writes to it, but too many changes of the model may have caused conflicts; do not
                // delete it again under the same mark.
                let refused = self.attempts.pop();
                assert!(matches!(refused, Some(Attempt { outcome: WriteOutcome::Refused, .. })), "{refused:?}");
            }
            None => {
                // It may have been deleted.
                self.own.retain(|own| *own != id);
                return None;
            }
        }
        Some(())
    }

    /// Reads a counter and writes the next number, unless another writer was faster.
    fn count(&mut self, mark: String) -> Option<()> {
        let id = counter(self.chance.below(COUNTERS));
        let read = self.servers.request("GET", &Self::instance(&id)).try_send().ok()?;
        if read.status == 503 && self.servers.is_cluster() {
            return None;
        }
        let read = read.expect(200);
        let etag = read.header("etag").expect("an ETag").to_owned();
        let n = read.json()["data"]["n"].as_u64().expect("a number");
        let data = json!({"mark": mark, "n": n + 1});
        let request = self.servers.request("PUT", &Self::instance(&id)).header("If-Match", &etag);
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
        let request = self.servers.request("POST", &format!("/models/{MODEL}/import"));
        let response = request.body("application/x-ndjson", body).try_send();
        response.iter().for_each(|response| self.servers.take_note(response));
        let is_cluster = self.servers.is_cluster();
        let response = response.ok().filter(|response| !(response.status == 503 && is_cluster));
        let mut unknown = BTreeSet::new();
        let failed: Option<BTreeSet<usize>> = response.map(|response| {
            let answer = response.expect(200).json();
            let mut failed = BTreeSet::new();
            for error in answer["errors"].as_array().expect("errors") {
                let line = error["line"].as_u64().expect("a line") as usize - 1;
                failed.insert(line);
                if error["status"] == 503 && is_cluster {
                    unknown.insert(line);
                }
            }
            assert_eq!(answer["failed"], failed.len(), "{answer}");
            assert_eq!(answer["created"], lines.len() - failed.len(), "{answer}");
            failed
        });
        for (line, (id, data)) in lines.into_iter().enumerate() {
            let outcome = match &failed {
                None => WriteOutcome::Unknown,
                Some(_) if unknown.contains(&line) => WriteOutcome::Unknown,
                Some(failed) if failed.contains(&line) => WriteOutcome::Refused,
                Some(_) => {
                    self.acknowledged.fetch_add(1, Ordering::Relaxed);
                    self.own.push(id.clone());
                    WriteOutcome::Acknowledged { id: id.clone(), position: None }
                }
            };
            self.attempts.push(Attempt { mark: id.clone(), what: What::Create { id: Some(id), data }, outcome });
        }
        failed.map(drop)
    }
}
