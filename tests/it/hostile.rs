//! Hostile hooks: each fails with its own message while another model stays available.

mod addresses;
mod bombs;
mod calm;
mod compiling;
mod components;
mod denials;
mod guest;
mod loading;
mod loops;
mod programs;
mod sandbox;
mod shares;
mod tampering;
mod throws;
mod v8;

pub(crate) use v8::v8_plugins;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::support::{Client, Response, Server, ServerOptions};
use super::workbench::{create, open_model};
use calm::Bystander;

/// Concurrent calls of a hostile hook.
const CALLS: usize = 8;

/// A shorter attack is repeated, so that there is something to measure.
const ATTACK_TIME: Duration = Duration::from_millis(400);
const ROUNDS_MAX: usize = 10;

/// A hostile hook, and its expected failure.
struct Attack<'a> {
    name: &'a str,
    source: &'a str,
    /// The accepted causes, such as `timeout`.
    causes: &'a [&'a str],
    /// Text that the message must contain: the limit.
    says: &'a str,
}

/// A server under attack, and an unrelated model on it that must stay available.
struct Arena {
    server: Server,
    api: Client,
    bystander: Bystander,
    engine: &'static str,
    models: AtomicUsize,
}

impl Arena {
    fn new() -> Arena {
        Arena::with(ServerOptions::default())
    }

    fn with(options: ServerOptions) -> Arena {
        let server = Server::start_with(options);
        let api = server.client();
        let bystander = Bystander::new(&server);
        Arena { server, api, bystander, engine: "quickjs", models: AtomicUsize::new(0) }
    }

    /// A new model for an attack.
    #[track_caller]
    fn victim(&self) -> String {
        let id = format!("victim-{}", self.models.fetch_add(1, Ordering::Relaxed));
        open_model(&self.api, &id);
        id
    }

    /// Calls a model's create concurrently, and repeats this for a while.
    fn calls(&self, model: &str) -> Vec<Response> {
        let clients: Vec<Client> = (0..CALLS).map(|_| self.server.client()).collect();
        let started = Instant::now();
        let mut answers = Vec::new();
        for _ in 0..ROUNDS_MAX {
            std::thread::scope(|scope| {
                let calls: Vec<_> =
                    clients.iter().map(|client| scope.spawn(|| create(client, model, &json!({"n": 1})))).collect();
                answers.extend(calls.into_iter().map(|call| call.join().expect("an answer")));
            });
            if started.elapsed() > ATTACK_TIME {
                break;
            }
        }
        answers
    }

    /// Binds the source to `preCreate` and calls it: every call must fail as expected, nothing is stored, another model
    /// responds meanwhile, and the model works again with a harmless hook.
    #[track_caller]
    fn refuses(&self, attack: &Attack<'_>) {
        let Attack { name, source, causes, says } = attack;
        let model = self.victim();
        self.bind(&model, name, source).expect(200);
        let mut count = 0;
        self.bystander.stays_calm(name, || {
            for answer in self.calls(&model) {
                count += 1;
                let problem = answer.expect_problem(502, "hook-failed");
                let detail = problem["detail"].as_str().expect("a text");
                let head = format!("pre hook `{model}.preCreate/{name}` failed (");
                let cause = detail.strip_prefix(&head).and_then(|rest| rest.split_once("), so nothing was stored: "));
                let (cause, message) = cause.unwrap_or_else(|| panic!("{name}: {detail}"));
                assert!(causes.contains(&cause), "{name}: {detail}");
                assert!(message.contains(says), "{name}: expected `{says}` in: {detail}");
                assert_eq!(problem["hook"], *name, "{detail}");
            }
        });
        self.is_empty(&model);
        let failures = self.failures(&model);
        let counted: u64 = causes.iter().filter_map(|cause| failures[*cause].as_u64()).sum();
        assert_eq!(counted, count, "{name}: {failures}");
        self.works_again(&model);
    }

    fn bind(&self, model: &str, name: &str, source: &str) -> Response {
        let path = format!("/models/{model}/hooks/preCreate?name={name}&engine={}", self.engine);
        self.api.request("PUT", &path).body("text/javascript", source).send()
    }

    #[track_caller]
    fn is_empty(&self, model: &str) {
        let page = self.api.get(&format!("/models/{model}/instances?count=true")).expect(200).json();
        assert_eq!(page["items"], json!([]), "{page}");
    }

    /// Failure counts by cause.
    #[track_caller]
    fn failures(&self, model: &str) -> Value {
        let stats = self.api.get(&format!("/models/{model}/hooks/preCreate/stats")).expect(200).json();
        stats["items"][0]["failures"].clone()
    }

    #[track_caller]
    fn works_again(&self, model: &str) {
        let refuses_two = "export const preCreate = ({ after }) => { if (after.n === 2) throw new Reject('two'); }";
        self.bind(model, "harmless", refuses_two).expect(200);
        create(&self.api, model, &json!({"n": 1})).expect(201);
        let problem = create(&self.api, model, &json!({"n": 2})).expect_problem(422, "rejected");
        assert_eq!(problem["detail"], "two");
    }

    /// A line of `/proc/PID/status`, in KiB; `None` if there is no such file.
    fn kib(&self, name: &str) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.server.pid())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.trim().strip_suffix(" kB")?.parse().ok()
    }
}
