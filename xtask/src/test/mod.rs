//! `cargo xtask test`: all tests in one run. `--long` includes tests that take minutes, such as cutting a connection
//! after each single byte.

mod compile;
mod jobs;
mod lanes;
mod lints;
mod prepare;
mod report;
mod scratch;

use std::path::PathBuf;

use crate::repository::root;
use crate::shell::{Result, cargo, is_ci, run as run_command, section};
use crate::{plugins, tidy};
use compile::Compiling;
pub(crate) use lanes::Job;
use lints::Lints;
use prepare::TestSetup;
use scratch::Scratch;

pub(crate) fn run(args: &[String]) -> Result {
    let (is_long, args) = match args.split_first() {
        Some((first, rest)) if first == "--long" => (true, rest),
        _ => (false, args),
    };
    let args = args.strip_prefix(&["--".to_owned()]).unwrap_or(args);
    if args.is_empty() { everything(&Mode { is_long, is_linted: false }, Vec::new()) } else { named(is_long, args) }
}

/// How [`everything`] runs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mode {
    /// Whether tests that take minutes are included.
    pub(crate) is_long: bool,
    /// Whether a warning of clippy, or of the compiler, is a failure.
    pub(crate) is_linted: bool,
}

/// Runs every test. They are compiled while their requirements are prepared, and run in two lanes. The second lane
/// starts with `beside`.
pub(crate) fn everything(mode: &Mode, beside: Vec<Job>) -> Result {
    let lints = if mode.is_linted { Lints::clippy()? } else { Lints::default() };
    let compiling = Compiling::start(&lints)?;
    let mut prepared = prepare::prepare()?;
    prepared.is_long(mode.is_long);
    let tidied = tidied(&prepared)?;
    section(if mode.is_linted { "compile the tests, with clippy" } else { "compile the tests" });
    let built = compiling.finish()?;
    let linted = lints.verdict(built.warnings);
    prepared.environment.push((PLUGINS, plugins::collect(false)?));
    section("tests");
    let scratch = Scratch::new();
    match &scratch {
        Some(scratch) => println!("test files are in memory, in {}", scratch.folder().display()),
        None => println!("test files are on disk: there is no suitable file system in memory"),
    }
    let (first, rest) = jobs::of(&built.programs, &prepared, scratch.as_ref(), mode.is_long, &lints);
    let ended = lanes::run(first, beside.into_iter().chain(rest).collect())?;
    let tested = report::print(&ended);
    said_again(&prepared);
    let failures: Vec<String> = [linted, tested, tidied].into_iter().filter_map(Result::err).collect();
    if failures.is_empty() { Ok(()) } else { Err(failures.join("; ")) }
}

/// Runs the tests that the arguments name as cargo does, one program after another.
fn named(is_long: bool, args: &[String]) -> Result {
    let mut prepared = prepare::prepare()?;
    prepared.is_long(is_long);
    section("plugins: drivers as libraries for the tests");
    prepared.environment.push((PLUGINS, plugins::build(false)?));
    let tidied = tidied(&prepared)?;
    section("tests");
    let mut command = cargo();
    command.args(["test", "--workspace", "--no-fail-fast"]).args(prepared.excluded_packages()).args(args);
    command.args(if args.iter().any(|arg| arg == "--") { &[][..] } else { &["--"] });
    command.args(prepared.skipped_tests()).envs(prepared.environment.iter().cloned()).current_dir(root());
    let tested = run_command(&mut command);
    said_again(&prepared);
    tested.and(tidied)
}

/// The variable with the folder of the drivers as libraries.
const PLUGINS: &str = "SNAPHOOK_PLUGINS";

/// Runs tidy; its findings do not end the run. With `CI=true` missing requirements of tests do.
fn tidied(prepared: &TestSetup) -> Result<Result> {
    if !prepared.missing.is_empty() {
        section("skipped");
        prepared.missing.iter().for_each(|what| println!("{what}"));
        if is_ci() {
            return Err("with CI=true nothing may be skipped".into());
        }
    }
    section("tidy");
    let tidied = tidy::run(&[]);
    if let Err(message) = &tidied {
        eprintln!("error: {message}");
    }
    Ok(tidied)
}

fn said_again(prepared: &TestSetup) {
    if !prepared.missing.is_empty() {
        section("not run");
        prepared.missing.iter().for_each(|what| println!("{what}"));
    }
}

impl TestSetup {
    fn is_long(&mut self, is_long: bool) {
        if is_long {
            self.environment.push(("SNAPHOOK_TEST_LONG", PathBuf::from("1")));
        }
    }
}
