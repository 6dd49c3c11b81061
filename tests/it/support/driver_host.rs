//! A driver's host with its own folder. It is killed when the value is dropped.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

/// A running `snaphook driver-host` on the default stores.
pub(crate) struct DriverHost {
    directory: Arc<tempfile::TempDir>,
    process: Child,
    url: String,
}

impl DriverHost {
    pub(crate) fn start() -> DriverHost {
        DriverHost::start_at(Arc::new(tempfile::tempdir().expect("a folder")), "127.0.0.1:0")
    }

    pub(crate) fn url(&self) -> String {
        self.url.clone()
    }

    pub(crate) fn kill(mut self) -> DriverHost {
        let _ = self.process.kill();
        let _ = self.process.wait();
        self
    }

    /// Starts a new process with the same stores at the same address.
    pub(crate) fn restart(self) -> DriverHost {
        let address = self.url.trim_start_matches("http://").to_owned();
        DriverHost::start_at(Arc::clone(&self.directory), &address)
    }

    fn start_at(directory: Arc<tempfile::TempDir>, address: &str) -> DriverHost {
        std::fs::write(
            directory.path().join("config.toml"),
            "[auth]\nmode = 'open'\n[server]\nmount-address = '127.0.0.1:0'\n",
        )
        .expect("a config");
        let mut process = Command::new(env!("CARGO_BIN_EXE_snaphook"))
            .args(["--log", "warn", "driver-host", "--listen", address])
            .current_dir(directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let mut url = String::new();
        let output = process.stdout.take().expect("it is piped");
        BufReader::new(output).read_line(&mut url).expect("it prints its address");
        let url = url.trim().to_owned();
        assert!(url.starts_with("http://"), "the host prints `{url}`");
        DriverHost { directory, process, url }
    }
}

impl Drop for DriverHost {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
