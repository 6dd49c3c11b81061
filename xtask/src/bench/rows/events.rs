//! The event log: rebuilding from it, listening to it, and its growth.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use mio::{Events, Interest, Poll, Token};

use super::super::Bench;
use super::super::http::{Client, request};
use super::super::load::LoadOutcome;
use super::super::report::{Goal, Row, percentiles};
use super::super::server::Server;
use super::{BODY, INSTANCES, fill, press_creates, with_model};
use crate::shell::Result;

pub(crate) fn rebuild(bench: &Bench) -> Result<Vec<Row>> {
    let files = "[driver-event-storage]\ndriver = 'file'\npath = 'data/events'\n\
                 [driver-model-storage]\ndriver = 'file'\npath = 'data/models'\n";
    let sqlite = rebuild_on(bench, "sqlite", "", 300_000, 300_000.0)?;
    Ok(vec![sqlite, rebuild_on(bench, "file", files, 100_000, 50_000.0)?])
}

/// Creates events and rebuilds the model store from them, on the stores of that configuration.
pub(super) fn rebuild_on(bench: &Bench, name: &str, stores: &str, events: u64, at_least: f64) -> Result<Row> {
    let server = bench.server(&format!("rebuild-{name}"), stores)?;
    let mut client = with_model(&server)?;
    let events = fill(&mut client, events, Duration::from_secs(120))?;
    let elapsed = rebuilt(&mut client)?;
    let row = Row {
        what: format!("rebuild of the model store from the log, {name}"),
        goal: Goal::AtLeast(at_least),
        unit: "/s",
        measured: events as f64 / elapsed.as_secs_f64(),
        detail: format!("{events} events in {:.2} s", elapsed.as_secs_f64()),
        memory: Some(server.memory()?),
    };
    server.stop()?;
    Ok(row)
}

/// Rebuilds and returns how long that took.
pub(super) fn rebuilt(client: &mut Client) -> Result<Duration> {
    let start = Instant::now();
    client.call("POST", "/rebuild", "")?;
    loop {
        let progress = client.call("GET", "/rebuild", "")?;
        match progress["state"].as_str() {
            Some("done") => return Ok(start.elapsed()),
            Some("running") if start.elapsed() < Duration::from_secs(300) => {}
            _ => return Err(format!("the rebuild failed, or takes more than 300 s: {progress}")),
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The time from sending a create until each listener has received its event.
pub(crate) fn sse(bench: &Bench) -> Result<Vec<Row>> {
    const LISTENERS: usize = 1000;
    const EVENTS: usize = 20;
    let server = bench.server("sse", "")?;
    let mut client = with_model(&server)?;
    let mut listeners = Listeners::connect(&server, LISTENERS)?;
    let create = request("POST", INSTANCES, "application/json", BODY.as_bytes());
    let mut latencies = Vec::with_capacity(LISTENERS * EVENTS);
    for _ in 0..EVENTS {
        let sent_at = Instant::now();
        client.send(&create)?;
        listeners.wait_for_all(sent_at, &mut latencies)?;
    }
    let outcome = LoadOutcome::new(latencies, Duration::from_secs(1));
    let row =
        Row::time("SSE: one event to 1,000 listeners, p99", Some(Duration::from_millis(50)), outcome.percentile(0.99));
    let row = row.with_detail(format!("{EVENTS} events: {}", percentiles(&outcome))).with_memory(server.memory()?);
    drop(listeners);
    server.stop()?;
    Ok(vec![row])
}

pub(super) struct Listeners {
    poll: Poll,
    streams: Vec<mio::net::TcpStream>,
}

impl Listeners {
    /// Connects all listeners and reads the heads of their responses, so that they receive all later events.
    pub(super) fn connect(server: &Server, count: usize) -> Result<Listeners> {
        let fail = |error: std::io::Error| format!("cannot listen to events: {error}");
        let poll = Poll::new().map_err(fail)?;
        let subscribe = request("GET", "/events/stream?type=instance.created", "", b"");
        let mut streams = Vec::with_capacity(count);
        for index in 0..count {
            let mut stream = TcpStream::connect(server.address).map_err(fail)?;
            stream.set_read_timeout(Some(Duration::from_secs(30))).map_err(fail)?;
            stream.write_all(&subscribe).map_err(fail)?;
            let mut head = Vec::new();
            while !head.windows(4).any(|window| window == b"\r\n\r\n") {
                let mut chunk = [0; 1024];
                let count = stream.read(&mut chunk).map_err(fail)?;
                if count == 0 {
                    return Err("the server closed a listener's connection".into());
                }
                head.extend_from_slice(&chunk[..count]);
            }
            if !head.starts_with(b"HTTP/1.1 200") {
                return Err(format!("a listener was rejected: {}", String::from_utf8_lossy(&head)));
            }
            stream.set_nonblocking(true).map_err(fail)?;
            let mut stream = mio::net::TcpStream::from_std(stream);
            poll.registry().register(&mut stream, Token(index), Interest::READABLE).map_err(fail)?;
            streams.push(stream);
        }
        Ok(Listeners { poll, streams })
    }

    pub(super) fn wait_for_all(&mut self, sent_at: Instant, latencies: &mut Vec<Duration>) -> Result {
        let fail = |error: std::io::Error| format!("a listener failed: {error}");
        let mut waiting = vec![true; self.streams.len()];
        let mut missing = waiting.len();
        let mut events = Events::with_capacity(1024);
        while missing > 0 {
            self.poll.poll(&mut events, Some(Duration::from_secs(1))).map_err(fail)?;
            if sent_at.elapsed() > Duration::from_secs(30) {
                return Err(format!("{missing} listeners did not get an event within 30 s"));
            }
            for event in &events {
                let index = event.token().0;
                let mut chunk = [0; 8 * 1024];
                loop {
                    match self.streams[index].read(&mut chunk) {
                        Ok(0) => return Err("the server closed a listener's connection".into()),
                        // Comments that keep the connection alive are not events.
                        Ok(count) if waiting[index] && chunk[..count].windows(5).any(|window| window == b"data:") => {
                            waiting[index] = false;
                            missing -= 1;
                            latencies.push(sent_at.elapsed());
                        }
                        Ok(_) => {}
                        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                        Err(error) => return Err(fail(error)),
                    }
                }
            }
        }
        Ok(())
    }
}

pub(crate) fn flat(bench: &Bench) -> Result<Vec<Row>> {
    // Short, because the measurement itself makes the log longer.
    const RUN: Duration = Duration::from_secs(1);
    let (full, within) = if bench.long { (10_000_000, 1800) } else { (1_000_000, 180) };
    let server = bench.server("flat", "")?;
    let mut client = with_model(&server)?;
    let few = fill(&mut client, 10_000, Duration::from_secs(60))?;
    let mut rows = Vec::new();
    let mut rate = |server: &Server, events: u64| -> Result<f64> {
        // The median of three: one second is short.
        let mut outcomes = (0..3).map(|_| press_creates(server, 64, RUN)).collect::<Result<Vec<_>>>()?;
        outcomes.sort_by(|a, b| a.per_second().total_cmp(&b.per_second()));
        let outcome = &outcomes[1];
        rows.push(Row::rate(
            format!("create, 64 connections, log of {events} events"),
            Goal::None,
            outcome,
            server.memory()?,
        ));
        Ok(outcome.per_second())
    };
    let first = rate(&server, few)?;
    let many = fill(&mut client, full, Duration::from_secs(within))?;
    let last = rate(&server, many)?;
    rows.push(Row {
        what: format!("cost of a create at {many} events against {few} (flat: at most 1.25 times)"),
        goal: Goal::AtMost(1.25),
        unit: "",
        measured: first / last,
        detail: if many < full { format!("{full} events were not reached in {within} s") } else { String::new() },
        memory: None,
    });
    server.stop()?;
    Ok(rows)
}
