//! Runs other programs; an error names the command that failed.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// The result of a step of xtask: the message is printed after `error: `.
pub(crate) type Result<T = ()> = std::result::Result<T, String>;

/// The parts of this run and when each started, for [`durations`].
static SECTIONS: Mutex<Vec<(String, Instant)>> = Mutex::new(Vec::new());

/// Prints a headline between the parts of a longer run. A part ends where the next one starts.
pub(crate) fn section(title: &str) {
    println!("\n=== {title} ===");
    SECTIONS.lock().unwrap_or_else(PoisonError::into_inner).push((title.to_owned(), Instant::now()));
}

/// One line for each part of this run: its duration and its title.
pub(crate) fn durations() -> String {
    let sections = SECTIONS.lock().unwrap_or_else(PoisonError::into_inner);
    let ends = sections.iter().skip(1).map(|(_, start)| *start).chain([Instant::now()]);
    let row = |seconds: u64, title: &str| format!("{:>4} min {:>2} s  {title}\n", seconds / 60, seconds % 60);
    let mut text: String =
        sections.iter().zip(ends).map(|((title, start), end)| row((end - *start).as_secs(), title)).collect();
    if let Some((_, start)) = sections.first() {
        text.push_str(&row(start.elapsed().as_secs(), "in all"));
    }
    text
}

/// Runs a command with the caller's output. The error names the command and how it ended.
pub(crate) fn run(command: &mut Command) -> Result {
    let shown = show(command);
    let status = command.stdin(Stdio::null()).status().map_err(|error| format!("cannot start `{shown}`: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("`{shown}` failed: {status}")) }
}

/// Runs a command and returns its standard output, trimmed. The error contains its standard error.
pub(crate) fn read(command: &mut Command) -> Result<String> {
    let shown = show(command);
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("cannot start `{shown}`: {error}"))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        return Err(format!("`{shown}` failed: {}: {}", output.status, stderr.trim()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The program of that name in `PATH`.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|candidate| candidate.is_file())
}

/// The cargo that runs this xtask, without the variables that it has set about the package of this xtask. Build scripts
/// read variables of these names, so with them everything that depends on such a script would be rebuilt whenever cargo
/// is started another way.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")) {
            command.env_remove(name);
        }
    }
    command
}

/// The compiler next to that cargo.
pub(crate) fn rustc() -> Command {
    Command::new(beside_cargo("rustc").unwrap_or_else(|| "rustc".into()))
}

/// A program of the toolchain: next to that cargo, because another one may come first in `PATH`, or else in `PATH`.
pub(crate) fn beside_cargo(name: &str) -> Option<PathBuf> {
    let beside = std::env::var_os("CARGO").map(|cargo| PathBuf::from(cargo).with_file_name(name));
    beside.filter(|path| path.is_file()).or_else(|| find_program(name))
}

/// Whether a skipped test counts as a failure: with `CI=true`, as .ci/run and the services for it set it. The tests
/// read the same variable.
pub(crate) fn is_ci() -> bool {
    std::env::var("CI").is_ok_and(|value| value == "true")
}

fn show(command: &Command) -> String {
    let program = command.get_program().to_string_lossy();
    let program = program.rsplit('/').next().unwrap_or_default().to_owned();
    let args = command.get_args().map(|arg| arg.to_string_lossy().into_owned());
    std::iter::once(program).chain(args).collect::<Vec<_>>().join(" ")
}
