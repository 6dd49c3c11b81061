//! NATS with JetStream: one server or a cluster.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::{Server, free_port, program};

/// The environment variable for the folder of the program if it is not in `PATH`: `cargo xtask test` puts it below the
/// target folder.
pub const FOLDER: &str = "SNAPHOOK_NATS";

const PROGRAM: &str = "nats-server";
const FILE_STORE: &str = "8GB";

/// Starts one server; `sync_interval` is a value of its configuration (`always` for durable writes).
pub fn start(sync_interval: &'static str) -> Server {
    start_with(sync_interval, String::new())
}

/// The same with the program in that folder.
pub fn start_in(folder: &Path, sync_interval: &'static str) -> Server {
    run(folder.join(PROGRAM), sync_interval, FILE_STORE, String::new())
}

/// The same with additional lines in its configuration.
pub fn start_with(sync_interval: &'static str, lines: String) -> Server {
    run(installed(), sync_interval, FILE_STORE, lines)
}

/// Starts one server that stores at most this much, such as `2MB`.
pub fn start_small(max_file_store: &'static str) -> Server {
    run(installed(), "always", max_file_store, String::new())
}

/// Starts the servers of one cluster, named `n0`, `n1` and so on. They do not advertise each other, so that each client
/// uses the addresses that it was given.
pub fn cluster(count: usize, sync_interval: &'static str) -> Vec<Server> {
    run_cluster(&installed(), count, sync_interval)
}

/// The same with the program in that folder.
pub fn cluster_in(folder: &Path, count: usize, sync_interval: &'static str) -> Vec<Server> {
    run_cluster(&folder.join(PROGRAM), count, sync_interval)
}

/// The address of a server as the driver's setting `url`.
pub fn url(server: &Server) -> String {
    format!("nats://{}", server.address())
}

fn installed() -> PathBuf {
    let folders: Vec<PathBuf> = std::env::var_os(FOLDER).map(PathBuf::from).into_iter().collect();
    program(PROGRAM, &folders)
}

fn run_cluster(nats: &Path, count: usize, sync_interval: &'static str) -> Vec<Server> {
    let ports: Vec<u16> = (0..count).map(|_| free_port()).collect();
    let routes: Vec<String> = ports.iter().map(|port| format!("nats://127.0.0.1:{port}")).collect();
    let lines = |(index, port): (usize, &u16)| {
        format!(
            "server_name: n{index}\ncluster {{ name: test, listen: \"127.0.0.1:{port}\", routes: {routes:?}, pool_size: 1, no_advertise: true }}"
        )
    };
    ports.iter().enumerate().map(|server| run(nats.to_owned(), sync_interval, FILE_STORE, lines(server))).collect()
}

fn run(nats: PathBuf, sync_interval: &'static str, max_file_store: &'static str, lines: String) -> Server {
    let folder = TempDir::new().unwrap();
    Server::start(PROGRAM, folder, move |folder, port| {
        let store = folder.join("data");
        let text = format!(
            "host: 127.0.0.1\nport: {port}\nmax_payload: 8MB\n\
             jetstream {{ store_dir: {store:?}, sync_interval: {sync_interval}, max_memory_store: 64MB, max_file_store: {max_file_store} }}\n\
             {lines}\n"
        );
        let file = folder.join("nats.conf");
        std::fs::write(&file, text).unwrap();
        let mut command = Command::new(&nats);
        command.arg("-c").arg(file);
        command
    })
}
