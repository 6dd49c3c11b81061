//! The suites on Redis.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::Path;
use std::sync::OnceLock;

use async_trait::async_trait;
use serde_json::json;
use snaphook_driver::wire::Opened;
use snaphook_driver::{OpenContext, Result, Store};
use snaphook_driver_servers::Server;
pub use snaphook_driver_servers::redis::*;

use crate::Opener;

/// A driver with a durable server, which its setting `connection` names. One server serves all cases of a process, each
/// with its own prefix, and the processes that it starts: a file in the folder of the case contains the address.
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
