//! How requests designed to take forever affect other clients: validation, queries, definitions, compilation.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::super::Bench;
use super::super::http::{Client, request};
use super::super::load::LoadOutcome;
use super::super::report::{Row, percentiles};
use super::super::server::Server;
use super::{BODY, INSTANCES, with_model};
use crate::shell::Result;

/// Hostile requests in flight.
const IN_FLIGHT: usize = 16;
/// Maximum p99 latency of other requests.
const P99_MAX: Duration = Duration::from_millis(50);
/// Maximum time until a hostile request gets a response, including the time in queues.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// Prepares the server and returns the requests.
type Attack = fn(&mut Client) -> Result<Vec<Vec<u8>>>;

const ATTACKS: [(&str, Attack); 5] = [
    ("documents", documents),
    ("queries", queries),
    ("definitions", definitions),
    ("components", components),
    ("sources", sources),
];

pub(crate) fn neighbours(bench: &Bench) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (name, attack) in ATTACKS {
        let server = bench.server(&format!("neighbours-{name}"), "")?;
        let mut client = with_model(&server)?;
        let requests = attack(&mut client)?;
        let (alone, _) = calls(&server, bench.run)?;
        rows.extend(beside(bench, &server, name, &requests, &alone)?);
        server.stop()?;
    }
    Ok(rows)
}

fn beside(bench: &Bench, server: &Server, name: &str, requests: &[Vec<u8>], alone: &LoadOutcome) -> Result<Vec<Row>> {
    let over = AtomicBool::new(false);
    let (health, creates, hostile) = std::thread::scope(|scope| {
        let attackers: Vec<_> = (0..IN_FLIGHT)
            .map(|first| {
                let over = &over;
                scope.spawn(move || attack(server, requests, first, over))
            })
            .collect();
        let measured = calls(server, bench.run * 2);
        over.store(true, Ordering::Relaxed);
        let mut hostile = Vec::new();
        for attacker in attackers {
            hostile.extend(attacker.join().map_err(|_| "an attacker panicked".to_owned())??);
        }
        let (health, creates) = measured?;
        Ok::<_, String>((health, creates, hostile))
    })?;
    let refused = hostile.iter().filter(|(status, _)| *status == 503).count();
    let (count, times) = (hostile.len(), hostile.into_iter().map(|(_, time)| time).collect());
    let hostile = LoadOutcome::new(times, Duration::from_secs(1));
    let row =
        |what: &str, bound, time| Row::time(format!("{IN_FLIGHT} hostile {name} in flight: {what}"), Some(bound), time);
    Ok(vec![
        row("GET /healthz, p99", P99_MAX, health.percentile(0.99)).with_detail(format!(
            "{}; alone {}",
            percentiles(&health),
            percentiles(alone)
        )),
        row("creates of another model, p99", P99_MAX, creates.percentile(0.99)).with_detail(percentiles(&creates)),
        row("the slowest answer to one of them", ANSWER_MAX, hostile.percentile(1.0))
            .with_detail(format!("{count} answers, {refused} of them 503; {}", percentiles(&hostile)))
            .with_memory(server.memory()?),
    ])
}

/// Sends health requests and creates in turn, one at a time.
fn calls(server: &Server, run: Duration) -> Result<(LoadOutcome, LoadOutcome)> {
    let mut client = server.client()?;
    let requests = [
        (200, request("GET", "/healthz", "", b"")),
        (201, request("POST", INSTANCES, "application/json", BODY.as_bytes())),
    ];
    let mut times = [Vec::new(), Vec::new()];
    let start = Instant::now();
    while start.elapsed() < run {
        for ((expected, request), times) in requests.iter().zip(&mut times) {
            let sent_at = Instant::now();
            let (status, body) = client.send(request)?;
            if status != *expected {
                return Err(format!("a neighbour got the status {status}: {}", String::from_utf8_lossy(&body)));
            }
            times.push(sent_at.elapsed());
        }
    }
    let [health, creates] = times.map(|times| LoadOutcome::new(times, run));
    Ok((health, creates))
}

fn attack(server: &Server, requests: &[Vec<u8>], first: usize, over: &AtomicBool) -> Result<Vec<(u16, Duration)>> {
    let mut client = server.client()?;
    let mut answers = Vec::new();
    for turn in first.. {
        if over.load(Ordering::Relaxed) {
            break;
        }
        let sent_at = Instant::now();
        let (status, body) = client.send(&requests[turn % requests.len()])?;
        if !matches!(status, 200 | 201 | 409 | 413 | 422 | 503) {
            return Err(format!("an attacker got the status {status}: {}", String::from_utf8_lossy(&body)));
        }
        answers.push((status, sent_at.elapsed()));
    }
    Ok(answers)
}

fn post(path: &str, body: &Value) -> Vec<u8> {
    request("POST", path, "application/json", body.to_string().as_bytes())
}

/// Sixty definitions, each of which refers to the next one twice.
fn doubling(leaf: &Value) -> Value {
    let to = |row: usize| json!({"$ref": format!("#/$defs/d{row}")});
    let rows = (0..60).map(|row| match row {
        59 => (format!("d{row}"), leaf.clone()),
        _ => (format!("d{row}"), json!({"anyOf": [to(row + 1), to(row + 1)]})),
    });
    Value::Object(rows.collect())
}

fn documents(client: &mut Client) -> Result<Vec<Vec<u8>>> {
    let numbers: Vec<String> = (0..8_000).map(|number| format!("123456789012345678901{number:05}")).collect();
    let numbers: Value =
        serde_json::from_str(&format!("[{}]", numbers.join(","))).map_err(|error| error.to_string())?;
    let nested = (0..100).fold(json!({}), |below, _| json!({ "a": below }));
    let again = json!({"properties": {"a": {"$ref": "#/$defs/n"}}});
    let branches: Vec<Value> =
        ["x", "y", "z"].map(|name| json!({"properties": {"a": {"$ref": "#/$defs/n"}}, "required": [name]})).into();
    let long = format!("{}!", "a".repeat(100_000));
    let cases = [
        (json!({"properties": {"s": {"pattern": "(?=(a*)*$)(a|aa)+$"}}}), json!({ "s": long })),
        (json!({"properties": {"s": {"pattern": "^(?=(a+)+$)b"}}}), json!({ "s": long })),
        (json!({"properties": {"u": {"uniqueItems": true}}}), json!({ "u": numbers })),
        (json!({"$ref": "#/$defs/n", "$defs": {"n": {"anyOf": branches}}}), nested.clone()),
        (json!({"$ref": "#/$defs/n", "$defs": {"n": {"not": {"anyOf": [again, {"not": again}]}}}}), nested),
        (json!({"$ref": "#/$defs/d0", "$defs": doubling(&json!({"required": ["z"]}))}), json!({"a": 1})),
    ];
    let mut requests = Vec::new();
    for (row, (mut schema, data)) in cases.into_iter().enumerate() {
        schema["type"] = "object".into();
        client.call("POST", "/models", &json!({"id": format!("heavy{row}"), "schema": schema}).to_string())?;
        requests.push(post(&format!("/models/heavy{row}/instances"), &json!({ "data": data })));
    }
    Ok(requests)
}

fn queries(client: &mut Client) -> Result<Vec<Vec<u8>>> {
    client.call(
        "POST",
        "/models",
        r#"{"id": "text", "schema": {"type": "object", "properties": {"t": {"type": "string"}, "any": {}}}}"#,
    )?;
    let text = "a".repeat(200_000);
    for _ in 0..40 {
        client.call("POST", "/models/text/instances", &json!({"data": {"t": text, "any": text}}).to_string())?;
    }
    let slow = format!("%25{}_b%25", "a".repeat(400));
    let many = (0..60).map(|_| format!("filter[t][like]={slow}")).collect::<Vec<_>>().join("&");
    let queries = [
        format!("filter[t][like]={slow}"),
        format!("filter[any][like]={slow}&count=true"),
        format!("filter[t][like]=%25{}b%25", "a_".repeat(300)),
        many,
        "sort=any,-t&limit=1000".to_owned(),
    ];
    Ok(queries.iter().map(|query| request("GET", &format!("/models/text/instances?{query}"), "", b"")).collect())
}

fn definitions(_: &mut Client) -> Result<Vec<Vec<u8>>> {
    let to = |row: usize| json!({"$ref": format!("#/$defs/d{row}")});
    let chain = |count: usize, keyword: &str| -> Value {
        let rows = (0..count).map(|row| (format!("d{row}"), json!({ keyword: [to((row + 1) % count)] })));
        Value::Object(rows.collect())
    };
    let bad: Vec<Value> = (0..500)
        .map(|number| json!({"pattern": "^(?=(a+)+$)b", "default": format!("{}{number}", "a".repeat(400))}))
        .collect();
    let schemas = [
        json!({"$ref": "#/$defs/d0", "$defs": chain(12_000, "allOf")}),
        json!({"$ref": "#/$defs/d0", "$defs": chain(12_000, "anyOf")}),
        json!({"$ref": "#/$defs/d0", "$defs": doubling(&json!(false)), "unevaluatedProperties": false, "default": {}}),
        json!({ "anyOf": bad }),
    ];
    let requests = schemas.into_iter().enumerate().map(|(row, mut schema)| {
        schema["type"] = "object".into();
        post("/models", &json!({"id": format!("heavy{row}"), "schema": schema}))
    });
    Ok(requests.collect())
}

fn components(_: &mut Client) -> Result<Vec<Vec<u8>>> {
    const LOCALS: usize = 10_000;
    const DEPTH: usize = 1000;
    // Nested loops, each of which passes on every local: the compiler's memory grows with the product.
    let mut body = format!("(local {}) {}", "i32 ".repeat(LOCALS), "loop ".repeat(DEPTH));
    for local in 0..LOCALS {
        let _ = write!(body, "local.get {local} i32.const 1 i32.add local.set {local} ");
    }
    body.push_str(&"local.get 0 br_if 0 end ".repeat(DEPTH));
    let text = format!("(module (memory (export \"memory\") 1) (func (export \"_start\")) (func {body}))");
    let code = wat::parse_str(text).map_err(|error| error.to_string())?;
    Ok(vec![request("PUT", "/models/order/hooks/preUpdate", "application/wasm", &code)])
}

fn sources(_: &mut Client) -> Result<Vec<Vec<u8>>> {
    let sources = [
        format!("export default {}1", "!".repeat(900_000)),
        format!("export default {}1", "a=>".repeat(300_000)),
        format!("export default {}1", "new ".repeat(200_000)),
    ];
    let put = |source: &String| {
        request("PUT", "/models/order/hooks/preUpdate?engine=quickjs", "text/javascript", source.as_bytes())
    };
    Ok(sources.iter().map(put).collect())
}
