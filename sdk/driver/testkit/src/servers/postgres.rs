//! The suites on PostgreSQL.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::Path;
use std::sync::OnceLock;

use async_trait::async_trait;
use serde_json::json;
use snaphook_driver::wire::Opened;
use snaphook_driver::{OpenContext, Result, Store};
use snaphook_driver_servers::Server;
pub use snaphook_driver_servers::postgres::*;

use crate::Opener;

/// A driver whose tables name a connection to PostgreSQL. One server serves all cases of a process and the processes
/// that it starts and kills: a file in the folder of a case contains the address, and each folder has its own schema.
pub struct WithPostgres<O>(pub O);

const ADDRESS_FILE: &str = "address-of-postgres";

#[async_trait]
impl<O: Opener> Opener for WithPostgres<O> {
    async fn open(&self, store: Store, mut context: OpenContext) -> Result<Opened> {
        let url = std::fs::read_to_string(context.directory.join(ADDRESS_FILE)).unwrap();
        let mut hasher = DefaultHasher::new();
        context.directory.hash(&mut hasher);
        let schema = format!("case_{:016x}", hasher.finish());
        let connection = json!({"name": "main", "settings": {"url": url, "schema": schema, "pool": 4}});
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
        let server = SERVER.get_or_init(|| start(&[]));
        std::fs::write(folder.join(ADDRESS_FILE), url(server)).unwrap();
        self.0.prepare(folder);
    }
}
