//! What the tests use: a server process, an HTTP client, waiting with a deadline.

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

/// Longer than any operation takes on a machine that is busy with other tests.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// Whether skipping a test is a failure.
pub(crate) fn is_ci() -> bool {
    std::env::var("CI").is_ok_and(|value| value == "true")
}

/// Prints that something is skipped because a requirement is missing; with `CI=true` that is a failure.
#[track_caller]
pub(crate) fn skip(what: &str, reason: &str) {
    assert!(!is_ci(), "{what}: {reason}; with CI=true nothing may be skipped");
    // Bypasses the test harness, which captures the output of passing tests. If the stream is closed, the message is
    // lost.
    let _ = writeln!(std::io::stderr(), "skipped: {what}: {reason}");
}

/// Reads a guest that `cargo xtask guests` or `cargo xtask native` built, by file name. `None`, with a message, if it
/// is not built.
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

/// Calls `ask` repeatedly until it returns a value.
#[track_caller]
pub(crate) fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "still not so after {PATIENCE:?}: {what}");
        // Not an estimate of the duration, only the pause between two calls.
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The schema of a model with texts, numbers, a flag and an object.
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

/// Creates a model with [`order_schema`].
#[track_caller]
pub(crate) fn create_orders(api: &Client, model: &str) -> serde_json::Value {
    api.post("/models", &serde_json::json!({"id": model, "schema": order_schema()})).expect(201).json()
}

/// Runs `work` on several clients, which all start at the same moment.
pub(crate) fn at_once<T: Send>(server: &Server, count: usize, work: impl Fn(usize, &Client) -> T + Sync) -> Vec<T> {
    let barrier = Barrier::new(count);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..count)
            .map(|number| {
                let (work, barrier, api) = (&work, &barrier, server.client());
                scope.spawn(move || {
                    // Opens the connection before the start.
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
