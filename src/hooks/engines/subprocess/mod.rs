//! Jobs on foreign code with an unpredictable cost: compiling WebAssembly, parsing a source.
//!
//! Each job runs in a separate process (the same executable, worker.rs) within a budget of time and memory (budget.rs).
//! The process receives one order and the code over its standard input, which is a socket, sends one reply, and ends.
//! Dropping the future kills the process.

mod budget;
pub(super) mod worker;

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::process::Command;

use self::budget::Budget;
pub(super) use self::budget::Job;
pub use self::budget::at_once;
use super::engine::PrepareError;
use crate::config::{format_duration, format_size};

/// The first line that a worker reads; `code_bytes` bytes of code follow.
#[derive(Debug, Serialize, Deserialize)]
struct Order {
    job: Job,
    memory_bytes: Option<u64>,
    cpu_seconds: Option<u64>,
    code_bytes: usize,
}

/// The first byte of a reply. The result, or the error as JSON, follows.
const DONE: u8 = b'+';
const REFUSED: u8 = b'-';

/// The last messages of a process that runs out of memory: from Rust's allocator, from the system, and from starting a
/// thread.
const OUT_OF_MEMORY: [&str; 3] = ["memory allocation of", "Cannot allocate memory", "Resource temporarily unavailable"];

/// How much is read of a worker's standard error.
const LAST_WORDS_BYTES_MAX: u64 = 4 << 10;

/// Runs `job` on `code` within the limits for untrusted code.
pub(super) async fn run(job: Job, code: &[u8]) -> Result<Vec<u8>, PrepareError> {
    let _permit = budget::permit(job, code.len()).await?;
    let budget = Budget::of(job, code.len());
    match tokio::time::timeout(budget.wall, work(job, code, Some(budget))).await {
        Ok(done) => done,
        Err(_) => Err(PrepareError::overloaded(format!(
            "{} was not done within {}, because other work has the server's cores; try again",
            job.what(),
            format_duration(budget.wall)
        ))),
    }
}

/// Runs `job` without limits, for as long as it takes.
pub(super) async fn run_trusted(job: Job, code: &[u8]) -> Result<Vec<u8>, PrepareError> {
    work(job, code, None).await
}

async fn work(job: Job, code: &[u8], budget: Option<Budget>) -> Result<Vec<u8>, PrepareError> {
    let (reply, words, status) = exchange(job, code, budget).await.map_err(|error| {
        PrepareError::overloaded(format!("no process could be started for {}: {error}; try again", job.what()))
    })?;
    match reply.split_first() {
        Some((&DONE, result)) if status.success() => {
            if budget.is_some_and(|budget| result.len() > budget.reply_bytes) {
                return Err(PrepareError::too_complex(format!(
                    "{} produces more than {}, the limit for code of {} bytes",
                    job.what(),
                    format_size(budget.map_or(0, |budget| budget.reply_bytes)),
                    code.len()
                )));
            }
            let mut reply = reply;
            reply.remove(0);
            Ok(reply)
        }
        Some((&REFUSED, refusal)) => Err(snaphook_driver::json::typed_bytes(refusal).unwrap_or_else(|error| {
            PrepareError::plain(format!("{} failed, and its reason cannot be read: {error}", job.what()))
        })),
        _ => Err(ended(job, code.len(), budget, status, &words)),
    }
}

type Exchanged = (Vec<u8>, String, ExitStatus);

async fn exchange(job: Job, code: &[u8], budget: Option<Budget>) -> io::Result<Exchanged> {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    let mut stream = UnixStream::from_std(ours)?;
    let mut child = command()
        .stdin(OwnedFd::from(theirs))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let order = Order {
        job,
        memory_bytes: budget.map(|budget| budget.memory_bytes),
        cpu_seconds: budget.map(|budget| budget.cpu.as_secs_f64().ceil() as u64),
        code_bytes: code.len(),
    };
    let mut line = serde_json::to_vec(&order)?;
    line.push(b'\n');
    let (mut reply, mut words) = (Vec::new(), Vec::new());
    let mut errors = child.stderr.take();
    let reply_bytes_max = budget.map_or(u64::MAX, |budget| budget.reply_bytes as u64 + 2);
    let talk = async {
        // A worker that ends early has not read everything; its exit status says why.
        if stream.write_all(&line).await.is_ok() && stream.write_all(code).await.is_ok() {
            let _ = (&mut stream).take(reply_bytes_max).read_to_end(&mut reply).await;
        }
        // It ends when its socket is closed.
        drop(stream);
    };
    let listen = async {
        if let Some(errors) = &mut errors {
            let _ = errors.take(LAST_WORDS_BYTES_MAX).read_to_end(&mut words).await;
        }
    };
    tokio::join!(talk, listen);
    let status = child.wait().await?;
    Ok((reply, String::from_utf8_lossy(&words).trim().to_owned(), status))
}

/// Why a worker ended without a reply.
fn ended(job: Job, code_bytes: usize, budget: Option<Budget>, status: ExitStatus, words: &str) -> PrepareError {
    let what = job.what();
    let limit = |limit: String| {
        PrepareError::too_complex(format!("{what} takes more than {limit}, the limit for code of {code_bytes} bytes"))
    };
    let signal = status.signal().and_then(rustix::process::Signal::from_named_raw);
    match (budget, signal) {
        (Some(budget), Some(rustix::process::Signal::XCPU)) => {
            limit(format!("{} on a core", format_duration(budget.cpu)))
        }
        (Some(budget), _) if OUT_OF_MEMORY.iter().any(|sign| words.contains(sign)) => {
            limit(format!("{} of memory", format_size(budget.memory_bytes as usize)))
        }
        // If memory runs out, the kernel kills a process, the worker before the server.
        (_, Some(rustix::process::Signal::KILL)) => {
            PrepareError::overloaded(format!("{what} was ended by the system, which is short of memory; try again"))
        }
        _ if words.contains("has overflowed its stack") => limit("its stack".to_owned()),
        _ => {
            let words = words.lines().find(|line| !line.trim().is_empty()).unwrap_or("it gave no reason");
            PrepareError::plain(format!("{what} failed ({status}): {words}"))
        }
    }
}

impl Job {
    const fn what(self) -> &'static str {
        match self {
            Job::Compile | Job::CompileOwn => "compiling the WebAssembly",
            Job::Parse { .. } => "parsing the source",
            Job::Load | Job::LoadModule => "loading the library",
        }
    }
}

/// The same executable, as a worker.
#[cfg(not(test))]
fn command() -> Command {
    let mut command = Command::new(program());
    command.env_clear().env("MIMALLOC_ARENA_RESERVE", ARENA_KIB).arg("worker");
    command
}

/// In tests, this program is the test binary; one of its tests acts as the worker.
#[cfg(test)]
fn command() -> Command {
    let mut command = Command::new(program());
    command.env_clear().env("MIMALLOC_ARENA_RESERVE", ARENA_KIB).env(tests::WORKER, "1");
    command.args([tests::WORKER_TEST, "--exact", "--nocapture", "--test-threads=1"]);
    command
}

/// Memory that the allocator requests from the system counts as used.
const ARENA_KIB: &str = "32768";

/// On systems that support it, this works even after the file was replaced by a newer one.
fn program() -> std::path::PathBuf {
    let running = std::path::Path::new("/proc/self/exe");
    match running.exists() {
        true => running.to_owned(),
        false => std::env::current_exe().unwrap_or_else(|_| "snaphook".into()),
    }
}

#[cfg(test)]
mod tests;
