//! `cargo xtask ci`: what must hold before a change lands, and how long each part of it took.

use crate::repository::root;
use crate::shell::{Result, cargo, durations, run as run_command, section};
use crate::test;

/// Runs every part, also after one has failed: one run reports all that is wrong. Only what cannot be prepared or compiled ends it.
pub(crate) fn run(args: &[String]) -> Result {
    if let Some(arg) = args.first() {
        return Err(format!("`ci` takes no argument, found `{arg}`"));
    }
    section("format");
    let formatted = run_command(cargo().args(["fmt", "--all", "--check"]).current_dir(root()));
    let mut clippy = cargo();
    clippy.args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]).current_dir(root());
    // It is about the code as tests are, and uses cores while they wait.
    let tested = test::everything(false, vec![test::Job::new("clippy", clippy)]);
    println!("\n=== durations ===\n{}", durations());
    let failures: Vec<String> = [formatted, tested].into_iter().filter_map(Result::err).collect();
    if failures.is_empty() { Ok(()) } else { Err(failures.join("; ")) }
}
