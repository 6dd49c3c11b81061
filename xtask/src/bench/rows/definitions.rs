//! Changes of models: how they affect other requests, and how much they slow down a rebuild.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::super::Bench;
use super::super::http::Client;
use super::super::load::LoadOutcome;
use super::super::machine::micros;
use super::super::report::{Goal, Row, percentiles};
use super::events::rebuilt;
use super::{fill, press_creates, with_model};
use crate::shell::Result;

const ROWS: usize = 300_000;
const CONNECTIONS: usize = 16;

/// The large model. It is changed in steps, each of which has to read every row.
const BIG: &str = r#"{"id": "big", "schema": {"type": "object", "properties": {
    "name": {"type": "string"}, "number": {"type": "integer"}, "note": {"type": "string"}}}, "indexes": [["name"]]}"#;

/// Its changes, applied in rotation: a rename, a default, an index, a unique list.
const CHANGES: [(&str, &str); 4] = [
    (
        "rename",
        r#"{"schema": {"type": "object", "properties": {
        "title": {"type": "string"}, "number": {"type": "integer"}, "note": {"type": "string"}}},
        "indexes": [["title"]], "renames": {"name": "title"}}"#,
    ),
    (
        "default",
        r#"{"schema": {"type": "object", "properties": {
        "title": {"type": "string"}, "number": {"type": "integer"}, "note": {"type": "string"},
        "state": {"type": "string", "default": "open"}}}, "indexes": [["title"]]}"#,
    ),
    (
        "index",
        r#"{"schema": {"type": "object", "properties": {
        "title": {"type": "string"}, "number": {"type": "integer"}, "note": {"type": "string"},
        "state": {"type": "string", "default": "open"}}}, "indexes": [["title"], ["state", "-number"]]}"#,
    ),
    (
        "unique",
        r#"{"schema": {"type": "object", "properties": {
        "title": {"type": "string"}, "number": {"type": "integer"}, "note": {"type": "string"},
        "state": {"type": "string", "default": "open"}}}, "indexes": [["title"], ["state", "-number"]],
        "unique": [["number"]]}"#,
    ),
];

pub(crate) fn changes(bench: &Bench) -> Result<Vec<Row>> {
    let server = bench.server("changes", "")?;
    let mut client = with_model(&server)?;
    client.call("POST", "/models", BIG)?;
    for start in (0..ROWS).step_by(50_000) {
        let lines: Vec<String> = (start..ROWS.min(start + 50_000))
            .map(|row| format!(r#"{{"data":{{"name":"name {row}","number":{row},"note":"two of each"}}}}"#))
            .collect();
        let path = "/models/big/import";
        let answer = client.call_with("POST", path, "application/x-ndjson", lines.join("\n").as_bytes())?;
        if answer["failed"] != 0 {
            return Err(format!("an import failed: {answer}"));
        }
    }
    let quiet = press_creates(&server, CONNECTIONS, bench.run)?;
    let mut rows = Vec::new();
    for (name, change) in CHANGES {
        let before = server.memory()?;
        let (outcome, took) = pressed_meanwhile(&server, || client.call("PUT", "/models/big", change).map(|_| ()))?;
        rows.push(Row {
            what: format!("others' create p99 during a {name} of {ROWS} rows, against without"),
            goal: Goal::AtMost(2.0),
            unit: "×",
            measured: outcome.percentile(0.99).as_secs_f64() / quiet.percentile(0.99).as_secs_f64(),
            detail: format!(
                "{}; without {}; slowest {}; the change took {:.1} s, {:+.0} MB",
                percentiles(&outcome),
                percentiles(&quiet),
                micros(outcome.percentile(1.0)),
                took.as_secs_f64(),
                server.memory()? as f64 / 1e6 - before as f64 / 1e6
            ),
            memory: Some(server.memory()?),
        });
    }
    server.stop()?;
    Ok(rows)
}

/// Sends creates for as long as the work takes.
fn pressed_meanwhile(
    server: &super::super::server::Server,
    work: impl FnOnce() -> Result + Send,
) -> Result<(LoadOutcome, Duration)> {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let worker = scope.spawn(|| {
            let start = Instant::now();
            let result = work();
            over.store(true, Ordering::Relaxed);
            result.map(|()| start.elapsed())
        });
        let mut parts = Vec::new();
        while !over.load(Ordering::Relaxed) {
            parts.push(press_creates(server, CONNECTIONS, Duration::from_millis(500))?);
        }
        let took = worker.join().map_err(|_| "the change panicked")??;
        Ok((LoadOutcome::join(parts), took))
    })
}

/// A definition with many properties, created and replaced.
pub(crate) fn wide(bench: &Bench) -> Result<Vec<Row>> {
    const PROPERTIES: usize = 2000;
    let server = bench.server("wide", "")?;
    let mut client = server.client()?;
    let definition = |prefix: &str| -> serde_json::Value {
        let properties: serde_json::Map<String, serde_json::Value> = (0..PROPERTIES)
            .map(|number| (format!("{prefix}{number}"), serde_json::json!({"type": "string"})))
            .collect();
        serde_json::json!({"schema": {"type": "object", "properties": properties}, "indexes": [[format!("{prefix}7")]]})
    };
    let mut first = definition("a");
    first["id"] = "wide".into();
    let mut timed = |method: &str, path: &str, body: &serde_json::Value| -> Result<Duration> {
        let start = Instant::now();
        client.call(method, path, &body.to_string())?;
        Ok(start.elapsed())
    };
    let made = timed("POST", "/models", &first)?;
    let changed = timed("PUT", "/models/wide", &definition("b"))?;
    server.stop()?;
    let bound = Some(Duration::from_secs(1));
    Ok(vec![
        Row::time(format!("a model of {PROPERTIES} properties, made"), bound, made),
        Row::time("the same, all properties replaced", bound, changed),
    ])
}

pub(crate) fn rebuild(bench: &Bench) -> Result<Vec<Row>> {
    let server = bench.server("rebuild-renames", "")?;
    let mut client = with_model(&server)?;
    let events = fill(&mut client, ROWS as u64, Duration::from_secs(120))?;
    let plain = rebuilt(&mut client)?;
    for round in 0..10 {
        rename(&mut client, round)?;
    }
    let renamed = rebuilt(&mut client)?;
    let row = Row {
        what: "rebuild with 10 renames in the log, against without".into(),
        goal: Goal::AtMost(2.5),
        unit: "×",
        measured: renamed.as_secs_f64() / plain.as_secs_f64(),
        detail: format!("{events} events: {:.2} s, without {:.2} s", renamed.as_secs_f64(), plain.as_secs_f64()),
        memory: Some(server.memory()?),
    };
    server.stop()?;
    Ok(vec![row])
}

fn rename(client: &mut Client, round: usize) -> Result {
    let name = |round: usize| if round == 0 { "note".to_owned() } else { format!("note{round}") };
    let (old, new) = (name(round), name(round + 1));
    let schema = serde_json::json!({"type": "object", "required": ["customer", "total"], "properties": {
        "customer": {"type": "string"}, "total": {"type": "number", "minimum": 0}, "paid": {"type": "boolean"},
        new.as_str(): {"type": "string"}}});
    let body = serde_json::json!({"schema": schema, "indexes": [["customer"]], "renames": {old: new}});
    client.call("PUT", "/models/order", &body.to_string()).map(|_| ())
}
