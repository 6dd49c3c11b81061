//! Guests in Python: componentize-py puts CPython and the source into one component.

use std::path::Path;
use std::process::Command;

use super::{is_stale, package};
use crate::repository::root;
use crate::shell::{Result, run};

/// Folder with `app.py`, its world, and the name of the result.
const GUESTS: [(&str, &str, &str); 2] =
    [("tests/guests/python", "suite", "suite_python"), ("hooks/examples/python", "pre-hook", "check_python")];

/// The package that authors get with their source.
const TEMPLATE: &str = "sdk/templates/python/wit/deps/hook/hook.wit";

pub(super) fn build(folder: &Path, tool: &Path) -> Result {
    if std::fs::read(root().join(TEMPLATE)).ok() != std::fs::read(package()).ok() {
        return Err(format!("{TEMPLATE} does not match the WIT package; copy it from {}", package().display()));
    }
    for (directory, world, name) in GUESTS {
        let directory = root().join(directory);
        let output = folder.join(format!("{name}.wasm"));
        let worlds = root().join("tests/guests/wit/suite.wit");
        if !is_stale(&output, &[directory.join("app.py"), worlds.clone(), package(), tool.to_owned()]) {
            continue;
        }
        let wit = tempfile::tempdir().map_err(|error| format!("cannot create a temporary folder: {error}"))?;
        let copy = |from: &Path, to: &str| {
            let to = wit.path().join(to);
            let made =
                std::fs::create_dir_all(to.parent().unwrap_or(wit.path())).and_then(|()| std::fs::copy(from, &to));
            made.map(drop).map_err(|error| format!("cannot copy {}: {error}", from.display()))
        };
        if world == "suite" {
            copy(&worlds, "suite.wit")?;
            copy(&package(), "deps/hook/hook.wit")?;
        } else {
            copy(&package(), "hook.wit")?;
        }
        let mut command = Command::new(tool);
        command.args(["-q", "-w", world, "-d"]).arg(wit.path());
        // Python writes compiled code next to the source, so it is given a copy.
        copy(&directory.join("app.py"), "source/app.py")?;
        command.args(["componentize", "app", "-o"]).arg(&output).current_dir(wit.path().join("source"));
        run(&mut command)?;
        println!("{name}: built");
    }
    Ok(())
}
