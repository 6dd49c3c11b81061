//! Compares two builds of the server: both get the same load in turns, so that fluctuations of the machine affect both.

use std::path::Path;
use std::time::Duration;

use super::super::Bench;
use super::super::http::request;
use super::super::load::Load;
use super::super::machine::micros;
use super::super::report::{Goal, Row};
use super::engines::with_v8;
use super::hooks::REUSE;
use super::instances::gets;
use super::{BODY, INSTANCES, PRE_HOOK, bind_to, with_model};
use crate::shell::Result;

/// The largest accepted ratio of this build's processor time to the other's.
const RATIO_MAX: f64 = 1.03;
/// Number of pairs of runs; the median counts.
pub(super) const ROUNDS: usize = 7;

pub(super) struct Workload<'a> {
    pub(super) name: &'a str,
    pub(super) config: &'a str,
    /// The engine of the pre hook, if there is one.
    pub(super) engine: Option<&'a str>,
    pub(super) reads: bool,
}

const fn creates(name: &'static str, config: &'static str, engine: Option<&'static str>) -> Workload<'static> {
    Workload { name, config, engine, reads: false }
}

const WORKLOADS: [Workload<'static>; 6] = [
    creates("create, no hooks", "", None),
    Workload { name: "get by id", config: "", engine: None, reads: true },
    creates("create, QuickJS fresh", "", Some("quickjs")),
    creates("create, QuickJS reused", REUSE, Some("quickjs")),
    creates("create, V8 fresh", "", Some("v8")),
    creates("create, V8 reused", REUSE, Some("v8")),
];

pub(super) struct Sample {
    /// Processor time of the server per response.
    pub(super) processor: Duration,
    per_second: f64,
}

/// For each workload, the ratio of this build's processor time to the other's.
pub(crate) fn compare(bench: &Bench, other: &Path, wanted: &dyn Fn(&str) -> bool) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for workload in WORKLOADS.iter().filter(|workload| wanted(workload.name)) {
        let mut pairs = Vec::with_capacity(ROUNDS);
        for round in 0..ROUNDS {
            let name = |build: &str| format!("compare-{}-{round}-{build}", rows.len());
            // The first run has a colder disk, so the builds take turns.
            let (this, that) = if round % 2 == 0 {
                let this = sample(bench, &bench.binary, &name("this"), workload)?;
                (this, sample(bench, other, &name("other"), workload)?)
            } else {
                let that = sample(bench, other, &name("other"), workload)?;
                (sample(bench, &bench.binary, &name("this"), workload)?, that)
            };
            pairs.push((this, that));
        }
        let middle = |of: &dyn Fn(&(Sample, Sample)) -> f64| {
            let mut values: Vec<f64> = pairs.iter().map(of).collect();
            values.sort_by(f64::total_cmp);
            values[values.len() / 2]
        };
        let time = |of: &dyn Fn(&(Sample, Sample)) -> Duration| {
            micros(Duration::from_secs_f64(middle(&|pair| of(pair).as_secs_f64())))
        };
        let row = Row {
            what: format!("{}: processor time per request against the other build", workload.name),
            goal: Goal::AtMost(RATIO_MAX),
            unit: "",
            measured: middle(&|(this, that)| this.processor.as_secs_f64() / that.processor.as_secs_f64()),
            detail: format!(
                "{} and {}; rate × {:.2} ({:.0} and {:.0} /s); {ROUNDS} pairs",
                time(&|(this, _)| this.processor),
                time(&|(_, that)| that.processor),
                middle(&|(this, that)| this.per_second / that.per_second),
                middle(&|(this, _)| this.per_second),
                middle(&|(_, that)| that.per_second),
            ),
            memory: None,
        };
        println!("{}", row.line());
        rows.push(row);
    }
    Ok(rows)
}

pub(super) fn sample(bench: &Bench, binary: &Path, name: &str, workload: &Workload<'_>) -> Result<Sample> {
    let config = if workload.engine == Some("v8") { with_v8(workload.config)? } else { workload.config.to_owned() };
    let server = bench.place_of(binary, name, &config)?.start()?;
    let mut client = with_model(&server)?;
    if let Some(engine) = workload.engine {
        bind_to(&mut client, engine, "order", "preCreate", PRE_HOOK)?;
    }
    let (requests, status) = match workload.reads {
        true => (gets(&mut client)?, 200),
        false => (vec![request("POST", INSTANCES, "application/json", BODY.as_bytes())], 201),
    };
    let before = server.processor_time()?;
    let load = Load { address: server.address, connections: 64, requests: &requests, status, run: bench.run };
    let outcome = load.run()?;
    let processor = (server.processor_time()? - before) / u32::try_from(outcome.answers()).unwrap_or(u32::MAX).max(1);
    server.stop()?;
    Ok(Sample { processor, per_second: outcome.per_second() })
}
