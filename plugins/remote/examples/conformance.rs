//! Runs the conformance suites of a driver's stores against a driver in any language:
//!
//! ```console
//! $ cargo run -p snaphook-remote --example conformance -- secure python3 sdk/driver/examples/secure_store.py
//! ```
//!
//! The first argument lists the stores, separated by commas. The rest is a command that serves them, prints its address
//! as its first line, and runs until it is killed. It is started for each case in an empty folder, and again in the
//! same folder when a case reopens a store. `SNAPHOOK_CONFORMANCE_ENCODING` is `json` (the default) or `protobuf`; with
//! `SNAPHOOK_CONFORMANCE_CASE=event::blobs` only that case runs.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use serde_json::json;
use snaphook_driver::wire::Opened;
use snaphook_driver::{DriverError, ErrorKind, OpenContext, Result, Store};
use snaphook_driver_testkit::{Opener, Subject, cases, run, skipped};
use snaphook_remote::connect;

/// A command that serves a driver, and its running processes by folder.
#[derive(Clone)]
struct Served {
    command: Arc<Vec<String>>,
    encoding: String,
    running: Arc<Mutex<HashMap<PathBuf, Process>>>,
}

/// Killed when it is dropped.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Served {
    /// Starts the command in a folder. Returns its first line of output.
    fn start(&self, folder: PathBuf) -> std::io::Result<String> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        // The previous process has closed its stores.
        running.remove(&folder);
        let mut command = Command::new(&self.command[0]);
        command.args(&self.command[1..]).current_dir(&folder).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut process = Process(command.spawn()?);
        let mut url = String::new();
        if let Some(output) = process.0.stdout.take() {
            BufReader::new(output).read_line(&mut url)?;
        }
        running.insert(folder, process);
        Ok(url.trim().to_owned())
    }
}

#[async_trait]
impl Opener for Served {
    async fn open(&self, store: Store, context: OpenContext) -> Result<Opened> {
        let url = self.start(context.directory).map_err(|error| {
            DriverError::new(ErrorKind::Config, "open", format!("`{}` cannot be started", self.command[0]))
                .because(error)
        })?;
        let settings = json!({"url": url, "encoding": self.encoding});
        connect(store, &OpenContext::new(settings.as_object().cloned().unwrap_or_default(), "")).await
    }
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let named = arguments.next().unwrap_or_default();
    let all = [Store::Secure, Store::Event, Store::Model, Store::Error];
    let stores: Option<Vec<Store>> =
        named.split(',').map(|name| all.into_iter().find(|store| store.as_str() == name)).collect();
    let mut command: Vec<String> = arguments.collect();
    let (Some(stores), false) = (stores, command.is_empty()) else {
        eprintln!("usage: conformance secure|event|model|error[,…] COMMAND [ARGUMENTS]");
        return ExitCode::from(2);
    };
    // Each process runs in its own folder, but paths in the command are relative to the current one.
    for argument in &mut command {
        if let (true, Ok(path)) = (argument.contains('/'), std::path::absolute(&*argument))
            && path.exists()
        {
            *argument = path.to_string_lossy().into_owned();
        }
    }
    let encoding = std::env::var("SNAPHOOK_CONFORMANCE_ENCODING").unwrap_or_else(|_| "json".into());
    let served = Served { command: Arc::new(command), encoding, running: Arc::default() };
    let only = std::env::var("SNAPHOOK_CONFORMANCE_CASE").ok();
    let (mut passed, mut failed) = (0, Vec::new());
    for case in stores.into_iter().flat_map(cases) {
        if only.as_ref().is_some_and(|only| only != case.name) || case.name.ends_with("_until_killed") {
            continue;
        }
        println!("case {}", case.name);
        let served = served.clone();
        let running = Arc::clone(&served.running);
        // A failing case panics and has already printed the reason.
        let outcome = std::thread::spawn(move || {
            let subject = Subject::new(served, json!({}), None, case.name);
            run((case.run)(&subject));
        })
        .join();
        running.lock().unwrap_or_else(PoisonError::into_inner).clear();
        match outcome {
            Ok(()) => passed += 1,
            Err(_) => failed.push(case.name),
        }
    }
    let skipped = skipped();
    println!("{passed} passed, {skipped} of them skipped or in part, {} failed", failed.len());
    failed.iter().for_each(|name| println!("failed: {name}"));
    if failed.is_empty() && passed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
