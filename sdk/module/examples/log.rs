//! A module that writes one line per request: method, path, status, milliseconds. Its setting `path` names the file.
//!
//! `cargo build -p snaphook-module --example module_log`, then `library = 'target/debug/examples/libmodule_log.so'` under
//! `[[server.modules]]`.

use std::fs::File;
use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use snaphook_module::{Answer, Config, Exchange, Hooks, Host, Module, RequestHandler, Text};

struct Log {
    file: Arc<Mutex<File>>,
}

fn open(config: &Config<'_>) -> Result<File, String> {
    let path = config.get("path").unwrap_or("access.log");
    let file = File::options().append(true).create(true).open(path);
    file.map_err(|error| format!("cannot write to `{path}`: {error}"))
}

impl Module for Log {
    type Connection = ();
    type Request = LogRequest;
    const HOOKS: Hooks = Hooks::RESPONSE;

    fn activate(_: Host, config: &Config<'_>) -> Result<Self, String> {
        Ok(Log { file: Arc::new(Mutex::new(open(config)?)) })
    }

    /// Called after SIGHUP too, so that the file may be rotated.
    fn config_change(&self, config: &Config<'_>) -> Result<(), String> {
        *self.file.lock().unwrap_or_else(PoisonError::into_inner) = open(config)?;
        Ok(())
    }

    fn request(&self, _: Option<&()>, _: &mut Exchange<'_>) -> LogRequest {
        LogRequest { file: Arc::clone(&self.file), started: Instant::now() }
    }
}

struct LogRequest {
    file: Arc<Mutex<File>>,
    started: Instant,
}

impl RequestHandler for LogRequest {
    fn response(&mut self, exchange: &mut Exchange<'_>) -> Answer {
        let line = format!(
            "{} {} {} {} {} ms\n",
            exchange.text(Text::Peer),
            exchange.text(Text::Method),
            exchange.text(Text::Uri),
            exchange.status().unwrap_or_default(),
            self.started.elapsed().as_millis()
        );
        // Requests are served even if the disk is full.
        let _ = self.file.lock().unwrap_or_else(PoisonError::into_inner).write_all(line.as_bytes());
        Answer::Declined
    }
}

snaphook_module::export_module!("log", Log);
