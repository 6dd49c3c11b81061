//! Clients create, replace, delete and read a few instances on all nodes at once, while nodes and a store server die
//! and links break. The responses must be linearizable. Each request asks for the latest position that any client has
//! received.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::json;

use super::backend::Backend;
use super::linear::{Operation, Recorded, is_linearizable};
use super::link::Break;
use super::nodes::Nodes;
use super::rounds;
use crate::chance::Chance;
use crate::support::{Client, Response};

const CLIENTS: usize = 6;
const INSTANCES: usize = 3;
const BREAKS: [Break; 3] = [Break::Cut, Break::Silent, Break::Unanswered];
/// Per client and round; the sum stays below the checker's limit.
const OPERATIONS: usize = 40;

#[test]
fn histories_on_postgres_are_linearizable() {
    run(Backend::postgres(false));
}

#[test]
fn histories_on_one_model_store_are_linearizable() {
    run(Backend::postgres(true));
}

#[test]
fn histories_on_nats_are_linearizable() {
    run(Backend::nats());
}

fn run(mut backend: Backend) {
    let mut chance = Chance::new();
    let mut nodes = Nodes::start(3, &backend);
    nodes.client(0).post("/models", &json!({"id": "cell", "schema": {"type": "object"}})).expect(201);
    for node in 1..3 {
        nodes.reach(node, nodes.head());
    }
    let shared =
        SharedCounters { clock: AtomicU64::new(1), seen: AtomicU64::new(nodes.head()), values: AtomicU64::new(1) };
    for round in 0..3 * rounds() {
        let histories: Vec<Mutex<Vec<Recorded>>> = (0..INSTANCES).map(|_| Mutex::default()).collect();
        std::thread::scope(|scope| {
            for client in 0..CLIENTS {
                let (clients, chance) = (nodes.clients(), chance.fork());
                let (shared, histories) = (&shared, &histories);
                scope.spawn(move || Cells { clients, at: client, chance, round, shared, histories }.run());
            }
            let pause = Duration::from_millis(chance.within(10..300) as u64);
            match round % 4 {
                0 => {}
                1 => nodes.kill(chance.below(3)),
                2 => backend.kill(0, pause),
                _ => backend.break_off(chance.below(3), None, BREAKS[chance.below(BREAKS.len())], pause),
            }
        });
        nodes.mend();
        for (instance, history) in histories.into_iter().enumerate() {
            let mut history = history.into_inner().expect("no panic while locked");
            // Reads without a response carry no information.
            history.retain(|recorded| recorded.end.is_some() || !matches!(recorded.operation, Operation::Read(_)));
            assert!(is_linearizable(&history), "round {round}, instance {instance}: {history:#?}");
        }
    }
}

/// State shared by all clients.
struct SharedCounters {
    clock: AtomicU64,
    /// The highest position that any client received.
    seen: AtomicU64,
    values: AtomicU64,
}

struct Cells<'a> {
    clients: Vec<Client>,
    at: usize,
    chance: Chance,
    round: usize,
    shared: &'a SharedCounters,
    histories: &'a [Mutex<Vec<Recorded>>],
}

/// A client's next operation.
enum Plan {
    Create,
    Put,
    /// Replaces the instance if it has this tag and value.
    Replace(String, u64),
    Delete,
    Read,
}

impl Cells<'_> {
    fn run(mut self) {
        // The last tag and value of each instance that this client saw.
        let mut known: Vec<Option<(String, u64)>> = vec![None; INSTANCES];
        for _ in 0..OPERATIONS {
            self.at += 1;
            let instance = self.chance.below(INSTANCES);
            let plan = match (self.chance.below(10), &known[instance]) {
                (0..2, _) => Plan::Create,
                (2, _) => Plan::Put,
                (3..5, Some((tag, value))) => Plan::Replace(tag.clone(), *value),
                (5, Some(_)) => Plan::Delete,
                _ => Plan::Read,
            };
            let value = self.shared.values.fetch_add(1, Ordering::Relaxed);
            let start = self.now();
            let answer = match self.send(&plan, instance, value) {
                // Too many conflicting writes: nothing was done.
                Ok(answer) if answer.status == 409 && !answer.text().contains("/problems/exists") => continue,
                // The result is unknown: the node may have done it before it died, and the client retries a broken
                // connection once.
                Err(_) => {
                    std::thread::sleep(Duration::from_millis(2));
                    None
                }
                Ok(answer) if answer.status == 503 => None,
                Ok(answer) => Some(answer),
            };
            if let Some(answer) = &answer {
                let is_right = matches!(answer.status, 200 | 201 | 204 | 404 | 409 | 412);
                assert!(is_right, "{}: {}", answer.status, answer.text());
                let position = answer.header("snaphook-position").expect("a position").parse().expect("a number");
                self.shared.seen.fetch_max(position, Ordering::SeqCst);
            }
            let end = answer.is_some().then(|| self.now());
            let is_done = |status| answer.as_ref().is_some_and(|answer| answer.status == status);
            let operation = match plan {
                Plan::Create => Operation::Create(value, is_done(201)),
                Plan::Put => Operation::Put(value, is_done(200)),
                Plan::Replace(_, before) => Operation::Replace(before, value, is_done(200)),
                Plan::Delete => Operation::Delete(is_done(204)),
                Plan::Read => {
                    known[instance] = answer.as_ref().filter(|answer| answer.status == 200).map(|answer| {
                        let value = answer.json()["data"]["value"].as_u64().expect("a value");
                        (answer.header("etag").expect("a tag").to_owned(), value)
                    });
                    Operation::Read(known[instance].as_ref().map(|(_, value)| *value))
                }
            };
            self.histories[instance].lock().expect("no panic while locked").push(Recorded { operation, start, end });
        }
    }

    fn send(&self, plan: &Plan, instance: usize, value: u64) -> std::io::Result<Response> {
        let id = format!("r{}-{instance}", self.round);
        let (all, path) = ("/models/cell/instances", format!("/models/cell/instances/{id}"));
        let seen = self.shared.seen.load(Ordering::SeqCst).to_string();
        let client = &self.clients[self.at % self.clients.len()];
        let request = |method: &str, path: &str| client.request(method, path).header("Snaphook-Min-Position", &seen);
        let body = json!({"data": {"value": value}});
        match plan {
            Plan::Create => request("POST", all).json(&json!({"id": id, "data": {"value": value}})).try_send(),
            Plan::Put => request("PUT", &path).json(&body).try_send(),
            Plan::Replace(tag, _) => request("PUT", &path).header("If-Match", tag).json(&body).try_send(),
            Plan::Delete => request("DELETE", &path).try_send(),
            Plan::Read => request("GET", &path).try_send(),
        }
    }

    fn now(&self) -> u64 {
        self.shared.clock.fetch_add(1, Ordering::SeqCst)
    }
}
