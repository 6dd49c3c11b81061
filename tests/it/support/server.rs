//! One server process with its own folder. It is killed when the value is dropped.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};

use super::client::Client;
use super::{PATIENCE, eventually};
use crate::plugins;

/// How to start a server. The default uses the embedded stores and a free port.
#[derive(Clone, Debug)]
pub(crate) struct ServerOptions {
    /// Keys of `[server]` besides the address.
    pub(crate) server: String,
    /// Keys of `[auth]`.
    pub(crate) auth: &'static str,
    /// Keys of `[hooks]` besides the cache.
    pub(crate) hooks: String,
    /// Whole tables, such as `[[grants]]`.
    pub(crate) tables: String,
    /// The port on the loopback interface; 0: a free one.
    pub(crate) port: u16,
    /// The path that the API is mounted at.
    pub(crate) mount_path: &'static str,
    /// The folder of compiled code; `None`: the one that all tests share.
    pub(crate) cache: Option<PathBuf>,
    /// Whether the log may contain panics. Otherwise they fail the test when the server ends.
    pub(crate) panics_allowed: bool,
    /// Environment variables in addition to those of the test.
    pub(crate) environment: Vec<(&'static str, String)>,
    /// A command that runs the server, such as one that removes privileges from it.
    pub(crate) by: &'static [&'static str],
}

impl Default for ServerOptions {
    fn default() -> Self {
        ServerOptions {
            server: String::new(),
            auth: "mode = 'open'",
            hooks: String::new(),
            tables: String::new(),
            port: 0,
            mount_path: "/",
            cache: None,
            panics_allowed: false,
            environment: Vec::new(),
            by: &[],
        }
    }
}

/// A running server.
pub(crate) struct Server {
    directory: Arc<tempfile::TempDir>,
    options: ServerOptions,
    process: Child,
    address: SocketAddr,
    log: Arc<Mutex<Vec<String>>>,
    /// The threads that read the log. They end with the process.
    readers: Vec<JoinHandle<()>>,
}

impl Server {
    /// Starts a server with the default options.
    #[track_caller]
    pub(crate) fn start() -> Server {
        Server::start_with(ServerOptions::default())
    }

    #[track_caller]
    pub(crate) fn start_with(options: ServerOptions) -> Server {
        let directory = tempfile::tempdir().expect("a folder for the test");
        std::fs::create_dir(directory.path().join("hooks")).expect("a folder for hooks");
        Server::start_in(Arc::new(directory), options)
    }

    /// The log of the server so far, line by line.
    pub(crate) fn log(&self) -> Vec<String> {
        self.log.lock().expect("no panic while locked").clone()
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The folder, to start another server in it.
    pub(crate) fn folder(&self) -> Arc<tempfile::TempDir> {
        Arc::clone(&self.directory)
    }

    /// The folder of its config and data.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn config_file(&self) -> PathBuf {
        self.directory().join("config.toml")
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Processor time of the server's own threads in hundredths of a second; 0 if the system does not report it.
    pub(crate) fn ticks(&self) -> u64 {
        if cfg!(not(target_os = "linux")) {
            return 0;
        }
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).expect("the server runs");
        let (_, rest) = stat.rsplit_once(')').expect("a name in parentheses");
        let fields: Vec<&str> = rest.split_whitespace().collect();
        fields[11..13].iter().map(|ticks| ticks.parse::<u64>().expect("a number")).sum()
    }

    /// Whether the server is idle: it uses at most a tenth of a core.
    #[cfg(target_os = "linux")]
    pub(crate) fn is_idle(&self) -> bool {
        let before = self.ticks();
        std::thread::sleep(std::time::Duration::from_millis(300));
        self.ticks() - before <= 3
    }

    /// Running child processes of the server, except the keeper, which runs as long as the server.
    #[cfg(target_os = "linux")]
    pub(crate) fn children(&self) -> Vec<u32> {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.pid())).expect("threads").flatten();
        let children = tasks.map(|task| std::fs::read_to_string(task.path().join("children")).unwrap_or_default());
        children
            .flat_map(|children| children.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
            .filter(|pid| {
                let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                !command.ends_with(b"\0keeper\0")
            })
            .collect()
    }

    /// A client with a new connection.
    pub(crate) fn client(&self) -> Client {
        Client::new(self.address, self.options.mount_path)
    }

    /// Kills the server (`kill -9`) and starts a new process in the same folder, with another port.
    #[track_caller]
    pub(crate) fn kill_and_restart(mut self) -> Server {
        self.process.kill().expect("a process to kill");
        self.process.wait().expect("its end");
        self.check_log();
        Server::start_in(Arc::clone(&self.directory), self.options.clone())
    }

    /// Sends SIGTERM and waits until the server has ended.
    #[track_caller]
    pub(crate) fn stop(&mut self) -> ExitStatus {
        self.terminate();
        self.wait()
    }

    /// Sends SIGTERM.
    #[track_caller]
    pub(crate) fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    #[track_caller]
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.process.id()).ok().and_then(Pid::from_raw).expect("a process id");
        kill_process(pid, signal).expect("a process");
    }

    /// Sends the signal repeatedly until the server ends.
    #[track_caller]
    pub(crate) fn end_by(&mut self, signal: Signal) -> ExitStatus {
        eventually("the server ends", || {
            self.signal(signal);
            self.process.try_wait().expect("a child")
        });
        self.wait()
    }

    /// Waits until the server has ended and its log is complete.
    #[track_caller]
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let status = eventually("the server ends", || self.process.try_wait().expect("a child"));
        eventually("its log is read", || self.readers.iter().all(JoinHandle::is_finished).then_some(()));
        status
    }

    /// Stops the server with SIGTERM and starts a new process in the same folder, with another port.
    #[track_caller]
    pub(crate) fn restart(mut self) -> Server {
        self.stop();
        self.restart_ended()
    }

    /// Starts a new process for a server that has ended.
    #[track_caller]
    pub(crate) fn restart_ended(self) -> Server {
        self.check_log();
        Server::start_in(Arc::clone(&self.directory), self.options.clone())
    }

    #[track_caller]
    pub(crate) fn start_in(directory: Arc<tempfile::TempDir>, options: ServerOptions) -> Server {
        let ServerOptions { server, auth, hooks, tables, port, mount_path, cache, environment, by, .. } = &options;
        // Compiled code is the same for all tests, so it is only compiled once.
        let cache = cache.clone().unwrap_or_else(|| Path::new(env!("CARGO_TARGET_TMPDIR")).join("cache"));
        let config = format!(
            "[server]\nmount-address = '127.0.0.1:{port}'\nmount-path = '{mount_path}'\n{server}\n\
             [auth]\n{auth}\n\
             [hooks]\ncache = '{}'\n{hooks}\n\
             {tables}\n{}",
            cache.display(),
            other_stores(directory.path(), tables)
        );
        std::fs::write(directory.path().join("config.toml"), config).expect("a config");
        let line: Vec<&str> = [by, &[env!("CARGO_BIN_EXE_snaphook"), "serve"][..]].concat();
        let mut process = Command::new(line[0])
            .args(&line[1..])
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .current_dir(directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let log = Arc::new(Mutex::new(Vec::new()));
        // The address is on stdout, the log on stderr; both are collected together.
        let stdout: Box<dyn Read + Send> = Box::new(process.stdout.take().expect("a pipe"));
        let stderr: Box<dyn Read + Send> = Box::new(process.stderr.take().expect("a pipe"));
        let read = |pipe: Box<dyn Read + Send>| {
            let log = Arc::clone(&log);
            std::thread::spawn(move || {
                for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                    log.lock().expect("no panic while locked").push(line);
                }
            })
        };
        let readers = [stdout, stderr].map(read).into();
        let started = Instant::now();
        let address = eventually("the server says where it listens", || {
            let lines = log.lock().expect("no panic while locked").clone();
            if let Some(status) = process.try_wait().expect("a child") {
                panic!("the server ended with {status}:\n{}", lines.join("\n"));
            }
            assert!(started.elapsed() < PATIENCE, "no address in the log:\n{}", lines.join("\n"));
            lines.iter().find_map(|line| {
                let (_, url) = line.split_once(" at http")?;
                let url = url.trim_start_matches('s').strip_prefix("://")?;
                let end = url.find(|char: char| !char.is_ascii_digit() && char != '.' && char != ':');
                url[..end.unwrap_or(url.len())].parse().ok()
            })
        });
        Server { directory, options, process, address, log, readers }
    }

    #[track_caller]
    fn check_log(&self) {
        if self.options.panics_allowed {
            return;
        }
        let log = self.log();
        assert!(!log.iter().any(|line| line.contains("panicked at")), "the server panicked:\n{}", log.join("\n"));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            eprintln!("--- log of the server\n{}\n---", self.log().join("\n"));
        } else {
            self.check_log();
        }
    }
}

/// With `SNAPHOOK_TEST_STORES`, tests that configure no stores use other ones: files (`file`), or the default stores as
/// libraries (`library`).
fn other_stores(directory: &Path, tables: &str) -> String {
    let wanted = std::env::var("SNAPHOOK_TEST_STORES").unwrap_or_default();
    if wanted.is_empty() || tables.contains("[driver-") || tables.contains("[plugins]") {
        return String::new();
    }
    match wanted.as_str() {
        "file" => ["event", "model", "error"]
            .map(|store| format!("[driver-{store}-storage]\ndriver = 'file'\npath = 'data/{store}s'\n"))
            .concat(),
        "library" => {
            let folder = directory.join("drivers");
            plugins::put(&["sqlite", "file"], &folder);
            plugins::table(&folder)
        }
        other => panic!("SNAPHOOK_TEST_STORES is `{other}`, expected `file` or `library`"),
    }
}
