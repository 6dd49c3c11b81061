//! Creates and gets without hooks.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use super::super::http::{Client, request};
use super::super::load::Load;
use super::super::machine::{fdatasync, micros};
use super::super::report::{Goal, Row, percentiles};
use super::super::{Bench, http};
use super::{BODY, INSTANCES, press_creates, with_model};
use crate::shell::Result;

pub(crate) fn create(bench: &Bench) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for connections in [64, 16] {
        let server = bench.server(&format!("create-{connections}"), "")?;
        with_model(&server)?;
        let outcome = press_creates(&server, connections, bench.run)?;
        let goal = if connections == 64 { Goal::AtLeast(40_000.0) } else { Goal::None };
        let what = format!("create, no hooks, {connections} connections, durable");
        rows.push(Row::rate(what, goal, &outcome, server.memory()?));
        if connections == 64 {
            let p99 = outcome.percentile(0.99);
            rows.push(Row::time("the same, p99", Some(Duration::from_millis(8)), p99));
        }
        server.stop()?;
    }
    let server = bench.server("create-1", "")?;
    with_model(&server)?;
    // The speed of the disk changes from minute to minute, so it is measured both before and after.
    let before = fdatasync(bench.scratch.path())?.percentile(0.5);
    let outcome = press_creates(&server, 1, bench.run)?;
    let after = fdatasync(bench.scratch.path())?.percentile(0.5);
    let sync = (before + after) / 2;
    let detail = format!("fdatasync {}; p99 {}", micros(sync), micros(outcome.percentile(0.99)));
    let bound = sync + Duration::from_micros(120);
    let row = Row::time("create, 1 connection, p50 (one fdatasync + 120 µs)", Some(bound), outcome.percentile(0.5));
    rows.push(row.with_detail(detail).with_memory(server.memory()?));
    server.stop()?;
    Ok(rows)
}

pub(crate) fn get(bench: &Bench) -> Result<Vec<Row>> {
    let server = bench.server("get", "")?;
    let requests = gets(&mut with_model(&server)?)?;
    let outcome =
        Load { address: server.address, connections: 64, requests: &requests, status: 200, run: bench.run }.run()?;
    let row = Row::rate("get by id, 64 connections", Goal::AtLeast(80_000.0), &outcome, server.memory()?);
    server.stop()?;
    Ok(vec![row])
}

/// Creates instances and returns the requests that get them.
pub(super) fn gets(client: &mut Client) -> Result<Vec<Vec<u8>>> {
    const COUNT: usize = 1000;
    let create = request("POST", INSTANCES, "application/json", BODY.as_bytes());
    let mut requests = Vec::with_capacity(COUNT);
    for _ in 0..COUNT {
        let (_, body) = client.send(&create)?;
        let instance: serde_json::Value =
            serde_json::from_slice(&body).map_err(|error| format!("the response of a create is not JSON: {error}"))?;
        let id = instance["id"].as_str().ok_or_else(|| format!("the response of a create has no id: {instance}"))?;
        requests.push(request("GET", &format!("{INSTANCES}/{id}"), "", b""));
    }
    Ok(requests)
}

/// The load generator alone, which limits what the other rows can measure.
pub(crate) fn generator(bench: &Bench) -> Result<Vec<Row>> {
    let address = answer_blindly().map_err(|error| format!("cannot listen: {error}"))?;
    let requests = [request("GET", "/", "", b"")];
    // The other side has one thread per connection, so few connections are used.
    let outcome = Load { address, connections: 8, requests: &requests, status: 200, run: bench.run }.run()?;
    let row = Row {
        what: "(the load generator against a server that does nothing)".into(),
        goal: Goal::None,
        unit: "/s",
        measured: outcome.per_second(),
        detail: percentiles(&outcome),
        memory: None,
    };
    Ok(vec![row])
}

/// Sends the same response to every request, with one thread per connection, until the process ends.
fn answer_blindly() -> std::io::Result<SocketAddr> {
    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";
    debug_assert!(http::parse(ANSWER).is_ok());
    fn serve(mut stream: TcpStream) -> std::io::Result<()> {
        let mut buffer = [0; 4096];
        stream.set_nodelay(true)?;
        while stream.read(&mut buffer)? > 0 {
            stream.write_all(ANSWER)?;
        }
        Ok(())
    }
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || serve(stream));
        }
    });
    Ok(address)
}
