//! The suites on NATS.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::Path;
use std::sync::OnceLock;

use async_trait::async_trait;
use snaphook_driver::wire::Opened;
use snaphook_driver::{OpenContext, Result, Store};
use snaphook_driver_servers::Server;
pub use snaphook_driver_servers::nats::*;

use crate::Opener;

/// A driver with a server that all cases of a process share; each case has its own streams. Processes that a case
/// starts and kills find the server through a file in the folder of the case.
pub struct WithNats<O>(pub O);

const ADDRESS_FILE: &str = "address-of-nats";

/// The settings of a connection; each folder gets its own streams.
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
