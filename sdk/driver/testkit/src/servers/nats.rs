//! NATS with JetStream: one server, or some that are a cluster.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use async_trait::async_trait;
use snaphook_driver::wire::Opened;
use snaphook_driver::{OpenContext, Result, Store};
use tempfile::TempDir;

use super::{Server, free_port, program};
use crate::Opener;

/// Names the folder of the program where it is not in `PATH`: `cargo xtask test` puts it below the target folder.
pub const FOLDER: &str = "SNAPHOOK_NATS";

/// Starts one server; `sync_interval` as its configuration has it (`always` for durable writes).
pub fn start(sync_interval: &'static str) -> Server {
    start_with(sync_interval, String::new())
}

/// The same with more lines in its configuration.
pub fn start_with(sync_interval: &'static str, lines: String) -> Server {
    start_in(sync_interval, "8GB", lines)
}

/// Starts one server that stores no more than that, such as `2MB`.
pub fn start_small(max_file_store: &'static str) -> Server {
    start_in("always", max_file_store, String::new())
}

fn start_in(sync_interval: &'static str, max_file_store: &'static str, lines: String) -> Server {
    let folder = TempDir::new().unwrap();
    let folders: Vec<PathBuf> = std::env::var_os(FOLDER).map(PathBuf::from).into_iter().collect();
    let nats = program("nats-server", &folders);
    Server::start("nats-server", folder, move |folder, port| {
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

/// Starts servers that are one cluster, named `n0`, `n1` and so on. They do not tell clients of each other, so that each uses the
/// addresses that it was given.
pub fn cluster(count: usize, sync_interval: &'static str) -> Vec<Server> {
    let ports: Vec<u16> = (0..count).map(|_| free_port()).collect();
    let routes: Vec<String> = ports.iter().map(|port| format!("nats://127.0.0.1:{port}")).collect();
    let lines = |(index, port): (usize, &u16)| {
        format!(
            "server_name: n{index}\ncluster {{ name: test, listen: \"127.0.0.1:{port}\", routes: {routes:?}, pool_size: 1, no_advertise: true }}"
        )
    };
    ports.iter().enumerate().map(|server| start_with(sync_interval, lines(server))).collect()
}

/// The address of a server as the driver's setting `url`.
pub fn url(server: &Server) -> String {
    format!("nats://{}", server.address())
}

/// A driver with a server that all cases of a process share, and of which each case has streams of its own. Processes that
/// a case starts and kills find the server by a file in the folder of the case.
pub struct WithNats<O>(pub O);

const ADDRESS_FILE: &str = "address-of-nats";

/// The settings of a connection whose streams nobody else has that uses another folder.
pub fn connection(url: &str, folder: &Path) -> serde_json::Value {
    let mut hasher = DefaultHasher::new();
    folder.hash(&mut hasher);
    let name = format!("case-{:016x}", hasher.finish());
    serde_json::json!({"name": "test", "settings": {"url": url, "name": name}})
}

#[async_trait]
impl<O: Opener> Opener for WithNats<O> {
    async fn open(&self, store: Store, mut context: OpenContext) -> Result<Opened> {
        let url = std::fs::read_to_string(context.directory.join(ADDRESS_FILE)).unwrap();
        let connection = connection(&url, &context.directory);
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
        let server = SERVER.get_or_init(|| start("always"));
        std::fs::write(folder.join(ADDRESS_FILE), url(server)).unwrap();
        self.0.prepare(folder);
    }
}
