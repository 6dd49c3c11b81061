//! What the tests stand on: a server process, an HTTP client, waiting with a deadline.

pub(crate) mod browser;
mod client;
mod driver_host;
mod server;
mod stream;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::time::{Duration, Instant};

use serde_json::Value;

pub(crate) use client::{Client, Request, Response};
pub(crate) use driver_host::DriverHost;
pub(crate) use server::{Server, ServerOptions};

/// Longer than anything takes on a machine that is busy with other tests.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// Whether nothing may be skipped.
pub(crate) fn is_ci() -> bool {
    std::env::var("CI").is_ok_and(|value| value == "true")
}

/// What is not there is skipped, and said; with `CI=true` it is a failure.
#[track_caller]
pub(crate) fn skip(what: &str, reason: &str) {
    assert!(!is_ci(), "{what}: {reason}; with CI=true nothing may be skipped");
    // Past the test harness, which keeps what passing tests print to itself. Whoever closed the stream does not want to know.
    let _ = writeln!(std::io::stderr(), "skipped: {what}: {reason}");
}

/// A guest that `cargo xtask guests` or `native` built, by its file's name; `None` (and a word about it) if it did not.
#[track_caller]
pub(crate) fn guest(file: &str) -> Option<Vec<u8>> {
    let beside = || Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("guests");
    let folder = std::env::var_os("SNAPHOOK_GUESTS").map_or_else(beside, PathBuf::from);
    let path = folder.join(file);
    match std::fs::read(&path) {
        Ok(guest) => Some(guest),
        Err(error) => {
            let reason = format!("{error}; `cargo xtask guests` and `cargo xtask native` build it");
            skip(&path.display().to_string(), &reason);
            None
        }
    }
}

/// Asks again and again until there is an answer.
#[track_caller]
pub(crate) fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "still not so after {PATIENCE:?}: {what}");
        // Not a guess at how long it takes, only a pause between two questions.
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A model with a text, two numbers, a flag and an object.
pub(crate) fn order_schema() -> serde_json::Value {
    serde_json::json!({
        "type": "object",
        "properties": {
            "name": {"type": "string", "minLength": 1},
            "total": {"type": "number"},
            "count": {"type": "integer", "minimum": 0},
            "paid": {"type": "boolean"},
            "customer": {"type": "object", "properties": {"name": {"type": "string"}, "city": {"type": "string"}}},
            "status": {"type": "string", "default": "open"},
        },
        "required": ["name"],
        "additionalProperties": false,
    })
}

/// Makes the model of [`order_schema`] under a name.
#[track_caller]
pub(crate) fn create_orders(api: &Client, model: &str) -> serde_json::Value {
    api.post("/models", &serde_json::json!({"id": model, "schema": order_schema()})).expect(201).json()
}

/// Runs the same on a client each, starting at one moment.
pub(crate) fn at_once<T: Send>(server: &Server, count: usize, work: impl Fn(usize, &Client) -> T + Sync) -> Vec<T> {
    let barrier = Barrier::new(count);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..count)
            .map(|number| {
                let (work, barrier, api) = (&work, &barrier, server.client());
                scope.spawn(move || {
                    // The connection is open before it counts.
                    api.get("/healthz").expect(200);
                    barrier.wait();
                    work(number, &api)
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("a client")).collect()
    })
}

/// Every instance of a model.
#[track_caller]
pub(crate) fn list(api: &Client, model: &str) -> Vec<Value> {
    let (mut items, mut cursor) = (Vec::new(), String::new());
    loop {
        let mut page = api.get(&format!("/models/{model}/instances?limit=1000{cursor}")).expect(200).json();
        if let Value::Array(page) = page["items"].take() {
            items.extend(page);
        }
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return items,
        }
    }
}
