//! Queries over many instances, and how they affect other requests.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::super::Bench;
use super::super::http::{Client, request};
use super::super::load::LoadOutcome;
use super::super::machine::micros;
use super::super::report::{Goal, Row, percentiles};
use super::super::server::Server;
use crate::shell::Result;

const COUNT: usize = 300_000;
/// Number of calls; the median counts.
const CALLS: usize = 20;
/// Number of clients that scan at once.
const SCANS: usize = 64;
const REVISIONS: usize = 5_000;

const MODEL: &str = r#"{"id": "item", "schema": {"type": "object", "properties": {
    "a": {"type": "integer"}, "c": {"type": "integer"}, "note": {"type": "string"}}}, "indexes": [["a"]]}"#;
const ITEMS: &str = "/models/item/instances";

pub(crate) fn queries(bench: &Bench) -> Result<Vec<Row>> {
    let server = bench.server("queries", "")?;
    let mut client = server.client()?;
    client.call("POST", "/models", MODEL)?;
    fill(&mut client)?;
    let mut rows = sorted_pages(&mut client)?;
    rows.extend(gets_beside_scans(&server)?);
    rows.extend(past(&mut client)?);
    rows.extend(events_without_a_hit(&mut client)?);
    server.stop()?;
    Ok(rows)
}

fn fill(client: &mut Client) -> Result {
    const LINES: usize = 50_000;
    for start in (0..COUNT).step_by(LINES) {
        let lines: String = (start..start + LINES)
            .map(|number| {
                let (a, c) = (number / 10, number * 7919 % 1000);
                format!("{{\"id\":\"i{number}\",\"data\":{{\"a\":{a},\"c\":{c},\"note\":\"two of each\"}}}}\n")
            })
            .collect();
        let answer = client.call_with("POST", "/models/item/import", "application/x-ndjson", lines.as_bytes())?;
        if answer["failed"] != 0 {
            return Err(format!("an import failed: {answer}"));
        }
    }
    Ok(())
}

/// The median time of some calls.
fn median(client: &mut Client, path: &str) -> Result<Duration> {
    let mut times = Vec::with_capacity(CALLS);
    for _ in 0..CALLS {
        let start = Instant::now();
        client.call("GET", path, "")?;
        times.push(start.elapsed());
    }
    Ok(LoadOutcome::new(times, Duration::from_secs(1)).percentile(0.5))
}

fn ratio(what: &str, at_most: f64, first: Duration, second: Duration) -> Row {
    Row {
        what: what.into(),
        goal: Goal::AtMost(at_most),
        unit: "",
        measured: second.as_secs_f64() / first.as_secs_f64(),
        detail: format!("{} and {}", micros(first), micros(second)),
        memory: None,
    }
}

fn sorted_pages(client: &mut Client) -> Result<Vec<Row>> {
    let first = format!("{ITEMS}?sort=a,c");
    let mut path = first.clone();
    for _ in 0..10 {
        let page = client.call("GET", &path, "")?;
        let next = page["next"].as_str().ok_or_else(|| format!("a page without a next one: {}", page["next"]))?;
        path = format!("{first}&cursor={next}");
    }
    let (first, later) = (median(client, &first)?, median(client, &path)?);
    Ok(vec![ratio("sort=a,c with an index on a: page 11 against page 1", 3.0, first, later)])
}

fn gets_beside_scans(server: &Server) -> Result<Vec<Row>> {
    const RUN: Duration = Duration::from_secs(3);
    let alone = gets(server, RUN)?;
    let memory = server.memory()?;
    let stop = AtomicBool::new(false);
    let scan = request("GET", &format!("{ITEMS}?filter[c][eq]=-1&sort=note"), "", b"");
    let (beside, answered, busy) = std::thread::scope(|scope| {
        let scans: Vec<_> = (0..SCANS)
            .map(|_| {
                scope.spawn(|| -> Result<(u64, u64)> {
                    let mut client = server.client()?;
                    let (mut answered, mut busy) = (0, 0);
                    while !stop.load(Ordering::Relaxed) {
                        match client.send(&scan)?.0 {
                            200 => answered += 1,
                            422 | 503 => busy += 1,
                            other => return Err(format!("a scan got the status {other}")),
                        }
                    }
                    Ok((answered, busy))
                })
            })
            .collect();
        let beside = gets(server, RUN);
        stop.store(true, Ordering::Relaxed);
        let (mut answered, mut busy) = (0, 0);
        for scan in scans {
            let counts = scan.join().map_err(|_| "a scan panicked".to_owned())??;
            answered += counts.0;
            busy += counts.1;
        }
        Ok::<_, String>((beside?, answered, busy))
    })?;
    let row = Row::time(
        format!("get by id beside {SCANS} scans of {COUNT} instances, p50"),
        Some(Duration::from_millis(2)),
        beside.percentile(0.5),
    );
    let detail =
        format!("{}; alone {}; {answered} scans answered, {busy} refused", percentiles(&beside), percentiles(&alone));
    let more = Row {
        what: format!("memory that {SCANS} scans leave, MiB"),
        goal: Goal::AtMost(128.0),
        unit: "",
        measured: server.memory()?.saturating_sub(memory) as f64 / 1_048_576.0,
        detail: String::new(),
        memory: None,
    };
    Ok(vec![row.with_detail(detail).with_memory(server.memory()?), more])
}

/// Sends gets, one after the other.
fn gets(server: &Server, run: Duration) -> Result<LoadOutcome> {
    let mut client = server.client()?;
    let (start, mut times) = (Instant::now(), Vec::new());
    while start.elapsed() < run {
        let get = request("GET", &format!("{ITEMS}/i{}", times.len() * 7919 % COUNT), "", b"");
        let sent_at = Instant::now();
        let (status, _) = client.send(&get)?;
        if status != 200 {
            return Err(format!("a get got the status {status}"));
        }
        times.push(sent_at.elapsed());
    }
    Ok(LoadOutcome::new(times, start.elapsed()))
}

fn past(client: &mut Client) -> Result<Vec<Row>> {
    let mut positions = Vec::new();
    for (id, revisions) in [("few", 10), ("many", REVISIONS)] {
        client.call("POST", ITEMS, &format!("{{\"id\":\"{id}\",\"data\":{{\"a\":0}}}}"))?;
        let mut last = serde_json::Value::Null;
        for revision in 1..revisions {
            last = client.call("PUT", &format!("{ITEMS}/{id}"), &format!("{{\"data\":{{\"a\":{revision}}}}}"))?;
        }
        positions.push((id, last["position"].clone(), last["updated_at"].as_str().unwrap_or_default().to_owned()));
    }
    let mut times = Vec::new();
    for (id, position, _) in &positions {
        times.push(median(client, &format!("{ITEMS}/{id}?at={position}"))?);
    }
    let mut rows = vec![ratio("?at= at 5,000 revisions against 10", 4.0, times[0], times[1])];
    let time = median(client, &format!("{ITEMS}/many?at={}", positions[1].2))?;
    rows.push(Row::time("?at= by time, log of 305,000 events", Some(Duration::from_millis(2)), time));
    Ok(rows)
}

fn events_without_a_hit(client: &mut Client) -> Result<Vec<Row>> {
    let rows = [
        ("/events?type= of a rare kind, nothing found", "/events?type=model.deleted"),
        ("/events?type=instance.deleted, one page that finds nothing", "/events?type=instance.deleted"),
        (
            "/events?model=&type=instance.deleted, one page that finds nothing",
            "/events?model=item&type=instance.deleted",
        ),
    ];
    rows.into_iter()
        .map(|(what, path)| Ok(Row::time(what, Some(Duration::from_millis(20)), median(client, path)?)))
        .collect()
}
