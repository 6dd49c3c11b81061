//! Comparison of engines: what V8 adds, hooks that compute, many hooks of all kinds, and whether models share the cores
//! fairly.

use std::path::Path;
use std::time::{Duration, Instant};

use super::super::Bench;
use super::super::http::{Client, request};
use super::super::load::{Load, LoadOutcome};
use super::super::report::{Goal, Row, percentiles};
use super::hooks::{REUSE, component, difference, named};
use super::{MODEL, PRE_HOOK, bind_to, with_model};
use crate::repository::root;
use crate::shell::Result;
use crate::{guests, native, needs};

/// Sorts 10,000 numbers.
const SORT: &str = "export function preCreate() {
  const numbers = [];
  for (let n = 0, x = 1; n < 10000; n++) numbers.push(x = (x * 48271) % 2147483647);
  numbers.sort((a, b) => a - b);
  if (numbers[0] > numbers[9999]) throw new Reject('not sorted');
}";

/// Transforms the 1,000 rows of a change of 100 KB, and creates a text from them.
const TRANSFORM: &str = "export function preCreate({ after }) {
  const totals = {};
  const rows = after.rows.map(({ customer, amount, tags }) => {
    totals[customer] = (totals[customer] ?? 0) + amount;
    return { customer: customer.toUpperCase(), cents: Math.round(amount * 100), tags: tags.join(' ') };
  });
  if (JSON.stringify({ rows, totals }).length < 1000) throw new Reject('too little');
}";

/// Takes about 2 ms of a core in QuickJS.
const BUSY: &str =
    "export function preCreate() { let x = 0; for (let n = 0; n < 60000; n++) x = (x + n) % 7; if (x > 9) throw 1; }";

/// Adds the folder with V8 to the configuration of a server that runs in another folder.
pub(super) fn with_v8(config: &str) -> Result<String> {
    crate::v8::fetch()?;
    Ok(format!("[plugins]\ndirectory = '{}'\n\n{config}", root().join("plugins").display()))
}

pub(crate) fn v8_added(bench: &Bench) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (name, config) in [("fresh", ""), ("reused", REUSE)] {
        let server = bench.server(&format!("added-v8-{name}"), &with_v8(config)?)?;
        let mut client = with_model(&server)?;
        let row =
            difference(bench, &server, &mut client, |client| bind_to(client, "v8", "order", "preCreate", PRE_HOOK))?;
        rows.push(named(row, format!("V8 hook in its worker process, {name}, p50 added"), 120, &server)?);
        server.stop()?;
    }
    Ok(rows)
}

/// The code of a hook to bind.
enum Code {
    /// JavaScript for an engine.
    Source(&'static str, String),
    Wasm(Vec<u8>),
    /// The file name in the hooks directory.
    Library(&'static str),
}

impl Code {
    fn bind(&self, client: &mut Client, model: &str) -> Result {
        let path = format!("/models/{model}/hooks/preCreate");
        match self {
            Code::Source(engine, source) => bind_to(client, engine, model, "preCreate", source),
            Code::Wasm(bytes) => client.call_with("PUT", &path, "application/wasm", bytes).map(|_| ()),
            Code::Library(file) => {
                let chain = format!(r#"{{"chain":[{{"engine":"native","library":"{file}"}}]}}"#);
                client.call("PUT", &path, &chain).map(|_| ())
            }
        }
    }
}

/// Builds all guests and configures their folder as the hooks directory, so that libraries are found.
fn with_guests(config: &str) -> Result<(std::path::PathBuf, String)> {
    let folder = guests::build(&needs::wasm_toolchain()?)?;
    let missing = guests::build_others(&folder)?;
    if !missing.is_empty() {
        return Err(format!("not all guests can be built: {}", missing.join("; ")));
    }
    native::build()?;
    let hooks = format!("[hooks]\ndirectory = '{}'\n{config}", folder.display());
    Ok((folder, with_v8(&hooks)?))
}

fn read(folder: &Path, file: &str) -> Result<Vec<u8>> {
    let path = folder.join(file);
    std::fs::read(&path).map_err(|error| format!("cannot read {}: {error}", path.display()))
}

/// Requests with a hook that computes, one at a time, so that the hook takes most of the time.
pub(crate) fn work(bench: &Bench) -> Result<Vec<Row>> {
    let (folder, config) = with_guests("timeout = '10 s'")?;
    let mut rows = Vec::new();
    let (small, large) = (super::BODY.to_owned(), large_body());
    for (what, source, body) in
        [("sort of 10,000 numbers", SORT, &small), ("JSON transform of 100 KB", TRANSFORM, &large)]
    {
        for (engine, code) in [
            ("quickjs", Code::Source("quickjs", source.into())),
            ("v8", Code::Source("v8", source.into())),
            ("component (Rust)", Code::Wasm(read(&folder, "work.wasm")?)),
            ("Javy", Code::Wasm(read(&folder, "javy_work.wasm")?)),
            ("native (Rust)", Code::Library("work.so")),
        ] {
            let server = bench.server(&format!("work-{}", rows.len()), &config)?;
            let mut client = with_model(&server)?;
            code.bind(&mut client, "order")?;
            let path = format!("{}?dry-run=true", super::INSTANCES);
            let requests = [request("POST", &path, "application/json", body.as_bytes())];
            let load =
                Load { address: server.address, connections: 1, requests: &requests, status: 200, run: bench.run / 2 };
            let outcome = load.run()?;
            let row = Row::time(format!("{what}, {engine}: p50 of the request"), None, outcome.percentile(0.5));
            rows.push(row.with_detail(percentiles(&outcome)).with_memory(server.memory()?));
            server.stop()?;
        }
    }
    Ok(rows)
}

fn large_body() -> String {
    let rows: Vec<String> = (0..1_000)
        .map(|n| format!(r#"{{"customer":"customer-{}","amount":{}.25,"tags":["a{n}","b{n}","some words about it"],"note":"{n} of a thousand"}}"#, n % 50, n * 7))
        .collect();
    format!(r#"{{"data":{{"customer":"ada-lovelace","total":1,"rows":[{}]}}}}"#, rows.join(","))
}

/// 1,000 hooks, a fifth each as QuickJS and V8 sources, components, Javy modules and native libraries, and creates on
/// all of their models.
pub(crate) fn mixed(bench: &Bench) -> Result<Vec<Row>> {
    const MODELS: usize = 1_000;
    let (folder, config) = with_guests("")?;
    let component = Code::Wasm(component()?);
    let javy = Code::Wasm(read(&folder, &format!("{}.wasm", guests::BENCH_JAVY_GUEST))?);
    let server = bench.server("thousand-mixed", &config)?;
    let mut client = server.client()?;
    for model in 0..MODELS {
        client.call("POST", "/models", &MODEL.replace("\"order\"", &format!("\"order-{model}\"")))?;
    }
    let idle = server.idle_memory()?;
    for model in 0..MODELS {
        let name = format!("order-{model}");
        let source = PRE_HOOK.replace("a million", &format!("that much in {model}"));
        match model % 5 {
            0 => Code::Source("quickjs", source).bind(&mut client, &name)?,
            1 => Code::Source("v8", source).bind(&mut client, &name)?,
            2 => component.bind(&mut client, &name)?,
            3 => javy.bind(&mut client, &name)?,
            _ => Code::Library(native::BENCH_LIBRARY).bind(&mut client, &name)?,
        }
    }
    let bound = server.idle_memory()?;
    let requests: Vec<_> = (0..MODELS)
        .map(|model| {
            request("POST", &format!("/models/order-{model}/instances"), "application/json", super::BODY.as_bytes())
        })
        .collect();
    let outcome =
        Load { address: server.address, connections: 16, requests: &requests, status: 201, run: bench.run }.run()?;
    let memory = server.memory()?;
    server.stop()?;
    let idle_row = Row {
        what: "1,000 hooks of mixed engines bound, idle: above idle with the same models".into(),
        goal: Goal::None,
        unit: "MB",
        measured: bound.saturating_sub(idle) as f64 / 1e6,
        detail: format!("{:.0} MB before; V8's processes counted", idle as f64 / 1e6),
        memory: Some(bound),
    };
    let p99 = Row::time("creates on the 1,000 models, 16 connections, p99", None, outcome.percentile(0.99));
    Ok(vec![
        idle_row,
        p99.with_detail(format!("{:.0} /s, {}", outcome.per_second(), percentiles(&outcome))).with_memory(memory),
    ])
}

/// 64 models, each with a hook that computes and a client that sends one create after the other.
pub(crate) fn fairness(bench: &Bench) -> Result<Vec<Row>> {
    const MODELS: usize = 64;
    let mut rows = Vec::new();
    for engines in [&["quickjs"][..], &["v8"], &["quickjs", "v8"]] {
        let name = engines.join(" and ");
        let server =
            bench.server(&format!("fairness-{}", engines.join("-")), &with_v8("[hooks]\ntimeout = '30 s'")?)?;
        let mut client = server.client()?;
        for model in 0..MODELS {
            client.call("POST", "/models", &MODEL.replace("\"order\"", &format!("\"order-{model}\"")))?;
            let engine = engines[model % engines.len()];
            bind_to(&mut client, engine, &format!("order-{model}"), "preCreate", BUSY)?;
        }
        let until = Instant::now() + bench.run;
        let threads: Vec<_> = (0..MODELS)
            .map(|model| {
                let client = server.client();
                std::thread::spawn(move || creates(client?, model, until))
            })
            .collect();
        let mut p99s = Vec::with_capacity(MODELS);
        let mut count = 0;
        for thread in threads {
            let times = thread.join().map_err(|_| "a client panicked")??;
            count += times.len();
            p99s.push(LoadOutcome::new(times, bench.run).percentile(0.99));
        }
        p99s.sort_unstable();
        let (best, median, worst) = (p99s[0], p99s[MODELS / 2], p99s[MODELS - 1]);
        rows.push(Row {
            what: format!("64 {name} hooks at once: the slowest model's p99, in times of the fastest's"),
            goal: Goal::AtMost(3.0),
            unit: "times",
            measured: worst.as_secs_f64() / best.as_secs_f64().max(1e-9),
            detail: format!(
                "{count} creates; p99 {:.0} ms best, {:.0} ms median, {:.0} ms worst",
                best.as_secs_f64() * 1e3,
                median.as_secs_f64() * 1e3,
                worst.as_secs_f64() * 1e3
            ),
            memory: Some(server.memory()?),
        });
        server.stop()?;
    }
    Ok(rows)
}

fn creates(mut client: Client, model: usize, until: Instant) -> Result<Vec<Duration>> {
    let create =
        request("POST", &format!("/models/order-{model}/instances"), "application/json", super::BODY.as_bytes());
    let mut times = Vec::new();
    while Instant::now() < until {
        let start = Instant::now();
        let (status, body) = client.send(&create)?;
        if status != 201 {
            return Err(format!("a create got the status {status}: {}", String::from_utf8_lossy(&body)));
        }
        times.push(start.elapsed());
    }
    Ok(times)
}
