//! Runs programs in two lanes at once. Tests spend much time waiting for timeouts, disks and starting processes, so two
//! programs in parallel take hardly longer than one.
//!
//! The first lane has its own programs, which measure times; the second one gets the cores that are idle. When the
//! first lane has finished those, both take the remaining programs. The output of a program is written to a file and
//! printed when the program has ended.

use std::collections::VecDeque;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, setpriority_process};

use crate::repository::target_directory;
use crate::shell::Result;

/// The niceness of the second lane: high enough to give the first lane precedence, and low enough to meet the deadlines
/// of the second lane's tests.
const NICENESS: i32 = 5;

/// A program to run.
#[derive(Debug)]
pub(crate) struct Job {
    title: String,
    command: Command,
}

impl Job {
    pub(crate) fn new(title: impl Into<String>, command: Command) -> Job {
        Job { title: title.into(), command }
    }
}

/// The result of a program.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) title: String,
    pub(super) took: Duration,
    /// Standard output and standard error in the order of writing.
    pub(super) output: String,
    /// Why the program failed; `None` if it succeeded.
    pub(super) failure: Option<String>,
}

/// Runs all programs, even after a failure, and returns their results in the order in which they ended.
pub(super) fn run(first: Vec<Job>, rest: Vec<Job>) -> Result<Vec<Ended>> {
    let folder = target_directory()?.join("test-output");
    std::fs::create_dir_all(&folder).map_err(|error| format!("cannot create {}: {error}", folder.display()))?;
    let (rest, ended) = (Mutex::new(VecDeque::from(rest)), Mutex::new(Vec::new()));
    let next = || rest.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    let run = |job: Job, niceness: i32| {
        let job = run_one(job, niceness, &folder);
        let mut ended = ended.lock().unwrap_or_else(PoisonError::into_inner);
        // Under the lock, so that the outputs of two programs do not mix.
        println!("\n--- {}: {} s\n{}", job.title, job.took.as_secs(), job.output.trim_end());
        ended.push(job);
    };
    std::thread::scope(|scope| {
        scope.spawn(|| first.into_iter().chain(std::iter::from_fn(next)).for_each(|job| run(job, 0)));
        scope.spawn(|| std::iter::from_fn(next).for_each(|job| run(job, NICENESS)));
    });
    Ok(ended.into_inner().unwrap_or_else(PoisonError::into_inner))
}

fn run_one(mut job: Job, niceness: i32, folder: &Path) -> Ended {
    let started = Instant::now();
    let path = output_file(folder, &job.title);
    let status = start(&mut job.command, &path).and_then(|mut child| {
        // The threads and processes of the program inherit it. If the system does not permit it, measurements in the
        // first lane are less accurate.
        let _ = setpriority_process(Some(Pid::from_child(&child)), niceness);
        child.wait()
    });
    let output = std::fs::read(&path).unwrap_or_default();
    Ended {
        title: job.title,
        took: started.elapsed(),
        output: String::from_utf8_lossy(&output).into_owned(),
        failure: failure(status),
    }
}

fn start(command: &mut Command, output: &Path) -> std::io::Result<Child> {
    let file = File::create(output)?;
    command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).spawn()
}

fn failure(status: std::io::Result<ExitStatus>) -> Option<String> {
    match status {
        Ok(status) if status.success() => None,
        Ok(status) => Some(status.to_string()),
        Err(error) => Some(format!("cannot be run: {error}")),
    }
}

/// `it, hostile input on file` is written to `it--hostile-input-on-file.log`.
fn output_file(folder: &Path, title: &str) -> PathBuf {
    let name: String = title.chars().map(|char| if char.is_ascii_alphanumeric() { char } else { '-' }).collect();
    folder.join(format!("{name}.log"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(title: &str, script: &str) -> Job {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Job::new(title, command)
    }

    #[test]
    fn output_is_whole_and_failures_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let ended = run_one(shell("a, b", "echo one; echo two >&2; echo three; exit 3"), NICENESS, folder.path());
        assert_eq!(ended.output, "one\ntwo\nthree\n");
        assert!(ended.failure.unwrap().contains('3'));
        assert!(folder.path().join("a--b.log").is_file());
        let absent = Job::new("absent", Command::new("/nonexistent/program"));
        assert!(run_one(absent, 0, folder.path()).failure.unwrap().starts_with("cannot be run: "));
        assert_eq!(run_one(shell("fine", "true"), 0, folder.path()).failure, None);
    }

    #[test]
    fn the_second_lane_is_nice_to_the_first() {
        let folder = tempfile::tempdir().unwrap();
        // Waits until the niceness of the process has been set.
        let script = "while [ $(nice) != 5 ]; do :; done; nice";
        assert_eq!(run_one(shell("nice", script), NICENESS, folder.path()).output, "5\n");
    }
}
