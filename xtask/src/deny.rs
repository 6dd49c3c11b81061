//! `cargo xtask deny`: checks the licences, versions and sources of everything that is linked, against `deny.toml`.
//!
//! Advisories are not checked: they change without a change of this repository, and need a network.

use std::path::PathBuf;
use std::process::Command;

use crate::needs;
use crate::repository::root;
use crate::shell::{Result, run as run_command};

const CHECKS: [&str; 3] = ["licenses", "bans", "sources"];

/// The workspaces whose crates are part of the binary.
const MANIFESTS: [&str; 2] = ["Cargo.toml", "src/hooks/engines/quickjs/runner/Cargo.toml"];

pub(crate) fn run(args: &[String]) -> Result {
    if let Some(arg) = args.first() {
        return Err(format!("`deny` takes no argument, found `{arg}`"));
    }
    let program = needs::cargo_deny()?;
    for manifest in MANIFESTS {
        println!("{manifest}: {}", CHECKS.join(", "));
        let mut command = Command::new(&program);
        command.args(["--workspace", "--locked", "--config"]).arg(root().join("deny.toml"));
        command.arg("--manifest-path").arg(root().join(manifest));
        // Each workspace uses only some of the licences.
        command.args(["check", "--allow", "license-not-encountered"]).args(CHECKS);
        run_command(command.current_dir(root()))?;
    }
    Ok(())
}

/// Runs this command in a new process of this program, which installs what it needs.
pub(crate) fn command() -> Result<Command> {
    let program: PathBuf = std::env::current_exe().map_err(|error| format!("this program has no path: {error}"))?;
    let mut command = Command::new(program);
    command.arg("deny").current_dir(root());
    Ok(command)
}
