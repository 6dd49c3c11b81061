//! What the tests stand on: a server process, an HTTP client, waiting with a deadline.

mod client;
mod server;
mod stream;

use std::time::{Duration, Instant};

pub(crate) use client::{Client, Response};
pub(crate) use server::{Server, ServerOptions};

/// Longer than anything takes on a machine that is busy with other tests.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

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
