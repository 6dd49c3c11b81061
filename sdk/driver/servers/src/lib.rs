//! Real servers for tests and benchmarks: each is started on a free port of the loopback interface, in its own folder,
//! and can be killed, paused and restarted.

pub mod nats;
pub mod postgres;
pub mod redis;

use std::io::Read as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How long a server may take to answer after its start.
const START: Duration = Duration::from_secs(30);

/// How long a server may take to end. It may inherit ignored signals from this process, because a shell lets background
/// processes ignore some.
const END: Duration = Duration::from_secs(10);

/// A signal, as `kill` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// The server dies at once, as in a power failure that the disk survives.
    Kill,
    /// The server shuts down as when its admin stops it.
    Terminate,
    /// The server ends at once, with all processes that it started.
    Quit,
    Pause,
    Resume,
}

impl Signal {
    const fn name(self) -> &'static str {
        match self {
            Signal::Kill => "-KILL",
            Signal::Terminate => "-TERM",
            Signal::Quit => "-QUIT",
            Signal::Pause => "-STOP",
            Signal::Resume => "-CONT",
        }
    }
}

/// Creates the command that starts a server in that folder, on that port.
type Start = dyn Fn(&Path, u16) -> Command + Send + Sync;

/// A server that runs until it is dropped, or until this process ends, however it ends.
pub struct Server {
    name: &'static str,
    command: Box<Start>,
    port: u16,
    child: Option<Child>,
    /// Cleans up when its standard input is closed, which happens when this process ends.
    janitor: Child,
    folder: TempDir,
}

/// Waits for the end of its standard input; then it kills the server whose process id is in the file and removes its
/// folder.
const JANITOR: &str =
    r#"cat >/dev/null; kill -QUIT "$(cat "$1/process")"; sleep 1; kill -KILL "$(cat "$1/process")"; rm -rf "$1""#;

impl Server {
    /// Starts a server in a new folder. `command` may be called again for the same folder after the server has ended.
    fn start(
        name: &'static str,
        folder: TempDir,
        command: impl Fn(&Path, u16) -> Command + Send + Sync + 'static,
    ) -> Server {
        let mut janitor = Command::new("sh");
        janitor.args(["-c", JANITOR, "sh"]).arg(folder.path());
        let janitor = janitor.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let port = free_port();
        let mut server = Server { name, command: Box::new(command), port, child: None, janitor, folder };
        server.run();
        server
    }

    /// Restarts the server in the same folder and on the same port.
    pub fn restart(&mut self) {
        self.end(Signal::Terminate);
        self.run();
    }

    /// Sends the signal and waits until the server has ended. A server that does not end is killed.
    pub fn end(&mut self, signal: Signal) {
        if let Some(mut child) = self.child.take() {
            send(signal, child.id());
            let sent = Instant::now();
            while child.try_wait().unwrap().is_none() {
                if sent.elapsed() > END {
                    child.kill().unwrap();
                    child.wait().unwrap();
                    return;
                }
                std::thread::sleep(Duration::from_millis(2));
            }
        }
    }

    /// Stops the process, and waits until none of its threads runs.
    pub fn pause(&self) {
        if let Some(child) = &self.child {
            send(Signal::Pause, child.id());
            let sent = Instant::now();
            while runs(child.id()) {
                assert!(sent.elapsed() < START, "{} does not stop", self.name);
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }

    pub fn resume(&self) {
        self.child.iter().for_each(|child| send(Signal::Resume, child.id()));
    }

    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Starts the process and waits until it accepts connections.
    fn run(&mut self) {
        let log = self.folder.path().join("log");
        let file = std::fs::File::options().append(true).create(true).open(&log).unwrap();
        let mut command = (self.command)(self.folder.path(), self.port);
        let command = command.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file);
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{} cannot be started: {error}", self.name));
        std::fs::write(self.folder.path().join("process"), child.id().to_string()).unwrap();
        let started = Instant::now();
        while TcpStream::connect(self.address()).is_err() {
            let ended = child.try_wait().unwrap();
            if ended.is_some() || started.elapsed() > START {
                let mut text = String::new();
                let _ = std::fs::File::open(&log).and_then(|mut file| file.read_to_string(&mut text));
                panic!("{} does not answer: {ended:?}\n{text}", self.name);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        self.child = Some(child);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.resume();
        self.end(Signal::Quit);
        let _ = self.janitor.kill();
        let _ = self.janitor.wait();
    }
}

fn send(signal: Signal, process: u32) {
    let _ = Command::new("kill").args([signal.name(), &process.to_string()]).status();
}

/// Whether a thread of the process may still be running. Always `false` on systems that do not report it as Linux does.
fn runs(process: u32) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    threads.into_iter().any(|thread| {
        let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        // The name before the last `)` may contain any character.
        stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('T'))
    })
}

/// A port on which nobody is listening. If another process takes it before the server does, the start fails.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).unwrap().port()
}

/// A program in one of these folders or in `PATH`.
fn program(name: &str, folders: &[PathBuf]) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = folders.iter().cloned().chain(std::env::split_paths(&path));
    let found = places.map(|folder| folder.join(name)).find(|file| file.is_file());
    found.unwrap_or_else(|| panic!("no `{name}` here; `cargo xtask test` installs it"))
}
