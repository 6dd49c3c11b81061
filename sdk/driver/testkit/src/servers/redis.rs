//! Redis, as the system has it.

use std::process::Command;

use tempfile::TempDir;

use super::{Server, program};

/// Starts a server with these settings beside its own, such as `["--appendfsync", "always"]`.
pub fn start(settings: &'static [&'static str]) -> Server {
    let folder = TempDir::new().unwrap();
    let redis = program("redis-server", &[]);
    Server::start("redis-server", folder, move |folder, port| {
        let mut command = Command::new(&redis);
        command.args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--dir"]).arg(folder).args(settings);
        command
    })
}

/// The address of a server as the driver's setting `url`.
pub fn url(server: &Server) -> String {
    format!("redis://{}", server.address())
}
