//! Running other programs, and saying what ran when one fails.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// What a step of xtask answers: the message is printed after `error: `.
pub(crate) type Result<T = ()> = std::result::Result<T, String>;

/// The parts of this run and when each started, for [`durations`].
static SECTIONS: Mutex<Vec<(String, Instant)>> = Mutex::new(Vec::new());

/// Prints a headline between the parts of a longer run. A part ends where the next one starts.
pub(crate) fn section(title: &str) {
    println!("\n=== {title} ===");
    SECTIONS.lock().unwrap_or_else(PoisonError::into_inner).push((title.to_owned(), Instant::now()));
}

/// One line for each part of this run: how long it took, and its title.
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

/// Runs it with the caller's output; an error names the command and how it ended.
pub(crate) fn run(command: &mut Command) -> Result {
    let shown = show(command);
    let status = command.stdin(Stdio::null()).status().map_err(|error| format!("cannot start `{shown}`: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("`{shown}` failed: {status}")) }
}

/// Runs it and gives its standard output, trimmed; an error holds what it wrote to standard error.
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

/// The cargo that runs this xtask, without what it has said about the package of this xtask. Build scripts look at variables of
/// these names, so that everything above them would be built again whenever cargo is started in the other way.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")) {
            command.env_remove(name);
        }
    }
    command
}

/// The compiler beside that cargo: another one may come first in `PATH`.
pub(crate) fn rustc() -> Command {
    let beside = std::env::var_os("CARGO").map(|cargo| PathBuf::from(cargo).with_file_name("rustc"));
    Command::new(beside.filter(|path| path.is_file()).unwrap_or_else(|| "rustc".into()))
}

/// Whether a skip counts as a failure: `CI=true`, as .ci/run and the services for it set it. The tests ask the same.
pub(crate) fn is_ci() -> bool {
    std::env::var("CI").is_ok_and(|value| value == "true")
}

fn show(command: &Command) -> String {
    let program = command.get_program().to_string_lossy();
    let program = program.rsplit('/').next().unwrap_or_default().to_owned();
    let args = command.get_args().map(|arg| arg.to_string_lossy().into_owned());
    std::iter::once(program).chain(args).collect::<Vec<_>>().join(" ")
}
