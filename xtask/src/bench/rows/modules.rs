//! The cost of server modules.

use std::process::Command;
use std::time::Duration;

use super::super::Bench;
use super::super::machine::micros;
use super::super::report::{Goal, Row};
use super::compare::{ROUNDS, Workload, sample};
use crate::repository::root;
use crate::shell::{Result, run as run_command};

/// A module that has every hook of a request and declines all of them.
const DECLINES: &str = r#"
#include "snaphook.hpp"
struct Declines : snaphook::Module {};
struct Request : snaphook::RequestHandler {
  Request(Declines &, snaphook::Exchange &) {}
  snaphook::Result before_request(snaphook::Exchange &) override { return snaphook::Result::declined(); }
  snaphook::Result request(snaphook::Exchange &) override { return snaphook::Result::declined(); }
  snaphook::Result request_error(snaphook::Exchange &, uint32_t) override { return snaphook::Result::declined(); }
  snaphook::Result response(snaphook::Exchange &) override { return snaphook::Result::declined(); }
};
SNAPHOOK_MODULE(Declines, Request, "declines", "1.0.0")
"#;

pub(crate) fn declining(bench: &Bench) -> Result<Vec<Row>> {
    let (source, library) = (bench.scratch.path().join("declines.cpp"), bench.scratch.path().join("declines.so"));
    std::fs::write(&source, DECLINES).map_err(|error| format!("cannot write {}: {error}", source.display()))?;
    let mut compiler = Command::new("c++");
    compiler.args(["-shared", "-fPIC", "-fexceptions", "-O2", "-I"]).arg(root().join("sdk/c"));
    run_command(compiler.arg("-o").arg(&library).arg(&source))?;
    let config = format!("[[server.modules]]\nname = 'declines'\nlibrary = '{}'\n", library.display());
    let row = added(bench, "a native module that declines everything", &config)?;
    Ok(vec![Row { goal: Goal::AtMost(3.0), ..row }])
}

/// The processor time that this configuration adds to a get: the median of pairs of runs, one with and one without it.
fn added(bench: &Bench, what: &str, config: &str) -> Result<Row> {
    let gets = |config| Workload { name: "get by id", config, engine: None, reads: true };
    let mut pairs = Vec::with_capacity(ROUNDS);
    for round in 0..ROUNDS {
        let run = |kind: &str, config| sample(bench, &bench.binary, &format!("module-{kind}-{round}"), &gets(config));
        let (without, with) = (run("without", "")?.processor, run("with", config)?.processor);
        pairs.push((with.saturating_sub(without), without, with));
    }
    pairs.sort_unstable();
    let (difference, without, with) = pairs[ROUNDS / 2];
    let row = Row::time(format!("{what}: processor time that it adds to a get"), None::<Duration>, difference);
    Ok(row.with_detail(format!("without {}, with {}; {ROUNDS} pairs", micros(without), micros(with))))
}
