//! `cargo xtask ci`: the checks that a change must pass, and how long each part took.

use crate::repository::root;
use crate::shell::{Result, cargo, durations, run as run_command, section};
use crate::{deny, needs, test};

const WINDOWS: &str = "x86_64-pc-windows-gnu";

/// Crates that are checked for Windows: those without C code, which would need a compiler for Windows.
const WINDOWS_CRATES: [&str; 11] = [
    "snaphook-driver",
    "snaphook-driver-abi",
    "snaphook-driver-loader",
    "snaphook-driver-plugin",
    "snaphook-file",
    "snaphook-foreign",
    "snaphook-hook",
    "snaphook-memory",
    "snaphook-module",
    "snaphook-schema",
    "snaphook-stdout",
];

/// Runs every part even after a failure, so that one run reports everything. Only a part that cannot be prepared or
/// compiled ends the run.
pub(crate) fn run(args: &[String]) -> Result {
    if let Some(arg) = args.first() {
        return Err(format!("`ci` takes no argument, found `{arg}`"));
    }
    section("format");
    let formatted = run_command(cargo().args(["fmt", "--all", "--check"]).current_dir(root()));
    // It uses the cores while tests wait.
    let beside = vec![test::Job::new("deny", deny::command()?)];
    let tested = test::everything(&test::Mode { is_long: false, is_linted: true }, beside);
    let checked = windows();
    println!("\n=== durations ===\n{}", durations());
    let failures: Vec<String> = [formatted, tested, checked].into_iter().filter_map(Result::err).collect();
    if failures.is_empty() { Ok(()) } else { Err(failures.join("; ")) }
}

/// Checks the types for Windows, if the toolchain has a standard library for it.
fn windows() -> Result {
    section("windows: types");
    if let Err(reason) = needs::standard_library(WINDOWS) {
        println!("not checked: {reason}");
        return Ok(());
    }
    let packages = WINDOWS_CRATES.iter().flat_map(|package| ["-p", package]);
    run_command(cargo().args(["check", "--target", WINDOWS]).args(packages).current_dir(root()))
}
