//! The cost of hooks.

use std::path::Path;
use std::time::{Duration, Instant};

use super::super::Bench;
use super::super::http::{Client, request};
use super::super::load::{Load, LoadOutcome};
use super::super::report::{Goal, Row, percentiles};
use super::super::server::Server;
use super::{BODY, INSTANCES, PRE_HOOK, bind, with_model};
use crate::shell::Result;
use crate::{guests, native, needs};

pub(super) const REUSE: &str = "[hooks]\nisolation = 'reuse'";

/// The difference between the same request with and without the hook, one at a time. The request is a dry run, which
/// does everything except the write, so that the disk does not affect a difference of microseconds.
pub(crate) fn added(bench: &Bench) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (name, config, bound) in [("fresh", "", 50), ("reused", REUSE, 12)] {
        let server = bench.server(&format!("added-quickjs-{name}"), config)?;
        let mut client = with_model(&server)?;
        let row = difference(bench, &server, &mut client, |client| bind(client, "order", "preCreate", PRE_HOOK))?;
        rows.push(named(row, format!("QuickJS hook, {name} sandbox, p50 added"), bound, &server)?);
        server.stop()?;
    }
    let (component, javy) = (component()?, javy_module()?);
    for (name, what, bound, code) in [
        ("component", "Rust component, fresh sandbox per call, p50 added", 20, component),
        ("javy", "Javy module, fresh sandbox per call, p50 added", 130, javy),
    ] {
        let server = bench.server(&format!("added-{name}"), "")?;
        let mut client = with_model(&server)?;
        let row = difference(bench, &server, &mut client, |client| {
            client.call_with("PUT", "/models/order/hooks/preCreate", "application/wasm", &code).map(|_| ())
        })?;
        rows.push(named(row, what.into(), bound, &server)?);
        server.stop()?;
    }
    rows.push(added_native(bench)?);
    Ok(rows)
}

/// Measures a library in C that looks for one number in the data.
fn added_native(bench: &Bench) -> Result<Row> {
    let folder = bench.scratch.path().join("native-hooks");
    std::fs::create_dir_all(&folder).map_err(|error| format!("cannot create {}: {error}", folder.display()))?;
    native::example_in_c(&folder)?;
    let server = bench.server("added-native", &format!("[hooks]\ndirectory = '{}'", folder.display()))?;
    let mut client = with_model(&server)?;
    let chain = format!(r#"{{"chain":[{{"engine":"native","library":"{}"}}]}}"#, native::BENCH_LIBRARY);
    let row = difference(bench, &server, &mut client, |client| {
        client.call("PUT", "/models/order/hooks/preCreate", &chain).map(|_| ())
    })?;
    let row = named(row, "native hook, p50 added".into(), 2, &server)?;
    server.stop()?;
    Ok(row)
}

/// The guest of the repository that accepts everything.
pub(super) fn component() -> Result<Vec<u8>> {
    let folder = guests::build(&needs::wasm_toolchain()?)?;
    guest(&folder, guests::BENCH_GUEST)
}

/// The same guest as a Javy module.
fn javy_module() -> Result<Vec<u8>> {
    let folder = guests::build(&needs::wasm_toolchain()?)?;
    guests::build_javy(&folder)?;
    guest(&folder, guests::BENCH_JAVY_GUEST)
}

fn guest(folder: &Path, name: &str) -> Result<Vec<u8>> {
    let path = folder.join(format!("{name}.wasm"));
    std::fs::read(&path).map_err(|error| format!("cannot read {}: {error}", path.display()))
}

pub(super) struct Difference {
    without: LoadOutcome,
    with: LoadOutcome,
}

pub(super) fn difference(
    bench: &Bench,
    server: &Server,
    client: &mut Client,
    bind: impl FnOnce(&mut Client) -> Result,
) -> Result<Difference> {
    let requests = [request("POST", &format!("{INSTANCES}?dry-run=true"), "application/json", BODY.as_bytes())];
    let press =
        || Load { address: server.address, connections: 1, requests: &requests, status: 200, run: bench.run }.run();
    let without = press()?;
    bind(client)?;
    let with = press()?;
    Ok(Difference { without, with })
}

pub(super) fn named(difference: Difference, what: String, bound_micros: u64, server: &Server) -> Result<Row> {
    let Difference { without, with } = difference;
    let added = with.percentile(0.5).saturating_sub(without.percentile(0.5));
    let detail = format!("without: {}; with: {}", percentiles(&without), percentiles(&with));
    let row = Row::time(what, Some(Duration::from_micros(bound_micros)), added);
    Ok(row.with_detail(detail).with_memory(server.memory()?))
}

pub(crate) fn put_to_first_run(bench: &Bench) -> Result<Vec<Row>> {
    const COUNT: usize = 20;
    let server = bench.server("js-put", "")?;
    let mut client = with_model(&server)?;
    // The first hook of a server loads the engine.
    bind(&mut client, "order", "preCreate", PRE_HOOK)?;
    let create = request("POST", INSTANCES, "application/json", BODY.as_bytes());
    let mut times = Vec::with_capacity(COUNT);
    for index in 0..COUNT {
        let message = format!("this is source number {index}");
        let source = format!("export function preCreate() {{ throw new Reject(\"{message}\"); }}");
        let start = Instant::now();
        bind(&mut client, "order", "preCreate", &source)?;
        let (status, body) = client.send(&create)?;
        times.push(start.elapsed());
        if status != 422 || !String::from_utf8_lossy(&body).contains(&message) {
            return Err(format!("the new source did not run: {status} {}", String::from_utf8_lossy(&body)));
        }
    }
    let outcome = LoadOutcome::new(times, Duration::from_secs(1));
    let row = Row::time(
        "JS hook: PUT to first run of the new code",
        Some(Duration::from_millis(50)),
        outcome.percentile(0.5),
    );
    let row = row.with_detail(format!("{COUNT} sources: {}", percentiles(&outcome))).with_memory(server.memory()?);
    server.stop()?;
    Ok(vec![row])
}

pub(crate) fn thousand(bench: &Bench) -> Result<Vec<Row>> {
    const PHASES: [&str; 5] = ["preCreate", "postCreate", "preUpdate", "postUpdate", "preDelete"];
    const MODELS: usize = 200;
    let server = bench.server("thousand-hooks", "")?;
    let mut client = server.client()?;
    for model in 0..MODELS {
        client.call("POST", "/models", &super::MODEL.replace("\"order\"", &format!("\"order-{model}\"")))?;
    }
    let idle = server.idle_memory()?;
    for model in 0..MODELS {
        for phase in PHASES {
            // Each hook has different source, so that nothing is shared that would not be shared by real hooks.
            let source = PRE_HOOK.replace("preCreate", phase).replace("a million", &format!("that much in {model}"));
            bind(&mut client, &format!("order-{model}"), phase, &source)?;
        }
    }
    let bound = server.idle_memory()?;
    server.stop()?;
    Ok(vec![Row {
        what: "1,000 JS hooks bound, idle: above idle with the same models".into(),
        goal: Goal::AtMost(150.0),
        unit: "MB",
        measured: bound.saturating_sub(idle) as f64 / 1e6,
        detail: format!("{:.0} MB before", idle as f64 / 1e6),
        memory: Some(bound),
    }])
}
