//! Compiles everything that tests run, in the background while their other requirements are prepared.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::NamedTempFile;

use super::lints::Lints;
use crate::repository::root;
use crate::shell::{Result, cargo};

/// `--tests` also builds the programs that tests start; with `--bins` the lints see all of them. Libraries are included:
/// tests load those of the drivers, and in one build they share their dependencies.
const BUILD: [&str; 6] = ["build", "--workspace", "--lib", "--bins", "--examples", "--tests"];

/// One line of JSON for each build result and each message of the compiler. The progress goes to standard error.
const MESSAGES: &str = "--message-format=json";

/// How often to check for new output of cargo.
const LOOK: Duration = Duration::from_millis(200);

/// A program that contains tests.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Program {
    pub(super) package: String,
    /// The name of the file or folder in `tests`, or for unit tests that of the library or program.
    pub(super) target: String,
    pub(super) is_unit: bool,
    pub(super) file: PathBuf,
    /// The package's folder, in which its tests run.
    pub(super) folder: PathBuf,
}

/// What was built.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Built {
    pub(super) programs: Vec<Program>,
    /// How many warnings there were.
    pub(super) warnings: usize,
}

/// A running cargo. It is killed when this is dropped.
#[derive(Debug)]
pub(super) struct Compiling {
    cargo: Child,
    built: NamedTempFile,
    said: NamedTempFile,
}

impl Compiling {
    pub(super) fn start(lints: &Lints) -> Result<Compiling> {
        let failed = |error: std::io::Error| format!("cannot start `cargo {}`: {error}", BUILD.join(" "));
        let (built, said) = (NamedTempFile::new().map_err(failed)?, NamedTempFile::new().map_err(failed)?);
        let mut command = cargo();
        command.args(BUILD).arg(MESSAGES).current_dir(root()).stdin(Stdio::null());
        lints.apply(&mut command);
        command.stdout(built.reopen().map_err(failed)?).stderr(said.reopen().map_err(failed)?);
        Ok(Compiling { cargo: command.spawn().map_err(failed)?, built, said })
    }

    /// Prints the output of cargo until it ends, then what the compiler had to say.
    pub(super) fn finish(mut self) -> Result<Built> {
        let failed = |error: std::io::Error| format!("cannot read the output of `cargo {}`: {error}", BUILD.join(" "));
        let said = self.said.reopen().map_err(failed)?;
        let status = follow(said, &mut self.cargo).map_err(failed)?;
        let mut messages = String::new();
        self.built.reopen().and_then(|mut file| file.read_to_string(&mut messages)).map_err(failed)?;
        let built = read(&messages)?;
        if status.success() { Ok(built) } else { Err(format!("`cargo {}` failed: {status}", BUILD.join(" "))) }
    }
}

impl Drop for Compiling {
    fn drop(&mut self) {
        // An error means that cargo has already ended.
        let _ = self.cargo.kill();
        let _ = self.cargo.wait();
    }
}

fn follow(mut said: File, child: &mut Child) -> std::io::Result<ExitStatus> {
    loop {
        let ended = child.try_wait()?;
        std::io::copy(&mut said, &mut std::io::stderr())?;
        match ended {
            Some(status) => return Ok(status),
            None => std::thread::sleep(LOOK),
        }
    }
}

/// Reads cargo's build results (NDJSON) and prints the compiler's messages among them.
fn read(messages: &str) -> Result<Built> {
    let mut built = Built::default();
    for line in messages.lines() {
        let message: Value =
            serde_json::from_str(line).map_err(|error| format!("cannot read a line of cargo ({line}): {error}"))?;
        if message["reason"] == "compiler-message" {
            let said = &message["message"];
            eprint!("{}", said["rendered"].as_str().unwrap_or_default());
            // The compiler also counts its warnings, in a message about no place.
            let is_summary = said["spans"].as_array().is_none_or(Vec::is_empty);
            built.warnings += usize::from(said["level"] == "warning" && !is_summary);
        }
        if message["reason"] != "compiler-artifact" || message["profile"]["test"] != true {
            continue;
        }
        let text =
            |value: &Value| value.as_str().map(str::to_owned).ok_or(format!("a line of cargo has no name: {line}"));
        let target = &message["target"];
        let manifest = PathBuf::from(text(&message["manifest_path"])?);
        let folder = manifest.parent().unwrap_or(Path::new(".")).to_owned();
        built.programs.push(Program {
            package: package(&text(&message["package_id"])?, &folder),
            target: text(&target["name"])?,
            is_unit: !target["kind"].as_array().is_some_and(|kinds| kinds.iter().any(|kind| kind == "test")),
            file: text(&message["executable"])?.into(),
            folder,
        });
    }
    built.programs.sort_by(|a, b| (&a.folder, !a.is_unit, &a.target).cmp(&(&b.folder, !b.is_unit, &b.target)));
    Ok(built)
}

/// The name in `path+file:///a/folder#name@0.1.0`; cargo omits it if the folder has the same name.
fn package(id: &str, folder: &Path) -> String {
    let name = id.rsplit_once('#').and_then(|(_, end)| end.split_once('@')).map(|(name, _)| name.to_owned());
    name.unwrap_or_else(|| folder.file_name().unwrap_or_default().to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_and_warnings_are_found_among_what_cargo_says() {
        let built = r#"
{"reason":"compiler-artifact","package_id":"path+file:///a/nats#snaphook-nats@0.1.0","manifest_path":"/a/nats/Cargo.toml","target":{"kind":["test"],"name":"faults"},"profile":{"test":true},"executable":"/t/faults-1"}
{"reason":"compiler-artifact","package_id":"path+file:///a/nats#snaphook-nats@0.1.0","manifest_path":"/a/nats/Cargo.toml","target":{"kind":["lib"],"name":"snaphook_nats"},"profile":{"test":false},"executable":null}
{"reason":"compiler-artifact","package_id":"path+file:///a/xtask#0.1.0","manifest_path":"/a/xtask/Cargo.toml","target":{"kind":["bin"],"name":"xtask"},"profile":{"test":true},"executable":"/t/xtask-2"}
{"reason":"compiler-message","message":{"level":"warning","rendered":"","spans":[{"line_start":1}]}}
{"reason":"compiler-message","message":{"level":"note","rendered":"","spans":[{"line_start":1}]}}
{"reason":"compiler-message","message":{"level":"warning","rendered":"","spans":[]}}
{"reason":"build-finished","success":true}"#;
        let program = |package: &str, target: &str, is_unit, file: &str, folder: &str| Program {
            package: package.into(),
            target: target.into(),
            is_unit,
            file: file.into(),
            folder: folder.into(),
        };
        let built = read(built.trim_start()).unwrap();
        assert_eq!(
            built.programs,
            [
                program("snaphook-nats", "faults", false, "/t/faults-1", "/a/nats"),
                program("xtask", "xtask", true, "/t/xtask-2", "/a/xtask"),
            ]
        );
        assert_eq!(built.warnings, 1);
        assert!(read("warning: no JSON").unwrap_err().contains("warning: no JSON"));
    }
}
