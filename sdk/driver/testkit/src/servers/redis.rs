//! Redis, as the system has it.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use async_trait::async_trait;
use serde_json::json;
use snaphook_driver::wire::Opened;
use snaphook_driver::{OpenContext, Result, Store};
use tempfile::TempDir;

use super::{Server, program};
use crate::Opener;

/// What a server needs that is to lose nothing.
pub const DURABLE: &[&str] = &["--appendonly", "yes", "--appendfsync", "always"];

/// Starts a server with these settings beside its own, such as [`DURABLE`].
pub fn start(settings: &'static [&'static str]) -> Server {
    start_with("--port", settings.iter().map(|setting| (*setting).to_owned()).collect())
}

/// The same with TLS only: files with the certificate and its key, as PEM.
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

/// A driver with a durable server, which its setting `connection` names. One process serves it for all its cases, each with
/// a prefix of its own, and for the processes that it starts: a file in the folder of the case has the address.
pub struct WithRedis<O>(pub O);

const ADDRESS_FILE: &str = "address-of-redis";

#[async_trait]
impl<O: Opener> Opener for WithRedis<O> {
    async fn open(&self, store: Store, mut context: OpenContext) -> Result<Opened> {
        let url = std::fs::read_to_string(context.directory.join(ADDRESS_FILE)).unwrap();
        let mut hasher = DefaultHasher::new();
        context.directory.hash(&mut hasher);
        let prefix = format!("{:016x}", hasher.finish());
        let connection = json!({"name": "test", "settings": {"url": url, "prefix": prefix}});
        context.settings.insert("connection".into(), connection);
        self.0.open(store, context).await
    }

    fn is_linked(&self) -> bool {
        self.0.is_linked()
    }

    fn tries_transport_only(&self) -> bool {
        self.0.tries_transport_only()
    }

    fn prepare(&self, folder: &Path) {
        static SERVER: OnceLock<Server> = OnceLock::new();
        std::fs::write(folder.join(ADDRESS_FILE), url(SERVER.get_or_init(|| start(DURABLE)))).unwrap();
        self.0.prepare(folder);
    }
}
