//! Creates with JavaScript hooks compared with creates without one. They run in turns, so that fluctuations of the
//! machine affect all of them.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use super::super::Bench;
use super::super::http::request;
use super::super::load::Load;
use super::super::machine::micros;
use super::super::report::{Goal, Row};
use super::hooks::REUSE;
use super::{BODY, INSTANCES, bind, with_model};
use crate::shell::Result;

/// Number of rounds with all kinds; the median counts.
const ROUNDS: usize = 5;

/// A typical hook: it checks the data and may reject it.
const TEN_LINES: &str = r#"const LIMIT = 1_000_000;

export function preCreate({ after }) {
  if (after.total > LIMIT) {
    throw new Reject("too much", { "/total": `at most ${LIMIT}` });
  }
  if (after.note !== undefined && after.note.length > 1000) {
    throw new Reject("the note is too long");
  }
}"#;

const ASYNC: &str = r#"export async function preCreate({ after, read }) {
  const known = await read.get("order", "known");
  if (known !== null && after.total > 1_000_000) throw new Reject("too much");
}"#;

const READS: &str = "[[grants]]\nmodel = 'order'\nphase = 'preCreate'\nhook = '*'\nread = ['order']";

/// For kinds whose 64 concurrent calls may exceed the default timeout.
const PATIENT: &str = "[hooks]\ntimeout = '10 s'";

struct Kind {
    name: &'static str,
    config: &'static str,
    source: Option<fn() -> String>,
    /// The minimum ratio of the rate to that of another kind, and the index of that kind.
    rate: Option<(f64, usize)>,
    /// The maximum processor time that it adds to a create, in microseconds.
    added: Option<f64>,
}

const WITHOUT: usize = 0;
const FRESH: usize = 1;

const KINDS: [Kind; 7] = [
    Kind { name: "no hook", config: "", source: None, rate: None, added: None },
    Kind {
        name: "ten lines",
        config: "",
        source: Some(|| TEN_LINES.to_owned()),
        rate: Some((0.6, WITHOUT)),
        added: Some(40.0),
    },
    Kind {
        name: "ten lines, reused sandbox",
        config: REUSE,
        source: Some(|| TEN_LINES.to_owned()),
        rate: Some((0.85, WITHOUT)),
        added: None,
    },
    Kind {
        name: "async with one read",
        config: READS,
        source: Some(|| ASYNC.to_owned()),
        rate: None,
        added: Some(60.0),
    },
    Kind { name: "24 KB, 200 functions", config: "", source: Some(|| functions(200)), rate: None, added: Some(70.0) },
    Kind { name: "bundle of 100 KB", config: "", source: Some(|| bundle(100)), rate: Some((0.8, FRESH)), added: None },
    Kind {
        name: "bundle of 700 KB",
        config: PATIENT,
        source: Some(|| bundle(700)),
        rate: Some((0.8, FRESH)),
        added: None,
    },
];

struct Sample {
    /// Processor time of the server per response.
    processor: Duration,
    per_second: f64,
    p99: Duration,
}

pub(crate) fn creates(bench: &Bench) -> Result<Vec<Row>> {
    let mut rounds = Vec::with_capacity(ROUNDS);
    for round in 0..ROUNDS {
        let samples = KINDS.iter().enumerate().map(|(index, kind)| sample(bench, round, index, kind));
        rounds.push(samples.collect::<Result<Vec<_>>>()?);
    }
    let middle = |of: &dyn Fn(&[Sample]) -> f64| {
        let mut values: Vec<f64> = rounds.iter().map(|samples| of(samples)).collect();
        values.sort_by(f64::total_cmp);
        values[ROUNDS / 2]
    };
    let mut rows = Vec::new();
    for (index, kind) in KINDS.iter().enumerate() {
        let detail = format!(
            "{:.0} /s, p99 {}, processor {}",
            middle(&|samples| samples[index].per_second),
            micros(Duration::from_secs_f64(middle(&|samples| samples[index].p99.as_secs_f64()))),
            micros(Duration::from_secs_f64(middle(&|samples| samples[index].processor.as_secs_f64()))),
        );
        if let Some((least, of)) = kind.rate {
            rows.push(Row {
                what: format!("create, QuickJS, {}: rate in times of {}", kind.name, KINDS[of].name),
                goal: Goal::AtLeast(least),
                unit: "",
                measured: middle(&|samples| samples[index].per_second / samples[of].per_second),
                detail: detail.clone(),
                memory: None,
            });
        }
        if index == FRESH {
            rows.push(Row {
                what: "the same: p99 in times of no hook".to_owned(),
                goal: Goal::AtMost(2.0),
                unit: "",
                measured: middle(&|samples| samples[index].p99.as_secs_f64() / samples[WITHOUT].p99.as_secs_f64()),
                detail: String::new(),
                memory: None,
            });
        }
        if let Some(most) = kind.added {
            let added =
                middle(&|samples| samples[index].processor.as_secs_f64() - samples[WITHOUT].processor.as_secs_f64());
            rows.push(Row {
                what: format!("create, QuickJS, {}: processor time added", kind.name),
                goal: Goal::AtMost(most),
                unit: "µs",
                measured: added * 1e6,
                detail,
                memory: None,
            });
        }
    }
    Ok(rows)
}

fn sample(bench: &Bench, round: usize, index: usize, kind: &Kind) -> Result<Sample> {
    let server = bench.server(&format!("javascript-{round}-{index}"), kind.config)?;
    let mut client = with_model(&server)?;
    if let Some(source) = kind.source {
        bind(&mut client, "order", "preCreate", &source())?;
    }
    let requests = [request("POST", INSTANCES, "application/json", BODY.as_bytes())];
    let before = server.processor_time()?;
    let load = Load { address: server.address, connections: 64, requests: &requests, status: 201, run: bench.run };
    let outcome = load.run()?;
    let processor = (server.processor_time()? - before) / u32::try_from(outcome.answers()).unwrap_or(u32::MAX).max(1);
    server.stop()?;
    Ok(Sample { processor, per_second: outcome.per_second(), p99: outcome.percentile(0.99) })
}

/// A start that applies hooks when the user's cache of compiled code is empty.
pub(crate) fn first_start(bench: &Bench) -> Result<Vec<Row>> {
    let place = bench.place("first-start", "[hooks]\napply = true\ncache = 'empty'")?;
    let folder = place.folder().join("hooks/order");
    let write = |name: &str, text: &str| {
        let path = folder.join(name);
        std::fs::write(&path, text).map_err(|error| format!("cannot write {}: {error}", path.display()))
    };
    std::fs::create_dir_all(&folder).map_err(|error| format!("cannot create {}: {error}", folder.display()))?;
    // The folder name is the model's id.
    write("model.json", &super::MODEL.replace(r#""id": "order", "#, ""))?;
    write("preCreate.js", TEN_LINES)?;
    let server = place.start()?;
    let row = Row::time(
        "first start with a JS hook, nothing compiled: to the first answer",
        Some(Duration::from_secs(3)),
        server.ready_after,
    );
    let row = row.with_memory(server.memory()?);
    server.stop()?;
    Ok(vec![row])
}

/// The time from binding a bundle to the end of its first run.
pub(crate) fn bundle_to_first_run(bench: &Bench) -> Result<Vec<Row>> {
    const COUNT: usize = 9;
    let server = bench.server("js-bundle", "")?;
    let mut client = with_model(&server)?;
    bind(&mut client, "order", "preCreate", TEN_LINES)?;
    let create = request("POST", INSTANCES, "application/json", BODY.as_bytes());
    let mut times = Vec::with_capacity(COUNT);
    for index in 0..COUNT {
        let source = format!("{}\nconst number = {index};", bundle(100));
        let start = Instant::now();
        bind(&mut client, "order", "preCreate", &source)?;
        client.send(&create)?;
        times.push(start.elapsed());
    }
    times.sort_unstable();
    let row = Row::time("JS bundle of 100 KB: PUT to first run", Some(Duration::from_millis(50)), times[COUNT / 2]);
    let row = row.with_detail(format!("slowest of {COUNT}: {}", micros(times[COUNT - 1])));
    let row = row.with_memory(server.memory()?);
    server.stop()?;
    Ok(vec![row])
}

/// A handler that uses one of many functions.
fn functions(count: usize) -> String {
    let mut source = String::new();
    for index in 0..count {
        let _ = writeln!(
            source,
            "function check{index}(value) {{ const limit = {index} * 100; if (value.total > limit + 1e6) return `more than ${{limit}}`; return undefined }}"
        );
    }
    source.push_str(
        "export function preCreate({ after }) { const fault = check7(after); if (fault) throw new Reject(fault); }\n",
    );
    source
}

/// A source of that many KB like bundles of packages: classes, tables, regular expressions, and modules that create
/// them.
fn bundle(kilobytes: usize) -> String {
    let mut source = String::new();
    let mut index = 0;
    while source.len() < kilobytes * 1000 {
        let _ = write!(
            source,
            r#"var module{index} = (() => {{
  const names = {{ alpha: {index}, beta: "b{index}", gamma: [1, 2, 3, {index}], delta: {{ deep: true, list: ["x", "y", "z"] }} }};
  const patterns = [/^[a-z]+{index}$/u, /(\d{{4}})-(\d{{2}})-(\d{{2}})/, /[^\w.-]+/g];
  class Part {{
    #value; static kinds = new Map(Object.entries(names));
    constructor(value) {{ this.#value = value; }}
    get value() {{ return this.#value; }}
    check(other) {{ if (typeof other !== "object" || other === null) return {{ ok: false, why: "no object" }};
      for (const [name, kind] of Part.kinds) if (name in other && typeof other[name] !== typeof kind) return {{ ok: false, why: name }};
      return {{ ok: true, patterns: patterns.map((pattern) => pattern.test(String(other.note))) }}; }}
  }}
  function format(value, width = {index}) {{ return String(value).padStart(width % 20, "0").replace(patterns[2], "_"); }}
  const defaults = Object.freeze({{ ...names, format, Part, create: (value) => new Part(value) }});
  return defaults;
}})();
"#
        );
        index += 1;
    }
    source.push_str(
        "export function preCreate({ after }) { const found = module0.create(1).check(after); if (!found.ok) throw new Reject(found.why); }\n",
    );
    source
}
