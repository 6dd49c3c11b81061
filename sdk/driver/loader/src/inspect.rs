//! Inspects a file in a separate process, so that an initialiser that crashes, exits or never returns only affects that
//! process.

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::{ExitCode, ExitStatus, Stdio};
use std::time::Duration;

use prost::Message as _;
use snaphook_driver::wire::{PluginDescription, decode, proto};
use tokio::io::AsyncReadExt as _;
use tokio::process::Command;

use crate::description::describe;
use crate::fault::{Fault, LoadError};
use crate::library::Library;

/// The first byte of an answer, which gives its type; the length follows as four bytes, little endian.
const DESCRIPTION: u8 = b'+';
const REFUSAL: u8 = b'-';

/// Longest answer that is read.
const ANSWER_BYTES_MAX: u32 = 4 << 20;

/// How many bytes from the end of the process's standard error are kept.
const LAST_WORDS_BYTES_MAX: usize = 1 << 10;

/// Loads a library in this process and reads its description.
pub fn inspect(file: &Path) -> Result<PluginDescription, LoadError> {
    Library::load(file).and_then(|library| describe(&library)).map_err(|fault| LoadError::new(file, fault))
}

/// Runs in the child process of [`inspect_in_child`]: inspects the file and writes the answer to standard output. End
/// the process right after this.
pub fn answer_inspection(file: &Path) -> ExitCode {
    match answer(file) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn answer(file: &Path) -> io::Result<()> {
    let mut pipe = answer_pipe()?;
    let (head, body) = match inspect(file) {
        Ok(description) => (DESCRIPTION, proto::Plugin::from(&description).encode_to_vec()),
        Err(error) => (REFUSAL, error.fault().to_string().into_bytes()),
    };
    let length = u32::try_from(body.len()).map_err(io::Error::other)?;
    pipe.write_all(&[&[head][..], &length.to_le_bytes(), &body].concat())
}

/// Reserves standard output for the answer: anything that the library prints goes to standard error.
#[cfg(unix)]
fn answer_pipe() -> io::Result<std::fs::File> {
    use std::os::fd::AsFd as _;
    let pipe = io::stdout().as_fd().try_clone_to_owned()?;
    rustix::stdio::dup2_stdout(io::stderr().as_fd())?;
    Ok(pipe.into())
}

/// A library that prints while it is loaded corrupts the answer and is rejected.
#[cfg(not(unix))]
fn answer_pipe() -> io::Result<io::Stdout> {
    Ok(io::stdout())
}

/// Inspects a file in a child process: `program` with `args` and then the file must run [`answer_inspection`]. The
/// process is killed at the deadline.
pub async fn inspect_in_child(
    program: &Path,
    args: &[OsString],
    file: &Path,
    deadline: Duration,
) -> Result<PluginDescription, LoadError> {
    let refuse = |fault| LoadError::new(file, fault);
    let failed = |error: io::Error| refuse(Fault::NotInspected(error.to_string()));
    let mut command = Command::new(program);
    command.args(args).arg(file).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().map_err(failed)?;
    let (mut output, mut errors) = (child.stdout.take(), child.stderr.take());
    let work = async {
        let read = read_answer(&mut output).await;
        // Kill the process once the answer has arrived: a library's exit handlers may hang.
        if read.is_ok() {
            let _ = child.start_kill();
        }
        let status = child.wait().await?;
        io::Result::Ok((read, status))
    };
    let mut words = Vec::new();
    let listen = async {
        // Read to the end: the pipe must stay open for a library that writes a lot.
        let mut chunk = [0; 4096];
        while let Some(errors) = &mut errors
            && let Ok(read @ 1..) = errors.read(&mut chunk).await
        {
            words.extend_from_slice(&chunk[..read]);
            words.drain(..words.len().saturating_sub(LAST_WORDS_BYTES_MAX));
        }
    };
    let (done, _) = tokio::join!(tokio::time::timeout(deadline, work), tokio::time::timeout(deadline, listen));
    let (read, status) = match done {
        Ok(done) => done.map_err(failed)?,
        Err(_) => {
            // Wait for the process, so that it is gone when this function returns.
            let _ = child.kill().await;
            return Err(refuse(Fault::Stuck(deadline)));
        }
    };
    match read {
        Ok((DESCRIPTION, body)) => {
            let message: Result<proto::Plugin, _> = decode(&body);
            let description = message.and_then(PluginDescription::try_from);
            description.map_err(|fault| refuse(Fault::Description(fault.to_string())))
        }
        Ok((REFUSAL, body)) => Err(refuse(Fault::Reported(String::from_utf8_lossy(&body).into_owned()))),
        _ => Err(refuse(Fault::Ended(ended(status, &words)))),
    }
}

async fn read_answer(output: &mut Option<tokio::process::ChildStdout>) -> io::Result<(u8, Vec<u8>)> {
    let output = output.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
    let head = output.read_u8().await?;
    let length = output.read_u32_le().await?;
    if length > ANSWER_BYTES_MAX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut body = vec![0; length as usize];
    output.read_exact(&mut body).await?;
    Ok((head, body))
}

/// How a process ended, and the last line that it wrote to standard error.
fn ended(status: ExitStatus, words: &[u8]) -> String {
    let words = String::from_utf8_lossy(words);
    match words.lines().rfind(|line| !line.trim().is_empty()) {
        Some(line) => format!("{status}, after `{}`", line.trim()),
        None => status.to_string(),
    }
}
