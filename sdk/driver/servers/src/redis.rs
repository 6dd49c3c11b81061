//! The system's Redis.

use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use crate::{Server, program};

/// The settings of a server that must not lose anything.
pub const DURABLE: &[&str] = &["--appendonly", "yes", "--appendfsync", "always"];

/// Starts a server with these additional settings, such as [`DURABLE`].
pub fn start(settings: &'static [&'static str]) -> Server {
    start_with("--port", settings.iter().map(|setting| (*setting).to_owned()).collect())
}

/// The same with TLS only, with PEM files of the certificate and its key.
pub fn start_with_tls(settings: &'static [&'static str], certificate: PathBuf, key: PathBuf) -> Server {
    let files = [("--tls-cert-file", certificate), ("--tls-key-file", key)];
    let mut own: Vec<String> = ["--port", "0", "--tls-auth-clients", "no"].map(str::to_owned).into();
    own.extend(files.into_iter().flat_map(|(name, file)| [name.to_owned(), file.to_str().unwrap().to_owned()]));
    own.extend(settings.iter().map(|setting| (*setting).to_owned()));
    start_with("--tls-port", own)
}

fn start_with(port_setting: &'static str, settings: Vec<String>) -> Server {
    let folder = TempDir::new().unwrap();
    let redis = program("redis-server", &[]);
    Server::start("redis-server", folder, move |folder, port| {
        let mut command = Command::new(&redis);
        command.args(["--bind", "127.0.0.1", port_setting, &port.to_string(), "--dir"]).arg(folder).args(&settings);
        command
    })
}

/// The address of a server as the driver's setting `url`.
pub fn url(server: &Server) -> String {
    format!("redis://{}", server.address())
}
