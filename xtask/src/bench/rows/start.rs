//! Starting, and being idle.

use std::time::Duration;

use super::super::Bench;
use super::super::report::{Goal, Row};
use super::{MODEL, PRE_HOOK, bind};
use crate::shell::Result;

const STARTS: usize = 15;

pub(crate) fn cold_start(bench: &Bench) -> Result<Vec<Row>> {
    let place = bench.place("cold-start", "")?;
    let server = place.start()?;
    let mut client = server.client()?;
    for index in 0..10 {
        client.call("POST", "/models", &MODEL.replace("\"order\"", &format!("\"order-{index}\"")))?;
    }
    // With a hook, so that the compiled runner is in the cache and has to be loaded.
    bind(&mut client, "order-0", "preCreate", PRE_HOOK)?;
    drop(client);
    server.stop()?;
    let mut times = Vec::with_capacity(STARTS);
    let mut memory = 0;
    for _ in 0..STARTS {
        let server = place.start()?;
        times.push(server.ready_after);
        memory = server.memory()?;
        server.stop()?;
    }
    times.sort_unstable();
    let row = Row::time(
        "cold start to first answer, cache warm, 10 models",
        Some(Duration::from_millis(60)),
        times[STARTS / 2],
    );
    let detail =
        format!("median of {STARTS}; slowest {:.1} ms; one QuickJS hook bound", times[STARTS - 1].as_secs_f64() * 1e3);
    Ok(vec![row.with_detail(detail).with_memory(memory)])
}

pub(crate) fn idle_memory(bench: &Bench) -> Result<Vec<Row>> {
    let server = bench.server("idle-memory", "")?;
    let memory = server.idle_memory()?;
    server.stop()?;
    Ok(vec![Row {
        what: "idle memory, sqlite drivers, no hook bound".into(),
        goal: Goal::AtMost(40.0),
        unit: "MB",
        measured: memory as f64 / 1e6,
        detail: String::new(),
        memory: Some(memory),
    }])
}
