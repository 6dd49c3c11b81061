//! A server process for a row: started in its own folder, stopped with SIGTERM, killed if the row fails.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::Bench;
use super::http::Client;
use crate::shell::Result;

const START_TIMEOUT: Duration = Duration::from_secs(60);

/// A folder with a configuration and the data of servers. A row may start several servers in one folder, one at a time.
#[derive(Debug)]
pub(crate) struct ServerFolder {
    binary: PathBuf,
    folder: PathBuf,
    address: SocketAddr,
}

/// A running server.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
    log: PathBuf,
    /// From the start of the process to its first response.
    pub(crate) ready_after: Duration,
}

impl Bench {
    /// A new folder; `extra` is added to its `config.toml`.
    pub(crate) fn place(&self, name: &str, extra: &str) -> Result<ServerFolder> {
        self.place_of(&self.binary, name, extra)
    }

    /// The same for another build of the server.
    pub(crate) fn place_of(&self, binary: &Path, name: &str, extra: &str) -> Result<ServerFolder> {
        let folder = self.scratch.path().join(name);
        std::fs::create_dir_all(&folder).map_err(|error| format!("cannot create {}: {error}", folder.display()))?;
        // The port is free now; the server binds it a moment later.
        let address = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let address = address.map_err(|error| format!("no free port: {error}"))?;
        let config = format!("[server]\nmount-address = '{address}'\n\n[auth]\nmode = 'open'\n\n{extra}\n");
        std::fs::write(folder.join("config.toml"), config)
            .map_err(|error| format!("cannot write config.toml: {error}"))?;
        Ok(ServerFolder { binary: binary.to_owned(), folder, address })
    }

    /// Starts a server in a new folder.
    pub(crate) fn server(&self, name: &str, extra: &str) -> Result<Server> {
        self.place(name, extra)?.start()
    }
}

impl ServerFolder {
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The command to run the program in the folder.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        // If the shell enables backtraces, every sandbox takes one when it ends.
        command
            .args(args)
            .current_dir(&self.folder)
            .env_remove("RUST_BACKTRACE")
            // The cache of compiled code is next to the folders, so that rows find only code that this run compiled.
            .env("XDG_CACHE_HOME", self.folder.with_file_name("cache"))
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn start(&self) -> Result<Server> {
        let log_path = self.folder.join("server.log");
        let log =
            std::fs::File::create(&log_path).map_err(|error| format!("cannot write the server's log: {error}"))?;
        let started = Instant::now();
        let child = self
            .command(&["serve"])
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(|error| format!("cannot start {}: {error}", self.binary.display()))?;
        let mut server = Server { child, address: self.address, log: log_path, ready_after: Duration::ZERO };
        loop {
            if let Ok(mut client) = Client::connect(self.address)
                && client.call("GET", "/models", "").is_ok()
            {
                server.ready_after = started.elapsed();
                return Ok(server);
            }
            if let Ok(Some(status)) = server.child.try_wait() {
                return Err(format!("the server ended with {status}: {}", server.last_log()));
            }
            if started.elapsed() > START_TIMEOUT {
                return Err(format!(
                    "no response {} s after the start: {}",
                    START_TIMEOUT.as_secs(),
                    server.last_log()
                ));
            }
            // Short compared with the 60 ms that a start may take.
            std::thread::sleep(Duration::from_micros(500));
        }
    }
}

impl Server {
    pub(crate) fn client(&self) -> Result<Client> {
        Client::connect(self.address).map_err(|error| format!("cannot connect to {}: {error}", self.address))
    }

    /// Memory of the server in bytes, including its child processes, whose shared memory counts proportionally.
    pub(crate) fn memory(&self) -> Result<u64> {
        let of_server = kib(&format!("/proc/{}/status", self.child.id()), "VmRSS:")?;
        // A process that has ended in the meantime has none.
        let of_others = descendants(self.child.id()).into_iter();
        let of_others = of_others.map(|pid| kib(&format!("/proc/{pid}/smaps_rollup"), "Pss:").unwrap_or(0));
        Ok((of_server + of_others.sum::<u64>()) * 1024)
    }

    /// Processor time of the server and its child processes, in user code and in the kernel.
    pub(crate) fn processor_time(&self) -> Result<Duration> {
        let of_others = descendants(self.child.id()).into_iter().map(|pid| ticks(pid).unwrap_or(0));
        let ticks = ticks(self.child.id())? + of_others.sum::<u64>();
        Ok(Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64))
    }

    /// Memory of the idle server: the smallest of several readings.
    pub(crate) fn idle_memory(&self) -> Result<u64> {
        let readings = (0..6).map(|_| {
            std::thread::sleep(Duration::from_millis(500));
            self.memory()
        });
        Ok(readings.collect::<Result<Vec<_>>>()?.into_iter().min().unwrap_or(0))
    }

    /// Stops the server with SIGTERM and waits until it has ended.
    pub(crate) fn stop(mut self) -> Result {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)
            .map_err(|error| format!("cannot end the server: {error}"))?;
        let deadline = Instant::now() + Duration::from_secs(30);
        while Instant::now() < deadline {
            if let Ok(Some(status)) = self.child.try_wait() {
                return if status.success() { Ok(()) } else { Err(format!("{status}: {}", self.last_log())) };
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Err("the server did not end within 30 s of SIGTERM".into())
    }

    fn last_log(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().rev().take(5).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join(" / ")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads a value in KiB from a file in `/proc`.
fn kib(path: &str, name: &str) -> Result<u64> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("cannot read {path}: {error}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)).ok_or_else(|| format!("{path} has no {name}"))?;
    line.trim().trim_end_matches("kB").trim().parse().map_err(|error| format!("{path}: {error}"))
}

/// Processor time of a process and of its children that have ended, in ticks of the kernel's clock.
fn ticks(pid: u32) -> Result<u64> {
    // The fields after the name, which may contain spaces: state is the third field, utime to cstime are the 14th to
    // 17th.
    let path = format!("/proc/{pid}/stat");
    let text = std::fs::read_to_string(&path).map_err(|error| format!("cannot read {path}: {error}"))?;
    let fields = text.rsplit_once(')').map(|(_, rest)| rest.split_whitespace()).into_iter().flatten();
    Ok(fields.skip(11).take(4).filter_map(|field| field.parse::<u64>().ok()).sum())
}

fn descendants(pid: u32) -> Vec<u32> {
    let children = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let children = children.flat_map(|task| std::fs::read_to_string(task.path().join("children")));
    let children: Vec<u32> =
        children.flat_map(|line| line.split_whitespace().flat_map(str::parse).collect::<Vec<_>>()).collect();
    children.into_iter().flat_map(|child| [vec![child], descendants(child)].concat()).collect()
}
