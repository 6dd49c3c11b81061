//! The shell that follows a page, in a separate folder; all its processes end with it.

use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use super::{needs, repository};
use crate::support::PATIENCE;

/// Pages build Rust and install packages.
const BLOCK_PATIENCE: Duration = Duration::from_secs(900);
/// The ports that pages use for the server, and for programs that run beside it.
const PORTS: [u16; 2] = [1337, 8787];

pub(super) struct Shell {
    /// `page` is the reader's first folder; the files beside it are hidden from readers.
    folder: tempfile::TempDir,
    process: Child,
    stdin: ChildStdin,
    /// Used instead of [`PORTS`].
    ports: [u16; 2],
    count: usize,
    /// The shell's current folder.
    current: PathBuf,
}

/// The result of commands.
pub(super) struct Ended {
    pub(super) code: i32,
    /// Both stdout and stderr.
    pub(super) output: String,
}

impl Shell {
    pub(super) fn start(environment: Vec<(String, String)>) -> Result<Shell, String> {
        let failed = |error: std::io::Error| format!(": no shell: {error}");
        let folder = tempfile::tempdir().map_err(failed)?;
        for name in ["page", "bin"] {
            std::fs::create_dir(folder.path().join(name)).map_err(failed)?;
        }
        let bin = folder.path().join("bin");
        let binary = std::env::var_os("SNAPHOOK_DOCS_BINARY").unwrap_or_else(|| env!("CARGO_BIN_EXE_snaphook").into());
        symlink(&binary, bin.join("snaphook")).map_err(failed)?;
        // The listeners hold the ports until the shell has started: other tests request free ports too.
        let (mut listeners, mut ports) = (Vec::new(), PORTS);
        for port in &mut ports {
            let listener = TcpListener::bind("127.0.0.1:0").map_err(failed)?;
            *port = listener.local_addr().map_err(failed)?.port();
            listeners.push(listener);
        }
        let mut command = Command::new("bash");
        command.current_dir(folder.path().join("page")).process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        for name in [
            "SNAPHOOK_CONFIG",
            "SNAPHOOK_LOG",
            "SNAPHOOK_URL",
            "CARGO_TARGET_DIR",
            "RUSTFLAGS",
            "CARGO_ENCODED_RUSTFLAGS",
        ] {
            command.env_remove(name);
        }
        command.env("PATH", needs::path(&bin)).envs(environment);
        // Packages of this checkout are copied, as if they came from the registry.
        command.env("npm_config_install_links", "true").env("npm_config_update_notifier", "false");
        let mut process = command.spawn().map_err(failed)?;
        let stdin = process.stdin.take().ok_or(": a shell without input")?;
        let current = folder.path().join("page");
        Ok(Shell { folder, process, stdin, ports, count: 0, current })
    }

    /// Writes a file, relative to the shell's current folder.
    pub(super) fn write(&self, path: &str, text: &str) -> Result<(), String> {
        let file = self.current.join(path);
        let failed = |error: std::io::Error| format!("`{path}` cannot be written: {error}");
        std::fs::create_dir_all(file.parent().unwrap_or(Path::new("."))).map_err(failed)?;
        std::fs::write(&file, self.ours(text)).map_err(failed)
    }

    pub(super) fn read(&self, path: &str) -> Result<String, String> {
        let text = std::fs::read_to_string(self.current.join(path));
        text.map(|text| self.theirs(&text)).map_err(|error| format!("`{path}` cannot be read: {error}"))
    }

    /// Runs `snaphook check` on a configuration in an otherwise empty folder. The variables that it names are set.
    pub(super) fn check(&mut self, text: &str) -> Result<(), String> {
        let failed = |error: std::io::Error| format!("cannot be checked: {error}");
        let folder = tempfile::tempdir_in(self.folder.path()).map_err(failed)?;
        std::fs::write(folder.path().join("config.toml"), text).map_err(failed)?;
        let names = text.split("'env:").skip(1).filter_map(|rest| rest.split('\'').next());
        let mut command = Command::new(self.folder.path().join("bin/snaphook"));
        command.arg("check").current_dir(folder.path()).envs(names.map(|name| (name, "x")));
        let ended = command.output().map_err(failed)?;
        match ended.status.success() {
            true => Ok(()),
            false => Err(format!("`snaphook check` rejects it: {}", String::from_utf8_lossy(&ended.stderr))),
        }
    }

    /// Runs commands in the shell; variables and the current folder persist.
    pub(super) fn run(&mut self, commands: &str, fails: bool) -> Result<Ended, String> {
        let block = self.script(commands)?;
        let call = match fails {
            false => format!("set -e; . {block}"),
            true => format!("set +e; (set -e; . {block})"),
        };
        let ended = self.call(&call)?;
        match (ended.code == 0) != fails {
            true => Ok(ended),
            false => Err(format!("ended with {}:\n{}\n{}", ended.code, ended.output, self.background())),
        }
    }

    /// The same in a separate shell; the commands may fail.
    pub(super) fn try_run(&mut self, commands: &str) -> Result<Ended, String> {
        let block = self.script(commands)?;
        self.call(&format!("set +e; (set -e; . {block})"))
    }

    /// Ends everything that the page started, and reports processes that do not end.
    pub(super) fn end(self) -> Result<(), String> {
        let group = self.process.id();
        drop(self);
        match is_alive(group) {
            true => Err("something that it started is still there".to_owned()),
            false => Ok(()),
        }
    }

    fn script(&mut self, commands: &str) -> Result<String, String> {
        self.count += 1;
        let path = self.folder.path().join(format!("block-{}", self.count));
        let mut script = String::new();
        for line in self.ours(commands).lines() {
            let Some(server) = line.strip_suffix('&').filter(|line| !line.ends_with('&')) else {
                script.push_str(&format!("{line}\n"));
                continue;
            };
            // A server's output goes to a file, so that it does not mix with the commands' output.
            let log = self.folder.path().join(format!("background-{}", self.count));
            let target = if server.contains('>') { String::new() } else { format!("> {}", log.display()) };
            script.push_str(&format!("{server} {target} 2>&1 &\n"));
            if server.contains("snaphook") {
                script.push_str(&format!(
                    "until curl -sf -o {null} http://127.0.0.1:{}/healthz; do kill -0 $! && sleep 0.02; done\n",
                    self.ports[0],
                    null = "/dev/null",
                ));
            }
        }
        std::fs::write(&path, script).map_err(|error| error.to_string())?;
        Ok(path.display().to_string())
    }

    fn call(&mut self, call: &str) -> Result<Ended, String> {
        let at = |name: &str| self.folder.path().join(format!("{name}-{}", self.count));
        let (output, code, half) = (at("output"), at("code"), at("half"));
        // May be left from an earlier run of the same block.
        let _ = std::fs::remove_file(&code);
        let line = format!(
            "{{ {call}; }} < /dev/null > {} 2>&1; echo $? \"$PWD\" > {half}; mv {half} {}\n",
            output.display(),
            code.display(),
            half = half.display(),
        );
        let sent = self.stdin.write_all(line.as_bytes());
        let started = Instant::now();
        let (code, current) = loop {
            if let Ok(text) = std::fs::read_to_string(&code) {
                let (code, current) = text.trim_end().split_once(' ').ok_or("no exit code")?;
                break (code.parse().map_err(|_| format!("no exit code: {code}"))?, PathBuf::from(current));
            }
            let is_over = self.process.try_wait().map_err(|error| error.to_string())?.is_some() || sent.is_err();
            let text = || self.theirs(&std::fs::read_to_string(&output).unwrap_or_default());
            if is_over {
                return Err(format!("failed:\n{}\n{}", text(), self.background()));
            }
            if started.elapsed() > BLOCK_PATIENCE {
                return Err(format!("does not end:\n{}\n{}", text(), self.background()));
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        self.current = current;
        self.move_ports();
        let output = std::fs::read(&output).map_err(|error| error.to_string())?;
        Ok(Ended { code, output: self.theirs(&String::from_utf8_lossy(&output)) })
    }

    /// A page's text with this test's ports and this checkout's packages.
    fn ours(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (theirs, ours) in PORTS.into_iter().zip(self.ports) {
            for host in ["localhost", "127.0.0.1"] {
                text = text.replace(&format!("{host}:{theirs}"), &format!("{host}:{ours}"));
            }
        }
        let package = repository().join("sdk/js");
        let lines = text.lines().map(|line| match line.trim_start().starts_with("npm install") {
            true => line.replace("@snaphook/hook", &package.display().to_string()),
            false => line.to_owned(),
        });
        lines.map(|line| line + "\n").collect()
    }

    fn theirs(&self, text: &str) -> String {
        let ports = PORTS.into_iter().zip(self.ports);
        ports.fold(text.to_owned(), |text, (theirs, ours)| text.replace(&format!(":{ours}"), &format!(":{theirs}")))
    }

    /// Tools write configurations too.
    fn move_ports(&self) {
        let page = self.folder.path().join("page");
        let folders = std::fs::read_dir(&page).into_iter().flatten().flatten().map(|entry| entry.path());
        for folder in std::iter::once(page.clone()).chain(folders) {
            let file = folder.join("config.toml");
            if let Ok(text) = std::fs::read_to_string(&file)
                && PORTS.iter().any(|port| text.contains(&format!("127.0.0.1:{port}")))
            {
                let _ = std::fs::write(&file, self.ours(&text));
            }
        }
    }

    /// The output of background servers.
    fn background(&self) -> String {
        let logs = (1..=self.count).map(|index| self.folder.path().join(format!("background-{index}")));
        logs.filter_map(|log| std::fs::read_to_string(log).ok()).collect()
    }

    fn group(&self) -> Option<Pid> {
        i32::try_from(self.process.id()).ok().and_then(Pid::from_raw)
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let Some(group) = self.group() else { return };
        let _ = kill_process_group(group, Signal::TERM);
        let deadline = Instant::now() + PATIENCE;
        loop {
            let _ = self.process.try_wait();
            if !is_alive(self.process.id()) {
                return;
            }
            if Instant::now() > deadline {
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = kill_process_group(group, Signal::KILL);
        let _ = self.process.wait();
    }
}

/// Whether a process of the group is running. A zombie is not.
fn is_alive(group: u32) -> bool {
    let Ok(processes) = std::fs::read_dir("/proc") else { return false };
    processes.flatten().any(|process| {
        let stat = std::fs::read_to_string(process.path().join("stat")).unwrap_or_default();
        // After the name in parentheses: state, parent, group.
        let mut fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
        let (state, is_member) = (fields.next(), fields.nth(1) == Some(group.to_string().as_str()));
        is_member && state != Some("Z")
    })
}
