//! Describes the machine of the measurements: processor, memory, kernel, disk.

use std::fs::File;
use std::io::{Seek, Write};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use super::load::LoadOutcome;
use crate::repository::root;
use crate::shell::{Result, read, rustc};

/// Lines about the machine and its current state, for the head of the results.
pub(crate) fn describe(scratch: &Path) -> Result<Vec<String>> {
    let field = |file: &str, name: &str| {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_once(':').map(|(_, value)| value.trim().to_owned()).unwrap_or_else(|| "unknown".into())
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = read(Command::new("uname").args(["-s", "-r", "-m"])).unwrap_or_else(|_| "unknown".into());
    let commit = read(Command::new("git").args(["describe", "--always", "--dirty"]).current_dir(root()))?;
    let sync = fdatasync(scratch)?;
    Ok(vec![
        format!("date: {}", jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M UTC")),
        format!("commit: {commit}"),
        format!(
            "machine: {cores} cores, {}, {} memory",
            field("/proc/cpuinfo", "model name"),
            field("/proc/meminfo", "MemTotal")
        ),
        format!("kernel: {kernel}"),
        format!("compiler: {}", read(rustc().arg("--version"))?),
        format!(
            "fdatasync of 4 KiB on this disk: p50 {}, p99 {}",
            micros(sync.percentile(0.5)),
            micros(sync.percentile(0.99))
        ),
        "fsync settings: the event log commits with SQLite's `synchronous = FULL` (one fsync per group of commands, \
         before the responses); the model store has `synchronous = OFF`, since it can be rebuilt from the log"
            .into(),
    ])
}

/// Measures writes with a sync on the disk that the servers write to. It overwrites existing bytes, as a write-ahead
/// log mostly does; a growing file would also cost writes of the file system's journal.
pub(crate) fn fdatasync(folder: &Path) -> Result<LoadOutcome> {
    const COUNT: usize = 300;
    let fail = |error: std::io::Error| format!("cannot measure fdatasync in {}: {error}", folder.display());
    const BLOCK: [u8; 4096] = [7; 4096];
    let mut file = File::create(folder.join("fdatasync")).map_err(fail)?;
    file.write_all(&BLOCK.repeat(COUNT)).and_then(|()| file.sync_all()).and_then(|()| file.rewind()).map_err(fail)?;
    let begin = Instant::now();
    let mut latencies = Vec::with_capacity(COUNT);
    for _ in 0..COUNT {
        file.write_all(&BLOCK).map_err(fail)?;
        let start = Instant::now();
        file.sync_data().map_err(fail)?;
        latencies.push(start.elapsed());
    }
    Ok(LoadOutcome::new(latencies, begin.elapsed()))
}

/// A thousand listeners need more than the usual 1,024 files; the servers inherit the limit.
pub(crate) fn raise_open_files_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.map_or(16_384, |maximum| maximum.min(16_384));
    if limit.current.is_some_and(|current| current < wanted) {
        // If the system does not permit it, the row that needs it reports an error.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: limit.maximum });
    }
}

/// Formats a duration such as `0.25 ms` or `85 µs`.
pub(crate) fn micros(duration: Duration) -> String {
    let micros = duration.as_secs_f64() * 1e6;
    if micros < 1000.0 { format!("{micros:.0} µs") } else { format!("{:.2} ms", micros / 1000.0) }
}
