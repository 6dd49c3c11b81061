//! The command line, as its users see it.

mod apply;
pub(crate) mod authoring;
mod authoring_compiled;
mod bound;
mod check;
mod commands;
mod completions;
mod dev;
mod help;
mod races;
mod rebuild;
mod replay;
mod signals;
mod tour;
mod unapplied;
mod webhooks;

use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Instant;

use super::support::{PATIENCE, Server};

/// The result of a command.
pub(crate) struct Ended {
    /// Includes the signal, if one ended the process.
    status: ExitStatus,
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Ended {
    /// Checks that the command succeeded. Returns its stdout.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{}\n{}\n{}", self.status, self.stdout, self.stderr);
        self.stdout
    }

    /// Checks that the command failed and printed only to stderr. Returns the message.
    #[track_caller]
    fn fails(self) -> String {
        assert_eq!(self.code, Some(1), "{}\n{}\n{}", self.status, self.stdout, self.stderr);
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
        self.stderr
    }
}

impl Ended {
    /// Checks that the command did nothing because something is missing. Returns its output.
    #[track_caller]
    fn lacks(self) -> String {
        assert_eq!(self.code, Some(3), "{}\n{}\n{}", self.status, self.stdout, self.stderr);
        self.stderr
    }
}

impl From<Output> for Ended {
    fn from(Output { status, stdout, stderr }: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
        Ended { status, code: status.code(), stdout: text(stdout), stderr: text(stderr) }
    }
}

/// The binary in a folder, without environment variables that name a server.
fn command(directory: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_snaphook"));
    command.args(args).current_dir(directory);
    for name in ["SNAPHOOK_CONFIG", "SNAPHOOK_LOG", "SNAPHOOK_URL"] {
        command.env_remove(name);
    }
    command
}

/// Runs a command to its end.
#[track_caller]
fn run(directory: &Path, args: &[&str]) -> Ended {
    run_with(directory, args, "")
}

/// The same with stdin.
#[track_caller]
fn run_with(directory: &Path, args: &[&str], stdin: &str) -> Ended {
    let mut command = command(directory, args);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the binary starts");
    let mut pipe = child.stdin.take().expect("a pipe");
    // A command that does not read stdin closes it.
    let _ = pipe.write_all(stdin.as_bytes());
    drop(pipe);
    let pid = child.id();
    let waiting = std::thread::spawn(move || child.wait_with_output());
    let started = Instant::now();
    while !waiting.is_finished() {
        assert!(started.elapsed() < PATIENCE, "`snaphook {}` ({pid}) does not end", args.join(" "));
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    waiting.join().expect("no panic").expect("an end").into()
}

/// Runs a command against a server.
#[track_caller]
fn ask(server: &Server, args: &[&str]) -> Ended {
    ask_with(server, args, "")
}

#[track_caller]
fn ask_with(server: &Server, args: &[&str], stdin: &str) -> Ended {
    let url = format!("http://{}", server.address());
    let mut all = vec!["--url", &url];
    all.extend(args);
    run_with(server.directory(), &all, stdin)
}

/// A process that is killed when the test is over.
struct Background(Child);

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A folder with a configuration.
#[track_caller]
fn folder(config: &str) -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a folder");
    std::fs::write(directory.path().join("config.toml"), config).expect("written");
    directory
}

#[track_caller]
fn write(directory: &Path, name: &str, text: &str) {
    let path = directory.join(name);
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
    std::fs::write(path, text).expect("written");
}

/// The minimal configuration with which a server starts.
const START: &str = "[server]\nmount-address = '127.0.0.1:0'\n[auth]\nmode = 'open'\n";
