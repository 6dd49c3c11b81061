//! NATS with JetStream: one server, or some that are a cluster.

use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use super::{Server, program};

/// Names the folder of the program where it is not in `PATH`: `cargo xtask test` puts it below the target folder.
pub const FOLDER: &str = "SNAPHOOK_NATS";

/// Starts one server; `sync_interval` as its configuration has it (`always` for durable writes).
pub fn start(sync_interval: &'static str) -> Server {
    start_with(sync_interval, String::new())
}

/// The same with more lines in its configuration.
pub fn start_with(sync_interval: &'static str, lines: String) -> Server {
    let folder = TempDir::new().unwrap();
    let folders: Vec<PathBuf> = std::env::var_os(FOLDER).map(PathBuf::from).into_iter().collect();
    let nats = program("nats-server", &folders);
    Server::start("nats-server", folder, move |folder, port| {
        let store = folder.join("data");
        let text = format!(
            "host: 127.0.0.1\nport: {port}\nmax_payload: 8MB\n\
             jetstream {{ store_dir: {store:?}, sync_interval: {sync_interval}, max_memory_store: 64MB, max_file_store: 8GB }}\n\
             {lines}\n"
        );
        let file = folder.join("nats.conf");
        std::fs::write(&file, text).unwrap();
        let mut command = Command::new(&nats);
        command.arg("-c").arg(file);
        command
    })
}

/// The address of a server as the driver's setting `url`.
pub fn url(server: &Server) -> String {
    format!("nats://{}", server.address())
}
